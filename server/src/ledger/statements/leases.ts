import { NO_LEASE, statementsFor } from '../changes.js'
import type { Dialect } from '../dialect.js'
import { type Args, changes, type Plan, row, rows } from '../query.js'
import { LEASED_COLUMNS, levelOf, OPEN, OPERATION_COLUMNS, toAsked, toLeased, toOperation } from '../rows.js'
import type { EffectTarget } from '../../ports/ledger/effects.js'
import type { Changes, Lease, LeaseOutcome, LeasePurpose, LeaseRequest, Urgency } from '../../ports/ledger/leases.js'
import type { OperationKey, OperationRecord } from '../../ports/operation.js'
import { dueArgs, dueOperations, NEXT_DUE, updatePicked } from './due.js'

/** The condition of every later write: a process that has lost the lease changes nothing (invariant 8). */
export const FENCE = `owner = :owner AND id = :id AND lease_token = :lease_token AND lease_holder = :lease_holder AND digest IS NOT DISTINCT FROM :known_digest`
export const fence = ({ owner, id, token, holder }: Lease, { digest }: OperationRecord): Args => ({
  owner,
  id,
  lease_token: token,
  lease_holder: holder,
  known_digest: digest,
})

const ONE = `owner = :owner AND id = :id`
/** A receiver that disappears without giving its lease back may have left bytes that are not counted yet. */
const UNCLEAN = `unclean_holder = COALESCE(unclean_holder, CASE lease_purpose WHEN 'receive' THEN lease_holder END)`
/** The points at which a lease of each purpose has something to do. */
const USEFUL = {
  receive: `point = 'declared' AND "offset" < file_size`,
  drive: `(point IN ${OPEN} OR cleanup_due = 1)`,
} as const

export function leaseStatements(dialect: Dialect) {
  const { now, eachJson } = dialect
  /**
   * What a new lease sets. The operation is due when the lease expires, so the completer finds operations whose holders
   * have died.
   */
  const GRANT = `lease_token = lease_token + 1, ${UNCLEAN}, lease_holder = :holder, lease_purpose = :purpose,
    lease_expires_at = ${now} + :lease_ms, lease_asked = 0, due_at = ${now} + :lease_ms`
  /**
   * A holder that asks again for its own lease has forgotten that it has it. Its process is the same one, so the lease
   * is not in use and can be granted again.
   */
  const FREE = `(lease_holder IS NULL OR lease_holder = :holder OR lease_expires_at <= ${now})`
  const take = (useful: string): string =>
    `UPDATE landfall_operations SET ${GRANT} WHERE ${ONE} AND ${useful} AND ${FREE} RETURNING ${LEASED_COLUMNS}`
  const TAKE = { receive: take(USEFUL.receive), drive: take(USEFUL.drive) }
  const TAKE_DUE = `${updatePicked(dueOperations(dialect), GRANT)} RETURNING ${LEASED_COLUMNS}`
  /** Condition: another holder is receiving bytes. */
  const RECEIVES = `${ONE} AND lease_purpose = 'receive' AND lease_holder <> :holder AND lease_expires_at > ${now}`
  const NEXT = `SELECT ${now} AS now, (${NEXT_DUE}) AS due, (
      SELECT MIN((SELECT e.due_at FROM landfall_effects e WHERE e.kind = target.value ->> 0 AND e.name = target.value ->> 1
        AND e.due_at IS NOT NULL ORDER BY e.due_at LIMIT 1)) FROM ${eachJson(':targets', 'target')}) AS effect_due`

  const recording = statementsFor(
    now,
    (set) => `UPDATE landfall_operations SET ${set} WHERE ${FENCE} AND point = :point RETURNING ${OPERATION_COLUMNS}`,
  )

  return {
    *lease(
      { owner, id }: OperationKey,
      { holder, leaseMs, purpose }: LeaseRequest & { purpose: LeasePurpose },
    ): Plan<LeaseOutcome> {
      const taken = yield* row(TAKE[purpose], { holder, purpose, lease_ms: leaseMs, owner, id })
      if (taken !== undefined) return { outcome: 'granted', ...toLeased(taken) }
      const held = yield* row(`SELECT 1 AS held FROM landfall_operations WHERE ${ONE} AND ${USEFUL[purpose]}`, {
        owner,
        id,
      })
      return { outcome: held === undefined ? 'closed' : 'held' }
    },

    *leaseDue(
      request: LeaseRequest & { limit: number; inUse: readonly OperationKey[] },
    ): Plan<{ lease: Lease; operation: OperationRecord }[]> {
      const { leaseMs, limit } = request
      const args = { ...dueArgs(request), limit, purpose: 'drive', lease_ms: leaseMs }
      return (yield* rows(TAKE_DUE, args)).map(toLeased)
    },

    *ask({ owner, id }: OperationKey, { holder, urgency }: { holder: string; urgency: Urgency }): Plan<boolean> {
      const args = { owner, id, holder, level: levelOf(urgency) }
      const asked = yield* changes(
        `UPDATE landfall_operations SET lease_asked = :level WHERE ${RECEIVES} AND lease_asked < CAST(:level AS smallint)`,
        args,
      )
      return (
        asked > 0 || (yield* row(`SELECT 1 AS receives FROM landfall_operations WHERE ${RECEIVES}`, args)) !== undefined
      )
    },

    *askedOf(holder: string): Plan<{ key: OperationKey; urgency: Urgency }[]> {
      const asked = yield* rows(
        `SELECT owner, id, lease_asked FROM landfall_operations WHERE lease_holder = :holder AND lease_asked > 0`,
        { holder },
      )
      return asked.map(toAsked)
    },

    *renew(leases: readonly Lease[], leaseMs: number): Plan<readonly Lease[]> {
      if (leases.length === 0) return []
      const held = yield* rows(dialect.renewal, {
        leases: JSON.stringify(leases.map(({ owner, id, token, holder }) => [owner, id, token, holder])),
        lease_ms: leaseMs,
      })
      const kept = new Set(held.map((each) => JSON.stringify([each['owner'], each['id'], Number(each['lease_token'])])))
      return leases.filter(({ owner, id, token }) => kept.has(JSON.stringify([owner, id, token])))
    },

    *record(lease: Lease, from: OperationRecord, given: Changes): Plan<OperationRecord | null> {
      const { made, args } = recording(given)
      const recorded = yield* row(made, args, fence(lease, from), { point: from.point })
      return recorded === undefined ? null : toOperation(recorded)
    },

    /** When something is due next, in milliseconds from now. */
    *nextDueInMs(targets: readonly EffectTarget[]): Plan<number | null> {
      const found = yield* row(NEXT, { targets: JSON.stringify(targets.map(({ kind, name }) => [kind, name])) })
      const due = [found?.['due'] ?? null, found?.['effect_due'] ?? null].filter((at) => at !== null)
      return due.length === 0 ? null : Math.max(0, Math.min(...due.map(Number)) - Number(found?.['now']))
    },

    *forgetOtherHolders(holder: string): Plan<number> {
      yield* changes(
        `UPDATE landfall_effects SET holder = NULL, due_at = ${now} WHERE due_at IS NOT NULL AND holder IS NOT NULL AND holder <> :holder`,
        { holder },
      )
      // An operation with a lease always has a due time, so the index of due operations finds it without a scan.
      return yield* changes(
        `UPDATE landfall_operations SET ${UNCLEAN}, ${NO_LEASE}, lease_token = lease_token + 1, due_at = ${now}
         WHERE due_at IS NOT NULL AND lease_holder IS NOT NULL AND lease_holder <> :holder`,
        { holder },
      )
    },
  }
}
