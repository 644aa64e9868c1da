import { createServer, type Socket } from 'node:net'
import { listen } from './ports.js'
import { type Connection, serveConnection } from './proxy/connection.js'
import { type ArmedFault, type Arming, createFaultBook, type Fault, type Interception } from './proxy/fault.js'
import { createLink, type Rate } from './proxy/link.js'
import type { RecordedConnection, RecordedRequest } from './proxy/record.js'

export type { ArmedFault, Arming, Fault, Interception, UpstreamEnd } from './proxy/fault.js'
export type { RecordedConnection, RecordedRequest } from './proxy/record.js'

/**
 * A TCP proxy on loopback. It counts bytes, knows where HTTP/1.1 requests begin and end, and breaks connections on
 * demand. Everything else passes byte for byte.
 */
export interface Proxy {
  readonly port: number
  /** `http://127.0.0.1:<port>` */
  readonly origin: string
  /**
   * Sets where new connections go, for example after a server was restarted on another port. With several ports,
   * connections go to each in turn, as with a load balancer that knows no sessions. With no port, new connections are
   * reset.
   */
  retarget(port: number | readonly number[]): void
  /** Every request whose head arrived, oldest first. The records are live: they grow while requests run. */
  readonly requests: readonly RecordedRequest[]
  readonly connections: readonly RecordedConnection[]
  /** The count of all bytes that crossed the line. */
  readonly bytes: { readonly up: number; readonly down: number }
  /** Deletes the records and counts. Armed faults stay armed. */
  forget(): void

  /**
   * Sets bytes a second for both directions, or for each direction; null means no limit. All connections share the
   * rate.
   */
  setRate(rate: number | null | { up?: number | null; down?: number | null }): void
  /** Sets the milliseconds that are added in each direction. */
  setLatency(latencyMs: number): void
  /**
   * Cuts the network. With `black-hole` (default), nothing passes in either direction and neither side learns of it;
   * new connections are accepted and stay silent. With `reset`, existing connections and each new one get RST.
   */
  cut(mode?: 'black-hole' | 'reset'): void
  /** Restores the network. Connections that survived the cut continue with the bytes that wait, as TCP does. */
  heal(): void
  /** Sends RST to both sides of the connections that are open now. Returns how many there were. */
  resetConnections(which?: (connection: RecordedConnection) => boolean): number
  /**
   * Separates the two ends of the connections that are open now, as after a failover whose old host has vanished. The
   * clients see nothing any more and get no answer, and the server sees a reset. New connections pass. Returns how many
   * connections there were.
   */
  strandConnections(which?: (connection: RecordedConnection) => boolean): number
  /** Sends FIN to both sides of the connections that are open now. */
  closeConnections(which?: (connection: RecordedConnection) => boolean): number

  /**
   * Applies a fault to the next request that matches, or to several. If several faults are armed, the oldest one that
   * matches is used.
   */
  arm(fault: Fault, arming?: Arming): ArmedFault
  /**
   * For a protocol that the proxy does not know (`protocol: 'opaque'`). Bytes of the client for which `which` holds
   * reach the server, but nothing of the server's answer comes back. When the server begins to answer, the connection
   * is reset.
   */
  loseAnswers(
    which: (bytes: Buffer, connection: number) => boolean,
    times?: number,
  ): { readonly struck: number; release(): void }
  /**
   * For such a protocol: `meets` gets all bytes that clients send, with the number of the connection. Returns the
   * handle that ends it.
   */
  intercept(meets: (bytes: Buffer, connection: number) => Interception | null): { release(): void }
  /**
   * Resolves with the first recorded request for which the predicate holds, now or later. The predicate is called again
   * whenever bytes pass. @throws when `withinMs` (default 30,000) have passed; the message lists the requests.
   */
  waitFor(holds: (request: RecordedRequest) => boolean, withinMs?: number): Promise<RecordedRequest>
  /**
   * The payload bytes that clients sent in the bodies of these requests. This minus the size of the file is what was
   * sent again.
   */
  bodyBytes(which?: (request: RecordedRequest) => boolean): number

  /** Ends all connections and the listening socket. */
  close(): Promise<void>
}

export interface ProxyOptions {
  readonly targetPort: number
  /** Default 127.0.0.1. */
  readonly targetHost?: string
  /** Default 0, which is any free port. */
  readonly port?: number
  /** `opaque`: the protocol is not HTTP, and the proxy does not read it. Default `http`. */
  readonly protocol?: 'http' | 'opaque'
}

export async function startProxy(options: ProxyOptions): Promise<Proxy> {
  const host = options.targetHost ?? '127.0.0.1'
  let targets: readonly number[] = [options.targetPort]
  let turn = 0
  const link = createLink()
  const faults = createFaultBook()
  const live = new Set<Connection>()
  const watchers = new Set<() => void>()
  const requests: RecordedRequest[] = []
  const connections: RecordedConnection[] = []
  const bytes = { up: 0, down: 0 }
  const intercepting = new Set<(bytes: Buffer, connection: number) => Interception | null>()
  let cutMode: 'black-hole' | 'reset' | null = null
  let count = 0

  function changed(): void {
    for (const watch of watchers) watch()
  }

  function accept(client: Socket): void {
    if (cutMode === 'reset') {
      client.on('error', () => {})
      client.resetAndDestroy()
      return
    }
    const number = (count += 1)
    const connection = serveConnection(client, number, {
      link,
      faults,
      protocol: options.protocol ?? 'http',
      meets(sent, from) {
        for (const meets of intercepting) {
          const met = meets(sent, from)
          if (met !== null) return met
        }
        return null
      },
      target() {
        const port = targets[turn % targets.length]
        turn += 1
        return port === undefined ? null : { port, host }
      },
      recorded(request) {
        requests.push(request)
        changed()
      },
      crossed: (direction, n) => (bytes[direction] += n),
      changed,
      closed: () => void live.delete(connection),
    })
    if (cutMode === 'black-hole') connection.pause()
    connections.push(connection.record)
    live.add(connection)
  }

  function each(which: (connection: RecordedConnection) => boolean, act: (connection: Connection) => void): number {
    const chosen = [...live].filter(({ record }) => which(record))
    for (const connection of chosen) act(connection)
    return chosen.length
  }

  function intercept(meets: (bytes: Buffer, connection: number) => Interception | null): { release(): void } {
    intercepting.add(meets)
    return { release: () => void intercepting.delete(meets) }
  }

  // The buffer is small, so that the count is close to what the sender has sent.
  const server = createServer({ allowHalfOpen: true, highWaterMark: 16_384 }, accept)
  const port = await listen(server, options.port)

  return {
    port,
    origin: `http://127.0.0.1:${port}`,
    retarget(to) {
      targets = typeof to === 'number' ? [to] : to
    },
    requests,
    connections,
    bytes,
    forget() {
      requests.length = 0
      connections.length = 0
      bytes.up = bytes.down = 0
    },
    setRate: (rate) => link.setRate(toRate(rate)),
    setLatency: (latencyMs) => link.setLatency(latencyMs),
    cut(mode = 'black-hole') {
      cutMode = mode
      if (mode === 'reset') each(always, (connection) => connection.reset())
      else {
        link.cut()
        each(always, (connection) => connection.pause())
      }
    },
    heal() {
      cutMode = null
      link.heal()
      each(always, (connection) => connection.resume())
    },
    resetConnections: (which = always) => each(which, (connection) => connection.reset()),
    strandConnections: (which = always) => each(which, (connection) => connection.strand()),
    closeConnections: (which = always) => each(which, (connection) => connection.close()),
    arm: (fault, arming) => faults.arm(fault, arming),
    loseAnswers(which, times = Infinity) {
      let struck = 0
      const { release } = intercept((sent, connection) => {
        if (struck >= times || !which(sent, connection)) return null
        struck += 1
        return { at: 'answer', strike: () => 'reset' }
      })
      return {
        get struck() {
          return struck
        },
        release,
      }
    },
    intercept,
    waitFor: (holds, withinMs = 30_000) => waitFor(requests, watchers, holds, withinMs),
    bodyBytes: (which = () => true) => requests.filter(which).reduce((sum, request) => sum + request.bodyBytes, 0),
    async close() {
      const closed = new Promise((resolve) => server.close(resolve))
      link.heal()
      faults.releaseAll()
      each(always, (connection) => connection.reset())
      await closed
    },
  }
}

const always = (): boolean => true

function toRate(rate: Parameters<Proxy['setRate']>[0]): Rate {
  if (rate === null || typeof rate === 'number') return { upBytesPerSecond: rate, downBytesPerSecond: rate }
  return { upBytesPerSecond: rate.up ?? null, downBytesPerSecond: rate.down ?? null }
}

function waitFor(
  requests: readonly RecordedRequest[],
  watchers: Set<() => void>,
  holds: (request: RecordedRequest) => boolean,
  withinMs: number,
): Promise<RecordedRequest> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      watchers.delete(watch)
      const seen = requests.map(({ method, path, bodyBytes, status }) => `${method} ${path} ${bodyBytes} B → ${status}`)
      reject(new Error(`no such request within ${withinMs} ms; seen:\n${seen.join('\n')}`))
    }, withinMs)
    const watch = (): void => {
      const found = requests.find(holds)
      if (found === undefined) return
      clearTimeout(timer)
      watchers.delete(watch)
      resolve(found)
    }
    watchers.add(watch)
    watch()
  })
}
