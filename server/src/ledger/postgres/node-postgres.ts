import type { Socket } from 'node:net'
import { askToStop, type Connection, type Connections, createTrust, type Session } from './connection.js'

// Connections of node-postgres: those of the application's pool.

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
    // It says good-bye first, which nobody hears.
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
        // A new one takes its place.
        end(client)
      }
    },
    distrust: trust.distrust,
  }
}

/**
 * node-postgres says by an event that a connection has died which nobody is asking anything just now: the pool for those
 * that lie idle, the connection itself for one that waits between two statements. An event that nobody listens to ends
 * the process.
 */
function listenForErrors(pool: Pool): void {
  if (pool.listenerCount('error') === 0) pool.on('error', () => {})
  // Not `connect`: the application may have connections from before.
  const heard = new WeakSet()
  pool.on('acquire', (connection: NodeJS.EventEmitter) => {
    if (heard.has(connection)) return
    heard.add(connection)
    connection.on('error', () => {})
  })
}
