import { AsyncLocalStorage } from 'node:async_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Client, InStatement, IntMode, ResultSet, Transaction } from '@libsql/client'
import { LibsqlBatchError, LibsqlError } from '@libsql/core/api'
import { UploadError } from '../../../lib/errors.js'
import { milliseconds, optional, readOptions } from '../../../lib/options.js'
import { type Connection, isBusy, openConnection, said } from './connection.js'
import { type Sort, type Statement, statementsIn } from './sql-statements.js'
import { createWriter, type Hold, JOB_SAVEPOINT, type Writer } from './writer.js'

const ACCESS = Symbol.for('landfall.sqlite')

/** What the ledger needs of the database in addition to Drizzle: the queue of writes, and a connection for reads. */
export interface SqliteAccess {
  readonly writer: Writer
  reader(): Promise<Connection>
  intMode(): Promise<IntMode>
}

/** A libsql client whose writes all go through one queue. */
export type SerializedLibsql = Client & { readonly [ACCESS]: SqliteAccess }

export interface SerializedLibsqlOptions {
  /** How long a write waits while another process has locked the database. In milliseconds, default 5,000. */
  busyTimeoutMs?: number
  /**
   * How long a transaction may keep the writer without a statement before it is rolled back. In milliseconds, default
   * 5,000. For `onReference` the limit is at most 2,000, and it is halved each time a hook was idle, because all other
   * writes wait.
   */
  idleLimitMs?: number
}

/** By name: what each option may be, and its default. */
export const OPTIONS = {
  busyTimeoutMs: optional(milliseconds(0), 5_000),
  idleLimitMs: optional(milliseconds(1), 5_000),
}

/**
 * Makes one queue of all writes to an SQLite file, those of the application and those of Landfall. SQLite has one
 * writer, and within one process, concurrent writes would fail at once with "database is locked".
 *
 * Give Drizzle the returned client: `drizzle(serializedLibsql(createClient({ url: 'file:app.db' })))`. Reads go to
 * `client` as before and never wait for writes (WAL). Writes and transactions run one after the other on a separate
 * connection (WAL, `synchronous=FULL`), and those that wait at the same time share a commit.
 *
 * Within `onReference`, a write through `db` instead of `tx` rejects at once with `write-past-tx`. It would not be part
 * of the transaction, and would wait for it without end. BEGIN, COMMIT, ROLLBACK and SAVEPOINT as statements, also in a
 * `batch`, reject with `transaction-closed` before anything runs, because they would end or undo what others have
 * written. Use `db.transaction` instead. `executeMultiple` runs alone, so its script may begin and commit transactions.
 * Two statements in one text reject with `statement-refused`, and so does a PRAGMA that would disable durability or
 * constraints for all users of the connection.
 *
 * The database must be a file: an in-memory database survives no crash and has no second connection.
 */
export function serializedLibsql(client: Client, options: SerializedLibsqlOptions = {}): SerializedLibsql {
  const settings = readOptions('serializedLibsql', OPTIONS, options)
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
      switch (sortOf(single(wanted))) {
        case 'read':
          return client.execute(wanted).catch((error: unknown) => Promise.reject(said(error)))
        case 'write':
          return write((connection, intMode) => connection.execute(wanted, intMode))
        case 'alone': {
          refusePastTx()
          const { intMode } = await known()
          return writer.alone((connection) => connection.execute(wanted, intMode))
        }
      }
    },
    async batch(statements, mode) {
      const wanted = statements.map(toStatement)
      // All statements are checked before the first one runs.
      const sorts = wanted.map((statement) => sortOf(single(statement)))
      if (mode === 'read' || (mode !== 'write' && sorts.every((sort) => sort === 'read')))
        return client.batch(wanted, 'read')
      refusePastTx()
      const { intMode } = await known()
      return writer.write((connection) => executeBatch(connection, wanted, intMode))
    },
    async migrate(statements) {
      for (const statement of statements) sortOf(single(statement))
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
      for (const { harm } of statementsIn(sql)) if (harm !== null) throw new UploadError('statement-refused', harm)
      refusePastTx()
      await known()
      return writer.alone((connection) => {
        connection.exec(sql)
        // The next job of the writer needs the transaction closed. It is rolled back, and the caller must not take it
        // for committed.
        if (connection.inTransaction)
          throw new UploadError('transaction-closed', 'the script left a transaction open, which was rolled back')
      })
    },
    sync: () => client.sync(),
    reconnect: () => client.reconnect(),
    close() {
      writer.close()
      // If it could not be opened, its readers have already got the error.
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
 * The scope in which an application's `onReference` runs. `open` returns the transaction that Drizzle requests from the
 * client. The transaction really begins with its first statement, so that a hook which first waits for something else
 * does not delay other writes.
 */
export interface HookScope {
  active: boolean
  open(client: Client): Promise<Transaction>
}
const HOOKS = Symbol.for('landfall.sqlite-hooks')
/**
 * One for all copies of this module, as `ACCESS` is. An application may keep its client while a development server
 * loads the rest again. If the client did not see the scope, a hook's transaction would be committed without its
 * reference.
 */
export const hooks = ((globalThis as { [HOOKS]?: AsyncLocalStorage<HookScope> })[HOOKS] ??=
  new AsyncLocalStorage<HookScope>())

function refusePastTx(): void {
  if (hooks.getStore()?.active === true)
    throw new UploadError(
      'write-past-tx',
      'onReference wrote through `db`. Write through the `tx` that it is given, so that everything is committed with the reference or not at all',
    )
}

interface DatabaseFacts {
  readonly path: string
  readonly foreignKeys: boolean
  readonly intMode: IntMode
}

/** The client does not expose its settings, so they are read from the database. */
async function databaseFacts(client: Client): Promise<DatabaseFacts> {
  const list = await client.execute('PRAGMA database_list')
  const path = list.rows.find((row) => row['name'] === 'main')?.['file']
  if (typeof path !== 'string' || path === '')
    throw new UploadError(
      'setup',
      'the ledger needs an SQLite database in a file (file:…), because one in memory survives no crash',
    )
  const foreignKeys = await client.execute('PRAGMA foreign_keys')
  const one = foreignKeys.rows[0]?.[0]
  const intMode = typeof one === 'bigint' ? 'bigint' : typeof one === 'string' ? 'string' : 'number'
  return { path, foreignKeys: Number(one) === 1, intMode }
}

/** Opens the connection with WAL and synced commits: a reference that was reported must survive a power loss. */
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

/**
 * The statement in a text that holds one. Null if it holds none; SQLite refuses that.
 *
 * @throws UploadError `statement-refused` for what must not run on the shared connection.
 */
function single(statement: InStatement): Statement | null {
  const [first = null, second] = statementsIn(sqlOf(statement))
  if (second !== undefined)
    throw new UploadError(
      'statement-refused',
      `${second.word} after the first statement would be ignored. Send one statement per call, or use executeMultiple`,
    )
  if (first !== null && first.harm !== null) throw new UploadError('statement-refused', first.harm)
  return first
}

/** @throws UploadError `transaction-closed` for a statement that begins, ends or nests a transaction by hand. */
function sortOf(statement: Statement | null): Exclude<Sort, 'transaction'> {
  if (statement === null) return 'write'
  if (statement.sort === 'transaction') throw refusal(statement.word)
  return statement.sort
}

const refusal = (word: string): UploadError =>
  new UploadError('transaction-closed', `${word} by hand would end a transaction that others share; use db.transaction`)

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

/**
 * Makes a transaction that calls `takeHold` at its first statement. Nested transactions are savepoints, as Drizzle
 * makes them.
 */
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
    const wanted = single(statement)
    // Savepoints nest. Every other statement of this sort would end a transaction that does not belong to the
    // application.
    const savepoint = wanted?.savepoint?.toLowerCase() ?? JOB_SAVEPOINT
    if (savepoint === JOB_SAVEPOINT) sortOf(wanted)
    return use((connection) => connection.execute(statement, intMode))
  }
  const commit = async (): Promise<void> => {
    if (ended) return
    ended = true
    // Rejects if the transaction never got the writer. A hook that ignores this would otherwise get a reference without
    // its row.
    const hold = await holding
    await (onCommit === undefined ? hold?.commit() : onCommit(hold))
  }
  const rollback = async (): Promise<void> => {
    if (ended) return
    ended = true
    // A transaction that never got the writer has nothing to undo. Its first statement has already reported why.
    const hold = await holding?.catch(() => null)
    await hold?.rollback()
  }
  return {
    execute: (statement: InStatement | string, args?: unknown) =>
      execute((args === undefined ? statement : { sql: statement, args }) as InStatement),
    batch: async (statements) => {
      const wanted = statements.map(toStatement)
      for (const statement of wanted) sortOf(single(statement))
      return use((connection) => executeBatch(connection, wanted, intMode))
    },
    executeMultiple: async (sql: string) => {
      for (const statement of statementsIn(sql)) {
        if (statement.harm !== null) throw new UploadError('statement-refused', statement.harm)
        sortOf(statement)
      }
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
