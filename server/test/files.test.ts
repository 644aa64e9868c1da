import { sql } from 'drizzle-orm'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { kind } from '../src/kinds.js'
import type { Tx } from './fixtures.js'
import { content, digestOf, newId, startServer, type TestServer } from './harness.js'

let server: TestServer
let id: string
const bytes = content(1_000)
beforeEach(async () => {
  server = await startServer({ file: kind({ onReference: async (_tx: Tx) => null }) })
  id = newId()
  await server.declare(id, { size: 1_000, name: 'Überblick "1".html', type: 'text/html' })
  await server.patch(id, 0, bytes)
})
afterEach(() => server.close())

const fetchFile = (headers: Record<string, string> = {}, method = 'GET') =>
  server.request(method, `/files/${id}`, { headers })
const body = async (response: Response) => new Uint8Array(await response.arrayBuffer())

test('is sent whole, to be saved and not to be run', async () => {
  const response = await fetchFile()
  expect(response.status).toBe(200)
  expect(await body(response)).toEqual(bytes)
  expect(Object.fromEntries(response.headers)).toMatchObject({
    'content-type': 'text/html',
    'content-length': '1000',
    'content-disposition': `attachment; filename="?berblick \\"1\\".html"; filename*=UTF-8''%C3%9Cberblick%20%221%22.html`,
    'x-content-type-options': 'nosniff',
    'content-security-policy': expect.stringContaining('sandbox') as string,
    'cross-origin-resource-policy': 'same-origin',
    'accept-ranges': 'bytes',
    etag: `"${digestOf(bytes).slice('sha-256=:'.length, -1)}"`,
    'repr-digest': digestOf(bytes),
    'cache-control': 'private, no-cache',
  })
})

test('HEAD says the same without the bytes', async () => {
  // Ranges are defined for GET only.
  for (const headers of [{}, { Range: 'bytes=0-1' }]) {
    const response = await fetchFile(headers, 'HEAD')
    expect([response.status, response.headers.get('Content-Length'), (await body(response)).length]).toEqual([
      200,
      '1000',
      0,
    ])
  }
})

test.each([
  ['bytes=0-0', 206, 'bytes 0-0/1000', 0, 1],
  ['bytes=10-19', 206, 'bytes 10-19/1000', 10, 20],
  ['bytes=990-', 206, 'bytes 990-999/1000', 990, 1_000],
  ['bytes=-5', 206, 'bytes 995-999/1000', 995, 1_000],
  ['bytes=500-9999', 206, 'bytes 500-999/1000', 500, 1_000],
  ['bytes=0-1,5-6', 200, null, 0, 1_000],
  ['lines=0-1', 200, null, 0, 1_000],
  ['bytes=x', 200, null, 0, 1_000],
])('range %s', async (range, status, contentRange, start, end) => {
  const response = await fetchFile({ Range: range })
  expect([response.status, response.headers.get('Content-Range'), response.headers.get('Content-Length')]).toEqual([
    status,
    contentRange,
    String(end - start),
  ])
  expect(await body(response)).toEqual(bytes.subarray(start, end))
})

test('a range outside of the file is 416', async () => {
  const response = await fetchFile({ Range: 'bytes=1000-' })
  expect([response.status, response.headers.get('Content-Range')]).toEqual([416, 'bytes */1000'])
})

test('validators: not modified, and a range only of what the client knows', async () => {
  const etag = (await fetchFile()).headers.get('ETag') ?? ''
  expect((await fetchFile({ 'If-None-Match': etag })).status).toBe(304)
  expect((await fetchFile({ 'If-None-Match': `"x", W/${etag}` })).status).toBe(304)
  expect((await fetchFile({ 'If-None-Match': '"x"' })).status).toBe(200)
  expect((await fetchFile({ Range: 'bytes=0-1', 'If-Range': etag })).status).toBe(206)
  expect((await fetchFile({ Range: 'bytes=0-1', 'If-Range': '"x"' })).status).toBe(200)
})

test.each([
  ['text/日本', 'application/octet-stream'],
  ['text', 'application/octet-stream'],
  ['text/plain; charset=utf-8', 'text/plain; charset=utf-8'],
  ['text/plain; title="a;\\"b"', 'text/plain; title="a;\\"b"'],
  ['', 'application/octet-stream'],
])('declared as %j it is sent as %j', async (declared, sent) => {
  const other = newId()
  await server.declare(other, { size: 5, type: declared })
  await server.patch(other, 0, content(5))
  const response = await server.request('GET', `/files/${other}`)
  expect([response.status, response.headers.get('Content-Type')]).toEqual([200, sent])
  expect(await server.db.all(sql`SELECT type FROM landfall_references WHERE operation_id = ${other}`)).toEqual([
    { type: sent },
  ])
  // As an older version may have stored it.
  await server.db.run(sql`UPDATE landfall_references SET type = ${declared} WHERE operation_id = ${other}`)
  expect((await server.request('GET', `/files/${other}`)).headers.get('Content-Type')).toBe(sent)
})

test('is not there before the reference, and gone after its removal', async () => {
  const open = newId()
  await server.declare(open, { size: 1_000 })
  await server.patch(open, 0, bytes.subarray(0, 500))
  expect((await server.request('GET', `/files/${open}`)).status).toBe(404)

  expect(await server.db.transaction((tx) => server.uploads.remove(tx, id, 'ann'))).toBe(true)
  const gone = await fetchFile()
  expect([gone.status, await gone.json()]).toMatchObject([410, { code: 'removed' }])
  expect((await server.head(id)).status).toBe(410)
  expect(await server.uploads.runOnce()).toMatchObject({ effects: 1 })
  expect(await server.get(id)).toMatchObject({
    recoveryPoint: 'completed',
    reference: null,
    problem: { code: 'removed' },
  })
  expect(await server.declare(id, { size: 1_000, name: 'Überblick "1".html', type: 'text/html' })).toMatchObject({
    status: 200,
    reference: null,
    problem: { code: 'removed' },
  })
})

test('may be shown in place where the application says so', async () => {
  await server.close()
  server = await startServer({ file: kind({ onReference: async (_tx: Tx) => null }) }, { inlineTypes: ['text/*'] })
  await server.declare(id, { size: 1_000, name: 'a.html', type: 'text/html' })
  await server.patch(id, 0, bytes)
  const response = await fetchFile()
  expect(response.headers.get('Content-Disposition')).toMatch(/^inline/)
  expect(response.headers.get('Content-Security-Policy')).toContain('sandbox')
})
