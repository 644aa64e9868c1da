import type { Dialect } from '../dialect.js'
import { type Args, changes, type Plan, row, type SqlRow, type SqlValue } from '../query.js'
import { OPEN } from '../rows.js'
import type { OperationKey } from '../../ports/operation.js'

// Statements that pick what is due. A statement around the pick then takes it. Most picks find nothing. On SQLite a
// reader asks first, so that an empty pick does not keep the application from its one writer. On PostgreSQL a pick
// skips rows that another node is taking.

const DRIVABLE = `((o.point IN ${OPEN} AND o.stalled = 0) OR o.cleanup_due = 1)`

/**
 * Due operations, oldest first. If a lease of the same holder looks expired although it is in use, the clock has
 * jumped, and the lease is left alone. If it is not in use, the holder could not give it back and no longer prolongs
 * it, so it is taken.
 */
export const dueOperations = ({ now, eachJson, lockDue }: Dialect): string =>
  `SELECT o.owner AS due_owner, o.id AS due_id FROM landfall_operations o WHERE o.due_at IS NOT NULL AND o.due_at <= ${now}
  AND (o.lease_holder IS NULL OR (o.lease_expires_at <= ${now} AND (o.lease_holder <> :holder OR NOT EXISTS (
    SELECT 1 FROM ${eachJson(':in_use', 'used')} WHERE used.value ->> 0 = o.owner AND used.value ->> 1 = o.id))))
  AND ${DRIVABLE}
  ORDER BY o.due_at LIMIT :limit ${lockDue('o')}`

export const dueArgs = ({ holder, inUse }: { holder: string; inUse: readonly OperationKey[] }): Args => ({
  holder,
  in_use: JSON.stringify(inUse.map(({ owner, id }) => [owner, id])),
})

/** The next time at which there is something to take, including leases that may expire. */
export const NEXT_DUE = `SELECT o.due_at FROM landfall_operations o WHERE o.due_at IS NOT NULL AND ${DRIVABLE} ORDER BY o.due_at LIMIT 1`

/** Due effects of one target, oldest first. */
export const dueEffects = ({ now, lockDue }: Dialect): string =>
  `SELECT e.effect_id AS due_id FROM landfall_effects e
  WHERE e.kind = :kind AND e.name = :name AND e.due_at IS NOT NULL AND e.due_at <= ${now} ORDER BY e.due_at LIMIT :limit ${lockDue('e')}`

/** Referenced operations that owe nothing any more. */
export const completable = ({ owed, lockDue }: Dialect): string =>
  `SELECT o.owner AS due_owner, o.id AS due_id FROM landfall_operations o
  WHERE o.point = 'referenced' AND ${owed.nothing} ORDER BY o.updated_at LIMIT :limit ${lockDue('o')}`

/** Changes the picked operations. */
export const updatePicked = (pick: string, set: string): string => `WITH due AS MATERIALIZED (${pick})
  UPDATE landfall_operations AS o SET ${set} FROM due WHERE o.owner = due_owner AND o.id = due_id`

/**
 * Two writes, of which the second depends on the row that the first has changed. On PostgreSQL they are one statement,
 * so that both happen or neither, in one round trip. SQLite has no writes in a WITH, so there they are two statements
 * in one transaction.
 *
 * @param first Returns a row with the columns `named`, and perhaps others.
 * @param second Gets the text after FROM: the first's row, as the table `alias`.
 */
export function writeBoth(
  { hasOneWriter }: Dialect,
  first: string,
  { alias, named, second }: { alias: string; named: readonly string[]; second: (from: string) => string },
): (...args: readonly Args[]) => Plan<SqlRow | undefined> {
  if (!hasOneWriter) {
    const sql = `WITH ${alias} AS (${first}), second AS (${second(alias)}) SELECT * FROM ${alias}`
    return (...args) => row(sql, ...args)
  }
  const handed = named.map((name) => ({ name, argument: `first_${name}` }))
  const next = second(
    `(SELECT ${handed.map(({ name, argument }) => `:${argument} AS ${name}`).join(', ')}) AS ${alias}`,
  )
  return function* (...args) {
    const changed = yield* row(first, ...args)
    if (changed === undefined) return undefined
    const given: Record<string, SqlValue> = {}
    for (const { name, argument } of handed) given[argument] = changed[name] ?? null
    yield* changes(next, given, ...args)
    return changed
  }
}

/** Pairs of texts, as rows for `eachJson`. */
export const pairs = (keys: readonly OperationKey[]): string => JSON.stringify(keys.map(({ owner, id }) => [owner, id]))
