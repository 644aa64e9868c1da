import { sql } from 'drizzle-orm'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { kind } from '../src/kinds/kind.js'
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
  // Ranges are defined only for GET.
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
  ['bytes=-5000', 206, 'bytes 0-999/1000', 0, 1_000],
  ['bytes= - 5000 ', 206, 'bytes 0-999/1000', 0, 1_000],
  ['bytes=-1000', 206, 'bytes 0-999/1000', 0, 1_000],
  ['Bytes=10-19', 206, 'bytes 10-19/1000', 10, 20],
  ['BYTES=-5', 206, 'bytes 995-999/1000', 995, 1_000],
  ['bytes=0-99999999999999999999999', 206, 'bytes 0-999/1000', 0, 1_000],
  ['bytes=0-1,-5000', 200, null, 0, 1_000],
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
  for (const Range of ['bytes=1000-', 'Bytes=1000-', 'bytes=-0']) {
    const response = await fetchFile({ Range })
    expect([response.status, response.headers.get('Content-Range')]).toEqual([416, 'bytes */1000'])
    expect(await response.json()).toMatchObject({ code: 'range-not-satisfiable', status: 416 })
  }
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

/** Another server, with one stored file. */
async function serve(type: string, options: Parameters<typeof startServer>[1], name = 'a', stored = bytes) {
  await server.close()
  server = await startServer({ file: kind({ onReference: async (_tx: Tx) => null }) }, options)
  await server.declare(id, { size: stored.length, name, type })
  await server.patch(id, 0, stored)
  return fetchFile()
}

test('may be shown in place where the application says so', async () => {
  const response = await serve('text/plain', { inlineTypes: ['text/*'] })
  expect(response.headers.get('Content-Disposition')).toMatch(/^inline/)
  expect(response.headers.get('Content-Security-Policy')).toContain('sandbox')
})

test.each([
  'text/html',
  'TEXT/HTML; charset=utf-8',
  'image/svg+xml',
  'application/xhtml+xml',
  'application/xml',
  'text/xml',
  'application/mathml+xml',
  'text/xsl',
  'multipart/related',
  'message/rfc822',
])('%s is never shown in place, whatever the application says', async (type) => {
  const response = await serve(type, { inlineTypes: ['*/*', type.replace(/;.*/, '')] })
  expect([response.status, response.headers.get('Content-Type')]).toEqual([200, type])
  expect(response.headers.get('Content-Disposition')).toMatch(/^attachment/)
})

describe('what a browser wants it for', () => {
  test.each(['document', 'iframe', 'image', 'video', 'audio', 'track', 'font', 'embed', 'object', 'empty'])(
    '%s: it gets it',
    async (destination) => expect((await fetchFile({ 'Sec-Fetch-Dest': destination })).status).toBe(200),
  )

  test.each([
    'script',
    'style',
    'worker',
    'sharedworker',
    'serviceworker',
    'audioworklet',
    'paintworklet',
    'manifest',
    'xslt',
    'something-new',
  ])('%s: it is refused', async (destination) => {
    for (const method of ['GET', 'HEAD']) {
      const response = await fetchFile({ 'Sec-Fetch-Dest': destination }, method)
      expect(response.status).toBe(403)
      if (method === 'GET') expect(await response.json()).toMatchObject({ code: 'not-executable' })
    }
  })
})

describe('conditions, in the order of RFC 9110 section 13.2.2', () => {
  const etag = `"${digestOf(bytes).slice('sha-256=:'.length, -1)}"`
  const BEFORE = 'Sun, 06 Nov 1994 08:49:37 GMT'
  const AFTER = 'Fri, 06 Nov 2999 08:49:37 GMT'
  const at = async () => (await fetchFile()).headers.get('Last-Modified') ?? ''
  const plusSeconds = (date: string, seconds: number) => new Date(Date.parse(date) + 1000 * seconds).toUTCString()

  test.each<[Record<string, string>, number]>([
    [{ 'If-Match': etag }, 200],
    [{ 'If-Match': `"x", ${etag}` }, 200],
    [{ 'If-Match': '*' }, 200],
    [{ 'If-Match': '"x"' }, 412],
    // Compared strongly: the bytes of a weak tag may be other ones.
    [{ 'If-Match': `W/${etag}` }, 412],
    [{ 'If-Unmodified-Since': AFTER }, 200],
    [{ 'If-Unmodified-Since': BEFORE }, 412],
    [{ 'If-Unmodified-Since': 'Sunday, 06-Nov-94 08:49:37 GMT' }, 412],
    [{ 'If-Unmodified-Since': 'Sun Nov  6 08:49:37 1994' }, 412],
    [{ 'If-Unmodified-Since': '1994' }, 200],
    [{ 'If-Unmodified-Since': '0' }, 200],
    [{ 'If-Match': etag, 'If-Unmodified-Since': BEFORE }, 200],
    [{ 'If-Match': '"x"', 'If-None-Match': etag }, 412],
    [{ 'If-Unmodified-Since': BEFORE, 'If-None-Match': etag }, 412],
    [{ 'If-Match': etag, 'If-None-Match': etag }, 304],
    [{ 'If-None-Match': '*' }, 304],
    [{ 'If-Modified-Since': AFTER }, 304],
    [{ 'If-Modified-Since': BEFORE }, 200],
    [{ 'If-Modified-Since': 'tomorrow' }, 200],
    [{ 'If-None-Match': '"x"', 'If-Modified-Since': AFTER }, 200],
    [{ 'If-None-Match': etag, 'If-Modified-Since': BEFORE }, 304],
    [{ 'If-None-Match': etag, Range: 'bytes=0-1' }, 304],
    [{ 'If-Match': '"x"', Range: 'bytes=0-1' }, 412],
    [{ 'If-Match': etag, Range: 'bytes=0-1' }, 206],
    [{ Range: 'bytes=0-1', 'If-Range': `W/${etag}` }, 200],
    [{ Range: 'bytes=0-1', 'If-Range': BEFORE }, 200],
    [{ Range: 'bytes=0-1', 'If-Range': AFTER }, 200],
    [{ Range: 'bytes=5000-', 'If-Range': '"x"' }, 200],
  ])('%j is %i', async (headers, status) => {
    const response = await fetchFile(headers)
    expect(response.status).toBe(status)
    if (status === 412)
      expect([response.headers.get('ETag'), await response.json()]).toMatchObject([
        etag,
        { code: 'precondition-failed', status: 412 },
      ])
    // HEAD is the same without the bytes, and without the range.
    expect((await fetchFile(headers, 'HEAD')).status).toBe(status === 206 ? 200 : status)
  })

  test("the file's own date is its date, to the second", async () => {
    const date = await at()
    expect((await fetchFile({ 'If-Modified-Since': date })).status).toBe(304)
    expect((await fetchFile({ 'If-Modified-Since': plusSeconds(date, -1) })).status).toBe(200)
    expect((await fetchFile({ 'If-Unmodified-Since': date })).status).toBe(200)
    expect((await fetchFile({ 'If-Unmodified-Since': plusSeconds(date, -1) })).status).toBe(412)
    expect((await fetchFile({ Range: 'bytes=0-1', 'If-Range': date })).status).toBe(206)
    expect((await fetchFile({ Range: 'bytes=0-1', 'If-Range': plusSeconds(date, 1) })).status).toBe(200)
  })
})

test('a range of an empty file is the empty file', async () => {
  await serve('text/plain', {}, 'a', content(0))
  for (const Range of ['bytes=0-', 'bytes=-5', 'bytes=0-0']) {
    const response = await fetchFile({ Range })
    expect([response.status, response.headers.get('Content-Length')]).toEqual([200, '0'])
  }
})

describe('a long name', () => {
  test.each([
    ['字'.repeat(400) + '.pdf', /^attachment; filename=".*\?\.pdf"; filename\*=UTF-8''(%E5%AD%97)+\.pdf$/],
    ['🌍'.repeat(500) + '.jpeg', /^attachment; filename=".*\.jpeg"; filename\*=UTF-8''(%F0%9F%8C%8D)+\.jpeg$/],
    ['字'.repeat(1_024), /^attachment; filename="\?+"; filename\*=UTF-8''(%E5%AD%97)+$/],
    ['"'.repeat(1_024), /^attachment; filename="(\\")+"/],
    ['a'.repeat(1_024), /^attachment; filename=a+$/],
    ['a.'.repeat(512), /^attachment; filename="?[a.]+"?$/],
  ])('%# takes at most 1 KiB of the head', async (name, expected) => {
    const header = (await serve('application/pdf', {}, name)).headers.get('Content-Disposition') ?? ''
    expect(header).toMatch(expected)
    expect(header.length).toBeLessThanOrEqual(1_024)
    expect(header.length).toBeGreaterThan(950)
  })

  test('that fits is not changed', async () => {
    const header = (await serve('application/pdf', {}, `${'é'.repeat(100)}.pdf`)).headers.get('Content-Disposition')
    expect(header).toContain(`filename*=UTF-8''${'%C3%A9'.repeat(100)}.pdf`)
  })
})
