import type {
  EffectRecord,
  EffectResult,
  EffectStanding,
  EffectTarget,
  OwedEffect,
} from '../../ports/ledger/effects.js'
import type { LeaseRequest } from '../../ports/ledger/leases.js'
import type { OperationKey, OperationRecord, ReferenceRecord } from '../../ports/operation.js'
import { DUE_EFFECTS } from './due.js'
import { NOW, type Queries } from './query.js'
import { toEffect, toEffectStanding } from '../rows.js'

/** Within the reference's transaction: all that is owed, or no reference. */
export async function owe(
  on: Queries,
  { owner, id, kind }: OperationRecord,
  reference: ReferenceRecord,
  effects: readonly OwedEffect[],
): Promise<void> {
  for (const { effectId, name, type, payload } of effects)
    await on.run(
      `INSERT INTO landfall_effects (effect_id, owner, operation_id, kind, name, type, payload, due_at, created_at)
       VALUES (?, ?, ?, ?, ?, ?, ?, ${NOW}, ${NOW})`,
      [effectId, owner, id, kind, name, type, JSON.stringify(payload(reference))],
    )
}

export async function takeEffects(
  on: Queries,
  { kind, name }: EffectTarget,
  { holder, leaseMs, limit }: LeaseRequest & { limit: number },
): Promise<EffectRecord[]> {
  const rows = await on.all(
    `WITH due AS MATERIALIZED (${DUE_EFFECTS})
     UPDATE landfall_effects e SET attempts = e.attempts + 1, holder = ?, due_at = ${NOW} + ?
     FROM due WHERE e.effect_id = due.effect_id
     RETURNING e.*, CASE WHEN EXISTS (
       SELECT 1 FROM landfall_disabled_targets d WHERE d.kind = e.kind AND d.name = e.name) THEN 1 ELSE 0 END AS disabled`,
    [kind, name, limit, holder, leaseMs],
  )
  return rows.map(toEffect)
}

const OF_THIS_ATTEMPT = `effect_id = ? AND attempts = ? AND delivered_at IS NULL AND given_up_at IS NULL`

export async function settleEffect(
  on: Queries,
  { effectId, attempts }: Pick<EffectRecord, 'effectId' | 'attempts'>,
  result: EffectResult,
): Promise<void> {
  switch (result.outcome) {
    case 'delivered':
      // Counted down in the row, which two nodes that deliver the last two do one after the other.
      await on.run(
        `WITH done AS (
           UPDATE landfall_effects SET delivered_at = ${NOW}, due_at = NULL, given_up_at = NULL, holder = NULL, last_error = NULL
           WHERE effect_id = ? AND delivered_at IS NULL RETURNING owner, operation_id
         )
         UPDATE landfall_operations o SET owed_effects = o.owed_effects - 1,
           point = CASE WHEN o.point = 'referenced' AND o.owed_effects = 1 THEN 'completed' ELSE o.point END,
           updated_at = CASE WHEN o.point = 'referenced' AND o.owed_effects = 1 THEN ${NOW} ELSE o.updated_at END
         FROM done WHERE o.owner = done.owner AND o.id = done.operation_id`,
        [effectId],
      )
      return
    case 'again':
      await on.run(
        `UPDATE landfall_effects SET due_at = ${NOW} + ?, holder = NULL, last_error = ? WHERE ${OF_THIS_ATTEMPT}`,
        [Math.round(result.retryInMs), result.error, effectId, attempts],
      )
      return
    case 'untried':
      await on.run(
        `UPDATE landfall_effects SET due_at = ${NOW} + ?, holder = NULL, attempts = attempts - 1 WHERE ${OF_THIS_ATTEMPT}`,
        [Math.round(result.retryInMs), effectId, attempts],
      )
      return
    case 'given-up':
      await on.run(
        `WITH over AS (
           UPDATE landfall_effects SET due_at = NULL, given_up_at = ${NOW}, holder = NULL, last_error = ?
           WHERE ${OF_THIS_ATTEMPT} RETURNING kind, name
         )
         INSERT INTO landfall_disabled_targets (kind, name, disabled_at)
         SELECT kind, name, ${NOW} FROM over WHERE CAST(? AS smallint) = 1 ON CONFLICT DO NOTHING`,
        [result.error, effectId, attempts, result.disable === true ? 1 : 0],
      )
      return
    default:
      return result satisfies never
  }
}

/** Those that were given up are owed again, and their targets are enabled. */
export const retryEffects = (on: Queries, { owner, id }: OperationKey): Promise<number> =>
  on.run(
    `WITH enabled AS (
       DELETE FROM landfall_disabled_targets WHERE (kind, name) IN (
         SELECT kind, name FROM landfall_effects WHERE owner = ? AND operation_id = ? AND given_up_at IS NOT NULL)
     )
     UPDATE landfall_effects SET given_up_at = NULL, attempts = 0, due_at = ${NOW}
     WHERE owner = ? AND operation_id = ? AND given_up_at IS NOT NULL`,
    [owner, id, owner, id],
  )

export async function effectsOf(on: Queries, { owner, id }: OperationKey): Promise<EffectStanding[]> {
  const rows = await on.all(
    `SELECT * FROM landfall_effects WHERE owner = ? AND operation_id = ? ORDER BY created_at, name`,
    [owner, id],
  )
  return rows.map(toEffectStanding)
}

/** When the next one of these targets is due, by PostgreSQL's clock. */
export async function effectsDueAt(on: Queries, targets: readonly EffectTarget[]): Promise<number | null> {
  if (targets.length === 0) return null
  const row = await on.get(
    `SELECT MIN((SELECT e.due_at FROM landfall_effects e WHERE e.kind = target ->> 0 AND e.name = target ->> 1
         AND e.due_at IS NOT NULL ORDER BY e.due_at LIMIT 1)) AS due
     FROM json_array_elements(CAST(CAST(? AS text) AS json)) AS target`,
    [JSON.stringify(targets.map(({ kind, name }) => [kind, name]))],
  )
  return row?.['due'] === null || row?.['due'] === undefined ? null : Number(row['due'])
}

export const forgetOtherHoldersOfEffects = (on: Queries, holder: string): Promise<number> =>
  on.run(
    `UPDATE landfall_effects SET holder = NULL, due_at = ${NOW} WHERE due_at IS NOT NULL AND holder IS NOT NULL AND holder <> ?`,
    [holder],
  )
