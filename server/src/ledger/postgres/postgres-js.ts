import { type NetConnectOpts, Socket } from 'node:net'
import { UploadError } from '../../lib/errors.js'
import { askToStop, type Connection, type Connections, createTrust, type Session } from './connection.js'

// Connections of postgres.js. They come from clients that the ledger makes for itself.

interface PostgresJs {
  readonly options: PostgresJsOptions
  end(how?: { timeout?: number }): Promise<void>
}
interface PostgresJsOptions {
  readonly max?: unknown
  readonly idle_timeout?: number | null
  /** In seconds. */
  readonly connect_timeout?: unknown
  readonly host: readonly string[]
  readonly port: readonly number[]
  readonly path?: string | false
  readonly socket?: (options: unknown) => unknown
}

export const isPostgresJs = (client: unknown): client is PostgresJs =>
  typeof client === 'function' && 'options' in client && 'unsafe' in client && 'begin' in client && 'end' in client

/** Idle connections end after this many seconds, unless the application has set another time. */
const IDLE_SECONDS = 60

interface Own {
  readonly client: PostgresJs
  readonly sockets: Set<Socket>
  /** Once it is false, it stays false. */
  usable: boolean
  /** The latest statement. It says which process of the server runs it. */
  asked: { readonly state?: { readonly pid?: unknown; readonly secret?: unknown } | null } | null
}

/**
 * postgres.js does not reveal the connection on which a statement runs, and puts several statements on one connection
 * if it has no other. So the ledger makes its own clients from the options of the application's client. Each has one
 * connection, which can be taken away.
 */
export function ofPostgresJs(client: PostgresJs, on: (client: unknown) => Session): Connections {
  const { options } = client
  const trust = createTrust()
  const idle: Own[] = []
  let turn = 0
  let ended = false
  // An application that ends its client expects all connections to end.
  const endTheirs = client.end
  client.end = async (how) => {
    ended = true
    await Promise.all([endTheirs(how), ...idle.splice(0).map((own) => own.client.end(how))])
  }

  async function make(): Promise<Own> {
    const create = await postgresJs()
    const sockets = new Set<Socket>()
    const hosts = [...options.host]
    // The hosts are tried in turn, as postgres.js does.
    const first = turn++
    const untried = options.port.map((_, n) => (first + n) % options.port.length)
    function keep(socket: Socket): void {
      if (!own.usable) {
        socket.destroy()
        throw new UploadError('ledger-unavailable', 'this connection was given up')
      }
      // postgres.js opens a socket only after the one before has closed. If that one was wrapped for TLS, no event
      // reports that it has closed.
      sockets.clear()
      sockets.add(socket)
      socket.on('close', () => {
        sockets.delete(socket)
        // Before a statement was sent, a closed socket only means that a host was skipped, such as a standby. Then
        // postgres.js tries the next host.
        if (isAsked(own)) own.usable = false
      })
    }
    const own: Own = {
      sockets,
      usable: true,
      asked: null,
      client: create({
        ...options,
        max: 1,
        idle_timeout: options.idle_timeout ?? IDLE_SECONDS,
        // The client gets its own state. How long it waits after a fault must not depend on the faults of other
        // clients.
        shared: { retries: 0, typeArrayMap: {} },
        host: hosts,
        async socket(asked: unknown) {
          try {
            if (options.socket === undefined) return await open(options, untried, keep)
            const socket = await options.socket(asked)
            if (socket instanceof Socket) keep(socket)
            return socket
          } catch (error) {
            own.usable = false
            // postgres.js does not report a fault as long as there is another host, so only one stays in its list.
            hosts.length = 1
            throw error
          }
        },
      }),
    }
    trust.heard(own)
    return own
  }
  function end(own: Own): void {
    own.usable = false
    own.client.end({ timeout: 0 }).catch(() => {})
    for (const socket of own.sockets) socket.destroy()
  }
  /** Whether the server has accepted the connection and was sent a statement. */
  const isAsked = ({ asked }: Own): boolean => (asked?.state ?? null) !== null
  const usable = (own: Own): boolean =>
    own.usable && isAsked(own) && [...own.sockets].every(({ destroyed }) => !destroyed)

  return {
    most: typeof options.max === 'number' ? options.max : Number.POSITIVE_INFINITY,
    async get() {
      if (ended) throw new UploadError('ledger-unavailable', 'the database client was ended')
      for (let own = idle.pop(); own !== undefined; own = idle.pop()) {
        if (usable(own) && trust.has(own)) return lent(own)
        end(own)
      }
      return lent(await make())
    },
    distrust: trust.distrust,
  }

  function askOwnToStop(own: Own): void {
    own.usable = false
    const { pid, secret } = own.asked?.state ?? {}
    for (const socket of own.sockets) askToStop(socket, pid, secret)
  }

  function lent(own: Own): Connection {
    let isCommitting = false
    const stop = (): void => {
      if (!isCommitting) askOwnToStop(own)
    }
    for (const socket of own.sockets) socket.ref()
    return {
      session: on(noting(own.client, (statement) => (own.asked = statement as Own['asked']))),
      isSuspect: () => !trust.has(own),
      heard: () => trust.heard(own),
      stop,
      commits: () => void (isCommitting = true),
      release() {
        if (ended || !usable(own)) return end(own)
        trust.heard(own)
        // An idle connection must not keep the program alive.
        for (const socket of own.sockets) socket.unref()
        idle.push(own)
      },
      destroy() {
        stop()
        end(own)
      },
    }
  }
}

/** The same client, which also reports each statement that it is asked for, in transactions too. */
function noting<T extends object>(client: T, note: (statement: unknown) => void): T {
  return new Proxy(client, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name)
      if (typeof value !== 'function') return value
      return (...args: unknown[]): unknown => {
        const inner = args.map((arg) =>
          typeof arg === 'function' && (name === 'begin' || name === 'savepoint')
            ? (on: object): unknown => (arg as (on: object) => unknown)(noting(on, note))
            : arg,
        )
        const answer: unknown = Reflect.apply(value, target, inner)
        if (name === 'unsafe') note(answer)
        return answer
      }
    },
  })
}

/**
 * Connects to the next host that can be reached, of those that were not tried yet. Only a connected socket is returned.
 * If there is no route to an address, the connection fails so early that postgres.js does not listen yet, and an error
 * without a listener ends the process.
 */
async function open(options: PostgresJsOptions, untried: number[], keep: (socket: Socket) => void): Promise<Socket> {
  const { host, port, path } = options
  let fault: unknown = new UploadError('ledger-unavailable', 'no host of the database matches the options')
  for (let at = untried.shift(); at !== undefined; at = untried.shift()) {
    const socket = new Socket()
    keep(socket)
    const to = { host: host[at] ?? 'localhost', port: port[at] ?? 5432 }
    // postgres.js reads these when TLS needs the server's name, and for its error messages.
    if (typeof path !== 'string') Object.assign(socket, to)
    try {
      await connects(socket, typeof path === 'string' ? { path } : to, options.connect_timeout)
      return socket
    } catch (error) {
      fault = error
    }
  }
  throw fault
}

/** postgres.js counts its `connect_timeout` only after it has got the socket, so the time is limited here too. */
function connects(socket: Socket, to: NetConnectOpts, timeoutSeconds: unknown): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.on('error', reject)
    socket.on('close', () => reject(new UploadError('ledger-unavailable', 'the database cannot be reached')))
    if (typeof timeoutSeconds === 'number') socket.setTimeout(timeoutSeconds * 1_000, () => socket.destroy())
    socket.once('connect', () => {
      socket.setTimeout(0)
      resolve()
    })
    socket.connect(to)
  })
}

type CreatePostgresJs = (options: object) => PostgresJs

/** Loads the package `postgres` that the application has installed. */
async function postgresJs(): Promise<CreatePostgresJs> {
  try {
    return (await import('postgres')).default as unknown as CreatePostgresJs
  } catch (error) {
    throw new UploadError('setup', 'postgresLedger cannot load the package postgres, which its database uses', {
      cause: error,
    })
  }
}
