import type { SQL } from 'drizzle-orm'
import { type Queries, queryOf, type SqlRow } from '../query.js'
import { UploadError } from '../../lib/errors.js'

/** A Drizzle database or transaction, as far as the ledger's statements need it. */
export interface Executes {
  execute(query: SQL): PromiseLike<unknown>
}

/** @param heard Called after each answer. */
export const queriesOn = (on: Executes, heard: () => void = () => {}): Queries => ({
  async ask({ wants, sql, args }) {
    const result = await on.execute(queryOf(sql, args))
    heard()
    const { rows, changed } = resultOf(result)
    return wants === 'rows' ? rows : wants === 'row' ? rows[0] : changed
  },
})

/** node-postgres returns an object with `rows` and `rowCount`. postgres.js returns the rows, with a `count`. */
function resultOf(result: unknown): { rows: SqlRow[]; changed: number } {
  if (Array.isArray(result))
    return { rows: result as SqlRow[], changed: Number((result as { count?: unknown }).count ?? result.length) }
  const { rows, rowCount } = result as { rows: SqlRow[]; rowCount: number | null }
  return { rows, changed: rowCount ?? 0 }
}

/**
 * SQLSTATE classes of faults that are not in the statement: connections, rollbacks for the sake of other transactions,
 * resources, an operator, the system. `ALSO_AWAY` adds single codes, such as that of a database that cannot be written
 * to now because it is a standby after a failover.
 *
 * @see https://www.postgresql.org/docs/current/errcodes-appendix.html
 */
const AWAY = /^(08|40|53|57|58)/
const ALSO_AWAY = new Set(['25006', '25P03', '55P03'])

/** Whether the application's database cannot be used now. Then nothing else is known about the statement. */
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

/** A statement was ended because it took too long, or because the server was asked to end it: `query_canceled`. */
export const isStopped = (error: unknown): boolean => codesOf(error).includes('57014')

/** The codes of the error and of its causes: SQLSTATEs and others. */
export function codesOf(error: unknown): unknown[] {
  const codes: unknown[] = []
  for (let at = error, depth = 0; at instanceof Error && depth < 8; at = at.cause, depth++)
    codes.push((at as { code?: unknown }).code)
  return codes
}

/** Returns `ledger-unavailable` if the database cannot be used now, and otherwise the error itself. */
export const faultOf = (error: unknown): unknown =>
  isAway(error) ? new UploadError('ledger-unavailable', 'the database cannot be used now', { cause: error }) : error
