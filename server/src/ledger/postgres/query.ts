import { Param, SQL, StringChunk } from 'drizzle-orm'
import { UploadError } from '../../lib/errors.js'
import type { SqlRow, SqlValue } from '../sqlite/client/connection.js'

/**
 * PostgreSQL's clock in milliseconds since 1970. Not `clock_timestamp()`: that differs between two places of one
 * statement, and no index serves a condition on it. This one stands still within a statement and moves on between those
 * of a transaction; a statement that had to wait for a row judges by when it began, which ends no lease too early.
 */
export const NOW = `CAST(FLOOR(EXTRACT(EPOCH FROM statement_timestamp()) * 1000) AS bigint)`

/** A Drizzle database or transaction, as far as statements of ours need it. */
export interface Executes {
  execute(query: SQL): PromiseLike<unknown>
}

/** Statements with `?` for their arguments, on whatever driver Drizzle has below it. */
export interface Queries {
  all(sql: string, args?: readonly SqlValue[]): Promise<SqlRow[]>
  get(sql: string, args?: readonly SqlValue[]): Promise<SqlRow | undefined>
  /** How many rows it changed. */
  run(sql: string, args?: readonly SqlValue[]): Promise<number>
}

export function queriesOn(on: Executes, heard: () => void = () => {}): Queries {
  const all = async (sql: string, args: readonly SqlValue[] = []) => {
    const result = await on.execute(queryOf(sql, args))
    heard()
    return resultOf(result)
  }
  return {
    all: async (sql, args) => (await all(sql, args)).rows,
    get: async (sql, args) => (await all(sql, args)).rows[0],
    run: async (sql, args) => (await all(sql, args)).changed,
  }
}

/** No text of ours has a question mark but for an argument. */
export function queryOf(sql: string, args: readonly SqlValue[]): SQL {
  const parts = sql.split('?')
  if (parts.length !== args.length + 1) throw new RangeError(`${args.length} arguments for: ${sql}`)
  const chunks: (StringChunk | Param)[] = []
  for (const [index, part] of parts.entries()) {
    if (index > 0) chunks.push(new Param(args[index - 1] ?? null))
    chunks.push(new StringChunk(part))
  }
  return new SQL(chunks)
}

/** node-postgres answers an object with `rows` and `rowCount`, postgres.js the rows with a `count`. */
function resultOf(result: unknown): { rows: SqlRow[]; changed: number } {
  if (Array.isArray(result))
    return { rows: result as SqlRow[], changed: Number((result as { count?: unknown }).count ?? result.length) }
  const { rows, rowCount } = result as { rows: SqlRow[]; rowCount: number | null }
  return { rows, changed: rowCount ?? 0 }
}

/**
 * SQLSTATE classes in which nothing is wrong with what was asked: connections, rollbacks for others' sake, resources, an
 * operator, the system. And what says that it is not to be written to now: a standby after a failover.
 *
 * @see https://www.postgresql.org/docs/current/errcodes-appendix.html
 */
const AWAY = /^(08|40|53|57|58)/
const ALSO_AWAY = new Set(['25006', '25P03', '55P03'])

/** The application's database cannot be used now; and that is all that is known of the statement. */
export function isAway(error: unknown): boolean {
  for (let at = error, depth = 0; at instanceof Error && depth < 8; at = at.cause, depth++) {
    const { code } = at as { code?: unknown }
    if (typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code)) return AWAY.test(code) || ALSO_AWAY.has(code)
    if (typeof code === 'string' && /^(E[A-Z_]+|CONNECTION_[A-Z_]+|CONNECT_TIMEOUT)$/.test(code)) return true
    // node-postgres has no codes for these.
    if (
      /^(Connection terminated|timeout exceeded when trying to connect|Client (was closed|has encountered))/.test(
        at.message,
      )
    )
      return true
  }
  return false
}

/** A statement was ended because it took too long, or because somebody asked for that: `query_canceled`. */
export const isStopped = (error: unknown): boolean => codesOf(error).includes('57014')

/** SQLSTATEs, and what else the error and its causes have for a code. */
export function codesOf(error: unknown): unknown[] {
  const codes: unknown[] = []
  for (let at = error, depth = 0; at instanceof Error && depth < 8; at = at.cause, depth++)
    codes.push((at as { code?: unknown }).code)
  return codes
}

/** As `ledger-unavailable` where the database is away; anything else as it is. */
export const faultOf = (error: unknown): unknown =>
  isAway(error) ? new UploadError('ledger-unavailable', 'the database cannot be used now', { cause: error }) : error
