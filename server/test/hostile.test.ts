/**
 * Attacks on a running server: another owner's operations, paths that leave the routes, requests
 * from other sites, odd and random input, and races for limits. Each request gets a clear answer, changes nothing
 * of another owner, and reveals nothing about the machine.
 */
import { createServer, type Server } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { getRequestListener } from '@hono/node-server'
import * as fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { kind } from '../src/kinds/kind.js'
import type { Tx } from './fixtures.js'
import { content, newId, type Options, startServer, type TestServer } from './harness.js'

const plain = kind({ onReference: async (_tx: Tx) => null })
const SECRET = 'the-secret-of-ann'

let server: TestServer
let http: Server
let port: number

async function start(options: Options = {}): Promise<void> {
  server = await startServer({ file: plain }, options)
  const listen = getRequestListener(server.app.fetch)
  http = createServer((incoming, outgoing) => void listen(incoming, outgoing))
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve))
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- it listens on TCP
  port = (http.address() as AddressInfo).port
}
beforeEach(() => start())
afterEach(async () => {
  http.closeAllConnections()
  await new Promise((resolve) => http.close(resolve))
  await server.close()
})

/** Sends raw bytes, and answers everything that arrives until the server closes or is silent for a while. */
const raw = (bytes: string): Promise<string> =>
  new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => socket.end(bytes, 'latin1'))
    let said = ''
    socket.setEncoding('latin1').on('data', (text: string) => (said += text))
    socket.setTimeout(5_000, () => socket.destroy())
    socket.on('close', () => resolve(said)).on('error', (error) => (said === '' ? reject(error) : resolve(said)))
  })
const statusOf = (said: string): number => Number(/^HTTP\/1\.1 (\d{3})/.exec(said)?.[1])

/** All stored data of Ann. */
const annsState = async (ids: readonly string[]): Promise<string> =>
  JSON.stringify(await Promise.all(ids.map((id) => server.ledger.find({ owner: 'ann', id }))))

/** What no answer may contain: stack traces, SQL, paths, names of tables. */
const TELLS = /node_modules|\.ts:\d|\.js:\d|SQLITE|sqlite|landfall_|INSERT INTO|SELECT |ENOENT|EACCES|\/tmp\//
const expectTellsNothing = (text: string): void => {
  expect(text).not.toMatch(TELLS)
  expect(text).not.toContain(server.directory)
  expect(text).not.toContain(SECRET)
}

describe("another owner's operations do not exist", () => {
  test('for any method, route and headers', async () => {
    const done = newId()
    const open = newId()
    await server.declare(done, { size: 10, name: SECRET })
    expect((await server.patch(done, 0, content(10))).status).toBe(204)
    await server.declare(open, { size: 10, name: SECRET })
    await server.patch(open, 0, content(4))
    const before = await annsState([done, open])
    const tricks: Record<string, string>[] = [
      {},
      { 'Landfall-Version': '1' },
      { 'X-Forwarded-User': 'ann', 'X-Remote-User': 'ann', 'X-User': 'ann', Forwarded: 'for=ann' },
      { 'X-HTTP-Method-Override': 'PATCH' },
      { 'X-HTTP-Method-Override': 'DELETE' },
      { 'X-Original-URL': `/uploads/files/${done}`, 'X-Rewrite-URL': `/uploads/operations/${done}` },
      { Cookie: 'owner=ann', Authorization: 'Bearer ann' },
    ]
    for (const id of [done, open]) {
      const paths = [
        `/operations/${id}`,
        `/operations/${id}/prefix`,
        `/operations?ids=${id}`,
        '/operations?open',
        `/files/${id}`,
        `/files/${id}?owner=ann`,
      ]
      for (const path of paths) {
        for (const method of ['GET', 'HEAD', 'PATCH', 'DELETE', 'POST', 'OPTIONS']) {
          for (const headers of tricks) {
            const answer = await server.request(method, path, {
              owner: 'bob',
              headers: {
                'Tus-Resumable': '1.0.0',
                'Upload-Offset': '0',
                'Content-Type': 'application/offset+octet-stream',
                ...headers,
              },
              body: method === 'PATCH' || method === 'POST' ? 'bobs bytes' : null,
            })
            const text = (await answer.text()) + JSON.stringify([...answer.headers])
            const what = `${method} ${path} ${JSON.stringify(headers)}`
            expect(answer.status, what).toBeLessThan(500)
            expectTellsNothing(text)
          }
        }
      }
    }
    expect(await annsState([done, open])).toBe(before)
    expect((await server.ledger.listOpen('bob', { after: null, limit: 10 })).length).toBe(0)
  })

  test('and the same id of another owner is another operation', async () => {
    const id = newId()
    await server.declare(id, { size: 10, name: SECRET })
    await server.patch(id, 0, content(10))
    const before = await annsState([id])
    expect(await server.declare(id, { size: 3, name: 'mine' }, {}, 'bob')).toMatchObject({
      status: 201,
      recoveryPoint: 'declared',
    })
    expect((await server.patch(id, 0, content(3, 2), { owner: 'bob' })).status).toBe(204)
    expect(await (await server.request('GET', `/files/${id}`)).arrayBuffer()).toEqual(content(10).buffer)
    expect(await (await server.request('GET', `/files/${id}`, { owner: 'bob' })).arrayBuffer()).toEqual(
      content(3, 2).buffer,
    )
    expect(await annsState([id])).toBe(before)
  })
})

test('a path that leaves the routes finds nothing', async () => {
  const id = newId()
  await server.declare(id, { size: 1 })
  await server.patch(id, 0, content(1))
  const hops = ['..', '%2e%2e', '%2e.', '.%2e', '..%2f', '..%5c', '%252e%252e', '..;', '%c0%ae%c0%ae', '..%00']
  const targets = ['etc/passwd', 'landfall.lock', 'store.json', 'app.db', 'metrics', `operations/${id}`]
  for (const prefix of ['files', `files/${id}`, 'operations', `operations/${id}`]) {
    for (const hop of hops) {
      for (const target of targets) {
        const path = `/uploads/${prefix}/${hop}/${hop}/${hop}/${target}`
        const said = await raw(`GET ${path} HTTP/1.1\r\nHost: host.test\r\nConnection: close\r\nX-Owner: bob\r\n\r\n`)
        expect(statusOf(said), path).toBeGreaterThanOrEqual(400)
        expect(statusOf(said), path).toBeLessThan(500)
        expect(said).not.toMatch(/root:|SQLite format/)
      }
    }
  }
})

test('a request from another site changes nothing, with any method', async () => {
  const id = newId()
  await server.declare(id, { size: 10 })
  const before = await annsState([id])
  const origins = ['https://evil.test', 'null', 'http://host.test.evil.test', 'https://evil.test:80', 'file://', 'x']
  const sites = [undefined, 'cross-site', 'same-site']
  for (const method of ['PUT', 'POST', 'PATCH', 'DELETE']) {
    for (const path of [`/operations/${id}`, `/files/${id}`, '/files']) {
      for (const origin of origins) {
        for (const site of sites) {
          const answer = await server.request(method, path, {
            headers: {
              Cookie: 'session=1',
              Origin: origin,
              Host: 'host.test',
              ...(site === undefined ? {} : { 'Sec-Fetch-Site': site }),
              'Tus-Resumable': '1.0.0',
              'Upload-Offset': '0',
              'Upload-Length': '10',
              'Content-Type': 'application/offset+octet-stream',
            },
            body: method === 'DELETE' ? null : 'evil bytes',
          })
          expect(answer.status, `${method} ${path} ${origin} ${site}`).toBe(403)
        }
      }
    }
  }
  expect(await annsState([id])).toBe(before)
  expect(await server.ledger.listOpen('ann', { after: null, limit: 10 })).toHaveLength(1)
})

test('requests that are smuggled behind a body are not executed', async () => {
  const id = newId()
  await server.declare(id, { size: 10 })
  const before = await annsState([id])
  const inner = `DELETE /uploads/operations/${id} HTTP/1.1\r\nHost: host.test\r\nX-Owner: ann\r\n\r\n`
  const framings = [
    'Content-Length: 4\r\nTransfer-Encoding: chunked\r\n',
    'Transfer-Encoding: chunked\r\nContent-Length: 4\r\n',
    'Content-Length: 4\r\nContent-Length: 5\r\n',
    'Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n',
    'Transfer-Encoding : chunked\r\n',
    'Transfer-Encoding: xchunked\r\n',
    'Content-Length: +4\r\n',
    'Content-Length: 0x4\r\n',
    ' Content-Length: 4\r\n',
    'X: y\nContent-Length: 4\r\n',
  ]
  for (const framing of framings) {
    const said = await raw(
      `POST /uploads/files HTTP/1.1\r\nHost: host.test\r\nX-Owner: bob\r\n${framing}\r\n0\r\n\r\n${inner}`,
    )
    expect(statusOf(said), JSON.stringify(framing)).toBeGreaterThanOrEqual(400)
    expect(statusOf(said), JSON.stringify(framing)).toBeLessThan(500)
  }
  expect(await annsState([id])).toBe(before)
})

/** Path segments that have a meaning somewhere in the routes, and some that have none. */
const WORDS = [
  ...'0 -1 1 10 1e3 9007199254740993 NaN null true [] {} * % %00 .. ../ __proto__ constructor 1.0.0 0.2.2'.split(' '),
  ...'sha-256=:AAAA: pending bytes=0- bytes=5-1 W/"x" <script> ${7*7}'.split(' '),
  '',
  '\u0000',
  '\ud83c',
  '😀',
  "'; DROP TABLE x; --",
  'filename YQ==',
  'a'.repeat(5_000),
]
const word = fc.oneof(fc.constantFrom(...WORDS), fc.string({ unit: 'binary', maxLength: 40 }))
const NAMES = (
  'Tus-Resumable Upload-Offset Upload-Length Upload-Metadata Upload-Defer-Length Upload-Concat Content-Type Accept ' +
  'Content-Encoding Landfall-Version X-HTTP-Method-Override Range If-Match If-None-Match If-Range Origin Cookie ' +
  'Sec-Fetch-Site X-Forwarded-Proto Forwarded Digest'
).split(' ')
const ofRequest = fc.record({
  method: fc.constantFrom('GET', 'HEAD', 'PUT', 'POST', 'PATCH', 'DELETE', 'OPTIONS', 'PURGE'),
  segments: fc.array(fc.oneof(fc.constantFrom('files', 'operations', 'prefix', 'ID'), word), { maxLength: 4 }),
  query: fc.dictionary(fc.constantFrom('ids', 'wait', 'open', 'after', 'x'), word, { maxKeys: 2 }),
  headers: fc.dictionary(fc.constantFrom(...NAMES), word, { maxKeys: 6 }),
  body: fc.oneof(
    word,
    fc.json({ maxDepth: 3 }),
    fc.constant(JSON.stringify({ file: { name: 'a', size: 3, type: '' } })),
  ),
})
/** Text that can be sent in a URL and in UTF-8. */
const wellFormed = (text: string): string => new TextDecoder().decode(new TextEncoder().encode(text))
/** A header value that a client is able to send. */
const sendable = (text: string): string => text.replaceAll(/[^\u0020-\u007e]/g, '?').trim()

test("random requests get one of Landfall's own answers, never a fault of the server or anything of its internals", async () => {
  const id = newId()
  await server.declare(id, { size: 10, name: SECRET })
  const before = await annsState([id])
  await fc.assert(
    fc.asyncProperty(ofRequest, async ({ method, segments, query, headers, body }) => {
      const path = segments
        .map((segment) => (segment === 'ID' ? id : encodeURIComponent(wellFormed(segment))))
        .join('/')
      const search = Object.entries(query).map(([key, value]) => `${key}=${encodeURIComponent(wellFormed(value))}`)
      // A poll must not wait here, because no change would end it.
      const asked = `/${path}?${search.join('&')}`.replace(/wait=[^&]*/, 'wait=0')
      const answer = await server.request(method, asked, {
        owner: 'bob',
        headers: Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, sendable(value)])),
        body: method === 'GET' || method === 'HEAD' ? null : wellFormed(body),
      })
      const text = await answer.text()
      expect(answer.status).toBeLessThan(500)
      expectTellsNothing(text)
      if (answer.status >= 400 && method !== 'HEAD') {
        const type = answer.headers.get('Content-Type') ?? ''
        if (type.startsWith('application/problem+json'))
          expect(JSON.parse(text)).toMatchObject({ status: answer.status })
      }
    }),
    { numRuns: 3_000, seed: 41 },
  )
  expect(await annsState([id])).toBe(before)
}, 120_000)

describe('limits hold when many requests come at once', () => {
  const declared = async (count: number): Promise<number[]> => {
    const answers = await Promise.all(Array.from({ length: count }, () => server.declare(newId(), { size: 100 })))
    return answers.map(({ status }) => status)
  }
  const restarted = async (limits: Options['limits']): Promise<void> => {
    http.closeAllConnections()
    await new Promise((resolve) => http.close(resolve))
    await server.close()
    await start({ limits: limits ?? {} })
  }

  test('the quota admits ten of sixty', async () => {
    await restarted({ quotaBytes: () => 1_000 })
    const statuses = await declared(60)
    expect(statuses.filter((status) => status === 201)).toHaveLength(10)
    expect(statuses.filter((status) => status >= 500 && status !== 507)).toEqual([])
  })

  test('the limit of open uploads admits fifty of a hundred', async () => {
    await restarted({ maxOpenPerOwner: 50 })
    const statuses = await declared(100)
    expect(statuses.filter((status) => status === 201)).toHaveLength(50)
    expect(statuses.filter((status) => status >= 500)).toEqual([])
  })
})
