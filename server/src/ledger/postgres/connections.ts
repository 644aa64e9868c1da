import { UploadError } from '../../lib/errors.js'
import type { Connections, Session } from './connection.js'
import { isPool, ofPool } from './node-postgres.js'
import { isPostgresJs, ofPostgresJs } from './postgres-js.js'

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
