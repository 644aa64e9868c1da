import { UploadError } from '../../lib/errors.js'
import type { Connections, Session } from './connection.js'
import { isPool, ofPool } from './node-postgres.js'
import { isPostgresJs, ofPostgresJs } from './postgres-js.js'

/** Is called with what the application asks of its `db`. An error that it throws is what the application gets. */
export interface PastTx {
  statement(sql: string): void
  transaction(): void
}

/** The parts of Drizzle's session that are not in its types. They are the same for both drivers. */
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
 * Checks at once all internal parts of the application's Drizzle that the ledger uses, so that an unknown version is
 * refused at the start and not at the first reference.
 *
 * @throws UploadError `setup` for an unknown Drizzle or driver
 */
export function connectionsOf(db: unknown, pastTx: PastTx): Connections {
  const { session } = db as { session?: SessionParts }
  if (session === undefined || !('client' in session) || !('dialect' in session) || !('options' in session))
    throw new UploadError(
      'setup',
      'postgresLedger does not know this version of drizzle-orm: its session has an unknown form',
    )
  const { client, dialect, schema, options } = session
  const on = (connection: unknown): Session => new session.constructor(connection, dialect, schema, options)
  const probe = {}
  const made = on(probe) as Session & Partial<SessionParts>
  if (made.client !== probe || typeof made.transaction !== 'function' || typeof made.execute !== 'function')
    throw new UploadError(
      'setup',
      'postgresLedger does not know this version of drizzle-orm: its session has no connection where it is expected',
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

/** Drizzle calls its logger before it sends a statement. The sessions of transactions have their own loggers. */
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
