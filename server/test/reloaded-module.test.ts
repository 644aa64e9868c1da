/** A development server loads a module again after an edit, so two instances in one process share one directory. */
import { join } from 'node:path'
import type { Operation } from '@landfall/shared'
import { Hono } from 'hono'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { openDatabase, temporaryDirectory } from './fixtures.js'
import { content, digestOf, eventually, later, newId, silent } from './harness.js'
import { ownerTags } from './owner-tags.js'

let directory: Awaited<ReturnType<typeof temporaryDirectory>>
const ends: (() => Promise<void>)[] = []
beforeEach(async () => {
  directory = await temporaryDirectory()
})
afterEach(async () => {
  for (const end of ends.splice(0).toReversed()) await end()
  await directory.remove()
})

type Body = string | Uint8Array<ArrayBuffer> | ReadableStream<Uint8Array>

/**
 * Does what an application's module does when it is evaluated, each time with another copy of the library. The database
 * client is that of the first copy, because applications keep it.
 */
async function loadModule() {
  vi.resetModules()
  const { createUploads, fileBlobs, kind, sqliteLedger } = await import('../src/index.js')
  const { client, db } = await openDatabase(join(directory.path, 'app.db'))
  const warned: string[] = []
  const uploads = createUploads({
    ledger: sqliteLedger(db),
    blobs: fileBlobs({ directory: join(directory.path, 'blobs') }),
    authenticate: () => 'ann',
    kinds: { file: kind({ onReference: async () => null }) },
    completerIntervalMs: 100,
    logger: { ...silent, warn: (...said: unknown[]) => void warned.push(said.map(String).join(' ')) },
  })
  const app = new Hono().route('/uploads', uploads.routes)
  ends.push(async () => {
    await uploads.close({ withinMs: 1_000 })
    client.close()
  })
  const tagOf = ownerTags(async () => app.request('/uploads/operations?open'))
  const request = async (method: string, path: string, headers: Record<string, string> = {}, body?: Body) =>
    app.request(`/uploads${path}`, {
      method,
      headers: { 'Landfall-Version': '1', 'Landfall-Owner': await tagOf('ann'), ...headers },
      ...(body === undefined ? {} : { body, duplex: 'half' }),
    })
  return { uploads, request, warned }
}
type Loaded = Awaited<ReturnType<typeof loadModule>>

const declare = ({ request }: Loaded, id: string, size: number) =>
  request('PUT', `/operations/${id}`, {}, JSON.stringify({ file: { name: 'a', size, type: '' } }))
const patch = ({ request }: Loaded, id: string, offset: number, body: Body) =>
  request(
    'PATCH',
    `/files/${id}`,
    { 'Tus-Resumable': '1.0.0', 'Upload-Offset': String(offset), 'Content-Type': 'application/offset+octet-stream' },
    body,
  )
const operationOf = async ({ request }: Loaded, id: string) =>
  (await (await request('GET', `/operations/${id}`)).json()) as Operation

test('a module that is loaded again resumes the uploads of the earlier instance', async () => {
  const size = 3_000_000
  const bytes = content(size)
  const first = await loadModule()
  const id = newId()
  expect((await declare(first, id, size)).status).toBe(201)
  // The client sends the first half and then nothing more.
  const half = bytes.subarray(0, size / 2)
  const silentLine = new ReadableStream<Uint8Array>({ start: (controller) => controller.enqueue(half) })
  const running = patch(first, id, 0, silentLine)
  await later(300)

  const second = await loadModule()
  await second.uploads.ready()
  const ended = await running
  expect([ended.status, ended.headers.get('Upload-Offset')]).toEqual([204, String(half.length)])
  expect(first.warned.join()).toContain('a newer instance in this process takes over')

  expect((await operationOf(second, id)).offset).toBe(half.length)
  expect((await patch(second, id, half.length, bytes.slice(half.length))).status).toBe(204)
  const done = await eventually(
    () => operationOf(second, id),
    ({ reference }) => reference !== null,
  )
  expect(done.reference?.digest).toBe(digestOf(bytes))
}, 30_000)

test('the earlier instance writes nothing any more and says why', async () => {
  const first = await loadModule()
  const second = await loadModule()
  await first.uploads.ready()
  await second.uploads.ready()
  expect((await declare(first, newId(), 5)).status).toBe(500)
  await expect(first.uploads.ready()).rejects.toMatchObject({
    code: 'setup',
    message: expect.stringContaining('a newer instance of this application in the same process') as string,
  })
  expect((await declare(second, newId(), 5)).status).toBe(201)
})

test('an older instance that is first used later does not take the directory back', async () => {
  const older = await loadModule()
  const newer = await loadModule()
  await newer.uploads.ready()
  await eventually(
    () =>
      older.uploads.ready().then(
        () => 'ready',
        (error: { code?: string }) => error.code,
      ),
    (code) => code === 'setup',
  )
  expect((await declare(newer, newId(), 5)).status).toBe(201)
})

test('after many edits the last instance has the directory', async () => {
  const loaded: Loaded[] = []
  for (let edit = 0; edit < 5; edit += 1) loaded.push(await loadModule())
  const outcomes = await Promise.allSettled(loaded.map(({ uploads }) => uploads.ready()))
  expect(outcomes.at(-1)?.status).toBe('fulfilled')
  await later(200)
  const statuses: number[] = []
  for (const each of loaded) statuses.push((await declare(each, newId(), 5)).status)
  expect(statuses).toEqual([500, 500, 500, 500, 201])
}, 30_000)
