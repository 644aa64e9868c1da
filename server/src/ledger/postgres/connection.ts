import { connect as connectTo, type Socket } from 'node:net'
import type { Executes } from './query.js'

// How one statement, or one transaction, gets a connection that can be taken away from it. Drizzle's own way through
// the pool ends only when the database answers: of a connection whose other end is gone without a word (a failover, a
// firewall that forgot it) nobody hears for a quarter of an hour, and it keeps its place in the pool for so long.

/** Drizzle on one connection. */
export interface Session extends Executes {
  transaction<T>(body: (tx: Executes) => Promise<T>): Promise<T>
}

export interface Connection {
  readonly session: Session
  /** It has said nothing since a moment after which another one did not answer: see `distrust`. */
  isSuspect(): boolean
  /** It has answered. */
  heard(): void
  /**
   * The server is asked to stop what runs on it, without knowing whether it hears that, or when: what would run there
   * next might be stopped in its place, so that nobody gets it any more.
   */
  stop(): void
  /**
   * From now on it commits: the server is not asked to stop that. A COMMIT that waits for a synchronous standby would not
   * be undone, but be done without it, so that a failover loses what others have already seen. Left alone, it waits on
   * without its client, seen by nobody.
   *
   * @see https://www.postgresql.org/docs/current/warm-standby.html#SYNCHRONOUS-REPLICATION
   */
  commits(): void
  /** It is in order, and is for the next one. */
  release(): void
  /** Nobody gets it any more; what runs on it fails at once, and the server is asked to stop that unless it is a COMMIT. */
  destroy(): void
}

/** Where connections come from. */
export interface Connections {
  /** As many as there may be at once. */
  readonly most: number
  get(): Promise<Connection>
  /** It did not answer since then: neither may those that have said nothing since. */
  distrust(sinceMs: number): void
}

/** By when each of them has answered last. */
export function createTrust() {
  const heardAtMs = new WeakMap<object, number>()
  const sinceMs = performance.now()
  let distrustedMs = Number.NEGATIVE_INFINITY
  return {
    heard: (connection: object): void => void heardAtMs.set(connection, performance.now()),
    /** Of those from before nobody has kept it. */
    has: (connection: object): boolean => (heardAtMs.get(connection) ?? sinceMs) >= distrustedMs,
    distrust: (atMs: number): void => void (distrustedMs = Math.max(distrustedMs, atMs)),
  }
}

/** Nobody waits for this long. */
const STOP_MS = 2_000

/**
 * The server does not notice that a client has gone while it waits for a lock, and would do the statement after that:
 * it is asked not to, on a connection of its own.
 *
 * @see https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-CANCELING-REQUESTS
 */
export function askToStop(of: Socket | undefined, processId: unknown, secret: unknown): void {
  const { remoteAddress: host, remotePort: port } = of ?? {}
  if (host === undefined || port === undefined || typeof processId !== 'number' || typeof secret !== 'number') return
  const request = Buffer.alloc(16)
  for (const [index, value] of [16, 80_877_102, processId, secret].entries()) request.writeInt32BE(value | 0, index * 4)
  const socket = connectTo(port, host)
  socket.unref()
  socket.on('error', () => {})
  socket.setTimeout(STOP_MS, () => socket.destroy())
  socket.end(request)
}
