import { createServer, type IncomingMessage, type RequestListener, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { getRequestListener } from '@hono/node-server'
import { Hono } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import { secureHeaders } from 'hono/secure-headers'
import { afterEach, describe, expect, test } from 'vitest'
import { kind } from '../src/kinds/kind.js'
import type { Tx } from './fixtures.js'
import { content, digestOf, newId, type Options, silent, startServer, type TestServer } from './harness.js'

let server: TestServer
let http: Server | null = null
afterEach(async () => {
  await new Promise((resolve) => (http === null ? resolve(null) : (http.close(resolve), http.closeAllConnections())))
  http = null
  await server.close()
})

const start = async (options: Options = {}) =>
  (server = await startServer({ file: kind({ onReference: async (_tx: Tx) => null }) }, options))

type Listener = (...request: Parameters<RequestListener>) => void | Promise<void>

async function listen(listener: Listener): Promise<string> {
  const listening = createServer((incoming, outgoing) => void listener(incoming, outgoing))
  http = listening
  await new Promise<void>((resolve) => listening.listen(0, '127.0.0.1', resolve))
  return `http://127.0.0.1:${(listening.address() as AddressInfo).port}`
}

const TUS = { 'X-Owner': 'ann', 'Tus-Resumable': '1.0.0' }
const bytes = content(1_000)
const create = (url: string, id: string) =>
  fetch(`${url}/files`, {
    method: 'POST',
    headers: {
      ...TUS,
      'Upload-Length': '1000',
      'Upload-Metadata': `operationId ${btoa(id)},filetype ${btoa('text/html')}`,
    },
  })
const patch = (url: string, id: string) =>
  fetch(`${url}/files/${id}`, {
    method: 'PATCH',
    headers: { ...TUS, 'Upload-Offset': '0', 'Content-Type': 'application/offset+octet-stream' },
    body: bytes,
  })
const put = (url: string, id: string) =>
  fetch(`${url}/operations/${id}`, {
    method: 'PUT',
    headers: { 'X-Owner': 'ann', 'Content-Type': 'application/json' },
    body: '{"file":{"name":"a","size":1000,"type":"text/html"}}',
  })

/** Sends a file as a stock client does, and uses only the addresses in the answers. */
async function upload(url: string): Promise<string> {
  const id = newId()
  const location = (await create(url, id)).headers.get('Location') ?? ''
  const at = new URL(location, url)
  const sent = await fetch(at, {
    method: 'PATCH',
    headers: { ...TUS, 'Upload-Offset': '0', 'Content-Type': 'application/offset+octet-stream' },
    body: bytes,
  })
  expect([sent.status, sent.headers.get('Upload-Offset')]).toEqual([204, '1000'])
  const operation = (await (await fetch(`${url}/operations/${id}`, { headers: TUS })).json()) as {
    uploadUrl: string
    reference: { url: string; digest: string }
  }
  expect([operation.uploadUrl, operation.reference.url]).toEqual([at.pathname, at.pathname])
  expect(operation.reference.digest).toBe(digestOf(bytes))
  return at.pathname
}

/** Does what Express does for a mount: the path has no prefix, and `originalUrl` has the whole path. */
const mounted =
  (prefix: string, handler: RequestListener): RequestListener =>
  (incoming, outgoing) => {
    const { url = '' } = incoming
    Object.assign(incoming, { originalUrl: url })
    incoming.url = url.slice(prefix.length) || '/'
    return handler(incoming, outgoing)
  }

describe('an upload below a prefix', () => {
  test('that Express removes, by uploads.node', async () => {
    const { uploads } = await start()
    const url = await listen(mounted('/api/uploads', (incoming, outgoing) => void uploads.node(incoming, outgoing)))
    expect(await upload(`${url}/api/uploads`)).toMatch(/^\/api\/uploads\/files\/[0-9a-f-]{36}$/)
  })

  test("that Express removes, by Hono's own listener", async () => {
    const { uploads } = await start()
    const listener = getRequestListener(uploads.routes.fetch)
    const url = await listen(mounted('/uploads', (incoming, outgoing) => void listener(incoming, outgoing)))
    expect(await upload(`${url}/uploads`)).toMatch(/^\/uploads\/files\//)
  })

  test('that stays in the path, by uploads.node', async () => {
    const { uploads } = await start()
    const url = await listen((incoming, outgoing) => void uploads.node(incoming, outgoing))
    expect(await upload(`${url}/files/operations`)).toMatch(/^\/files\/operations\/files\//)
  })

  test("that Hono's mount removes", async () => {
    const { uploads } = await start()
    const app = new Hono().mount('/a/b', uploads.routes.fetch)
    const listener = getRequestListener(app.fetch)
    const url = await listen((incoming, outgoing) => void listener(incoming, outgoing))
    expect(await upload(`${url}/a/b`)).toMatch(/^\/a\/b\/files\//)
  })

  test.each(['/public/uploads', '/public/uploads/'])('that a proxy removes and basePath %s names', async (basePath) => {
    const { uploads } = await start({ basePath })
    const strip = (incoming: IncomingMessage) => (incoming.url = (incoming.url ?? '').replace('/public', ''))
    const url = await listen((incoming, outgoing) => {
      strip(incoming)
      void uploads.node(incoming, outgoing)
    })
    expect(await upload(`${url}/public/uploads`)).toMatch(/^\/public\/uploads\/files\//)
  })

  test('a query that looks like a route is not taken for one', async () => {
    const { uploads } = await start()
    const url = await listen((incoming, outgoing) => void uploads.node(incoming, outgoing))
    const created = await fetch(`${url}/uploads/files?from=/files/x`, {
      method: 'POST',
      headers: { ...TUS, 'Upload-Length': '5' },
    })
    expect(created.headers.get('Location')).toMatch(/^\/uploads\/files\/[0-9a-f-]{36}$/)
  })
})

describe('a body parser in front', () => {
  const parsers: [string, (incoming: IncomingMessage) => Promise<unknown>][] = [
    [
      'that reads all of it',
      async (incoming) => {
        const chunks: Buffer[] = []
        for await (const chunk of incoming) chunks.push(chunk as Buffer)
        return Object.assign(incoming, { body: Buffer.concat(chunks) })
      },
    ],
    [
      'that listens to its bytes and lets them go by',
      (incoming) => new Promise((resolve) => incoming.on('data', resolve).on('end', () => resolve(null))),
    ],
  ]

  test.each(parsers)(
    '%s: the answer is 500, says what to do and is logged, and nothing is stored',
    async (_what, parse) => {
      const logged: unknown[] = []
      const { uploads, get } = await start({ logger: { ...silent, error: (fields: unknown) => logged.push(fields) } })
      const listeners = [
        getRequestListener(uploads.routes.fetch),
        (incoming: IncomingMessage, outgoing: Parameters<RequestListener>[1]) => uploads.node(incoming, outgoing),
      ]
      let at = 0
      const url = await listen((incoming, outgoing) => {
        const handled = () => void listeners[at]?.(incoming, outgoing)
        if (incoming.method !== 'POST') void parse(incoming).then(handled)
        else handled()
      })
      for (at of [0, 1]) {
        const id = newId()
        await create(url, id)
        for (const answer of [await patch(url, id), await put(url, newId())]) {
          expect(answer.status).toBe(500)
          const { detail = '', code } = (await answer.json()) as { detail?: string; code: string }
          expect(code).toBe('internal')
          expect(detail).toMatch(/has read the body.*Mount the routes before body parsers/)
        }
        expect(await get(id)).toMatchObject({ offset: 0, recoveryPoint: 'declared' })
      }
      // A request without a body is not affected.
      const id = newId()
      await create(url, id)
      expect((await fetch(`${url}/operations/${id}`, { method: 'DELETE', headers: TUS })).status).toBe(200)
      expect(logged).toHaveLength(4)
      expect(logged[0]).toMatchObject({ err: { message: expect.stringMatching(/body parsers/) as string } })
    },
  )

  test('of a creation with its bytes', async () => {
    const { uploads, request } = await start()
    const url = await listen(async (incoming, outgoing) => {
      await parsers[0]?.[1](incoming)
      await uploads.node(incoming, outgoing)
    })
    const created = await fetch(`${url}/files`, {
      method: 'POST',
      headers: { ...TUS, 'Upload-Length': '1000', 'Content-Type': 'application/offset+octet-stream' },
      body: bytes,
    })
    expect(created.status).toBe(500)
    expect(await (await request('GET', '/operations?open')).json()).toEqual({ operations: [] })
  })

  test('of Hono that reads the body is noticed as well', async () => {
    const { uploads } = await start()
    const app = new Hono()
      .use(async (c, next) => {
        await c.req.text()
        await next()
      })
      .route('/', uploads.routes)
    const listener = getRequestListener(app.fetch)
    const url = await listen((incoming, outgoing) => void listener(incoming, outgoing))
    expect((await put(url, newId())).status).toBe(500)
  })

  test('of Hono that passes the body on is no problem', async () => {
    const { uploads } = await start()
    const app = new Hono()
      .use(bodyLimit({ maxSize: 100_000 }))
      .use(async (c, next) => {
        await c.req.raw.clone().text()
        await next()
      })
      .route('/', uploads.routes)
    const listener = getRequestListener(app.fetch)
    const url = await listen((incoming, outgoing) => void listener(incoming, outgoing))
    await upload(url)
  })

  test('of a cloud function that keeps the body as rawBody is no problem', async () => {
    const { uploads } = await start()
    const url = await listen(async (incoming, outgoing) => {
      const chunks: Buffer[] = []
      for await (const chunk of incoming) chunks.push(chunk as Buffer)
      await uploads.node(Object.assign(incoming, { rawBody: Buffer.concat(chunks) }), outgoing)
    })
    await upload(url)
  })
})

describe('headers of a stored file stay', () => {
  const OWN = "default-src 'self'; script-src 'self'"
  const app = (options: { fetch: Hono['fetch'] }) =>
    new Hono()
      .use(
        secureHeaders({
          contentSecurityPolicy: { defaultSrc: ["'self'"], scriptSrc: ["'self'"] },
          crossOriginResourcePolicy: 'same-site',
          xContentTypeOptions: false,
        }),
      )
      .use(async (c, next) => {
        await next()
        c.header('X-Content-Type-Options', 'off')
        c.header('Content-Disposition', 'inline')
      })
      .mount('/uploads', options.fetch)

  test.each<[string, Record<string, string>, number]>([
    ['whole', {}, 200],
    ['a range', { Range: 'bytes=0-1' }, 206],
    ['not modified', { 'If-None-Match': '*' }, 304],
  ])('whatever headers middleware sets: %s', async (_what, headers, status) => {
    const { uploads } = await start({ allowedOrigins: ['https://app.test'] })
    const listener = getRequestListener(app(uploads.routes).fetch)
    const url = await listen((incoming, outgoing) => {
      // helmet sets headers like this one before the routes.
      outgoing.setHeader('Content-Security-Policy', OWN)
      void listener(incoming, outgoing)
    })
    const path = await upload(`${url}/uploads`)
    const file = await fetch(url + path, { headers: { 'X-Owner': 'ann', Origin: 'https://app.test', ...headers } })
    expect(file.status).toBe(status)
    const policies = (file.headers.get('Content-Security-Policy') ?? '').split(', ')
    // Both policies hold, so the application's own policy does not weaken Landfall's.
    expect(policies).toEqual([expect.stringMatching(/^sandbox; default-src 'none'/), OWN])
    expect(file.headers.get('X-Content-Type-Options')).toBe('nosniff')
    expect(file.headers.get('Content-Disposition')).toMatch(/^attachment/)
    expect(file.headers.get('Cross-Origin-Resource-Policy')).toBe('cross-origin')
    if (status === 200) expect(new Uint8Array(await file.arrayBuffer())).toEqual(bytes)
  })

  test('other answers keep what the application sets', async () => {
    const { uploads } = await start()
    const listener = getRequestListener(app(uploads.routes).fetch)
    const url = await listen((incoming, outgoing) => void listener(incoming, outgoing))
    const missing = await fetch(`${url}/uploads/files/${newId()}`, { headers: { 'X-Owner': 'ann' } })
    expect([missing.status, missing.headers.get('Content-Security-Policy')]).toEqual([404, OWN])
  })
})
