import { once } from 'node:events'
import { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { MiddlewareHandler } from 'hono'

/**
 * How long a client that was answered before it had sent everything may go on sending: in all, and without a byte. What
 * it sends is thrown away; closing at once would reset the connection, and a reset can overtake the answer.
 */
const LINGER_MS = 30_000
const LINGER_SILENT_MS = 5_000
/**
 * How much more of a body is thrown away. Browsers read no answer before they have sent all of it: whoever is refused at
 * the start of a film would send the whole film for nothing. Beyond this the connection is reset; the answer may be lost
 * with it, and the client asks again, as after any broken connection.
 */
const LINGER_BYTES = 4 * 1024 * 1024
const LINGER_LOOK_MS = 25

/**
 * A refused request that is no larger than this is read to its end before it is answered, if that takes no longer than
 * this: a connection more costs both sides more.
 */
const SMALL_BYTES = 64 * 1024
const SMALL_MS = 500

const tended = new WeakSet<ServerResponse>()
const unanswered = new WeakMap<Socket, Set<ServerResponse>>()

/**
 * Keeps two promises for one exchange, whoever answers it. Calling it again changes nothing.
 *
 * - A response that waits for its turn on a connection ends with that connection, so that whoever writes it stops.
 *   Node ends only the one whose turn it is (seen with 20.20): all others would hold what they have open for ever.
 * - An answer that comes before the request was read to its end says `Connection: close` and is followed by an orderly
 *   end. Otherwise a client takes the connection for a usable one, sends its next request, and sees that fail.
 *
 * @see RFC 9112, 9.3.2 and 9.6
 */
export function tend(request: IncomingMessage, response: ServerResponse): void {
  if (tended.has(response)) return
  tended.add(response)
  endWithConnection(request.socket, response)
  if (bringsBody(request)) closeWhenEarly(request, response)
}

/**
 * The same for routes on a server that somebody else has made; elsewhere than on Node's HTTP/1.1 it does nothing. What is
 * left of a small request is read first.
 */
export const tendExchange: MiddlewareHandler = async (c, next) => {
  const { incoming, outgoing } = (c.env ?? {}) as { incoming?: unknown; outgoing?: unknown }
  if (!(incoming instanceof IncomingMessage && outgoing instanceof ServerResponse)) return next()
  tend(incoming, outgoing)
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
  // A reader that has stopped in the middle stands in the way of those that only want it to flow.
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
        // Node tells the one whose turn it is, and those whose turn it was.
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
      // Node then says `Connection: close`, and calls `destroySoon` once the answer is written.
      response.shouldKeepAlive = false
      endInOrder(request)
    }
    return writeHead(...head)
  }) as typeof writeHead
}

/** RFC 9112, 9.6: closes for writing first, and reads until the client has heard of it. */
function endInOrder(request: IncomingMessage): void {
  const { socket } = request
  const destroySoon = socket.destroySoon.bind(socket)
  let lingers = false
  socket.destroySoon = () => {
    if (lingers || socket.destroyed) return
    if (request.complete) return destroySoon()
    lingers = true
    const close = (): void => void socket.destroy()
    // Node shows nobody what it throws away: the connection has counted it.
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
