/** A server that gets SIGTERM, as a real process with real connections. No acknowledged byte is lost. */
import { once } from 'node:events'
import { Agent } from 'node:http'
import { readFile, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { createClient } from '@libsql/client'
import { expect, test } from 'vitest'
import { kind } from '../src/kinds/kind.js'
import { brokenBody, content, eventually, later, newId, startServer } from './harness.js'
import { useProgram } from './program.js'
import { slowUpload } from './slow-upload.js'

const program = useProgram()
const { serve } = program

async function rows(): Promise<Record<string, unknown>[]> {
  const client = createClient({ url: `file:${join(program.directory, 'data/landfall.db')}` })
  const { rows: found } = await client.execute(
    `SELECT id, point, "offset", lease_holder, unclean_holder, lease_expires_at FROM landfall_operations ORDER BY id`,
  )
  client.close()
  return found.map((row) => ({ ...row }))
}

async function storedBytes(): Promise<Buffer[]> {
  const entries = await readdir(join(program.directory, 'data/blobs/blobs'), { recursive: true, withFileTypes: true })
  return Promise.all(
    entries.filter((entry) => entry.isFile()).map((entry) => readFile(join(entry.parentPath, entry.name))),
  )
}

test('slow uploads that run are answered with the offset that the ledger and the disk have, and leave no lease', async () => {
  const { child, address, tagOf, declare, exited } = await serve()
  const bytes = content(10_000_000)
  const ids = Array.from({ length: 6 }, newId).toSorted()
  for (const id of ids) expect((await declare(id, bytes.length)).status).toBe(201)
  const ownerTag = await tagOf('ann')
  const uploads = ids.map((id, n) => slowUpload(address, id, { bytes, stock: n % 2 === 1, ownerTag }))
  await eventually(
    async () => Math.min(...uploads.map((upload) => upload.sent())),
    (sent) => sent > 30_000,
  )
  const from = performance.now()
  child.kill('SIGTERM')
  const answers = await Promise.all(uploads.map(({ answered }) => answered))
  for (const { status, offset } of answers) {
    expect(status).toBe(204)
    expect(offset).toBeGreaterThan(0)
  }
  expect(await exited).toMatchObject({ code: 0, signal: null })
  expect(performance.now() - from).toBeLessThan(10_000)
  expect(await rows()).toEqual(
    ids.map((id, n) => ({
      id,
      point: 'declared',
      offset: answers[n]?.offset,
      lease_holder: null,
      unclean_holder: null,
      lease_expires_at: null,
    })),
  )
  const stored = await storedBytes()
  expect(stored.map(({ length }) => length).toSorted((a, b) => a - b)).toEqual(
    answers.map(({ offset }) => offset).toSorted((a, b) => a - b),
  )
  for (const each of stored) expect(each.equals(bytes.subarray(0, each.length))).toBe(true)
})

test('a request that waits for a change is answered at once', async () => {
  const { child, request, declare, exited } = await serve()
  const id = newId()
  const { headers } = await declare(id, 10)
  expect(headers.get('Cache-Control')).toBe('no-store')
  const waiting = request('GET', `/operations/${id}?wait=20`)
  await later(200)
  const from = performance.now()
  child.kill('SIGTERM')
  expect((await waiting).status).toBe(200)
  expect(performance.now() - from).toBeLessThan(3_000)
  expect(await exited).toMatchObject({ code: 0 })
})

test('the server stops being ready at once, serves requests for the configured delay, and then ends', async () => {
  const { child, address, tagOf, request, declare, patch, exited } = await serve({ LANDFALL_DRAIN_DELAY_MS: '1500' })
  const health = (name: string) => fetch(new URL(`/health/${name}`, address))
  await eventually(
    async () => (await health('ready')).status,
    (status) => status === 200,
  )
  const ids = [newId(), newId()].toSorted()
  const [slow = '', quick = ''] = ids
  const bytes = content(10_000_000)
  await declare(slow, bytes.length)
  const upload = slowUpload(address, slow, { bytes, ownerTag: await tagOf('ann') })
  await later(200)
  child.kill('SIGTERM')
  const ready = await eventually(
    () => health('ready'),
    ({ status }) => status === 503,
  )
  expect(await ready.json()).toEqual({ ready: false, failed: ['draining'] })
  expect((await health('live')).status).toBe(200)
  // New connections are served as before.
  expect((await declare(quick, 5)).status).toBe(201)
  expect((await patch(quick, 0, content(5))).headers.get('Landfall-Recovery-Point')).toBe('referenced')
  expect((await request('GET', `/operations/${quick}`)).status).toBe(200)
  const sentMeanwhile = upload.sent()
  await later(200)
  expect(upload.sent()).toBeGreaterThan(sentMeanwhile)
  const { status, offset } = await upload.answered
  expect([status, offset >= sentMeanwhile]).toEqual([204, true])
  expect(await exited).toMatchObject({ code: 0 })
  expect(await rows()).toMatchObject([
    { id: slow, offset, lease_holder: null, unclean_holder: null },
    { id: quick, lease_holder: null },
  ])
})

test('a request on a kept-alive connection does not prevent the drain', async () => {
  const { child, address, tagOf, declare, exited } = await serve()
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  const bytes = content(10_000_000)
  const ids = [newId(), newId()]
  for (const id of ids) await declare(id, bytes.length)
  const ownerTag = await tagOf('ann')
  const [first, second] = ids.map((id) => slowUpload(address, id, { bytes, ownerTag, agent }))
  await later(300)
  child.kill('SIGTERM')
  expect((await first?.answered)?.status).toBe(204)
  // The second upload waited for the same connection. It is refused, or answered that this server does not take it.
  const refused = await second?.answered.catch(() => null)
  if (refused !== null) expect([204, 423, 503]).toContain(refused?.status)
  agent.destroy()
  expect(await exited).toMatchObject({ code: 0 })
  for (const row of await rows()) expect(row).toMatchObject({ lease_holder: null, unclean_holder: null })
})

test('a drive of the completer that hangs does not delay the acknowledgement of an upload', async () => {
  let attempts = 0
  let letGo = (): void => {}
  const hangs = new Promise<null>((resolve) => (letGo = () => resolve(null)))
  const hanging = kind({
    prepare: {
      async scan() {
        if (attempts++ === 0) throw new Error('later')
        return hangs
      },
    },
    onReference: async () => null,
  })
  const server = await startServer({ hanging, file: kind({ onReference: async () => null }) })
  const [stuck, slow] = [newId(), newId()]
  await server.declare(stuck, { size: 4 }, { kind: 'hanging' })
  await server.patch(stuck, 0, content(4))
  await eventually(
    async () => {
      void server.uploads.runOnce({ maxMs: 1 })
      await later(20)
      return attempts
    },
    (count) => count === 2,
  )
  await server.declare(slow, { size: 100 }, { kind: 'file' })
  const sending = server.patch(slow, 0, brokenBody([content(40)], 'silent'))
  await eventually(
    () => server.ledger.find({ owner: 'ann', id: slow }),
    (operation) => operation?.leaseHolder !== null,
  )
  const from = performance.now()
  const closed = server.uploads.close({ withinMs: 2_000 })
  const answer = await sending
  expect([answer.status, answer.headers.get('Upload-Offset')]).toEqual([204, '40'])
  expect(performance.now() - from).toBeLessThan(1_500)
  // No more bytes are accepted.
  expect((await server.patch(slow, 40, content(60))).status).toBe(423)
  await closed
  expect(performance.now() - from).toBeLessThan(5_000)
  expect((await server.ledger.find({ owner: 'ann', id: slow }))?.leaseHolder).toBeNull()
  letGo()
  await server.close()
})

test('a second signal ends the server at once', async () => {
  const { child, exited } = await serve({ LANDFALL_DRAIN_DELAY_MS: '60000' })
  child.kill('SIGTERM')
  await later(300)
  child.kill('SIGTERM')
  await once(child, 'exit')
  expect(await exited).toMatchObject({ code: 1 })
})
