import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { Server as HttpsServer } from 'node:https'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { getRequestListener } from '@hono/node-server'
import { PROBLEM_MEDIA_TYPE, type Problem, problem, TUS_CONTENT_TYPE } from '@landfall/shared'
import { UploadError } from '../lib/errors.js'
import { bringsBody, tend } from './exchange.js'

/** A head that is not whole after this, and the connection is closed. It is looked every so often. */
const HEAD_MS = 30_000
const LOOK_MS = 5_000
/** Longer than the idle time-outs of common proxies, so that they do not send into a connection that is being closed. */
const KEEP_ALIVE_MS = 75_000
/** Of a client that has lost its power only TCP's own probes tell; Linux alone would begin after two hours. */
const PROBE_AFTER_MS = 60_000
/** As much metadata as a declaration may have, in base64, beside cookies; and more than the shipped nginx passes on. */
const HEAD_BYTES = 80 * 1024

/**
 * Options for `createServer` of `node:http` or `node:https` under which uploads work and half-sent requests do not pile
 * up. Spread them, and add your own. Together with `guardServer`.
 *
 * - `requestTimeout: 0`: an upload over a slow line takes longer than Node's five minutes. Node then gives no time to
 *   heads either, unless it is said:
 * - `headersTimeout`: 30 s, looked at every 5 s.
 * - `maxHeaderSize`: 80 KiB. Metadata of 16 KiB is 22 KiB in `Upload-Metadata`; Node's own limit is 16 KiB.
 * - `keepAliveTimeout`: 75 s, and TCP's probes after a minute.
 */
export const nodeServerOptions = () =>
  ({
    requestTimeout: 0,
    headersTimeout: HEAD_MS,
    connectionsCheckingInterval: LOOK_MS,
    maxHeaderSize: HEAD_BYTES,
    keepAliveTimeout: KEEP_ALIVE_MS,
    keepAlive: true,
    keepAliveInitialDelay: PROBE_AFTER_MS,
  }) as const

export interface GuardOptions {
  /**
   * A connection on which it is the client's turn (to send its body, or to read an answer) and nothing moves is closed
   * after this. In milliseconds, default 150,000: the routes let go of a silent upload after 120,000 and answer it.
   */
  idleMs?: number
  /**
   * A body that is no upload (`application/offset+octet-stream`) is to be whole after this. In milliseconds, default
   * 300,000, which is Node's own. The routes give their JSON 30,000.
   */
  bodyMs?: number
}

/**
 * So many requests of one connection may wait for the one before them; then the connection is not read on. Clients that
 * send one request after the other, as browsers, proxies and `fetch` do, have none.
 */
const WAITING = 16
/** What had come with one read by then. Each costs some kilobytes, and its head may have had thirty bytes. */
const WAITING_AT_MOST = 100
const IDLE_MS = 150_000
const BODY_MS = 300_000
/** A client that was refused before it was understood may read that for so long. */
const REFUSED_MS = 5_000

/**
 * Bounds what one connection can hold of a server, and ends what would be held for ever; see `GuardOptions`. Further:
 * requests of one connection are taken one after the other, whatever it sends ahead (RFC 9112, 9.3.2); an answer that
 * comes before the request was read says `Connection: close`, and can be read; what Node refuses by itself is a problem,
 * too (RFC 9457: 431 `head-too-large`, 408 `too-slow`, 400 `invalid-request`).
 *
 * Call it once its listener for requests is there and before it listens; listeners for `clientError` stay what they are.
 *
 * ```ts
 * guardServer(createServer(nodeServerOptions(), expressApp)).listen(3000)
 * Fastify({ serverFactory: (handler) => guardServer(createServer(nodeServerOptions(), handler)) })
 * ```
 *
 * @throws UploadError `setup` for a server that has no listener for requests yet.
 */
export function guardServer<S extends Server | HttpsServer>(
  server: S,
  { idleMs = IDLE_MS, bodyMs = BODY_MS }: GuardOptions = {},
): S {
  const guarded: Server = server
  const listeners = guarded.listeners('request') as ((request: IncomingMessage, response: ServerResponse) => void)[]
  if (listeners.length === 0) throw new UploadError('setup', 'guardServer: give the server its request listener first')
  guarded.removeAllListeners('request')
  const lines = new WeakMap<Duplex, Line>()

  function begin(line: Line, exchange: Exchange): void {
    const { request, response } = exchange
    line.current = exchange
    const late =
      isUpload(request) || !bringsBody(request)
        ? null
        : setTimeout(() => {
            if (!request.complete) refuseRaw(request.socket, response, TOO_SLOW)
          }, bodyMs)
    late?.unref()
    response.once('close', () => {
      if (late !== null) clearTimeout(late)
      line.current = null
      const next = line.waiting.shift()
      if (next === undefined || request.socket.destroyed || request.socket.writableEnded) return
      if (line.waiting.length < WAITING) line.held?.release()
      begin(line, next)
    })
    for (const listener of listeners) listener.call(guarded, request, response)
  }

  guarded.on('request', (request: IncomingMessage, response: ServerResponse) => {
    const { socket } = request
    // Said goodbye: what it still sends is thrown away.
    if (socket.destroyed || socket.writableEnded) return
    tend(request, response)
    let line = lines.get(socket)
    if (line === undefined) lines.set(socket, (line = { current: null, waiting: [], held: null }))
    if (line.current === null) return begin(line, { request, response })
    line.waiting.push({ request, response })
    if (line.waiting.length > WAITING_AT_MOST) {
      line.waiting.length = 0
      socket.destroy()
    } else if (line.waiting.length >= WAITING) (line.held ??= createHold(socket)).hold()
  })

  guarded.setTimeout(idleMs, (socket: Socket) => {
    const current = lines.get(socket)?.current ?? null
    if (current === null || isClientsTurn(current, socket)) socket.destroy()
    // Somebody works for it.
    else socket.setTimeout(idleMs)
  })

  if (guarded.listenerCount('clientError') === 0)
    guarded.on('clientError', (error: NodeJS.ErrnoException, socket) => {
      const current = lines.get(socket)?.current ?? null
      const why = problemOfParser(error)
      // What comes behind a request that is being answered must not be answered in its place.
      if (why === null || current?.request.complete === true) socket.destroy()
      else refuseRaw(socket, current?.response ?? null, why)
    })
  return server
}

export interface ServeOptions extends GuardOptions {
  /** Of a Hono application, or of anything that answers a `Request` with a `Response`. */
  fetch: Parameters<typeof getRequestListener>[0]
  /** Default 3000; 0 is any free one. */
  port?: number
  /** Default `127.0.0.1`: only this machine, for a proxy in front. `0.0.0.0` or `::` is all the world. */
  hostname?: string
}

/**
 * Serves an application with the routes in it, with all that `nodeServerOptions` and `guardServer` set. Resolves once it
 * listens, with Node's own server; rejects where it cannot (`EADDRINUSE`, …).
 *
 * ```ts
 * const server = await serveUploads({ fetch: app.fetch, port: 3000 })
 * ```
 */
export function serveUploads({ fetch, port = 3000, hostname = '127.0.0.1', ...limits }: ServeOptions): Promise<Server> {
  const listener = getRequestListener(fetch)
  const server = createServer(nodeServerOptions(), (request, response) => void listener(request, response))
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    guardServer(server, limits).listen(port, hostname, () => {
      server.off('error', reject)
      resolve(server)
    })
  })
}

interface Exchange {
  readonly request: IncomingMessage
  readonly response: ServerResponse
}

/** What one connection has sent that is not answered yet. */
interface Line {
  current: Exchange | null
  readonly waiting: Exchange[]
  /** Made when it is needed first. */
  held: Hold | null
}

/** Whether a connection is read on. */
interface Hold {
  hold(): void
  release(): void
}

/** Node reads on after each request, whoever has paused the socket (seen with 20.20): here not before `release`. */
function createHold(socket: Socket): Hold {
  const resume = socket.resume.bind(socket)
  let held = false
  socket.resume = () => (held ? socket : resume())
  return {
    hold() {
      held = true
      socket.pause()
    },
    release() {
      if (!held) return
      held = false
      socket.resume()
    },
  }
}

const isUpload = ({ headers }: IncomingMessage): boolean => headers['content-type'] === TUS_CONTENT_TYPE

function isClientsTurn({ request }: Exchange, socket: Socket): boolean {
  if (socket.writableLength > 0) return true
  // A full buffer: we are the ones who do not read.
  return !request.complete && request.readableLength < request.readableHighWaterMark
}

const TOO_SLOW = problem('too-slow', { detail: 'the request was not sent to its end in time' })

/** What Node's parser says of what came; null where there is nobody to answer. */
function problemOfParser(error: NodeJS.ErrnoException): Problem | null {
  switch (error.code) {
    case 'HPE_HEADER_OVERFLOW':
      return problem('head-too-large', { detail: 'cookies, metadata and the other headers together are too large' })
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return TOO_SLOW
    default:
      return error.code?.startsWith('HPE_') === true
        ? problem('invalid-request', { detail: 'this is no HTTP/1.1' })
        : null
  }
}

/** Past Node's response, which is not there, or is never written any more; not in the middle of one. */
function refuseRaw(socket: Duplex, response: ServerResponse | null, why: Problem): void {
  if (socket.destroyed || socket.writableEnded) return
  if (response?.headersSent === true || !socket.writable) return void socket.destroy()
  const body = JSON.stringify(why)
  socket.end(
    `HTTP/1.1 ${why.status} ${why.title}\r\nContent-Type: ${PROBLEM_MEDIA_TYPE}\r\n` +
      `Content-Length: ${Buffer.byteLength(body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n${body}`,
  )
  socket.resume()
  setTimeout(() => socket.destroy(), REFUSED_MS).unref()
}
