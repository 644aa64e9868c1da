import { AsyncLocalStorage } from 'node:async_hooks'
import type { Client, InStatement, IntMode, ResultSet, Transaction } from '@libsql/client'
import { LibsqlBatchError, LibsqlError } from '@libsql/core/api'
import { UploadError } from '../errors.js'
import { type Connection, isBusy, openConnection, said } from './statements.js'
import { createWriter, type Hold, type Writer } from './writer.js'
import { setTimeout as sleep } from 'node:timers/promises'

const ACCESS = Symbol.for('landfall.sqlite')

/** What the ledger needs of the database beside Drizzle: the queue of writes, and a connection to read. */
export interface SqliteAccess {
  readonly writer: Writer
  reader(): Promise<Connection>
  intMode(): Promise<IntMode>
}

/** A libsql client whose writes all go through one queue. */
export type SerializedLibsql = Client & { readonly [ACCESS]: SqliteAccess }

export interface SerializedLibsqlOptions {
  /** How long a write waits while another process has the database locked. In milliseconds, default 5,000. */
  busyTimeoutMs?: number
  /**
   * How long a transaction may keep the writer without a statement before it is rolled back. In milliseconds, default
   * 5,000. `onReference` gets 2,000 of it, and less each time that it was found idle: all others wait meanwhile.
   */
  idleLimitMs?: number
}

/**
 * Makes one queue of all writes to an SQLite file, those of the application and those of Landfall: SQLite has one
 * writer, and within one process concurrent writes fail at once with "database is locked".
 *
 * Give Drizzle the returned client: `drizzle(serializedLibsql(createClient({ url: 'file:app.db' })))`. Reads go to
 * `client` as before and are never blocked (WAL). Writes and transactions run one after the other on a connection of
 * its own (WAL, `synchronous=FULL`), and those that wait together share a commit.
 *
 * Within `onReference` a write through `db` instead of `tx` rejects at once with `write-past-tx`: it would not be part
 * of the transaction, and would wait for it for ever. BEGIN, COMMIT and ROLLBACK as statements are refused for the
 * same reason; use `db.transaction`.
 *
 * The database must be a file: what is in memory survives no crash, and has no second connection.
 */
export function serializedLibsql(client: Client, options: SerializedLibsqlOptions = {}): SerializedLibsql {
  const settings = { busyTimeoutMs: options.busyTimeoutMs ?? 5_000, idleLimitMs: options.idleLimitMs ?? 5_000 }
  let facts: Promise<DatabaseFacts> | null = null
  const known = (): Promise<DatabaseFacts> =>
    (facts ??= databaseFacts(client).catch((error: unknown) => {
      facts = null
      throw error
    }))
  let reader: Promise<Connection> | null = null
  const writer = createWriter(async () => openWriter(await known(), settings.busyTimeoutMs), settings)
  const access: SqliteAccess = {
    writer,
    reader: () =>
      (reader ??= known()
        .then(({ path }) => openConnection(path))
        .catch((error: unknown) => {
          reader = null
          throw error
        })),
    intMode: async () => (await known()).intMode,
  }

  const write = async (work: (connection: Connection, intMode: IntMode) => ResultSet): Promise<ResultSet> => {
    refusePastTx()
    const { intMode } = await known()
    return writer.write((connection) => work(connection, intMode))
  }

  const serialized: Client = {
    async execute(statement: InStatement | string, args?: unknown) {
      const wanted = (args === undefined ? statement : { sql: statement, args }) as InStatement
      const sql = sqlOf(wanted)
      switch (sortOf(sql)) {
        case 'read':
          return client.execute(wanted).catch((error: unknown) => Promise.reject(said(error)))
        case 'write':
          return write((connection, intMode) => connection.execute(wanted, intMode))
        case 'alone': {
          refusePastTx()
          const { intMode } = await known()
          return writer.alone((connection) => connection.execute(wanted, intMode))
        }
        case 'transaction':
          throw refusal(sql)
      }
    },
    async batch(statements, mode) {
      if (mode === 'read') return client.batch(statements, mode)
      refusePastTx()
      const { intMode } = await known()
      return writer.write((connection) => executeBatch(connection, statements.map(toStatement), intMode))
    },
    async migrate(statements) {
      refusePastTx()
      const { intMode, foreignKeys } = await known()
      return writer.alone((connection) => {
        connection.exec('PRAGMA foreign_keys=off')
        try {
          connection.exec('BEGIN IMMEDIATE')
          const results = executeBatch(connection, statements, intMode)
          connection.exec('COMMIT')
          return results
        } finally {
          if (connection.inTransaction) connection.exec('ROLLBACK')
          connection.exec(`PRAGMA foreign_keys=${foreignKeys ? 'on' : 'off'}`)
        }
      })
    },
    async transaction(mode = 'write') {
      if (mode === 'read') return client.transaction(mode)
      const hook = hooks.getStore()
      if (hook?.active === true) return hook.open(serialized)
      const { intMode } = await known()
      return openTransaction(() => writer.hold({ label: 'application', repeatable: false }), intMode)
    },
    async executeMultiple(sql) {
      refusePastTx()
      await known()
      return writer.alone((connection) => connection.exec(sql))
    },
    sync: () => client.sync(),
    reconnect: () => client.reconnect(),
    close() {
      writer.close()
      // Whoever read was told that it could not be opened.
      void reader?.then(
        (connection) => connection.close(),
        () => {},
      )
      client.close()
    },
    get closed() {
      return client.closed
    },
    protocol: client.protocol,
  }
  return Object.assign(serialized, { [ACCESS]: access })
}

/** @throws UploadError `setup` for a database whose client is not serialised. */
export function sqliteAccess(client: unknown): SqliteAccess {
  const access = (client as Partial<SerializedLibsql> | null | undefined)?.[ACCESS]
  if (access === undefined)
    throw new UploadError(
      'setup',
      'give Drizzle the client that serializedLibsql(createClient(…)) returns, so that all writes go through one queue',
    )
  return access
}

/**
 * The scope in which an application's `onReference` runs. `open` answers the transaction that Drizzle asks the client
 * for; it begins in truth with its first statement, so that a hook which waits for something else holds nobody up.
 */
export interface HookScope {
  active: boolean
  open(client: Client): Promise<Transaction>
}
export const hooks = new AsyncLocalStorage<HookScope>()

function refusePastTx(): void {
  if (hooks.getStore()?.active === true)
    throw new UploadError(
      'write-past-tx',
      'onReference wrote through `db`: write through the `tx` that it is given, so that all is committed with the reference or not at all',
    )
}

interface DatabaseFacts {
  readonly path: string
  readonly foreignKeys: boolean
  readonly intMode: IntMode
}

/** The client says nothing of its settings; the database does. */
async function databaseFacts(client: Client): Promise<DatabaseFacts> {
  const list = await client.execute('PRAGMA database_list')
  const path = list.rows.find((row) => row['name'] === 'main')?.['file']
  if (typeof path !== 'string' || path === '')
    throw new UploadError(
      'setup',
      'the ledger needs an SQLite database in a file (file:…): one in memory survives no crash',
    )
  const foreignKeys = await client.execute('PRAGMA foreign_keys')
  const one = foreignKeys.rows[0]?.[0]
  const intMode = typeof one === 'bigint' ? 'bigint' : typeof one === 'string' ? 'string' : 'number'
  return { path, foreignKeys: Number(one) === 1, intMode }
}

/** WAL, and each commit synced: a reference that was told must survive a power loss. */
async function openWriter(facts: DatabaseFacts, busyTimeoutMs: number): Promise<Connection> {
  const connection = openConnection(facts.path)
  for (const deadline = performance.now() + busyTimeoutMs; ; await sleep(20)) {
    try {
      connection.exec('PRAGMA journal_mode=WAL')
      break
    } catch (error) {
      if (isBusy(error) && performance.now() < deadline) continue
      connection.close()
      throw error
    }
  }
  connection.exec('PRAGMA synchronous=FULL')
  connection.exec(`PRAGMA foreign_keys=${facts.foreignKeys ? 'on' : 'off'}`)
  return connection
}

const sqlOf = (statement: InStatement): string => (typeof statement === 'string' ? statement : statement.sql)

const toStatement = (statement: InStatement | [string, unknown?]): InStatement =>
  Array.isArray(statement) ? ({ sql: statement[0], args: statement[1] ?? [] } as InStatement) : statement

type Sort = 'read' | 'write' | 'alone' | 'transaction'

function sortOf(sql: string): Sort {
  const word = /^(?:\s|--[^\n]*\n|\/\*[\s\S]*?\*\/)*([a-z]+)/i.exec(sql)?.[1]?.toLowerCase()
  switch (word) {
    case 'select':
    case 'values':
    case 'explain':
      return 'read'
    case 'pragma':
    case 'vacuum':
    case 'attach':
    case 'detach':
      return 'alone'
    case 'begin':
    case 'commit':
    case 'end':
    case 'rollback':
    case 'savepoint':
    case 'release':
      return 'transaction'
    default:
      return 'write'
  }
}

const refusal = (sql: string): UploadError =>
  new UploadError(
    'transaction-closed',
    `${sql.trim().split(/\s+/, 1)[0]?.toUpperCase() ?? 'this'} by hand would end a transaction that others share; use db.transaction`,
  )

function executeBatch(connection: Connection, statements: readonly InStatement[], intMode: IntMode): ResultSet[] {
  return statements.map((statement, index) => {
    try {
      return connection.execute(statement, intMode)
    } catch (error) {
      if (!(error instanceof LibsqlError)) throw error
      throw new LibsqlBatchError(error.message, index, error.code, error.extendedCode, error.rawCode, error)
    }
  })
}

/** `hold` is asked for at the first statement. Nested transactions are savepoints, as Drizzle makes them. */
export function openTransaction(
  takeHold: () => Promise<Hold>,
  intMode: IntMode,
  onCommit?: (hold: Hold | null) => Promise<void>,
): Transaction {
  let holding: Promise<Hold> | null = null
  let ended = false
  const use = async <T>(statement: (connection: Connection) => T): Promise<T> => {
    if (ended) throw new UploadError('transaction-closed', 'the transaction has ended')
    const hold = await (holding ??= takeHold())
    return hold.use(statement)
  }
  const execute = async (statement: InStatement): Promise<ResultSet> => {
    const sql = sqlOf(statement)
    // Savepoints nest; everything else of this sort would end what is not the application's to end.
    if (sortOf(sql) === 'transaction' && !/^\s*(savepoint|release|rollback\s+(transaction\s+)?to)\b/i.test(sql))
      throw refusal(sql)
    return use((connection) => connection.execute(statement, intMode))
  }
  const commit = async (): Promise<void> => {
    if (ended) return
    ended = true
    // Rejects where the writer was never got: a hook that overlooks it would get a reference without its row.
    const hold = await holding
    await (onCommit === undefined ? hold?.commit() : onCommit(hold))
  }
  const rollback = async (): Promise<void> => {
    if (ended) return
    ended = true
    // Who never got the writer has nothing to undo: the first statement has told why.
    const hold = await holding?.catch(() => null)
    await hold?.rollback()
  }
  return {
    execute: (statement: InStatement | string, args?: unknown) =>
      execute((args === undefined ? statement : { sql: statement, args }) as InStatement),
    batch: async (statements) => {
      for (const statement of statements.map(toStatement))
        if (sortOf(sqlOf(statement)) === 'transaction') throw refusal(sqlOf(statement))
      return use((connection) => executeBatch(connection, statements.map(toStatement), intMode))
    },
    executeMultiple: (sql: string) => {
      // A script may hold a COMMIT; only a transaction without neighbours may run one.
      if (onCommit !== undefined) throw refusal('executeMultiple')
      return use((connection) => connection.exec(sql))
    },
    commit,
    rollback,
    close: () => void rollback(),
    get closed() {
      return ended
    },
  }
}
