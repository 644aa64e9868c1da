import { createServer, type Socket } from 'node:net'
import { listen } from './ports.js'
import { type Connection, serveConnection } from './proxy/connection.js'
import { type ArmedFault, type Arming, createFaultBook, type Fault, type Interception } from './proxy/fault.js'
import { createLink, type Rate } from './proxy/link.js'
import type { RecordedConnection, RecordedRequest } from './proxy/record.js'

export type { ArmedFault, Arming, Fault, Interception, UpstreamEnd } from './proxy/fault.js'
export type { RecordedConnection, RecordedRequest } from './proxy/record.js'

/**
 * A TCP proxy on loopback that counts, knows where HTTP/1.1 requests begin and end, and breaks connections on demand.
 * What it does not touch it passes on byte for byte.
 */
export interface Proxy {
  readonly port: number
  /** `http://127.0.0.1:<port>` */
  readonly origin: string
  /**
   * Where new connections go: a server that was restarted has another port. Several: in turn, as a load balancer that
   * knows no sessions; none: new connections are reset.
   */
  retarget(port: number | readonly number[]): void
  /** Every request whose head came in, oldest first. Live: the records grow. */
  readonly requests: readonly RecordedRequest[]
  readonly connections: readonly RecordedConnection[]
  /** All bytes that crossed the line. */
  readonly bytes: { readonly up: number; readonly down: number }
  /** Forgets records and counts; what is armed stays. */
  forget(): void

  /** Bytes a second: for both directions, for each, or null for no limit. All connections share it. */
  setRate(rate: number | null | { up?: number | null; down?: number | null }): void
  /** Milliseconds added to each direction. */
  setLatency(latencyMs: number): void
  /**
   * Cuts the network. `black-hole` (default): nothing passes in either direction and neither side learns it; new connections
   * are accepted and stay silent. `reset`: existing connections get RST, and so does each new one.
   */
  cut(mode?: 'black-hole' | 'reset'): void
  /** The network is back: connections that survived the cut go on with the bytes that wait, as TCP does. */
  heal(): void
  /** RST to both sides of the connections that are open now. Answers how many. */
  resetConnections(which?: (connection: RecordedConnection) => boolean): number
  /**
   * The other end of the connections that are open now is gone without a word, as after a failover whose old host has
   * vanished: their clients see nothing any more and hear no answer, the server sees a reset. New ones pass. Answers how many.
   */
  strandConnections(which?: (connection: RecordedConnection) => boolean): number
  /** FIN to both sides of them. */
  closeConnections(which?: (connection: RecordedConnection) => boolean): number

  /** Applies a fault to the next request that matches, or the next few. Several may be armed; the oldest match wins. */
  arm(fault: Fault, arming?: Arming): ArmedFault
  /**
   * Of a protocol that it does not know (`protocol: 'opaque'`): bytes of the client for which `which` holds reach the
   * server; of what it says to them nothing comes back, but a reset once it has begun to say it.
   */
  loseAnswers(
    which: (bytes: Buffer, connection: number) => boolean,
    times?: number,
  ): { readonly struck: number; release(): void }
  /** Of such a protocol: shown all that clients say, with the number of the connection. Answers what ends it. */
  intercept(meets: (bytes: Buffer, connection: number) => Interception | null): { release(): void }
  /**
   * Resolves with the first recorded request for which the predicate holds, now or later (it is asked again whenever
   * bytes pass). @throws when `withinMs` (default 30,000) have passed; the message lists the requests.
   */
  waitFor(holds: (request: RecordedRequest) => boolean, withinMs?: number): Promise<RecordedRequest>
  /** Payload that clients sent in bodies of these requests: what was sent again is this minus the file. */
  bodyBytes(which?: (request: RecordedRequest) => boolean): number

  /** Ends all connections and the listening socket. */
  close(): Promise<void>
}

export interface ProxyOptions {
  readonly targetPort: number
  /** Default 127.0.0.1. */
  readonly targetHost?: string
  /** Default 0: any free one. */
  readonly port?: number
  /** `opaque`: not HTTP, nor looked at. Default `http`. */
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

  // Small, so that what was counted is close to what the sender has sent.
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
