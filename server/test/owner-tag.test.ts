import { afterEach, describe, expect, test } from 'vitest'
import { UploadError } from '../src/lib/errors.js'
import { kind } from '../src/kinds/kind.js'
import type { Ledger } from '../src/ports/ledger.js'
import { content, eventually, later, newId, startServer, type TestServer } from './harness.js'
import type { Tx } from './fixtures.js'

const servers: TestServer[] = []
afterEach(async () => {
  for (const server of servers.splice(0)) await server.close()
})

/** The calls that change the ledger, without those of the clock and the completer. */
const WRITES = new Set(['declare', 'setDigest', 'lease', 'ask', 'record', 'refer', 'cancel', 'remove', 'retry'])

async function start(options: Parameters<typeof startServer>[1] = {}) {
  const writes: string[] = []
  const watched = (ledger: Ledger<Tx>): Ledger<Tx> =>
    new Proxy(ledger, {
      get(target, name) {
        const value: unknown = Reflect.get(target, name)
        if (typeof value !== 'function' || !WRITES.has(String(name))) return value
        return (...args: unknown[]): unknown => {
          writes.push(String(name))
          return Reflect.apply(value, target, args)
        }
      },
    })
  const server = await startServer({ file: kind({ onReference: async () => null }) }, { ledgerOf: watched, ...options })
  servers.push(server)
  return { server, writes }
}

const TUS = { 'Tus-Resumable': '1.0.0' }
const BYTES = { ...TUS, 'Upload-Offset': '4', 'Content-Type': 'application/offset+octet-stream' }
const FILE = { file: { name: 'a.bin', type: 'application/octet-stream', size: 10 } }
const metadataOf = (id: string): string => `operationId ${Buffer.from(id).toString('base64')}`

/** Every method and route that belongs to an owner. `id` has 4 of 10 bytes. */
const requestsOf = (id: string) =>
  [
    ['GET', '/operations?open'],
    ['GET', `/operations?ids=${id}&wait=1`],
    ['GET', `/operations/${id}`],
    ['HEAD', `/operations/${id}`],
    ['GET', `/operations/${id}/prefix`],
    ['PUT', `/operations/${id}`, {}, JSON.stringify(FILE)],
    ['DELETE', `/operations/${id}`],
    ['POST', '/files', { ...TUS, 'Upload-Length': '10', 'Upload-Metadata': metadataOf(id) }],
    [
      'POST',
      '/files',
      { ...TUS, 'Upload-Length': '6', 'Upload-Metadata': metadataOf(newId()), 'Content-Type': BYTES['Content-Type'] },
      content(6),
    ],
    ['HEAD', `/files/${id}`, TUS],
    ['HEAD', `/files/${id}`],
    ['GET', `/files/${id}`],
    ['PATCH', `/files/${id}`, BYTES, content(6)],
    ['POST', `/files/${id}`, { ...BYTES, 'X-HTTP-Method-Override': 'PATCH' }, content(6)],
    ['DELETE', `/files/${id}`, TUS],
    ['POST', `/files/${id}`, { ...TUS, 'X-HTTP-Method-Override': 'DELETE' }],
    ['GET', '/nothing-here'],
  ] as const satisfies readonly (readonly [
    string,
    string,
    Record<string, string>?,
    (string | Uint8Array<ArrayBuffer>)?,
  ])[]

/** Declares one upload of ann and one of bob under the same id, and sends a part of each. */
async function sharedId({ server, writes }: Awaited<ReturnType<typeof start>>): Promise<string> {
  const id = newId()
  for (const owner of ['ann', 'bob']) {
    await server.declare(id, { size: 10 }, {}, owner)
    expect((await server.patch(id, 0, content(4), { owner })).status).toBe(204)
  }
  writes.length = 0
  return id
}

const rowsOf = (server: TestServer) =>
  server.db.$client.execute(
    'SELECT owner, id, point, "offset", lease_token, lease_asked, unclean_holder, updated_at FROM landfall_operations ORDER BY owner, id',
  )

describe('the owner tag', () => {
  test("a request with another owner's tag is 412, writes nothing and takes no lease, whatever its method and route", async () => {
    const started = await start()
    const { server, writes } = started
    const id = await sharedId(started)
    const before = (await rowsOf(server)).rows
    const ofAnn = await server.uploads.ownerTag('ann')
    const ofBob = await server.uploads.ownerTag('bob')
    for (const [method, path, headers = {}, body = null] of requestsOf(id))
      for (const own of [{}, { 'Landfall-Version': '1' }])
        for (const tag of [ofAnn, 'anything', '', `${ofBob}, ${ofAnn}`]) {
          const answer = await server.request(method, path, {
            owner: 'bob',
            headers: { ...headers, ...own, 'Landfall-Owner': tag },
            body,
          })
          const what = `${method} ${path} ${JSON.stringify(headers)}`
          expect([what, answer.status, answer.headers.get('Landfall-Owner')]).toEqual([what, 412, ofBob])
          if (method !== 'HEAD') expect(await answer.json()).toMatchObject({ code: 'other-owner', status: 412 })
        }
    expect(writes).toEqual([])
    expect((await rowsOf(server)).rows).toEqual(before)
    // Both uploads can be resumed.
    for (const owner of ['ann', 'bob'])
      expect((await server.patch(id, 4, content(10).subarray(4), { owner })).status).toBe(204)
  })

  test("a changing request of Landfall's own client without a tag is 428 and changes nothing", async () => {
    const started = await start()
    const { server, writes } = started
    const id = await sharedId(started)
    const before = (await rowsOf(server)).rows
    // These requests do not use the harness, because it sends the tag.
    const app = server.uploads.routes
    let changing = 0
    let written = 0
    for (const [method, path, headers = {}, body = null] of requestsOf(id)) {
      const isSafe = method === 'GET' || method === 'HEAD'
      const answer = await app.request(`http://host.test${path}`, {
        method,
        headers: { ...headers, 'X-Owner': 'bob', 'Landfall-Version': '1' },
        ...(body === null ? {} : { body }),
      })
      expect(answer.headers.get('Landfall-Owner')).toBe(await server.uploads.ownerTag('bob'))
      if (isSafe) {
        expect(answer.status).not.toBe(428)
        await answer.body?.cancel()
        // A tus HEAD may ask a receiver to stop.
        written = writes.length
        continue
      }
      changing += 1
      expect(writes.slice(written)).toEqual([])
      expect([method, path, answer.status]).toEqual([method, path, 428])
      expect(await answer.json()).toMatchObject({ code: 'owner-required', type: 'urn:landfall:problem:owner-required' })
    }
    expect(changing).toBe(8)
    expect((await rowsOf(server)).rows).toEqual(before)
  })

  test('each answer to an authenticated request carries the tag, also 304, 4xx, 404 without a route, and faults', async () => {
    const { server } = await start()
    const id = newId()
    await server.declare(id, { size: 5 })
    await server.patch(id, 0, content(5))
    const tag = await server.uploads.ownerTag('ann')
    const etag = (await server.request('GET', `/operations/${id}`)).headers.get('ETag') ?? ''
    const stored = (await server.request('GET', `/files/${id}`)).headers.get('ETag') ?? ''
    const asked = [
      ['GET', `/operations/${id}`, 200, {}],
      ['GET', `/operations/${id}`, 304, { 'If-None-Match': etag }],
      ['GET', `/operations?ids=${id}&wait=1`, 304, { 'If-None-Match': etag }],
      ['GET', `/files/${id}`, 200, {}],
      ['HEAD', `/files/${id}`, 200, {}],
      ['GET', `/files/${id}`, 206, { Range: 'bytes=1-2' }],
      ['GET', `/files/${id}`, 416, { Range: 'bytes=9-' }],
      ['GET', `/files/${id}`, 304, { 'If-None-Match': stored }],
      ['GET', `/operations/${newId()}`, 404, {}],
      ['GET', '/operations/x', 400, {}],
      ['GET', '/operations', 400, {}],
      ['DELETE', `/operations/${id}`, 409, {}],
      ['PUT', `/operations/${newId()}`, 400, {}],
      ['POST', '/files', 400, TUS],
      ['PATCH', `/files/${id}`, 415, TUS],
      ['GET', '/nothing-here', 404, {}],
    ] as const
    for (const [method, path, status, headers] of asked) {
      const answer = await server.request(method, path, { headers })
      expect([method, path, answer.status, answer.headers.get('Landfall-Owner')]).toEqual([method, path, status, tag])
      // The tag is not part of the compared facts.
      if (status === 304) expect(answer.headers.get('ETag')).toBe(path.startsWith('/files') ? stored : etag)
      await answer.body?.cancel()
    }
    for (const [method, headers, owner] of [
      ['OPTIONS', TUS, null],
      ['GET', {}, null],
    ] as const)
      expect((await server.request(method, '/files', { owner, headers })).headers.has('Landfall-Owner')).toBe(false)
  })

  test('a fault after authentication carries the tag too', async () => {
    let away = false
    const { server } = await start({
      ledgerOf: (ledger) =>
        new Proxy(ledger, {
          get(target, name) {
            if (away && name === 'find')
              return () => Promise.reject(new UploadError('ledger-unavailable', 'the database is away'))
            return Reflect.get(target, name) as unknown
          },
        }),
    })
    away = true
    const answer = await server.request('GET', `/operations/${newId()}`)
    expect([answer.status, answer.headers.get('Landfall-Owner')]).toEqual([503, await server.uploads.ownerTag('ann')])
  })

  test('stock tus clients, which know no tags, are served without one', async () => {
    const { server } = await start()
    const id = newId()
    expect((await server.create(5, { operationId: id, filename: 'a' })).status).toBe(201)
    expect((await server.head(id)).status).toBe(200)
    expect((await server.patch(id, 0, content(5), { stock: true })).status).toBe(204)
    await eventually(
      () => server.get(id),
      ({ reference }) => reference !== null,
    )
  })

  test('a tag distinguishes owners, does not reveal their names, and is the same after a restart', async () => {
    const { server } = await start()
    const names = ['ann', 'Ann', 'ann ', 'änn', 'a'.repeat(10_000)]
    const tags = await Promise.all(names.map((name) => server.uploads.ownerTag(name)))
    expect(new Set(tags).size).toBe(names.length)
    for (const tag of tags) expect(tag).toMatch(/^[\w-]{22}$/)
    await server.restart()
    expect(await Promise.all(names.map((name) => server.uploads.ownerTag(name)))).toEqual(tags)
    // Another installation has other tags, because it has its own key.
    const another = await start()
    expect(await another.server.uploads.ownerTag('ann')).not.toBe(tags[0])
  })

  test('if the cookie changes while a request waits, its answer is still about the owner for whom it was sent', async () => {
    const { server } = await start()
    const id = newId()
    await server.declare(id, { size: 5 })
    const waiting = server.request('GET', `/operations/${id}?wait=5`, {
      headers: { 'Landfall-Owner': await server.uploads.ownerTag('ann') },
    })
    await later(100)
    await server.declare(id, { size: 5 }, {}, 'bob')
    await server.patch(id, 0, content(5))
    const answer = await waiting
    expect([answer.status, answer.headers.get('Landfall-Owner')]).toEqual([200, await server.uploads.ownerTag('ann')])
    expect(await answer.json()).toMatchObject({ id, offset: 5 })
  })
})
