import type { InStatement, InValue, IntMode, ResultSet, Row } from '@libsql/client'
import { LibsqlError } from '@libsql/core/api'
import { ResultSetImpl } from '@libsql/core/util'
import Database from 'libsql'
import type { SqlRow, SqlValue } from '../../query.js'
import { UploadError } from '../../../lib/errors.js'
import { statementsIn } from './sql-statements.js'

/** One SQLite connection, which keeps its prepared statements. */
export interface Connection {
  run(sql: string, args?: readonly SqlValue[]): number
  get(sql: string, args?: readonly SqlValue[]): SqlRow | undefined
  all(sql: string, args?: readonly SqlValue[]): SqlRow[]
  /** Runs a statement of the application, and answers as `@libsql/client` would. */
  execute(statement: InStatement, intMode: IntMode): ResultSet
  exec(sql: string): void
  readonly inTransaction: boolean
  close(): void
}

type Statement = ReturnType<InstanceType<typeof Database>['prepare']>

/** Enough for the frequent statements of any application. Beyond this number, the oldest statement is dropped. */
const MAX_STATEMENTS = 500

/** Statements that change tables. After one of them, a kept statement may know outdated columns. */
const CHANGES_SCHEMA: ReadonlySet<string> = new Set([
  'CREATE',
  'ALTER',
  'DROP',
  'ATTACH',
  'DETACH',
  'VACUUM',
  'REINDEX',
])

export function openConnection(path: string): Connection {
  // No busy time-out, because it would block the event loop. A caller that meets a locked database waits
  // asynchronously, outside of SQLite.
  const db = openDatabase(path)
  const plain = new Map<string, Statement>()
  const mapped = new Map<string, Statement>()

  const prepared = <T>(cache: Map<string, Statement>, sql: string, use: (statement: Statement) => T): T => {
    let statement = cache.get(sql)
    if (statement === undefined) {
      statement = db.prepare(sql)
      if (cache.size >= MAX_STATEMENTS) cache.delete(cache.keys().next().value ?? '')
      cache.set(sql, statement)
    }
    try {
      return use(statement)
    } catch (error) {
      // libsql 0.5 does not reset a statement whose `get` has failed. The next call would run with the old arguments.
      cache.delete(sql)
      throw error
    }
  }
  const forget = (sql: string): void => {
    if (!statementsIn(sql).some(({ word }) => CHANGES_SCHEMA.has(word))) return
    plain.clear()
    mapped.clear()
  }

  return {
    run: (sql, args = []) => prepared(plain, sql, (statement) => statement.run(args).changes),
    get: (sql, args = []) => prepared(plain, sql, (statement) => statement.get(args) as SqlRow | undefined),
    all: (sql, args = []) => prepared(plain, sql, (statement) => statement.all(args) as SqlRow[]),
    execute(statement, intMode) {
      const sql = typeof statement === 'string' ? statement : statement.sql
      try {
        const args = typeof statement === 'string' ? [] : statement.args
        return prepared(mapped, sql, (kept) => execute(kept, args, intMode))
      } catch (error) {
        throw said(toLibsqlError(error))
      } finally {
        forget(sql)
      }
    },
    exec(sql) {
      try {
        db.exec(sql)
      } catch (error) {
        throw said(toLibsqlError(error))
      } finally {
        forget(sql)
      }
    },
    get inTransaction() {
      return db.inTransaction
    },
    close() {
      plain.clear()
      mapped.clear()
      if (db.open) db.close()
    },
  }
}

function execute(statement: Statement, args: InArgsOf, intMode: IntMode): ResultSet {
  statement.safeIntegers(true)
  const bound = bind(args ?? [], intMode)
  if (!statement.reader) {
    const info = statement.run(bound)
    return new ResultSetImpl([], [], [], info.changes, BigInt(info.lastInsertRowid))
  }
  statement.raw(true)
  const values = statement.all(bound) as SqlValue[][]
  // Ask for the columns only now. If another connection has changed the tables, running the statement has prepared it
  // again.
  const columns = statement.columns()
  const names = columns.map((column) => column.name)
  const types = columns.map((column) => column.type ?? '')
  const rows = values.map((row) => toRow(row, names, intMode))
  return new ResultSetImpl(names, types, rows, 0, undefined)
}

type InArgsOf = Extract<InStatement, { sql: string }>['args']

function bind(args: NonNullable<InArgsOf>, intMode: IntMode): object {
  if (Array.isArray(args)) return args.map((value) => toSql(value, intMode))
  return Object.fromEntries(
    Object.entries(args).map(([name, value]) => [name.replace(/^[@$:]/, ''), toSql(value, intMode)]),
  )
}

const MAX_INTEGER = 2n ** 63n - 1n

function toSql(value: InValue | undefined, intMode: IntMode): unknown {
  if (value === undefined) throw new TypeError('undefined cannot be passed as argument to the database')
  if (typeof value === 'number' && !Number.isFinite(value)) throw new RangeError('Only finite numbers can be arguments')
  if (typeof value === 'bigint' && (value > MAX_INTEGER || value < -MAX_INTEGER - 1n))
    throw new RangeError('bigint does not fit into 64 bits')
  if (typeof value === 'boolean') {
    if (intMode === 'bigint') return value ? 1n : 0n
    return intMode === 'string' ? (value ? '1' : '0') : value ? 1 : 0
  }
  if (value instanceof ArrayBuffer) return Buffer.from(value)
  if (value instanceof Date) return value.valueOf()
  return value
}

function fromSql(value: SqlValue, intMode: IntMode): unknown {
  if (typeof value === 'bigint') {
    if (intMode === 'bigint') return value
    if (intMode === 'string') return String(value)
    const number = Number(value)
    if (!Number.isSafeInteger(number)) throw new RangeError('The integer is too large for a JavaScript number')
    return number
  }
  // A blob gets its own ArrayBuffer, never a view into Node's shared pool.
  if (value instanceof Uint8Array) return new Uint8Array(value).buffer
  return value
}

/** Values by number and by name, as `@libsql/client` gives them. Only the names are enumerable. */
function toRow(values: readonly SqlValue[], names: readonly string[], intMode: IntMode): Row {
  const row = {}
  Object.defineProperty(row, 'length', { value: values.length })
  for (const [index, raw] of values.entries()) {
    const value = fromSql(raw, intMode)
    Object.defineProperty(row, index, { value })
    const name = names[index] ?? ''
    if (!Object.hasOwn(row, name))
      Object.defineProperty(row, name, { value, enumerable: true, configurable: true, writable: true })
  }
  return row as Row
}

const BASE_CODES: Readonly<Record<number, string>> = {
  1: 'SQLITE_ERROR',
  5: 'SQLITE_BUSY',
  6: 'SQLITE_LOCKED',
  8: 'SQLITE_READONLY',
  9: 'SQLITE_INTERRUPT',
  10: 'SQLITE_IOERR',
  11: 'SQLITE_CORRUPT',
  13: 'SQLITE_FULL',
  14: 'SQLITE_CANTOPEN',
  19: 'SQLITE_CONSTRAINT',
  20: 'SQLITE_MISMATCH',
  26: 'SQLITE_NOTADB',
}

/** Applications catch `LibsqlError`, so errors of SQLite become that. */
function toLibsqlError(error: unknown): unknown {
  if (!(error instanceof Database.SqliteError)) return error
  const base = error.rawCode === undefined ? undefined : BASE_CODES[error.rawCode & 0xff]
  return new LibsqlError(error.message, base ?? error.code, error.code, error.rawCode, error)
}

function openDatabase(path: string): InstanceType<typeof Database> {
  try {
    return new Database(path, { timeout: 0 })
  } catch (error) {
    // This error of libsql has no code.
    throw new UploadError('ledger-unavailable', 'the database cannot be opened', { cause: error })
  }
}

/** Primary result codes, by name and number. @see https://www.sqlite.org/rescode.html */
const BUSY = { SQLITE_BUSY: 5, SQLITE_LOCKED: 6 }
const AWAY = { ...BUSY, SQLITE_READONLY: 8, SQLITE_IOERR: 10, SQLITE_FULL: 13, SQLITE_CANTOPEN: 14 }

const isOneOf = (codes: Readonly<Record<string, number>>, error: unknown): boolean =>
  (error instanceof Database.SqliteError || error instanceof LibsqlError) &&
  Object.entries(codes).some(
    ([name, code]) => error.code.startsWith(name) || (error.rawCode !== undefined && (error.rawCode & 0xff) === code),
  )

/** Whether another connection has locked the database. This passes with time. */
export const isBusy = (error: unknown): boolean => isOneOf(BUSY, error)

/** Errors of Landfall's own connections and of the application's serialised client. */
const saidHere = new WeakSet()

/** Remembers that this error came from the application's own database. */
export function said(error: unknown): unknown {
  if (typeof error === 'object' && error !== null) saidHere.add(error)
  return error
}

/**
 * Whether the error, or one that caused it, came from the application's own database. Other databases fail with the
 * same codes.
 */
export function isSaid(error: unknown): boolean {
  for (let at = error, depth = 0; at instanceof Error && depth < 8; at = at.cause, depth++)
    if (saidHere.has(at)) return true
  return false
}

/**
 * Whether the database itself cannot be used now, whatever the statement was. This also finds an error that a library
 * has wrapped.
 */
export function isAway(error: unknown): boolean {
  for (let at = error, depth = 0; at instanceof Error && depth < 8; at = at.cause, depth++)
    if (isOneOf(AWAY, at)) return true
  return false
}
