import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { Server as HttpsServer } from 'node:https'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { getRequestListener } from '@hono/node-server'
import { PROBLEM_MEDIA_TYPE, type Problem, problem, TUS_CONTENT_TYPE } from '@landfall/shared'
import { UploadError } from '../lib/errors.js'
import { aFunction, milliseconds, nonEmptyText, optional, readOptions, wholeNumber } from '../lib/options.js'
import { bringsBody, guardExchange } from './exchange.js'

/** A connection is closed if a request head is not complete after `HEAD_MS`. Node checks that every `LOOK_MS`. */
const HEAD_MS = 30_000
const LOOK_MS = 5_000
/**
 * Longer than the idle time-outs of common proxies, so that they do not send into a connection that is being closed.
 */
const KEEP_ALIVE_MS = 75_000
/** Only TCP's own probes detect a client that has lost power. Without this, Linux would begin them after two hours. */
const PROBE_AFTER_MS = 60_000
/**
 * Room for the largest metadata of a declaration, in base64, plus cookies. It is more than the nginx configuration in
 * this repository passes on.
 */
const HEAD_BYTES = 80 * 1024

/**
 * Options for `createServer` of `node:http` or `node:https` under which uploads work and half-sent requests do not
 * accumulate. Spread them, and add your own. Use them together with `guardServer`.
 *
 * - `requestTimeout: 0`: an upload over a slow line takes longer than Node's five minutes. With 0, Node sets no limit
 *   for heads either, unless `headersTimeout` is set.
 * - `headersTimeout`: 30 s, checked every 5 s.
 * - `maxHeaderSize`: 80 KiB. Metadata of 16 KiB is 22 KiB in `Upload-Metadata`; Node's default limit is 16 KiB.
 * - `keepAliveTimeout`: 75 s, and TCP probes after a minute.
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
   * A connection is closed after this time if it is the client's turn (to send its body, or to read an answer) and
   * nothing moves. In milliseconds, default 150,000: the routes stop a silent upload after 120,000 and answer it.
   */
  idleMs?: number
  /**
   * A body that is no upload (`application/offset+octet-stream`) has to be complete after this time. In milliseconds,
   * default 300,000, which is Node's default too. The routes allow 30,000 for their JSON.
   */
  bodyMs?: number
}

/** What `guardServer` may be given, by name: what it may be, and its default. */
export const GUARD_OPTIONS = {
  idleMs: optional(milliseconds(1), 150_000),
  bodyMs: optional(milliseconds(1), 300_000),
}

/**
 * This many requests of one connection may wait for the one before them. After that the connection is not read any
 * further. Clients that send one request after the other, as browsers, proxies and `fetch` do, never have a waiting
 * request.
 */
const WAITING = 16
/**
 * How many may wait at most, because one read can bring several. Each costs some kilobytes, and its head may have had
 * thirty bytes.
 */
const WAITING_AT_MOST = 100
/** How long a client whose request could not be parsed may take to read the refusal. */
const REFUSED_MS = 5_000

/**
 * Limits what one connection can hold of a server, and ends what would otherwise be held permanently; see
 * `GuardOptions`. In addition, the requests of one connection are processed one after the other, whatever it sends
 * ahead (RFC 9112, 9.3.2). An answer that is sent before the request was read says `Connection: close`, and can be
 * read. What Node itself refuses is also answered with a problem (RFC 9457: 431 `head-too-large`, 408 `too-slow`, 400
 * `invalid-request`).
 *
 * Call it after the server's request listener is added and before it listens. Listeners for `clientError` stay as they
 * are.
 *
 * ```ts
 * guardServer(createServer(nodeServerOptions(), expressApp)).listen(3000)
 * Fastify({ serverFactory: (handler) => guardServer(createServer(nodeServerOptions(), handler)) })
 * ```
 *
 * @throws UploadError `setup` for an option that cannot work, and for a server that has no request listener yet.
 */
export function guardServer<S extends Server | HttpsServer>(server: S, options: GuardOptions = {}): S {
  const { idleMs, bodyMs } = readOptions('guardServer', GUARD_OPTIONS, options)
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
    // This side has already ended the connection: what the client still sends is discarded.
    if (socket.destroyed || socket.writableEnded) return
    guardExchange(request, response)
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
    // The server is still working on the answer.
    else socket.setTimeout(idleMs)
  })

  if (guarded.listenerCount('clientError') === 0)
    guarded.on('clientError', (error: NodeJS.ErrnoException, socket) => {
      const current = lines.get(socket)?.current ?? null
      const why = problemOfParser(error)
      // Nothing that follows a request which is being answered may be answered in its place.
      if (why === null || current?.request.complete === true) socket.destroy()
      else refuseRaw(socket, current?.response ?? null, why)
    })
  return server
}

export interface ServeOptions extends GuardOptions {
  /** The `fetch` of a Hono application, or of anything that answers a `Request` with a `Response`. */
  fetch: Parameters<typeof getRequestListener>[0]
  /** Default 3000. With 0 the system picks a free port. */
  port?: number
  /**
   * Default `127.0.0.1`: only this machine, for a proxy in front. `0.0.0.0` or `::` makes it reachable from everywhere.
   */
  hostname?: string
}

/** What `serveUploads` may be given, by name: what it may be, and its default. */
export const SERVE_OPTIONS = {
  fetch: aFunction<ServeOptions['fetch']>(),
  port: optional(wholeNumber(0, 65_535), 3000),
  hostname: optional(nonEmptyText, '127.0.0.1'),
  ...GUARD_OPTIONS,
}

/**
 * Serves an application that contains the routes, with everything that `nodeServerOptions` and `guardServer` set.
 * Resolves with Node's own server once it listens. Rejects if it cannot listen (`EADDRINUSE`, …).
 *
 * ```ts
 * const server = await serveUploads({ fetch: app.fetch, port: 3000 })
 * ```
 *
 * @throws UploadError `setup` for an option that cannot work; nothing listens then.
 */
export async function serveUploads(options: ServeOptions): Promise<Server> {
  const { fetch, port, hostname, ...limits } = readOptions('serveUploads', SERVE_OPTIONS, options)
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

/** What one connection has sent and what is not answered yet. */
interface Line {
  current: Exchange | null
  readonly waiting: Exchange[]
  /** Made when it is first needed. */
  held: Hold | null
}

/** Whether a connection is read any further. */
interface Hold {
  hold(): void
  release(): void
}

/**
 * Node resumes reading after each request, even if the socket was paused (seen with 20.20). Here it does not before
 * `release`.
 */
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
  // A full buffer means that this side is not reading.
  return !request.complete && request.readableLength < request.readableHighWaterMark
}

const TOO_SLOW = problem('too-slow', { detail: 'the request was not sent to its end in time' })

/** What Node's parser reports about the input. Null if there is nobody to answer. */
function problemOfParser(error: NodeJS.ErrnoException): Problem | null {
  switch (error.code) {
    case 'HPE_HEADER_OVERFLOW':
      return problem('head-too-large', { detail: 'cookies, metadata and the other headers together are too large' })
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return TOO_SLOW
    default:
      return error.code?.startsWith('HPE_') === true
        ? problem('invalid-request', { detail: 'this is not HTTP/1.1' })
        : null
  }
}

/**
 * Writes past Node's response, which does not exist or will never be written. Does not write into the middle of a
 * response.
 */
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
