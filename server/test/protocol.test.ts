import { HTTPException } from 'hono/http-exception'
import { afterEach, describe, expect, test } from 'vitest'
import { kind } from '../src/kinds/kind.js'
import type { Tx } from './fixtures.js'
import { content, newId, type Options, startServer, type TestServer } from './harness.js'

let server: TestServer
afterEach(() => server.close())

const plain = kind({ onReference: async (_tx: Tx) => null })
const start = async (options: Options = {}, kinds: Parameters<typeof startServer>[0] = { file: plain }) =>
  (server = await startServer(kinds, options))

describe('Tus-Resumable, for every method, version and outcome', () => {
  const BYTES = { 'Content-Type': 'application/offset+octet-stream', 'Upload-Offset': '0' }
  type Target = 'open' | 'stored' | 'cancelled' | 'unknown'
  /** The status of each method in the right version, by the state of its target. */
  const METHODS: Record<
    string,
    { headers?: Record<string, string>; body?: Uint8Array<ArrayBuffer>; statuses: Record<Target, number> }
  > = {
    HEAD: { statuses: { open: 200, stored: 200, cancelled: 410, unknown: 404 } },
    PATCH: {
      headers: BYTES,
      body: content(4),
      statuses: { open: 204, stored: 204, cancelled: 410, unknown: 404 },
    },
    DELETE: { statuses: { open: 204, stored: 403, cancelled: 204, unknown: 404 } },
    'POST as HEAD': {
      headers: { 'X-HTTP-Method-Override': 'head' },
      statuses: { open: 200, stored: 200, cancelled: 410, unknown: 404 },
    },
    'POST as PATCH': {
      headers: { ...BYTES, 'X-HTTP-Method-Override': 'PATCH' },
      body: content(4),
      statuses: { open: 204, stored: 204, cancelled: 410, unknown: 404 },
    },
    'POST as DELETE': {
      headers: { 'X-HTTP-Method-Override': 'DELETE' },
      statuses: { open: 204, stored: 403, cancelled: 204, unknown: 404 },
    },
  }
  const TARGETS: readonly Target[] = ['open', 'stored', 'cancelled', 'unknown']

  async function made(target: Target): Promise<string> {
    const id = newId()
    if (target === 'unknown') return id
    await server.create(10, { operationId: id, filename: 'a' })
    if (target === 'stored') await server.patch(id, 0, content(10))
    if (target === 'cancelled') await server.request('DELETE', `/operations/${id}`)
    return id
  }
  const send = (method: string, id: string, more: Record<string, string>, owner: string | null = 'ann', slash = '') =>
    server.request(method.split(' ', 1)[0] ?? '', `/files/${id}${slash}`, {
      owner,
      headers: { ...METHODS[method]?.headers, ...more },
      body: METHODS[method]?.body ?? null,
    })

  test.each(Object.keys(METHODS))('%s', async (method) => {
    await start()
    for (const target of TARGETS) {
      for (const slash of ['', '/']) {
        const id = await made(target)
        const right = await send(method, id, { 'Tus-Resumable': '1.0.0' }, 'ann', slash)
        expect([method, target, right.status]).toEqual([method, target, METHODS[method]?.statuses[target]])
        expect(right.headers.get('Tus-Resumable')).toBe('1.0.0')
      }
      for (const version of ['0.2.0', '2.0.0', '', '1.0.0, 1.0.0']) {
        const id = await made(target)
        const before = await server.get(id)
        const wrong = await send(method, id, { 'Tus-Resumable': version })
        expect([method, target, version, wrong.status]).toEqual([method, target, version, 412])
        expect([wrong.headers.get('Tus-Resumable'), wrong.headers.get('Tus-Version')]).toEqual(['1.0.0', '1.0.0'])
        // It is not processed.
        expect(await server.get(id)).toEqual(before)
      }
      const without = await send(method, await made(target), {})
      if (method === 'HEAD') {
        // Without a version it asks for the stored file, as GET does. A running upload must not look like a missing one.
        expect([target, without.status]).toEqual([
          target,
          { open: 412, stored: 200, cancelled: 404, unknown: 404 }[target],
        ])
        expect(without.headers.get('Tus-Version')).toBe(target === 'open' ? '1.0.0' : null)
      } else
        expect([method, target, without.status, without.headers.get('Tus-Version')]).toEqual([
          method,
          target,
          412,
          '1.0.0',
        ])
    }
    const stranger = await send(method, await made('open'), { 'Tus-Resumable': '1.0.0' }, null)
    expect([stranger.status, stranger.headers.get('Tus-Resumable')]).toEqual([401, '1.0.0'])
    const crossSite = await send(method, await made('open'), {
      'Tus-Resumable': '1.0.0',
      Cookie: 'a=b',
      'Sec-Fetch-Site': 'cross-site',
    })
    if (method !== 'HEAD') expect([crossSite.status, crossSite.headers.get('Tus-Resumable')]).toEqual([403, '1.0.0'])
  })

  test('creation', async () => {
    await start({ limits: { maxSizeBytes: 100 } })
    const create = (headers: Record<string, string>, path = '/files') => server.request('POST', path, { headers })
    for (const path of ['/files', '/files/']) {
      const created = await create({ 'Tus-Resumable': '1.0.0', 'Upload-Length': '10' }, path)
      expect([created.status, created.headers.get('Tus-Resumable')]).toEqual([201, '1.0.0'])
      const tooLarge = await create({ 'Tus-Resumable': '1.0.0', 'Upload-Length': '101' }, path)
      expect([tooLarge.status, tooLarge.headers.get('Tus-Resumable')]).toEqual([413, '1.0.0'])
      for (const headers of [{ 'Tus-Resumable': '0.2.0' }, { 'Tus-Resumable': '' }, {}]) {
        const wrong = await create({ ...headers, 'Upload-Length': '10' }, path)
        expect([wrong.status, wrong.headers.get('Tus-Resumable'), wrong.headers.get('Tus-Version')]).toEqual([
          412,
          '1.0.0',
          '1.0.0',
        ])
      }
    }
  })

  test.each<[string, () => Error, number]>([
    ['answers itself', () => new HTTPException(418, { message: 'no' }), 418],
    ['fails', () => new Error('the sessions are away'), 500],
  ])('is on the answer also if the application %s', async (_what, thrown, status) => {
    await start({
      authenticate: () => {
        throw thrown()
      },
    })
    for (const method of Object.keys(METHODS).filter((name) => !name.endsWith('HEAD'))) {
      const answer = await send(method, newId(), { 'Tus-Resumable': '1.0.0' })
      expect([method, answer.status, answer.headers.get('Tus-Resumable')]).toEqual([method, status, '1.0.0'])
    }
  })

  test('OPTIONS and GET do not need it', async () => {
    await start()
    const id = await made('stored')
    for (const path of ['/files', '/files/', `/files/${id}`, `/files/${id}/`])
      for (const headers of [{}, { 'Tus-Resumable': '0.2.0' }] as Record<string, string>[]) {
        const options = await server.request('OPTIONS', path, { headers, owner: null })
        expect([options.status, options.headers.get('Tus-Version')]).toEqual([204, '1.0.0'])
      }
    for (const path of [`/files/${id}`, `/files/${id}/`]) {
      const file = await server.request('GET', path)
      expect([file.status, file.headers.get('Tus-Resumable')]).toEqual([200, null])
    }
  })
})

describe('what a stock client or its proxy sends', () => {
  const create = (headers: Record<string, string>) =>
    server.request('POST', '/files', { headers: { 'Tus-Resumable': '1.0.0', 'Upload-Length': '4', ...headers } })
  const idOf = (response: Response) => response.headers.get('Location')?.split('/').at(-1) ?? ''

  test.each<[string, string]>([
    ...['https,http', 'HTTPS', 'wss', '', 'http, https'].map((value): [string, string] => ['X-Forwarded-Proto', value]),
    ['X-Forwarded-Host', 'a.example, b.example'],
    ['Forwarded', 'for="[::1]";proto=HTTPS;host="a.example"'],
    ['Tus-Version', '0.2.0'],
    ['Upload-Offset', 'abc'],
    ['Content-Type', 'application/x-www-form-urlencoded'],
  ])('%s: %s is ignored', async (name, value) => {
    await start()
    const created = await create({ [name]: value })
    expect(created.status).toBe(201)
    expect(created.headers.get('Location')).toMatch(/^\/uploads\/files\/[0-9a-f-]{36}$/)
    const terminated = await server.request('DELETE', `/files/${idOf(created)}`, {
      headers: { 'Tus-Resumable': '1.0.0', [name]: value },
    })
    expect(terminated.status).toBe(204)
  })

  const odd = ['constructor', 'toString', '__proto__', 'hasOwnProperty', 'k\u00e9y', 'a/b;c="d"']
  test.each<[string, object]>([
    ['filename YQ==, filetype YQ==', {}],
    ['filename YQ== ,filetype YQ==', {}],
    ['  filename   YQ==\t,\tfiletype YQ==  ', {}],
    ['', {}],
    [',', {}],
    ['filename YQ==,', {}],
    ['alone', { alone: null }],
    ['alone ', { alone: null }],
    ['filename YQ', {}],
    ['filename YQ==,filename YQ==', {}],
    [odd.map((key) => `${key} YQ==`).join(','), Object.fromEntries(odd.map((key) => [key, 'a']))],
  ])('Upload-Metadata: %j is understood', async (header, metadata) => {
    await start()
    const created = await create({ 'Upload-Metadata': header })
    expect(created.status).toBe(201)
    const operation = await server.get(idOf(created))
    expect(JSON.stringify(operation.metadata)).toBe(JSON.stringify(metadata))
    expect(operation.file.name).toBe(header.includes('filename') ? 'a' : 'file')
    const head = await server.head(idOf(created))
    expect(head.headers.get('Upload-Metadata')).toBe(header.trim() === '' ? null : header.trim())
  })

  test.each([
    ['a b c', /a: a key and one value/],
    ['a !!', /a: a value in base64/],
    ['a YQ-_', /a: a value in base64/],
    ['a YQ==,a Yg==', /a: each key once/],
    ['operationId YQ==', /./],
    [`filename ${Buffer.from('a\nb').toString('base64')}`, /file\.name/],
  ])('Upload-Metadata: %j is refused and says why', async (header, detail) => {
    await start()
    const refused = await create({ 'Upload-Metadata': header })
    const problem = (await refused.json()) as { detail?: string; title: string }
    expect([refused.status, problem.detail ?? problem.title]).toEqual([400, expect.stringMatching(detail)])
    expect(await (await server.request('GET', '/operations?open')).json()).toEqual({ operations: [] })
  })

  test('HEAD returns Upload-Metadata unchanged, also if a value is not UTF-8 or a key is not ASCII', async () => {
    await start()
    const header = `filename ${Buffer.from('f\xe9.txt', 'latin1').toString('base64')}, k\u00e9y YQ, b`
    const id = idOf(await create({ 'Upload-Metadata': header }))
    expect((await server.head(id)).headers.get('Upload-Metadata')).toBe(header)
    await server.restart()
    expect((await server.head(id)).headers.get('Upload-Metadata')).toBe(header)
  })

  test('a creation with an invalid operation id is refused, and the answer names the id', async () => {
    await start()
    const refused = await create({ 'Upload-Metadata': 'operationId YQ==' })
    expect([refused.status, await refused.json()]).toMatchObject([400, { code: 'invalid-operation-id' }])
  })
})

describe('answers that tell what to do', () => {
  test('409 contains the offset', async () => {
    const { create, patch } = await start()
    const id = newId()
    await create(10, { operationId: id, filename: 'a' })
    await patch(id, 0, content(4), { stock: true })
    for (const stock of [true, false]) {
      const conflict = await patch(id, 7, content(1), { stock })
      expect([conflict.status, conflict.headers.get('Upload-Offset')]).toEqual([409, '4'])
    }
    await patch(id, 4, content(6), { stock: true })
    const after = await patch(id, 3, content(1))
    expect([after.status, after.headers.get('Upload-Offset')]).toEqual([409, '10'])
  })

  test('a stock client is not told the full offset before the reference, not even by 409', async () => {
    let release = (): void => {}
    const released = new Promise<void>((resolve) => (release = resolve))
    const { create, patch } = await start(
      {},
      { file: kind({ prepare: { scan: () => released }, onReference: async (_tx: Tx) => null }) },
    )
    const id = newId()
    await create(5_000, { operationId: id, filename: 'a' })
    const sent = patch(id, 0, content(5_000))
    expect((await sent).status).toBe(204)
    const conflict = await patch(id, 17, content(1), { stock: true })
    expect(conflict.status).toBe(409)
    expect(Number(conflict.headers.get('Upload-Offset'))).toBeLessThan(5_000)
    release()
  })

  test.each(['gzip', 'br', 'identity, gzip', 'x-unknown'])('a body in the coding %s is 415', async (coding) => {
    const { create, patch, request, get } = await start()
    const id = newId()
    await create(10, { operationId: id, filename: 'a' })
    const headers = { 'Content-Encoding': coding }
    const answers = [
      await patch(id, 0, content(4), { headers }),
      await create(10, { filename: 'a' }, { headers }),
      await request('PUT', `/operations/${newId()}`, { headers, body: '{}' }),
    ]
    for (const answer of answers) {
      expect([answer.status, answer.headers.get('Accept-Encoding')]).toEqual([415, 'identity'])
      expect(answer.headers.get('Content-Type')).toBe('application/problem+json')
    }
    expect(await get(id)).toMatchObject({ offset: 0 })
    expect((await patch(id, 0, content(4), { headers: { 'Content-Encoding': 'Identity' } })).status).toBe(204)
  })

  test('401 carries a challenge, as RFC 9110 section 11.6.1 requires', async () => {
    const { request } = await start()
    const refused = await request('GET', '/operations?open', { owner: null })
    expect([refused.status, refused.headers.get('WWW-Authenticate')]).toEqual([401, 'Landfall realm="uploads"'])
  })

  test('a name that UTF-8 cannot hold is refused, and nothing is declared', async () => {
    const { request } = await start()
    // JSON can contain half of a surrogate pair.
    const body = String.raw`{"file":{"name":"\ud83c.txt","size":1,"type":""}}`
    const refused = await request('PUT', `/operations/${newId()}`, { body })
    expect([refused.status, await refused.json()]).toMatchObject([400, { code: 'invalid-request' }])
    expect(await (await request('GET', '/operations?open')).json()).toEqual({ operations: [] })
  })

  test('an owner that UTF-8 cannot hold is a fault of the application, because a database would take two owners for one', async () => {
    await start({ authenticate: () => 'ann\ud83c' })
    expect((await server.request('GET', '/operations?open')).status).toBe(500)
  })
})

describe('an answer that the application throws is sent', () => {
  const always = (answer: Response) => () => answer
  const answers: [string, () => unknown, number, string][] = [
    ['an HTTPException', () => new HTTPException(401, { message: 'sign in' }), 401, 'sign in'],
    [
      'an HTTPException with a response',
      () => new HTTPException(402, { res: new Response('pay', { status: 402, headers: { 'X-Why': 'a' } }) }),
      402,
      'pay',
    ],
    // An application may throw the same constant object for all requests.
    ['a Response', always(new Response('away', { status: 302, headers: { Location: '/login' } })), 302, 'away'],
    ['a redirect, whose headers cannot be changed', always(Response.redirect('http://host.test/login', 303)), 303, ''],
  ]
  const requests = (id: string): [string, () => Promise<Response>][] => [
    ['PUT', () => server.request('PUT', `/operations/${id}`, { body: '{"file":{"name":"b","size":4,"type":""}}' })],
    ['GET', () => server.request('GET', `/operations/${id}`)],
    ['POST', () => server.create(4, { filename: 'a' })],
    ['PATCH', () => server.patch(id, 0, content(4), { stock: true })],
    ['HEAD', () => server.head(id)],
    [
      'POST as HEAD',
      () =>
        server.request('POST', `/files/${id}`, {
          headers: { 'Tus-Resumable': '1.0.0', 'X-HTTP-Method-Override': 'HEAD' },
        }),
    ],
  ]

  test.each(answers)('authenticate: %s', async (_what, thrown, status, body) => {
    let says = false
    await start({
      authenticate: () => {
        // oxlint-disable-next-line only-throw-error -- what applications do in Hono
        if (says) throw thrown()
        return 'ann'
      },
    })
    const id = newId()
    await server.create(4, { operationId: id, filename: 'a' })
    says = true
    for (const [name, send] of requests(id)) {
      const startedAt = performance.now()
      const response = await send()
      expect([name, response.status]).toEqual([name, status])
      expect(performance.now() - startedAt).toBeLessThan(2_000)
      if (name !== 'HEAD') expect([name, await response.text()]).toEqual([name, body])
      if (status === 302) expect(response.headers.get('Location')).toBe('/login')
    }
  })

  test.each(answers)('authorize: %s', async (_what, thrown, status, body) => {
    await start(
      {},
      {
        file: kind({
          authorize: () => {
            // oxlint-disable-next-line only-throw-error -- what applications do in Hono
            throw thrown()
          },
          onReference: async (_tx: Tx) => null,
        }),
      },
    )
    for (const [name, send] of requests(newId()).filter(([method]) => method === 'PUT' || method === 'POST')) {
      const response = await send()
      expect([name, response.status, await response.text()]).toEqual([name, status, body])
    }
    expect(await (await server.request('GET', '/operations?open')).json()).toEqual({ operations: [] })
  })

  test('anything else that is thrown is 500, also if it is not an Error', async () => {
    await start({
      authenticate: () => {
        // oxlint-disable-next-line only-throw-error -- what must not bring a process down
        throw 'sessions are away'
      },
    })
    const response = await server.request('GET', '/operations?open')
    expect([response.status, await response.json()]).toMatchObject([500, { code: 'internal' }])
  })

  test('but a HEAD of tus waits and never answers 5xx or 429, because a stock client would begin again', async () => {
    let status = 0
    await start({
      authenticate: () => {
        if (status !== 0) throw new HTTPException(status as 503)
        return 'ann'
      },
    })
    const id = newId()
    await server.create(4, { operationId: id, filename: 'a' })
    status = 503
    setTimeout(() => (status = 0), 500)
    expect((await server.head(id)).status).toBe(200)
    status = 429
    setTimeout(() => (status = 0), 500)
    expect((await server.head(id)).status).toBe(200)
  })
})
