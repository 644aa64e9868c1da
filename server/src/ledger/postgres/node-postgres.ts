import type { Socket } from 'node:net'
import { askToStop, type Connection, type Connections, createTrust, type Session } from './connection.js'

// Connections of node-postgres. They come from the application's pool.

interface PoolClient {
  release(destroy?: boolean): void
  readonly processID?: number | null
  readonly secretKey?: number | null
  readonly connection?: { readonly stream?: Socket }
}
interface Pool extends NodeJS.EventEmitter {
  connect(): Promise<PoolClient>
  readonly totalCount: number
  readonly options?: { readonly max?: unknown }
}

export const isPool = (client: unknown): client is Pool =>
  typeof client === 'object' &&
  client !== null &&
  typeof (client as Partial<Pool>).connect === 'function' &&
  typeof (client as Partial<Pool>).totalCount === 'number' &&
  typeof (client as Partial<Pool>).on === 'function'

export function ofPool(pool: Pool, on: (client: PoolClient) => Session): Connections {
  const trust = createTrust()
  listenForErrors(pool)
  pool.on('connect', trust.heard)
  pool.on('release', (error: unknown, client: PoolClient) => {
    if (error === undefined && client !== undefined) trust.heard(client)
  })
  const max = pool.options?.max
  const end = (client: PoolClient): void => {
    const { stream } = client.connection ?? {}
    client.release(true)
    // `release(true)` first says goodbye to the server. A server that is gone does not get that, so the socket is
    // destroyed too.
    stream?.destroy()
  }
  function lent(client: PoolClient): Connection {
    let isStopped = false
    let isCommitting = false
    const stop = (): void => {
      if (isCommitting) return
      isStopped = true
      askToStop(client.connection?.stream, client.processID, client.secretKey)
    }
    return {
      session: on(client),
      isSuspect: () => !trust.has(client),
      heard: () => trust.heard(client),
      stop,
      commits: () => void (isCommitting = true),
      release: () => (isStopped ? end(client) : client.release()),
      destroy() {
        stop()
        end(client)
      },
    }
  }
  return {
    most: typeof max === 'number' ? max : Number.POSITIVE_INFINITY,
    async get() {
      for (;;) {
        const client = await pool.connect()
        if (trust.has(client)) return lent(client)
        // The pool opens a new one in its place.
        end(client)
      }
    },
    distrust: trust.distrust,
  }
}

/**
 * node-postgres emits an event when a connection dies while no statement runs on it. The pool emits it for idle
 * connections, and the connection itself emits it while it waits between two statements. An `error` event without a
 * listener ends the process.
 */
function listenForErrors(pool: Pool): void {
  if (pool.listenerCount('error') === 0) pool.on('error', () => {})
  // The event is `acquire` and not `connect`, because the pool may already have connections.
  const heard = new WeakSet()
  pool.on('acquire', (connection: NodeJS.EventEmitter) => {
    if (heard.has(connection)) return
    heard.add(connection)
    connection.on('error', () => {})
  })
}
