import { once } from 'node:events'
import { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { MiddlewareHandler } from 'hono'

/**
 * How long a client may go on sending after it was answered early: in total, and without a byte. What it sends is
 * discarded. Closing at once would reset the connection, and a reset can overtake the answer.
 */
const LINGER_MS = 30_000
const LINGER_SILENT_MS = 5_000
/**
 * How much more of a body is discarded. Browsers read no answer before they have sent the whole body, so a client that
 * is refused at the start of a film would send the whole film for nothing. Beyond this limit the connection is reset.
 * The answer may be lost with it; then the client asks again, as after any broken connection.
 */
const LINGER_BYTES = 4 * 1024 * 1024
const LINGER_LOOK_MS = 25

/**
 * A refused request of at most this size is read to its end before it is answered, if that takes no longer than this.
 * Opening a new connection would cost both sides more.
 */
const SMALL_BYTES = 64 * 1024
const SMALL_MS = 500

const tended = new WeakSet<ServerResponse>()
const unanswered = new WeakMap<Socket, Set<ServerResponse>>()

/**
 * Keeps two promises for one exchange, no matter what answers it. Calling it again changes nothing.
 *
 * - A response that waits for its turn on a connection ends with that connection, so that its writer stops. Node ends
 *   only the response whose turn it is (seen with 20.20). All others would keep their resources open permanently.
 * - An answer that is sent before the request was read to its end says `Connection: close`, and the connection is
 *   closed in order after it. Otherwise a client would take the connection for a usable one, and its next request would
 *   fail.
 *
 * @see RFC 9112, 9.3.2 and 9.6
 */
export function guardExchange(request: IncomingMessage, response: ServerResponse): void {
  if (tended.has(response)) return
  tended.add(response)
  endWithConnection(request.socket, response)
  if (bringsBody(request)) closeWhenEarly(request, response)
}

/**
 * The same for routes on a server that the application has made. On anything but Node's HTTP/1.1 it does nothing. The
 * rest of a small request is read first.
 */
export const guardExchangeMiddleware: MiddlewareHandler = async (c, next) => {
  const { incoming, outgoing } = (c.env ?? {}) as { incoming?: unknown; outgoing?: unknown }
  if (!(incoming instanceof IncomingMessage && outgoing instanceof ServerResponse)) return next()
  guardExchange(incoming, outgoing)
  await next()
  if (bringsBody(incoming) && !incoming.complete) await readSmall(incoming)
}

async function readSmall(request: IncomingMessage): Promise<void> {
  if (request.destroyed || !(Number(request.headers['content-length']) <= SMALL_BYTES)) return
  const over = new AbortController()
  const read = once(request, 'end', { signal: over.signal }).catch(() => {})
  throwAway(request)
  await Promise.race([read, sleep(SMALL_MS, undefined, { ref: false, signal: over.signal }).catch(() => {})])
  over.abort()
}

function throwAway(request: IncomingMessage): void {
  // A reader that stopped in the middle would prevent the stream from flowing.
  request.removeAllListeners('readable')
  setImmediate(() => request.resume())
}

function endWithConnection(socket: Socket, response: ServerResponse): void {
  let waiting = unanswered.get(socket)
  if (waiting === undefined) {
    const all = new Set<ServerResponse>()
    waiting = all
    unanswered.set(socket, all)
    socket.once('close', () => {
      for (const each of all) {
        // Node itself ends the response whose turn it is, and those whose turn has passed.
        if (each.socket !== null || each.writableFinished) continue
        each.destroy()
        each.emit('close')
      }
    })
  }
  const those = waiting
  those.add(response)
  response.once('close', () => those.delete(response))
}

export const bringsBody = ({ headers }: IncomingMessage): boolean =>
  headers['transfer-encoding'] !== undefined || (headers['content-length'] ?? '0') !== '0'

function closeWhenEarly(request: IncomingMessage, response: ServerResponse): void {
  const writeHead = response.writeHead.bind(response)
  response.writeHead = ((...head: Parameters<typeof writeHead>) => {
    response.writeHead = writeHead
    if (!request.complete) {
      // Node then sends `Connection: close`, and calls `destroySoon` once the answer is written.
      response.shouldKeepAlive = false
      endInOrder(request)
    }
    return writeHead(...head)
  }) as typeof writeHead
}

/** RFC 9112, 9.6: closes for writing first, and reads until the client has noticed that. */
function endInOrder(request: IncomingMessage): void {
  const { socket } = request
  const destroySoon = socket.destroySoon.bind(socket)
  let lingers = false
  socket.destroySoon = () => {
    if (lingers || socket.destroyed) return
    if (request.complete) return destroySoon()
    lingers = true
    const close = (): void => void socket.destroy()
    // Node does not report what it discards, but the connection has counted it.
    const untilBytes = socket.bytesRead + LINGER_BYTES
    const counting = setInterval(() => {
      if (socket.bytesRead > untilBytes) close()
    }, LINGER_LOOK_MS).unref()
    const atMost = setTimeout(close, LINGER_MS)
    atMost.unref()
    socket.once('close', () => {
      clearTimeout(atMost)
      clearInterval(counting)
    })
    socket.setTimeout(LINGER_SILENT_MS, close)
    socket.end()
    request.once('end', close)
    request.once('error', close)
    throwAway(request)
  }
}
