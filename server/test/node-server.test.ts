/** How much of a server one connection can occupy and for how long, on raw sockets that behave badly. */
import { once } from 'node:events'
import { readdirSync, readlinkSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { connect as connectTls } from 'node:tls'
import { createAdaptorServer, getRequestListener } from '@hono/node-server'
import { Hono } from 'hono'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { systemClock } from '../src/sequence/clock.js'
import { kind } from '../src/kinds/kind.js'
import { guardServer, type GuardOptions, nodeServerOptions, serveUploads } from '../src/http/node-server.js'
import { content, eventually, later, newId, startServer } from './harness.js'
import { head, openLine } from './raw-http.js'

const kinds = { file: kind({ onReference: async () => null }) }
const PATCH = { 'Tus-Resumable': '1.0.0', 'Content-Type': 'application/offset+octet-stream', 'Upload-Offset': '0' }
const OURS = { 'X-Owner': 'ann', 'Landfall-Version': '1' }
/** The headers of Landfall's own client for changing requests. */
const changing = async () => ({ ...OURS, 'Landfall-Owner': await files.uploads.ownerTag('ann') })
/** More than the buffers of both ends of a connection hold. */
const LARGE = content(24_000_000)

/** Shortens the 30 s that a declaration may take to 0.3 s. */
const quick = {
  ...systemClock,
  sleep: (ms: number, signal?: AbortSignal) => systemClock.sleep(ms === 30_000 ? 300 : ms, signal),
}

let files: Awaited<ReturnType<typeof startServer>>
const listening: Server[] = []
beforeEach(async () => {
  files = await startServer(kinds, { clock: quick })
})
afterEach(async () => {
  for (const server of listening.splice(0)) {
    server.closeAllConnections()
    server.close()
    await once(server, 'close')
  }
  await files.close()
})

/** Landfall's routes, and one route of the application that reads its whole body. */
const app = () =>
  new Hono()
    .route('/uploads', files.uploads.routes)
    .post('/own', async (c) => c.text(String((await c.req.text()).length)))

async function listen({
  guard = {},
  options = {},
  fetch = app().fetch,
}: {
  guard?: GuardOptions | null
  options?: object
  fetch?: Parameters<typeof getRequestListener>[0]
} = {}) {
  const listener = getRequestListener(fetch)
  const server = createServer(
    { ...nodeServerOptions(), ...options },
    (request, response) => void listener(request, response),
  )
  if (guard !== null) guardServer(server, guard)
  listening.push(server)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return (server.address() as AddressInfo).port
}

async function stored(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const id = newId()
  expect((await files.declare(id, { size: bytes.length })).status).toBe(201)
  expect((await files.patch(id, 0, bytes)).status).toBe(204)
  await eventually(
    () => files.get(id),
    ({ reference }) => reference !== null,
  )
  return id
}

const descriptors = (): number => readdirSync('/proc/self/fd').length
/** The number of open descriptors of stored files. */
const blobsOpen = (): number =>
  readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith(join(files.directory, 'blobs', 'blobs'))
    } catch {
      // The descriptor was closed since the listing, or is the one that reads the directory.
      return false
    }
  }).length

describe('a head that is not sent completely', () => {
  const options = { headersTimeout: 400, connectionsCheckingInterval: 50 }

  test('is refused after the time limit for heads, although a whole request may take any time', async () => {
    const port = await listen({ options })
    const lines = await Promise.all(Array.from({ length: 30 }, () => openLine(port)))
    const from = performance.now()
    for (const [n, line] of lines.entries()) if (n % 3 > 0) line.send('GET /uploads/operations HTTP/1.1\r\nHost: ho')
    for (const line of lines) {
      const answer = await line.answer()
      expect([answer.status, answer.headers['connection']]).toEqual([408, 'close'])
      expect(JSON.parse(answer.body)).toMatchObject({ status: 408, code: 'too-slow' })
      expect(await line.ended()).toBe('ended')
      line.destroy()
    }
    expect(performance.now() - from).toBeLessThan(5_000)
  })

  test('does not include the pause between two requests', async () => {
    const port = await listen({ options })
    const line = await openLine(port)
    for (let n = 0; n < 2; n++) {
      line.send(head('GET', `/uploads/operations/${newId()}`, OURS))
      expect((await line.answer()).status).toBe(404)
      await later(900)
    }
    expect(line.end()).toBe('open')
    line.destroy()
  })

  test('is refused after 30 s by serveUploads', async () => {
    const server = await serveUploads({ fetch: app().fetch, port: 0 })
    listening.push(server)
    expect([server.headersTimeout, server.requestTimeout]).toEqual([30_000, 0])
    expect((server.address() as AddressInfo).address).toBe('127.0.0.1')
    await expect(serveUploads({ fetch: app().fetch, port: (server.address() as AddressInfo).port })).rejects.toThrow(
      'EADDRINUSE',
    )
  })
})

test('a head that is too large is refused with a readable problem', async () => {
  const port = await listen()
  const answer = await fetch(`http://127.0.0.1:${port}/uploads/operations?open`, {
    headers: { ...OURS, 'X-Large': 'x'.repeat(400_000) },
  })
  expect([answer.status, await answer.json()]).toEqual([431, expect.objectContaining({ code: 'head-too-large' })])
  const garbage = await openLine(port)
  garbage.send('this is no HTTP\r\n\r\n')
  expect(await garbage.answer()).toMatchObject({ status: 400 })
  garbage.destroy()
})

test('metadata may be as large by tus as by PUT, and larger metadata is refused with a problem', async () => {
  const port = await listen()
  const create = (bytes: number) =>
    fetch(`http://127.0.0.1:${port}/uploads/files`, {
      method: 'POST',
      headers: {
        'X-Owner': 'ann',
        'Tus-Resumable': '1.0.0',
        'Upload-Length': '5',
        'Upload-Metadata': `filename YQ==,note ${Buffer.from('x'.repeat(bytes)).toString('base64')}`,
      },
    })
  const room = 16 * 1024 - JSON.stringify({ note: '' }).length
  const created = await create(room)
  expect(created.status).toBe(201)
  const line = await openLine(port)
  line.send(head('HEAD', created.headers.get('Location') ?? '', { 'X-Owner': 'ann', 'Tus-Resumable': '1.0.0' }))
  expect((await line.answer('HEAD')).headers['upload-metadata']?.length).toBeGreaterThan(21_000)
  line.destroy()
  const declaration = (bytes: number) => files.declare(newId(), { size: 5 }, { metadata: { note: 'x'.repeat(bytes) } })
  expect((await declaration(room)).status).toBe(201)
  for (const answer of [await create(room + 1), await create(40_000)])
    expect([answer.status, await answer.json()]).toEqual([413, expect.objectContaining({ code: 'metadata-too-large' })])
  expect(await declaration(room + 1)).toMatchObject({ status: 413, code: 'metadata-too-large' })
})

test('metadata that each HEAD returns is limited, also if it is not metadata of the kind', async () => {
  const answer = await files.create(5, { filename: 'a', relativePath: 'x'.repeat(30_000) })
  expect([answer.status, await answer.json()]).toEqual([413, expect.objectContaining({ code: 'metadata-too-large' })])
})

describe('a body that does not end', () => {
  const dribble = (line: Awaited<ReturnType<typeof openLine>>): (() => void) => {
    const timer = setInterval(() => line.send('1'), 50)
    return () => clearInterval(timer)
  }

  test('of a declaration is refused after its time limit, also if it is sent byte by byte', async () => {
    const port = await listen()
    for (const keepsOn of [true, false]) {
      const line = await openLine(port)
      line.send(head('PUT', `/uploads/operations/${newId()}`, { ...(await changing()), 'Content-Length': '30000' }))
      const stop = keepsOn ? dribble(line) : () => {}
      const from = performance.now()
      const answer = await line.answer()
      expect([answer.status, answer.headers['connection']]).toEqual([408, 'close'])
      expect(JSON.parse(answer.body)).toMatchObject({ code: 'too-slow' })
      expect(performance.now() - from).toBeLessThan(3_000)
      stop()
      line.destroy()
    }
  })

  test("of the application's own routes has the time limit that the guard sets", async () => {
    const port = await listen({ guard: { bodyMs: 400 } })
    const line = await openLine(port)
    line.send(head('POST', '/own', { 'Content-Length': '30000' }))
    const stop = dribble(line)
    expect((await line.answer()).status).toBe(408)
    expect(await line.ended()).toBe('ended')
    stop()
    line.destroy()
  })

  test('is ended when its client goes silent', async () => {
    const port = await listen({ guard: { idleMs: 300 } })
    const line = await openLine(port)
    line.send(head('POST', '/own', { 'Content-Length': '30000' }) + 'begun')
    const from = performance.now()
    await line.ended()
    expect(performance.now() - from).toBeLessThan(3_000)
  })

  test('of an upload is not ended while bytes arrive, however slowly', async () => {
    const port = await listen({ guard: { bodyMs: 300, idleMs: 600 } })
    const id = newId()
    await files.declare(id, { size: 10 })
    const line = await openLine(port)
    line.send(head('PATCH', `/uploads/files/${id}`, { ...(await changing()), ...PATCH, 'Content-Length': '10' }))
    for (let n = 0; n < 10; n++) {
      await later(200)
      line.send(String(n))
    }
    const answer = await line.answer()
    expect([answer.status, answer.headers['upload-offset'], answer.headers['connection']]).toEqual([
      204,
      '10',
      'keep-alive',
    ])
    line.destroy()
  })

  test('is not logged when its connection is reset', async () => {
    const said: unknown[] = []
    const note = (...words: unknown[]): void => void said.push(words)
    await files.close()
    files = await startServer(kinds, { logger: { debug: () => {}, info: note, warn: note, error: note } })
    const port = await listen()
    for (let n = 0; n < 20; n++) {
      const line = await openLine(port)
      line.send(
        head('PUT', `/uploads/operations/${newId()}`, { ...(await changing()), 'Content-Length': '300' }) + '{"file":',
      )
      await later(10)
      line.reset()
    }
    await later(300)
    expect(said).toEqual([])
  })
})

describe('an answer', () => {
  test('that the client does not read is given up, and its file is closed', async () => {
    const id = await stored(LARGE)
    const port = await listen({ guard: { idleMs: 400 } })
    const before = blobsOpen()
    const lines = await Promise.all(Array.from({ length: 10 }, () => openLine(port)))
    for (const line of lines) {
      line.send(head('GET', `/uploads/files/${id}`, OURS))
      line.socket.pause()
    }
    await eventually(
      async () => blobsOpen(),
      (open) => open === before + 10,
    )
    await eventually(
      async () => blobsOpen(),
      (open) => open === before,
    )
    for (const line of lines) line.destroy()
  })

  test('that is read slowly arrives whole', async () => {
    const id = await stored(LARGE)
    const port = await listen({ guard: { idleMs: 400 } })
    const line = await openLine(port)
    line.send(head('GET', `/uploads/files/${id}`, OURS))
    for (let n = 0; n < 10; n++) {
      line.socket.pause()
      await later(200)
      line.socket.resume()
      await later(10)
    }
    expect((await line.answer()).body.length).toBeGreaterThan(0)
    line.destroy()
  })

  test('that the client waits for arrives, however long nothing is sent', async () => {
    const id = newId()
    await files.declare(id, { size: 5 })
    const port = await listen({ guard: { idleMs: 300 } })
    const line = await openLine(port)
    const from = performance.now()
    line.send(head('GET', `/uploads/operations/${id}?wait=2`, OURS))
    expect((await line.answer()).status).toBe(200)
    expect(performance.now() - from).toBeGreaterThan(1_500)
    line.destroy()
  })

  test('whose body the application does not read keeps no file open', async () => {
    const id = await stored(content(5_000))
    const before = descriptors()
    const answers = await Promise.all(Array.from({ length: 50 }, () => files.request('GET', `/files/${id}`)))
    expect(answers.map(({ status }) => status)).toEqual(Array.from({ length: 50 }, () => 200))
    expect(descriptors()).toBe(before)
    expect(await answers[0]?.arrayBuffer()).toHaveProperty('byteLength', 5_000)
  })
})

describe('requests that are sent ahead', () => {
  test.each([
    { guard: {}, what: 'a guarded server' },
    { guard: null, what: "the application's own server" },
  ])('leave nothing open on $what once their connection has ended', async ({ guard }) => {
    const id = await stored(LARGE)
    const open = newId()
    await files.declare(open, { size: 5 })
    const port = await listen({ guard })
    const before = descriptors()
    for (let n = 0; n < 10; n++) {
      const line = await openLine(port)
      line.send(
        head('GET', `/uploads/operations/${open}?wait=2`, OURS) + head('GET', `/uploads/files/${id}`, OURS).repeat(60),
      )
      await later(200)
      line.reset()
    }
    await eventually(
      async () => descriptors(),
      (now) => now <= before + 2,
    )
  })

  test('are answered one after the other, in their order', async () => {
    const running = { now: 0, most: 0 }
    const port = await listen({
      fetch: async (request: Request) => {
        running.most = Math.max(running.most, (running.now += 1))
        await later(5)
        running.now -= 1
        return new Response(new URL(request.url).pathname)
      },
    })
    const line = await openLine(port)
    line.send(Array.from({ length: 60 }, (_, n) => head('GET', `/${n}`)).join(''))
    for (let n = 0; n < 60; n++) expect((await line.answer()).body).toBe(`/${n}`)
    line.send(head('GET', '/more'))
    expect((await line.answer()).body).toBe('/more')
    expect(running.most).toBe(1)
    line.destroy()
  })

  test('are not read while many of them wait', async () => {
    let begun = 0
    const port = await listen({
      fetch: async () => {
        begun += 1
        await later(60_000)
        return new Response('late')
      },
    })
    const line = await openLine(port)
    // These heads have the usual size.
    const one = head('GET', '/', { Cookie: 'x'.repeat(1_000) })
    const before = process.memoryUsage().heapUsed
    for (let n = 0; n < 40; n++) {
      line.send(one.repeat(1_000))
      await later(10)
    }
    await later(300)
    expect(begun).toBe(1)
    expect(line.end()).toBe('open')
    // Most of the forty megabytes has not been sent yet.
    expect(line.socket.writableLength).toBeGreaterThan(20_000_000)
    expect(process.memoryUsage().heapUsed - before).toBeLessThan(30_000_000)
    line.destroy()
  })

  test('in thousands at once end their connection', async () => {
    const port = await listen()
    const open = newId()
    await files.declare(open, { size: 5 })
    const line = await openLine(port)
    line.send(head('GET', `/uploads/operations/${open}?wait=20`, OURS))
    await later(50)
    line.send('GET / HTTP/1.1\r\nHost:a\r\n\r\n'.repeat(2_000))
    await line.ended()
    expect(line.received()).toBe('')
  })
})

describe('the guard is the same', () => {
  /** Only the guard announces the end of a connection, and takes one request after the other. */
  async function guards(line: Awaited<ReturnType<typeof openLine>>): Promise<void> {
    for (let n = 0; n < 3; n++) line.send(head('GET', `/uploads/operations/${newId()}`, OURS))
    for (let n = 0; n < 3; n++) expect((await line.answer()).status).toBe(404)
    line.send(head('POST', '/elsewhere', { 'Content-Length': '1000000' }) + 'begun')
    const answer = await line.answer()
    expect([answer.status, answer.headers['connection']]).toEqual([404, 'close'])
    expect(await line.ended()).toBe('ended')
    line.destroy()
  }

  test('on the server of @hono/node-server', async () => {
    const server = guardServer(
      createAdaptorServer({ fetch: app().fetch, serverOptions: nodeServerOptions() }) as Server,
    )
    listening.push(server)
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    await guards(await openLine((server.address() as AddressInfo).port))
  })

  test('with TLS', async () => {
    // TLS with a shared key needs no certificates (RFC 4279).
    const shared = { ciphers: 'PSK-AES128-GCM-SHA256', maxVersion: 'TLSv1.2' } as const
    const psk = Buffer.from('00112233445566778899aabbccddeeff', 'hex')
    const listener = getRequestListener(app().fetch)
    const server = guardServer(
      createHttpsServer(
        { ...nodeServerOptions(), ...shared, pskCallback: () => psk },
        (request, response) => void listener(request, response),
      ),
    )
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    const secure = connectTls({
      port,
      host: '127.0.0.1',
      ...shared,
      pskCallback: () => ({ psk, identity: 'ann' }),
      checkServerIdentity: () => undefined,
    })
    await once(secure, 'secureConnect')
    await guards(await openLine(port, secure))
    server.closeAllConnections()
    server.close()
    await once(server, 'close')
  })
})

test('a server without a listener cannot be guarded', () => {
  expect(() => guardServer(createServer())).toThrow('give the server its request listener first')
})
