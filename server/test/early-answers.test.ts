/** Answers before the request was read, on raw sockets: their Connection header, and how the connection ends. */
import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { getRequestListener } from '@hono/node-server'
import { Hono } from 'hono'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { kind } from '../src/kinds/kind.js'
import { guardServer, nodeServerOptions } from '../src/http/node-server.js'
import { content, later, newId, startServer } from './harness.js'
import { head, openLine } from './raw-http.js'

const kinds = { file: kind({ maxSizeBytes: 100_000_000, onReference: async () => null }) }
const PATCH = { 'Tus-Resumable': '1.0.0', 'Content-Type': 'application/offset+octet-stream', 'Upload-Offset': '0' }
/** The headers of Landfall's own client. The owner's tag is different for each server. */
let ours: Record<string, string> = {}
const LARGE = 4 * 1024 * 1024
const BODY = content(LARGE)

let files: Awaited<ReturnType<typeof startServer>>
beforeEach(async () => {
  files = await startServer(kinds, { limits: { maxOpenPerOwner: 5 } })
  ours = { 'Landfall-Version': '1', 'Landfall-Owner': await files.uploads.ownerTag('ann') }
})
afterEach(() => files.close())

interface Early {
  readonly name: string
  readonly status: number
  readonly elsewhere?: true
  /** Prepares the server, and answers the request to send. */
  readonly request: () => Promise<{ method: string; target: string; headers?: Record<string, string> }>
}
const path = (id: string): string => `/uploads/files/${id}`
const declared = async (size = LARGE): Promise<string> => {
  const id = newId()
  expect((await files.declare(id, { size })).status).toBe(201)
  return id
}
const patch = (id: string, headers: Record<string, string> = {}) => ({
  method: 'PATCH',
  target: path(id),
  headers: { 'X-Owner': 'ann', ...PATCH, ...ours, ...headers },
})

const EARLY: readonly Early[] = [
  {
    name: 'a request without a user',
    status: 401,
    request: async () => ({ method: 'PATCH', target: path(newId()), headers: { ...PATCH } }),
  },
  {
    name: 'a declaration without a user',
    status: 401,
    request: async () => ({ method: 'PUT', target: `/uploads/operations/${newId()}` }),
  },
  {
    name: 'a declaration with an invalid id',
    status: 400,
    request: async () => ({ method: 'PUT', target: '/uploads/operations/x', headers: { 'X-Owner': 'ann' } }),
  },
  {
    name: 'a declaration that is too large',
    status: 413,
    request: async () => ({ method: 'PUT', target: `/uploads/operations/${newId()}`, headers: { 'X-Owner': 'ann' } }),
  },
  {
    name: 'another site',
    status: 403,
    request: async () => patch(await declared(), { Cookie: 'a=b', Origin: 'https://evil.test' }),
  },
  { name: 'no such operation', status: 404, request: async () => patch(newId()) },
  { name: 'another offset', status: 409, request: async () => patch(await declared(), { 'Upload-Offset': '5' }) },
  {
    name: 'a cancelled upload',
    status: 410,
    request: async () => {
      const id = await declared()
      await files.request('DELETE', `/operations/${id}`, { headers: ours })
      return patch(id)
    },
  },
  {
    name: 'an unknown version of tus',
    status: 412,
    request: async () => patch(await declared(), { 'Tus-Resumable': '0.2.2' }),
  },
  { name: 'more bytes than the file has', status: 413, request: async () => patch(await declared(10)) },
  { name: 'another type', status: 415, request: async () => patch(await declared(), { 'Content-Type': 'text/plain' }) },
  {
    name: 'a creation that is too large',
    status: 413,
    request: async () => ({
      method: 'POST',
      target: '/uploads/files',
      headers: { 'X-Owner': 'ann', ...PATCH, 'Upload-Length': '100000001' },
    }),
  },
  {
    name: 'too many open uploads',
    status: 429,
    request: async () => {
      for (let n = 0; n < 5; n++) await declared()
      return {
        method: 'POST',
        target: '/uploads/files',
        headers: { 'X-Owner': 'ann', ...PATCH, 'Upload-Length': '100' },
      }
    },
  },
  {
    name: 'a path outside of Landfall',
    status: 404,
    elsewhere: true,
    request: async () => ({ method: 'POST', target: '/elsewhere' }),
  },
]

const listening: Server[] = []
afterEach(async () => {
  for (const server of listening.splice(0)) {
    server.closeAllConnections()
    server.close()
    await once(server, 'close')
  }
})
async function listen(guarded: boolean): Promise<number> {
  const listener = getRequestListener(new Hono().route('/uploads', files.uploads.routes).fetch)
  const server = guarded
    ? guardServer(createServer(nodeServerOptions(), (request, response) => void listener(request, response)))
    : createServer((request, response) => void listener(request, response))
  listening.push(server)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return (server.address() as AddressInfo).port
}

describe.each([
  { what: 'a guarded server', guarded: true },
  { what: "the application's own server", guarded: false },
])('on $what', ({ guarded }) => {
  // Only the guard sees requests outside of Landfall's routes.
  test.each(EARLY.filter(({ elsewhere }) => guarded || elsewhere !== true))(
    'the answer to $name ($status) says that the connection ends, and is not overtaken by a reset',
    async ({ status, elsewhere, request }) => {
      const port = await listen(guarded)
      const { method, target, headers } = await request()
      const line = await openLine(port)
      line.send(head(method, target, { ...headers, 'Content-Length': String(LARGE) }))
      // The body is larger than the 16 KiB that Node reads ahead, and most of it is sent only after the answer.
      line.send(BODY.subarray(0, 100_000))
      const answer = await line.answer()
      expect([answer.status, answer.headers['connection']]).toEqual([status, 'close'])
      if (elsewhere !== true) expect(JSON.parse(answer.body)).toMatchObject({ status })
      expect(await line.ended()).toBe('ended')
      // The client continues to send, like a browser that reads no answer before it has sent everything.
      for (let at = 100_000; at < LARGE; at += 200_000) {
        line.send(BODY.subarray(at, at + 200_000))
        await later(5)
      }
      await later(50)
      expect(line.end()).toBe('ended')
      line.destroy()
    },
  )

  test('of a long body that was refused, only a limited part is still read', async () => {
    const line = await openLine(await listen(guarded))
    const { method, target, headers } = patch(newId())
    line.send(head(method, target, { ...headers, 'Content-Length': String(100 * LARGE) }))
    line.send(BODY.subarray(0, 100_000))
    expect((await line.answer()).status).toBe(404)
    expect(await line.ended()).toBe('ended')
    let sentBytes = 0
    while (!line.socket.destroyed && line.end() === 'ended' && sentBytes < 50 * LARGE) {
      line.send(BODY)
      sentBytes += LARGE
      await later(20)
    }
    // Bytes on the way and in the buffers of both ends are counted in addition.
    expect(line.socket.bytesWritten - line.socket.writableLength).toBeLessThan(5 * LARGE)
    line.destroy()
  })

  test('after a body that was read to its end the connection stays open, whatever the answer', async () => {
    const line = await openLine(await listen(guarded))
    for (const [id, status] of [
      ['x', 400],
      [newId(), 422],
      [newId(), 422],
    ] as const) {
      const body = JSON.stringify({ file: { name: 'a', size: 5, type: '' }, kind: 'none' })
      line.send(
        head('PUT', `/uploads/operations/${id}`, { 'X-Owner': 'ann', 'Content-Length': String(body.length) }) + body,
      )
      const answer = await line.answer()
      expect([answer.status, answer.headers['connection']]).toEqual([status, 'keep-alive'])
    }
    line.destroy()
  })

  test('an upload that is stopped in the middle is answered with Connection: close and ends in order', async () => {
    const port = await listen(guarded)
    const id = await declared()
    const first = await openLine(port)
    const { method, target, headers } = patch(id)
    first.send(head(method, target, { ...headers, 'Content-Length': String(LARGE) }))
    first.send(BODY.subarray(0, 1_000_000))
    await later(100)
    // The upload has no answer yet. A request for its offset makes it stop.
    const asked = await files.request('HEAD', `/files/${id}`, { headers: { ...PATCH, ...ours } })
    const offset = Number(asked.headers.get('Upload-Offset'))
    const answer = await first.answer()
    expect([answer.status, answer.headers['connection'], answer.headers['upload-offset']]).toEqual([
      204,
      'close',
      String(offset),
    ])
    first.send(BODY.subarray(1_000_000))
    expect(await first.ended()).toBe('ended')
    first.destroy()
  })

  test('when fetch sends three PATCHes of one upload at once, repeatedly, no request fails because of a closed connection', async () => {
    const port = await listen(guarded)
    for (let round = 0; round < 5; round++) {
      const id = await declared()
      const send = () =>
        fetch(`http://127.0.0.1:${port}${path(id)}`, {
          method: 'PATCH',
          headers: { 'X-Owner': 'ann', ...PATCH, ...ours },
          body: BODY,
        }).then(async (response) => {
          await response.text()
          return response.status
        })
      const statuses = await Promise.all([send(), send(), send()])
      expect(statuses).toContain(204)
      for (const status of statuses) expect([204, 409, 423]).toContain(status)
      const next = await fetch(`http://127.0.0.1:${port}/uploads/operations/${id}`, { headers: { 'X-Owner': 'ann' } })
      expect(next.status).toBe(200)
      await files.request('DELETE', `/operations/${id}`, { headers: ours })
    }
  })
})
