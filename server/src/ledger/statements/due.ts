import type { Dialect } from '../dialect.js'
import { type Args, changes, type Plan, row, type SqlRow, type SqlValue } from '../query.js'
import { OPEN } from '../rows.js'
import type { OperationKey } from '../../ports/operation.js'

// What is picked, and then taken by a statement around the pick. Most picks find nothing. On SQLite a reader asks first, so
// that they do not keep the application from its one writer; on PostgreSQL they pass over rows that another node takes.

const DRIVABLE = `((o.point IN ${OPEN} AND o.stalled = 0) OR o.cleanup_due = 1)`

/**
 * Oldest first. A lease of the same holder that looks expired is one whose clock has jumped if it is in use; otherwise
 * it could not be given back, and is not prolonged any more.
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

/** When there is something to take, leases that may expire included. */
export const NEXT_DUE = `SELECT o.due_at FROM landfall_operations o WHERE o.due_at IS NOT NULL AND ${DRIVABLE} ORDER BY o.due_at LIMIT 1`

/** Of one target, oldest first. */
export const dueEffects = ({ now, lockDue }: Dialect): string =>
  `SELECT e.effect_id AS due_id FROM landfall_effects e
  WHERE e.kind = :kind AND e.name = :name AND e.due_at IS NOT NULL AND e.due_at <= ${now} ORDER BY e.due_at LIMIT :limit ${lockDue('e')}`

/** Referenced, and nothing is owed any more. */
export const completable = ({ owed, lockDue }: Dialect): string =>
  `SELECT o.owner AS due_owner, o.id AS due_id FROM landfall_operations o
  WHERE o.point = 'referenced' AND ${owed.nothing} ORDER BY o.updated_at LIMIT :limit ${lockDue('o')}`

/** Changes the operations that were picked. */
export const updatePicked = (pick: string, set: string): string => `WITH due AS MATERIALIZED (${pick})
  UPDATE landfall_operations AS o SET ${set} FROM due WHERE o.owner = due_owner AND o.id = due_id`

/**
 * Two writes of which the second depends on the row that the first has changed. One statement for PostgreSQL, so that both
 * are done or neither, by one way there and back; two for SQLite, which has no writes in a WITH, within one transaction.
 *
 * @param first Answers a row with the columns `named`, and perhaps others.
 * @param second With the name of what is behind FROM: the first's row, as the table `alias`.
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

/** Pairs of texts, as rows of `eachJson`. */
export const pairs = (keys: readonly OperationKey[]): string => JSON.stringify(keys.map(({ owner, id }) => [owner, id]))
