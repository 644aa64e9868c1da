import { connect as connectTo, type Socket } from 'node:net'
import type { Executes } from './query.js'

// How one statement or one transaction gets a connection that can be taken away from it. Drizzle's own way through the
// pool ends only when the database answers. If the other end of a connection is gone without notice (after a failover,
// or because a firewall has forgotten the connection), this goes unnoticed for a quarter of an hour, and for that time
// the connection keeps its place in the pool.

/** Drizzle on one connection. */
export interface Session extends Executes {
  transaction<T>(body: (tx: Executes) => Promise<T>): Promise<T>
}

export interface Connection {
  readonly session: Session
  /** Whether it has not answered since a request to which another connection got no answer: see `distrust`. */
  isSuspect(): boolean
  /** Records that the connection has answered. */
  heard(): void
  /**
   * Asks the server to stop what runs on the connection. It is unknown whether the server gets this request, and when.
   * It might stop the next statement on the connection instead, so the connection is not used again.
   */
  stop(): void
  /**
   * From now on the connection commits, and the server is not asked to stop that. If a COMMIT waits for a synchronous
   * standby, stopping it would not undo it. It would be committed without the standby, and a failover would then lose
   * what others have already seen. If it is left alone, it keeps waiting without its client, and nobody sees its
   * changes.
   *
   * @see https://www.postgresql.org/docs/current/warm-standby.html#SYNCHRONOUS-REPLICATION
   */
  commits(): void
  /** Gives the connection back. It is in order, and the next call may get it. */
  release(): void
  /** Ends the connection. What runs on it fails at once, and the server is asked to stop that unless it is a COMMIT. */
  destroy(): void
}

/** The source of connections. */
export interface Connections {
  /** The largest number of connections at once. */
  readonly most: number
  get(): Promise<Connection>
  /**
   * Reports that a connection has not answered since this time. Others that have not answered since then may be dead
   * too.
   */
  distrust(sinceMs: number): void
}

/** Keeps the time of each connection's last answer. */
export function createTrust() {
  const heardAtMs = new WeakMap<object, number>()
  const sinceMs = performance.now()
  let distrustedMs = Number.NEGATIVE_INFINITY
  return {
    heard: (connection: object): void => void heardAtMs.set(connection, performance.now()),
    /**
     * Connections that are older than this ledger have no recorded time. For them, the time at which the ledger was
     * made counts.
     */
    has: (connection: object): boolean => (heardAtMs.get(connection) ?? sinceMs) >= distrustedMs,
    distrust: (atMs: number): void => void (distrustedMs = Math.max(distrustedMs, atMs)),
  }
}

/** The limit for sending the request to stop. Nothing waits for it. */
const STOP_MS = 2_000

/**
 * While the server waits for a lock, it does not notice that its client has gone, and would still run the statement
 * after that. So it is asked not to, on a separate connection.
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
