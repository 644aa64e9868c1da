import { REQUEST_HEADERS, RESPONSE_HEADERS } from '@landfall/shared'
import { afterEach, describe, expect, test } from 'vitest'
import { isOrigin } from '../src/http/same-site.js'
import { kind } from '../src/kinds/kind.js'
import { readSettings } from '../src/program/settings.js'
import type { Tx } from './fixtures.js'
import { content, newId, type Options, startServer, type TestServer } from './harness.js'

let server: TestServer
afterEach(() => server.close())

const APP = 'https://app.test'
const start = async (options: Options = {}) =>
  (server = await startServer({ file: kind({ onReference: async (_tx: Tx) => null }) }, options))

const lower = (names: Iterable<string>): string[] => [...names].map((name) => name.toLowerCase())
const listIn = (response: Response, name: string): string[] => lower((response.headers.get(name) ?? '').split(/,\s*/))

/** Headers that every page may send or only browsers set (Fetch, "CORS-safelisted" and "forbidden request-header"). */
const NEED_NO_LEAVE = [
  /^accept$/,
  /^access-control-request-/,
  /^content-length$/,
  /^cookie$/,
  /^host$/,
  /^origin$/,
  /^referer$/,
  /^sec-/,
]
/** Headers that every page may read, or does not need. */
const NEED_NO_EXPOSURE = [
  /^access-control-/,
  /^cache-control$/,
  /^content-(length|type|security-policy)$/,
  /^cross-origin-resource-policy$/,
  /^last-modified$/,
  /^vary$/,
  /^x-content-type-options$/,
]

describe('CORS', () => {
  test('allows each header that a route reads, and shows each header that a route sets', async () => {
    const readNames = new Set<string>()
    const setNames = new Set<string>()
    const { uploads, create, patch } = await start({ allowedOrigins: [APP] })
    const send = async (
      method: string,
      path: string,
      headers: Record<string, string> = {},
      body?: string | Uint8Array<ArrayBuffer>,
    ) => {
      const request = new Request(`http://host.test${path}`, {
        method,
        headers: { 'X-Owner': 'ann', Cookie: 'a=b', Origin: APP, ...headers },
        ...(body === undefined ? {} : { body }),
      })
      const { headers: asked } = request
      for (const name of ['get', 'has'] as const) {
        const original = asked[name].bind(asked) as (header: string) => never
        Object.defineProperty(asked, name, {
          value: (header: string) => {
            readNames.add(header.toLowerCase())
            return original(header)
          },
        })
      }
      const response = await uploads.routes.fetch(request)
      for (const name of response.headers.keys()) setNames.add(name.toLowerCase())
      return response
    }
    const [open, stored] = [newId(), newId()]
    for (const id of [open, stored]) await create(10, { operationId: id, filename: 'a' })
    await patch(stored, 0, content(10))
    const tus = { 'Tus-Resumable': '1.0.0' }
    const bytes = { ...tus, 'Content-Type': 'application/offset+octet-stream', 'Upload-Offset': '0' }
    await send('PUT', `/operations/${newId()}`, {}, '{"file":{"name":"a","size":1,"type":""}}')
    await send('GET', `/operations/${open}`)
    await send('GET', `/operations?ids=${open}`)
    await send('GET', '/operations?open')
    await send('GET', `/operations/${open}/prefix`)
    await send('OPTIONS', '/files')
    await send('OPTIONS', '/files', { 'Access-Control-Request-Method': 'POST' })
    await send('POST', '/files', { ...bytes, 'Upload-Length': '4' }, new Uint8Array(content(4)))
    await send('POST', '/files', { ...tus, 'Upload-Concat': 'partial' })
    await send('POST', `/files/${open}`, { ...bytes, 'X-HTTP-Method-Override': 'PATCH' }, new Uint8Array(content(4)))
    await send('PATCH', `/files/${open}`, bytes, new Uint8Array(content(4)))
    await send('PATCH', `/files/${open}`, { ...bytes, 'Content-Encoding': 'br' }, new Uint8Array(content(4)))
    await send('PATCH', `/files/${open}`, { ...bytes, 'Tus-Resumable': '2.0.0' }, new Uint8Array(content(4)))
    await send('HEAD', `/files/${open}`, tus)
    await send('GET', `/files/${stored}`, { Range: 'bytes=0-1', 'If-Range': '"x"' })
    await send('GET', `/files/${stored}`, { Range: 'bytes=0-1' })
    await send('DELETE', `/files/${open}`, tus)
    await send('DELETE', `/operations/${newId()}`)
    await send('GET', '/operations?open', { 'X-Owner': '' })

    // The test's own header for the owner.
    readNames.delete('x-owner')
    const allowed = new Set(lower(REQUEST_HEADERS))
    const notAllowed = [...readNames].filter(
      (name) => !allowed.has(name) && !NEED_NO_LEAVE.some((pattern) => pattern.test(name)),
    )
    expect(notAllowed).toEqual([])
    const shown = new Set(lower(RESPONSE_HEADERS))
    const notShown = [...setNames].filter(
      (name) => !shown.has(name) && !NEED_NO_EXPOSURE.some((pattern) => pattern.test(name)),
    )
    expect(notShown).toEqual([])
    // The requests above have reached their routes.
    for (const name of ['upload-length', 'upload-concat', 'if-match', 'if-range', 'range', 'x-http-method-override'])
      expect(readNames).toContain(name)
    for (const name of ['tus-version', 'upload-offset', 'www-authenticate', 'repr-digest', 'content-range', 'location'])
      expect(setNames).toContain(name)
  })

  const preflight = (origin: string, method = 'PATCH') =>
    server.request('OPTIONS', `/files/${newId()}`, {
      owner: null,
      headers: { Origin: origin, 'Access-Control-Request-Method': method },
    })

  test('a preflight allows the headers that stock clients and players send', async () => {
    await start({ allowedOrigins: [APP] })
    const allowed = listIn(await preflight(APP), 'Access-Control-Allow-Headers')
    for (const name of [
      'X-HTTP-Method-Override',
      'If-Match',
      'If-Range',
      'If-Modified-Since',
      'Cache-Control',
      'Range',
    ])
      expect(allowed).toContain(name.toLowerCase())
  })

  test('applications can add headers', async () => {
    await start({ allowedOrigins: [APP], allowedHeaders: ['X-CSRF-Token', 'X-Api-Key'] })
    const allowed = listIn(await preflight(APP), 'Access-Control-Allow-Headers')
    expect(allowed).toEqual(expect.arrayContaining(['x-csrf-token', 'x-api-key', 'tus-resumable']))
  })

  test('a function can decide which origins are allowed', async () => {
    const asked: string[] = []
    await start({
      allowedOrigins: async (origin) => {
        asked.push(origin)
        return /^https:\/\/pr-\d+\.preview\.test$/.test(origin)
      },
    })
    const shares = async (origin: string) => (await preflight(origin)).headers.get('Access-Control-Allow-Origin')
    expect(await shares('https://pr-7.preview.test')).toBe('https://pr-7.preview.test')
    expect(await shares('https://evil.test')).toBeNull()
    const put = (origin: string) =>
      server.request('PUT', `/operations/${newId()}`, {
        headers: { Cookie: 'a=b', Origin: origin, 'Sec-Fetch-Site': 'cross-site' },
        body: '{"file":{"name":"a","size":1,"type":""}}',
      })
    expect((await put('https://pr-7.preview.test')).status).toBe(201)
    expect((await put('https://evil.test')).status).toBe(403)
    // A request of the same origin needs no CORS headers.
    asked.length = 0
    expect((await server.request('GET', '/operations?open')).status).toBe(200)
    expect(asked).toEqual([])
  })
})

describe('a request with cookies that changes something', () => {
  const put = (headers: Record<string, string>) =>
    server.request('PUT', `/operations/${newId()}`, {
      headers: { Cookie: 'a=b', ...headers },
      body: '{"file":{"name":"a","size":1,"type":""}}',
    })

  test.each([
    ['https://x.test', 'x.test'],
    ['https://x.test', 'x.test:443'],
    ['http://x.test', 'x.test:80'],
    ['https://x.test:8443', 'x.test:8443'],
    ['https://x.test', 'X.TEST:443'],
    ['http://[::1]:5173', '[::1]:5173'],
    ['http://192.168.1.5:5173', '192.168.1.5:5173'],
  ])('of the page %s to the host %s is of the same origin', async (origin, host) => {
    await start()
    expect((await put({ Origin: origin, Host: host })).status).toBe(201)
  })

  test.each([
    ['https://x.test', 'x.test:80'],
    ['https://x.test', 'x.test:8443'],
    ['https://x.test', 'y.test'],
    ['http://192.168.1.5:5173', 'localhost:3000'],
    ['null', 'x.test'],
    ['https://x.test', ''],
    ['https://x.test', 'x.test/'],
    ['https://x.test', 'a@x.test:1'],
    ['capacitor://localhost', 'x.test'],
  ])('of the page %s to the host %s is refused, and the answer says what differs', async (origin, host) => {
    await start()
    const refused = await put({ Origin: origin, Host: host })
    const { code, detail = '' } = (await refused.json()) as { code: string; detail?: string }
    expect([refused.status, code]).toEqual([403, 'cross-site'])
    expect(detail).toContain(`The page's origin is ${origin}, but the request's Host is ${host}.`)
    for (const advice of ['proxy_set_header Host', 'changeOrigin: false', 'allowedOrigins'])
      expect(detail).toContain(advice)
  })

  test.each(['cross-site', 'same-site'])('that the browser calls %s is refused, with its origin', async (site) => {
    await start()
    const refused = await put({ Origin: 'https://evil.test', Host: 'x.test', 'Sec-Fetch-Site': site })
    const { detail } = (await refused.json()) as { detail: string }
    expect([refused.status, detail]).toEqual([
      403,
      expect.stringMatching(`https://evil\\.test.*${site}.*allowedOrigins`),
    ])
  })

  test.each(['capacitor://localhost', 'chrome-extension://abcdefghijklmnop', 'https://app.test'])(
    'of %s may be allowed, also by landfall serve',
    async (origin) => {
      await start({ allowedOrigins: [origin] })
      expect((await put({ Origin: origin, 'Sec-Fetch-Site': 'cross-site' })).status).toBe(201)
      const { LANDFALL_ALLOWED_ORIGINS } = readSettings({
        LANDFALL_OWNER_HEADER: 'x-owner',
        LANDFALL_ALLOWED_ORIGINS: `https://a.test, ${origin}`,
      })
      expect(LANDFALL_ALLOWED_ORIGINS).toEqual(['https://a.test', origin])
    },
  )

  test.each([
    'https://app.test/',
    'https://app.test/path',
    'https://app.test:443',
    'https://APP.test',
    'app.test',
    'null',
    '*',
    'capacitor://localhost/x',
    'mailto:a@b',
    'file:///',
    'https://user@app.test',
  ])('%s is not an origin', async (text) => {
    await start()
    expect(isOrigin(text)).toBe(false)
  })
})

describe('Cross-Origin-Resource-Policy of a stored file', () => {
  async function policyFor(options: Options, headers: Record<string, string>) {
    const { create, patch, request } = await start(options)
    const id = newId()
    await create(4, { operationId: id, filename: 'a' })
    await patch(id, 0, content(4))
    return (await request('GET', `/files/${id}`, { headers })).headers.get('Cross-Origin-Resource-Policy')
  }

  test.each<[Options, Record<string, string>, string]>([
    [{}, {}, 'same-origin'],
    [{}, { Origin: APP, Referer: `${APP}/` }, 'same-origin'],
    [{ allowedOrigins: [APP] }, {}, 'same-origin'],
    [{ allowedOrigins: [APP] }, { Origin: 'https://evil.test' }, 'same-origin'],
    [{ allowedOrigins: [APP] }, { Referer: 'https://evil.test/?https://app.test/' }, 'same-origin'],
    [{ allowedOrigins: [APP] }, { Referer: 'no url' }, 'same-origin'],
    [{ allowedOrigins: [APP] }, { Origin: APP }, 'cross-origin'],
    // This is the request of an image without `crossorigin`.
    [{ allowedOrigins: [APP] }, { Referer: `${APP}/` }, 'cross-origin'],
    [{ allowedOrigins: ['capacitor://localhost'] }, { Referer: 'capacitor://localhost/' }, 'cross-origin'],
    [{ allowedOrigins: (origin) => origin.endsWith('.test') }, { Referer: 'https://a.test/page' }, 'cross-origin'],
  ])('%j asked with %j is %s', async (options, headers, policy) => {
    expect(await policyFor(options, headers)).toBe(policy)
  })
})
