/** Two requests at once, at many moments around a commit. There is one of two outcomes, complete, reported and final. */
import { readdir } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { createAdaptorServer } from '@hono/node-server'
import type { Operation, Problem } from '@landfall/shared'
import { isReferenced } from '@landfall/shared'
import { Hono } from 'hono'
import { afterEach, describe, expect, test } from 'vitest'
import { relativePath } from '../src/blobs/key.js'
import { kind } from '../src/kinds/kind.js'
import { photos, type Tx } from './fixtures.js'
import { content, digestOf, eventually, newId, type Options, startServer, type TestServer } from './harness.js'

const MOMENTS = 50
const BYTES = content(5_000)
const WRONG = digestOf(content(3))
const closing: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const close of closing.splice(0).toReversed()) await close()
})

/** Waits by turns of the event loop, because timers are too coarse. */
async function pause(ms: number): Promise<void> {
  for (const until = performance.now() + ms; performance.now() < until;) await new Promise(setImmediate)
}

/** A kind whose hook takes time before it gets the writer and while it has it. */
const slow = kind({
  onReference: async (tx: Tx, { operation }) => {
    await pause(1)
    await tx.insert(photos).values({ name: operation.file.name })
    await pause(1)
    return null
  },
})

async function start(options: Options = {}): Promise<TestServer> {
  const server = await startServer({ file: slow }, options)
  closing.push(() => server.close())
  return server
}

type Send = (
  method: string,
  path: string,
  headers?: Record<string, string>,
  body?: string | Uint8Array<ArrayBuffer>,
) => Promise<Response>

const inProcess = (server: TestServer): Promise<Send> =>
  Promise.resolve((method, path, headers = {}, body) =>
    server.request(method, path, { headers, ...(body === undefined ? {} : { body }) }),
  )

async function overHttp(server: TestServer): Promise<Send> {
  const listener = createAdaptorServer({ fetch: new Hono().route('/uploads', server.uploads.routes).fetch })
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve))
  closing.push(() => new Promise((resolve) => listener.close(() => resolve())))
  const base = `http://127.0.0.1:${(listener.address() as AddressInfo).port}/uploads`
  const ownerTag = await server.uploads.ownerTag('ann')
  return (method, path, headers = {}, body) =>
    fetch(`${base}${path}`, {
      method,
      headers: { 'X-Owner': 'ann', 'Landfall-Owner': ownerTag, ...headers },
      ...(body === undefined ? {} : { body }),
    })
}

const PATCH = {
  'Tus-Resumable': '1.0.0',
  'Landfall-Version': '1',
  'Upload-Offset': '0',
  'Content-Type': 'application/offset+octet-stream',
}
const PUT = { 'Landfall-Version': '1', 'Content-Type': 'application/json' }
const declaration = (name: string, digest?: string): string =>
  JSON.stringify({
    file: { name, size: BYTES.length, type: 'application/octet-stream' },
    ...(digest === undefined ? {} : { digest }),
  })

interface Told {
  readonly status: number
  readonly code: string | null
  readonly point: string | null
}
async function told(response: Promise<Response>): Promise<Told> {
  const { status, json } = await response.then(async (answer) => ({
    status: answer.status,
    json: (await answer.json()) as Partial<Operation & Problem>,
  }))
  return { status, code: json.code ?? json.problem?.code ?? null, point: json.recoveryPoint ?? null }
}

/** There is one reference, one row and the right bytes, and the answer says so. */
async function expectReferenced(server: TestServer, id: string): Promise<void> {
  const operation = await server.get(id)
  expect(isReferenced(operation.recoveryPoint)).toBe(true)
  expect(operation).toMatchObject({ problem: null, reference: { digest: digestOf(BYTES) } })
  const file = await server.request('GET', `/files/${id}`)
  expect(Buffer.from(await file.arrayBuffer()).equals(BYTES)).toBe(true)
  expect((await server.photos()).filter((name) => name === id)).toHaveLength(1)
}

/** There is no reference, and no row of the application. */
async function expectNothing(server: TestServer, id: string): Promise<void> {
  expect(await server.get(id)).toMatchObject({ reference: null })
  expect((await server.request('GET', `/files/${id}`)).status).toBe(404)
  expect(await server.photos()).not.toContain(id)
}

/** After a pass of the completer there are no bytes. */
async function expectNoBytes(server: TestServer, ids: readonly string[]): Promise<void> {
  await server.uploads.runOnce()
  const stored = await storedNames(server)
  for (const id of ids) {
    const operation = await server.ledger.find({ owner: 'ann', id })
    expect(operation).toMatchObject({ cleanupDue: false })
    expect(stored).not.toContain(
      relativePath(operation?.blobKey ?? '')
        .split('/')
        .at(-1),
    )
  }
}

async function storedNames(server: TestServer): Promise<string[]> {
  const found = await readdir(join(server.directory, 'blobs', 'blobs'), { recursive: true, withFileTypes: true }).catch(
    () => [],
  )
  return found.filter((entry) => entry.isFile()).map(({ name }) => name)
}

async function medianMs(run: () => Promise<void>): Promise<number> {
  const times: number[] = []
  for (let n = 0; n < 5; n++) {
    const from = performance.now()
    await run()
    times.push(performance.now() - from)
  }
  return times.toSorted((a, b) => a - b)[2] ?? 0
}

/** From the beginning until well after the end. More of them are early, when most is decided. */
const momentsAround = (ms: number): number[] => Array.from({ length: MOMENTS }, (_, n) => 2 * ms * (n / MOMENTS) ** 2)

describe.each([
  ['in process', inProcess],
  ['over HTTP', overHttp],
])('DELETE %s', (_name, sender) => {
  test('at 50 moments around the reference ends in a reference with its bytes and 409, or in a cancellation without a reference', async () => {
    const server = await start()
    const send = await sender(server)
    let referenced = 0
    const cancelled: string[] = []
    const declare = async (): Promise<string> => {
      const id = newId()
      expect((await send('PUT', `/operations/${id}`, PUT, declaration(id))).status).toBe(201)
      return id
    }
    const patch = (id: string): Promise<Response> => send('PATCH', `/files/${id}`, PATCH, BYTES)
    const remove = (id: string): Promise<Told> => told(send('DELETE', `/operations/${id}`))
    const usual = await medianMs(async () => {
      const id = await declare()
      await patch(id)
      await eventually(
        () => server.get(id),
        ({ recoveryPoint }) => isReferenced(recoveryPoint),
      )
    })
    for (const moment of momentsAround(usual)) {
      const id = await declare()
      const patched = patch(id)
      await pause(moment)
      const removed = await remove(id)
      const answered = await patched
      if (removed.status === 409) {
        expect(removed.code).toBe('already-referenced')
        expect(answered.status).toBe(204)
        await expectReferenced(server, id)
        referenced += 1
      } else {
        expect(removed).toEqual({ status: 200, code: 'cancelled', point: 'cancelled' })
        expect(answered.headers.get('Landfall-Recovery-Point')).not.toBe('referenced')
        await expectNothing(server, id)
        cancelled.push(id)
      }
      expect(await remove(id)).toEqual(removed)
    }
    expect(referenced).toBeGreaterThanOrEqual(3)
    expect(cancelled.length).toBeGreaterThanOrEqual(3)
    await expectNoBytes(server, cancelled)
    expect(await storedNames(server)).toHaveLength(referenced + 5)
  }, 120_000)
})

describe('a wrong digest that comes after its client had vanished', () => {
  const GRACE_MS = 60_000
  const declare = (server: TestServer, id: string, digest: string) =>
    server.declare(id, { size: BYTES.length, name: id }, { digest })
  async function vanished(server: TestServer): Promise<string> {
    const id = newId()
    await declare(server, id, 'pending')
    await server.patch(id, 0, BYTES)
    expect(await server.get(id)).toMatchObject({ recoveryPoint: 'received', digest: null })
    return id
  }
  /** Ends the grace period. */
  const endGrace = (server: TestServer) =>
    server.db.run(
      `UPDATE landfall_operations SET digest_due_at = created_at, due_at = created_at WHERE point = 'received'`,
    )

  const REJECTED = { status: 200, recoveryPoint: 'rejected', problem: { code: 'digest-mismatch' }, reference: null }
  /** Every request gets the same answer, now and after a start. */
  async function expectRejected(server: TestServer, id: string): Promise<void> {
    for (const digest of [WRONG, digestOf(BYTES), 'pending'])
      expect(await declare(server, id, digest)).toMatchObject(REJECTED)
    expect(await server.get(id)).toMatchObject(REJECTED)
    await expectNothing(server, id)
  }
  async function expectKept(server: TestServer, id: string): Promise<void> {
    for (let n = 0; n < 2; n++) {
      expect(await declare(server, id, WRONG)).toMatchObject({ status: 409, code: 'digest-conflict' })
      expect((await declare(server, id, digestOf(BYTES))).status).toBe(200)
    }
    expect(await server.get(id)).toMatchObject({ reference: { digestSource: 'server' } })
    await expectReferenced(server, id)
  }

  test('rejects the operation permanently during the grace period, even if the right digest follows or the server restarts', async () => {
    const server = await start({ digestGraceMs: GRACE_MS })
    const id = await vanished(server)
    expect(await declare(server, id, WRONG)).toMatchObject(REJECTED)
    await expectRejected(server, id)
    await server.restart()
    await expectRejected(server, id)
    await expectNoBytes(server, [id])
  })

  test('is answered 409 once the server has used its own digest, and the reference stays', async () => {
    const server = await start({ digestGraceMs: GRACE_MS })
    const id = await vanished(server)
    await endGrace(server)
    await server.uploads.runOnce()
    await expectKept(server, id)
    await server.restart()
    await expectKept(server, id)
  })

  test('is compared by the next process, without any client, if the first one dies before it has compared it', async () => {
    const server = await start({ digestGraceMs: GRACE_MS })
    const id = await vanished(server)
    const dead = await server.ledger.lease({ owner: 'ann', id }, { holder: 'dead', leaseMs: 60_000, purpose: 'drive' })
    expect(dead.outcome).toBe('granted')
    expect(await server.ledger.setDigest({ owner: 'ann', id }, WRONG)).toBe('set')
    await server.restart()
    await server.uploads.runOnce()
    await expectRejected(server, id)
    await expectNoBytes(server, [id])
  })

  test('is accepted by the next process if the first one dies while it waits for it', async () => {
    const server = await start({ digestGraceMs: GRACE_MS })
    const id = await vanished(server)
    await server.restart()
    expect(await declare(server, id, WRONG)).toMatchObject(REJECTED)
    await expectRejected(server, id)
    await expectNoBytes(server, [id])
  })

  test('at 50 moments around the decision never gives both a reference and a rejection, and the first answer stays', async () => {
    const server = await start({ digestGraceMs: GRACE_MS })
    let kept = 0
    const rejected: string[] = []
    const usual = await medianMs(async () => {
      await vanished(server)
      await endGrace(server)
      await server.uploads.runOnce()
    })
    for (const moment of momentsAround(usual)) {
      const id = await vanished(server)
      await endGrace(server)
      const driven = server.uploads.runOnce()
      await pause(moment)
      const answered = await declare(server, id, WRONG)
      await driven
      if (answered.status === 409) {
        expect(answered.code).toBe('digest-conflict')
        await server.uploads.runOnce()
        await expectKept(server, id)
        kept += 1
      } else {
        expect(answered).toMatchObject(REJECTED)
        await expectRejected(server, id)
        rejected.push(id)
      }
    }
    expect(kept).toBeGreaterThanOrEqual(3)
    expect(rejected.length).toBeGreaterThanOrEqual(3)
    await expectNoBytes(server, rejected)
  }, 120_000)
})
