import { connect as connectTo, type NetConnectOpts, Socket } from 'node:net'
import { UploadError } from '../../lib/errors.js'
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

/** Told what the application's `db` is asked for; what it throws is what the application gets. */
export interface PastTx {
  statement(sql: string): void
  transaction(): void
}

/** The parts of Drizzle's session that are not in its types; the same in both drivers. */
interface SessionParts {
  readonly client: unknown
  readonly dialect: unknown
  readonly schema: unknown
  readonly options: unknown
  readonly constructor: new (client: unknown, dialect: unknown, schema: unknown, options: unknown) => Session
  logger?: { logQuery(sql: string, parameters: unknown[]): void }
  transaction(...args: unknown[]): unknown
}

/**
 * Looks at once at all that is reached into of the application's Drizzle, so that another version of it is refused at
 * the start and not at the first reference.
 *
 * @throws UploadError `setup` for a Drizzle or a driver that is not known
 */
export function connectionsOf(db: unknown, pastTx: PastTx): Connections {
  const { session } = db as { session?: SessionParts }
  if (session === undefined || !('client' in session) || !('dialect' in session) || !('options' in session))
    throw new UploadError(
      'setup',
      'postgresLedger does not know this version of drizzle-orm: its session is another one',
    )
  const { client, dialect, schema, options } = session
  const on = (connection: unknown): Session => new session.constructor(connection, dialect, schema, options)
  const probe = {}
  const made = on(probe) as Session & Partial<SessionParts>
  if (made.client !== probe || typeof made.transaction !== 'function' || typeof made.execute !== 'function')
    throw new UploadError(
      'setup',
      'postgresLedger does not know this version of drizzle-orm: it keeps its connection elsewhere',
    )
  const connections = isPool(client) ? ofPool(client, on) : isPostgresJs(client) ? ofPostgresJs(client, on) : null
  if (connections === null)
    throw new UploadError(
      'setup',
      'postgresLedger needs a Drizzle database on a Pool of node-postgres or on postgres.js: drizzle(new Pool(…)), not drizzle(new Client(…))',
    )
  listenPastTx(session, pastTx)
  return connections
}

/** Drizzle tells its logger of each statement before it sends it. The sessions of transactions have loggers of their own. */
function listenPastTx(session: SessionParts, { statement, transaction }: PastTx): void {
  const { logger } = session
  if (logger === undefined) return
  session.logger = {
    logQuery(sql, parameters) {
      statement(sql)
      logger.logQuery(sql, parameters)
    },
  }
  const begin = session.transaction.bind(session)
  session.transaction = async (...args) => {
    transaction()
    return begin(...args)
  }
}

/** By when each of them has answered last. */
function createTrust() {
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
function askToStop(of: Socket | undefined, processId: unknown, secret: unknown): void {
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

// node-postgres

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

const isPool = (client: unknown): client is Pool =>
  typeof client === 'object' &&
  client !== null &&
  typeof (client as Partial<Pool>).connect === 'function' &&
  typeof (client as Partial<Pool>).totalCount === 'number' &&
  typeof (client as Partial<Pool>).on === 'function'

function ofPool(pool: Pool, on: (client: PoolClient) => Session): Connections {
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

// postgres.js

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

const isPostgresJs = (client: unknown): client is PostgresJs =>
  typeof client === 'function' && 'options' in client && 'unsafe' in client && 'begin' in client && 'end' in client

/** Idle ones end after this long, in seconds, where the application has not said it. */
const IDLE_SECONDS = 60

interface Own {
  readonly client: PostgresJs
  readonly sockets: Set<Socket>
  /** Never again once it is not. */
  usable: boolean
  /** Its statements say which process of the server does them. */
  asked: { readonly state?: { readonly pid?: unknown; readonly secret?: unknown } | null } | null
}

/**
 * postgres.js gives nobody the connection on which a statement runs, and puts several on one when it has no other. So the
 * ledger has clients of its own, made of the options of the application's, with one connection each: that one can be
 * taken away.
 */
function ofPostgresJs(client: PostgresJs, on: (client: unknown) => Session): Connections {
  const { options } = client
  const trust = createTrust()
  const idle: Own[] = []
  let turn = 0
  let ended = false
  // Who ends the application's client means all of its connections.
  const endTheirs = client.end
  client.end = async (how) => {
    ended = true
    await Promise.all([endTheirs(how), ...idle.splice(0).map((own) => own.client.end(how))])
  }

  async function make(): Promise<Own> {
    const create = await postgresJs()
    const sockets = new Set<Socket>()
    const hosts = [...options.host]
    // The hosts in turn, as postgres.js does it.
    const first = turn++
    const untried = options.port.map((_, n) => (first + n) % options.port.length)
    function keep(socket: Socket): void {
      if (!own.usable) {
        socket.destroy()
        throw new UploadError('ledger-unavailable', 'this connection was given up')
      }
      // postgres.js opens one only when the one before has closed, of which nobody tells where that was wrapped for TLS.
      sockets.clear()
      sockets.add(socket)
      socket.on('close', () => {
        sockets.delete(socket)
        // Before that it is a host that is passed over, such as a standby: postgres.js goes on to the next one.
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
        // As a client of its own: how long to wait after a fault is not what others have met.
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
            // Of a fault for which there is another host postgres.js tells nobody.
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
  /** The server has let it in, and was sent a statement. */
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
        // What lies idle keeps no program alive.
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

/** The same client, which tells of each statement that it is asked for, in transactions as well. */
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
 * The next host that can be had, of those that were not tried. Only what is connected is handed over: an address to which
 * there is no way fails so early that postgres.js does not listen yet, and an error that nobody listens to ends the process.
 */
async function open(options: PostgresJsOptions, untried: number[], keep: (socket: Socket) => void): Promise<Socket> {
  const { host, port, path } = options
  let fault: unknown = new UploadError('ledger-unavailable', 'no host of the database is as it is asked for')
  for (let at = untried.shift(); at !== undefined; at = untried.shift()) {
    const socket = new Socket()
    keep(socket)
    const to = { host: host[at] ?? 'localhost', port: port[at] ?? 5432 }
    // It looks for these where TLS needs the server's name, and for what it says of faults.
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

/** postgres.js counts its `connect_timeout` only from when it has the socket. */
function connects(socket: Socket, to: NetConnectOpts, timeoutSeconds: unknown): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.on('error', reject)
    socket.on('close', () => reject(new UploadError('ledger-unavailable', 'the database was not to be reached')))
    if (typeof timeoutSeconds === 'number') socket.setTimeout(timeoutSeconds * 1_000, () => socket.destroy())
    socket.once('connect', () => {
      socket.setTimeout(0)
      resolve()
    })
    socket.connect(to)
  })
}

type CreatePostgresJs = (options: object) => PostgresJs

/** The one that the application has. */
async function postgresJs(): Promise<CreatePostgresJs> {
  try {
    return (await import('postgres')).default as unknown as CreatePostgresJs
  } catch (error) {
    throw new UploadError('setup', 'postgresLedger cannot load the package postgres, which its database uses', {
      cause: error,
    })
  }
}
