import { attendedSince, stepsIn } from '../clock-marks.js'
import { forgottenOf, insertOf } from '../columns.js'
import type { Dialect } from '../dialect.js'
import { changes, type Plan, row, rows, type SqlRow } from '../query.js'
import { OPEN } from '../rows.js'
import { EFFECTS, OPERATIONS } from '../tables.js'
import { aliasOf, ENDED_AS, type Ended, ownerHash, toEnded, toHoldings } from '../tombstones.js'
import { REMOVAL } from '../../ports/ledger/effects.js'
import type { Retention } from '../../ports/ledger/inventory.js'
import type { Holdings } from '../../ports/ledger/references.js'
import { updatePicked } from './due.js'
import { tombstoneKey } from './marks.js'
import { cancelled } from './operations.js'

/**
 * Conditions of an operation that owes nothing any more: no removal, no lease, no effect. The first one is worded as in
 * the index `landfall_operations_ended`.
 */
const IDLE = `o.cleanup_due = 0 AND o.lease_holder IS NULL`
const OWES_NOTHING = `NOT EXISTS (SELECT 1 FROM landfall_references r WHERE r.owner = o.owner AND r.operation_id = o.id)
  AND NOT EXISTS (SELECT 1 FROM landfall_effects e WHERE e.owner = o.owner AND e.operation_id = o.id AND e.delivered_at IS NULL
    AND (e.given_up_at IS NULL OR e.type = 'remove-bytes' OR e.given_up_at > :until))`
const ENDED = `SELECT o.owner, o.id, o.owner_hash, ${ENDED_AS} AS ended FROM landfall_operations o`

/** Operations that ended until `:until`, oldest first. */
export const ENDED_OPERATIONS = `${ENDED}
  WHERE o.updated_at <= :until AND ${IDLE} AND (o.point IN ('cancelled', 'expired', 'rejected') OR o.removed_at IS NOT NULL)
    AND ${OWES_NOTHING} ORDER BY o.updated_at LIMIT :limit`

/** Operations of forgotten owners. They are found as soon as their bytes are removed. `until` is now. */
export const FORGOTTEN_OPERATIONS = `${ENDED}
  WHERE o.forgotten_at IS NOT NULL AND ${IDLE} AND ${OWES_NOTHING} ORDER BY o.forgotten_at LIMIT :limit`

export const DELIVERED_EFFECTS = `SELECT e.effect_id FROM landfall_effects e
  WHERE e.delivered_at IS NOT NULL AND e.delivered_at <= :until ORDER BY e.delivered_at LIMIT :limit`

/** The owner's row counts nothing any more, except for the rate. */
const HOLDS_NOTHING = `open_operations = 0 AND reserved_bytes = 0 AND stored_bytes = 0 AND stored_references = 0`

/** References are found through their operations, because no index begins with their owner. */
const REFERENCES_OF = `landfall_operations o JOIN landfall_references r ON r.operation_id = o.id AND r.owner = o.owner WHERE o.owner = :owner`
const HOLDINGS = `SELECT
  (SELECT COUNT(*) FROM landfall_operations WHERE owner = :owner) AS operations,
  (SELECT COUNT(*) FROM landfall_operations WHERE owner = :owner AND point IN ${OPEN}) AS open_operations,
  (SELECT COUNT(*) FROM ${REFERENCES_OF}) AS refs,
  (SELECT COALESCE(SUM(r.size), 0) FROM ${REFERENCES_OF}) AS bytes`

/**
 * The owner's operations that are being forgotten. Operations that are declared during that time are not among them.
 */
const MARKED = `owner = :owner AND forgotten_at IS NOT NULL`
const OF_MARKED = `owner = :owner AND operation_id IN (SELECT id FROM landfall_operations WHERE ${MARKED})`

export function retentionStatements(dialect: Dialect) {
  const { now, hasOneWriter, eachJson, lock, lockDue, newId, removalOf, owed } = dialect

  function* holdings(owner: string): Plan<Holdings> {
    return toHoldings(yield* row(HOLDINGS, { owner }))
  }

  /**
   * The times until which operations must have ended, and effects must have been delivered, to be retired. null: never.
   */
  function* over({ finalMs, effectsMs }: Retention): Plan<{
    nowAt: number
    endedAt: number | null
    deliveredAt: number | null
  }> {
    const found = yield* row(
      `SELECT ${now} AS now, (SELECT value FROM landfall_meta WHERE key = 'clock_steps') AS steps`,
    )
    const nowAt = Number(found?.['now'])
    const steps = stepsIn(found?.['steps'])
    const since = (ms: number | null): number | null => (ms === null ? null : attendedSince(steps, nowAt, ms))
    return { nowAt, endedAt: since(finalMs), deliveredAt: since(effectsMs) }
  }

  /** The operations that `retire` would replace by tombstones. Rows that another node has locked are skipped. */
  function* ended({ nowAt, endedAt }: { nowAt: number; endedAt: number | null }, limit: number): Plan<SqlRow[]> {
    const forgotten = yield* rows(`${FORGOTTEN_OPERATIONS} ${lockDue('o')}`, { until: nowAt, limit })
    const left = limit - forgotten.length
    if (endedAt === null || left === 0) return forgotten
    return [...forgotten, ...(yield* rows(`${ENDED_OPERATIONS} ${lockDue('o')}`, { until: endedAt, limit: left }))]
  }

  const ENDED_ROWS = eachJson(':ended', 'ended')
  const OF_ENDED = `IN (SELECT ended.value ->> 0, ended.value ->> 1 FROM ${ENDED_ROWS})`

  function* bury(found: readonly SqlRow[]): Plan<number> {
    if (found.length === 0) return 0
    const key = yield* tombstoneKey()
    // An operation of a forgotten owner may also be among those that ended long ago.
    const unique = new Map(
      found.map(toEnded(key)).map((operation) => [JSON.stringify([operation.owner, operation.id]), operation]),
    )
    const operations: readonly Ended[] = [...unique.values()]
    const args = { ended: JSON.stringify(operations.map(({ owner, id, hash, point }) => [owner, id, hash, point])) }
    // The tombstones are written first, because the trigger on the deletion looks for them.
    yield* changes(
      `INSERT INTO landfall_tombstones (id, owner_hash, point)
       SELECT ended.value ->> 1, ended.value ->> 2, ended.value ->> 3 FROM ${ENDED_ROWS} WHERE true ON CONFLICT DO NOTHING`,
      args,
    )
    if (operations.some(({ unnamed }) => unnamed))
      yield* changes(
        `UPDATE landfall_operations AS o SET owner_hash = ended.value ->> 2 FROM ${ENDED_ROWS}
         WHERE o.owner = ended.value ->> 0 AND o.id = ended.value ->> 1 AND o.owner_hash IS NULL`,
        args,
      )
    yield* changes(
      `DELETE FROM landfall_effects WHERE (owner, operation_id) ${OF_ENDED} AND (delivered_at IS NOT NULL OR given_up_at IS NOT NULL)`,
      args,
    )
    // If an operator has just asked again for an effect that was given up, the operation stays until that effect is
    // settled.
    const deleted = yield* changes(
      `DELETE FROM landfall_operations WHERE (owner, id) ${OF_ENDED} AND NOT EXISTS (
         SELECT 1 FROM landfall_effects e WHERE e.owner = landfall_operations.owner AND e.operation_id = landfall_operations.id)`,
      args,
    )
    yield* changes(
      `DELETE FROM landfall_usage WHERE owner IN (
         SELECT u.owner FROM landfall_usage u WHERE u.owner IN (SELECT ended.value ->> 0 FROM ${ENDED_ROWS})
           AND ${HOLDS_NOTHING} AND declared_until_us <= ${now} * 1000 ${lockDue('u')})`,
      args,
    )
    return deleted
  }

  const removal = insertOf(EFFECTS, now, {
    effectId: newId,
    owner: 'r.owner',
    operationId: 'r.operation_id',
    kind: `'${REMOVAL.kind}'`,
    name: `'${REMOVAL.name}'`,
    type: `'remove-bytes'`,
    payload: removalOf('r.blob_key'),
    dueAt: now,
    createdAt: now,
  })

  /**
   * The statements of `forgetOwner`, in order, after its rows were marked by `forgotten_at`. Each statement sees what
   * other transactions have committed before it, so only the marks say which rows are meant.
   */
  const FORGET: readonly string[] = [
    // Open operations end as by `cancel`.
    `UPDATE landfall_operations SET ${cancelled(now)} WHERE ${MARKED} AND point IN ${OPEN}`,
    // References are removed as by `remove`: an effect removes their bytes after the commit.
    `UPDATE landfall_operations SET removed_at = ${now} WHERE ${MARKED} AND point IN ('referenced', 'completed')
      AND EXISTS (SELECT 1 FROM landfall_references r WHERE r.operation_id = landfall_operations.id AND r.owner = landfall_operations.owner)`,
    `${removal.into} SELECT ${removal.values} FROM ${REFERENCES_OF} AND o.forgotten_at IS NOT NULL`,
    `DELETE FROM landfall_references WHERE ${OF_MARKED}`,
    // Effects that are still to be delivered contain data of the owner, except for removals.
    `DELETE FROM landfall_effects WHERE ${OF_MARKED} AND (type <> 'remove-bytes' OR delivered_at IS NOT NULL)`,
    `UPDATE landfall_effects SET owner = :alias WHERE ${OF_MARKED}`,
    `INSERT INTO landfall_tombstones (id, owner_hash, point) SELECT id, CAST(:owner_hash AS text), ${ENDED_AS} FROM landfall_operations WHERE ${MARKED} ON CONFLICT DO NOTHING`,
    // The row stays until the bytes are removed, because it drives their removal and reconcile relies on it.
    `UPDATE landfall_operations SET owner = :alias, owner_hash = :owner_hash, updated_at = ${now}, ${owed.recount}, ${forgottenOf(OPERATIONS)}
      WHERE ${MARKED}`,
    // The rate is forgotten with its owner. If an operation is declared at the same time, the row stays.
    `DELETE FROM landfall_usage WHERE owner = :owner AND ${HOLDS_NOTHING}`,
  ]
  const MARK = updatePicked(
    `SELECT owner AS due_owner, id AS due_id FROM landfall_operations WHERE owner = :owner ORDER BY id ${lock('landfall_operations')}`,
    `forgotten_at = ${now}`,
  )

  /**
   * Locks rows in the same order as `remove`: first the references, then the effects that are owed, and then the
   * operations. The operations are locked in the order in which leases are prolonged.
   */
  function* lockOwned(owner: string): Plan<void> {
    // An operation that is being driven at this moment finishes first, and then has its reference.
    yield* row(`SELECT COUNT(*) AS n FROM (SELECT 1 FROM ${REFERENCES_OF} ORDER BY o.id ${lock('r')}) AS locked`, {
      owner,
    })
    // A node that settles an effect locks the effect before its operation, so this does too. Effects that are already
    // settled are deleted after their operation was locked.
    yield* row(
      `SELECT COUNT(*) AS n FROM (
         SELECT 1 FROM landfall_effects e WHERE owner = :owner AND delivered_at IS NULL AND given_up_at IS NULL
         ORDER BY effect_id ${lock('e')}) AS locked`,
      { owner },
    )
  }

  return {
    holdings,

    /** For SQLite, where a reader first asks whether there is anything to retire. */
    *isAnyEnded(retention: Retention): Plan<boolean> {
      const until = yield* over(retention)
      if ((yield* ended(until, 1)).length > 0) return true
      if (until.deliveredAt === null) return false
      return (yield* row(DELIVERED_EFFECTS, { until: until.deliveredAt, limit: 1 })) !== undefined
    },

    /** Must run in a transaction. */
    *retire(retention: Retention, limit: number): Plan<{ operations: number; effects: number }> {
      const until = yield* over(retention)
      const operations = yield* bury(yield* ended(until, limit))
      if (until.deliveredAt === null) return { operations, effects: 0 }
      const effects = yield* changes(
        `DELETE FROM landfall_effects WHERE effect_id IN (${DELIVERED_EFFECTS} ${lockDue('e')})`,
        { until: until.deliveredAt, limit },
      )
      return { operations, effects }
    },

    /** Must run in a transaction, usually the application's. */
    *forgetOwner(owner: string): Plan<Holdings> {
      const hash = ownerHash(yield* tombstoneKey(), owner)
      if (!hasOneWriter) yield* lockOwned(owner)
      yield* changes(MARK, { owner })
      const found = yield* holdings(owner)
      for (const sql of FORGET) yield* changes(sql, { owner, owner_hash: hash, alias: aliasOf(hash) })
      return found
    },
  }
}
