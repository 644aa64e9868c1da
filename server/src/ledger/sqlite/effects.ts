import type {
  EffectRecord,
  EffectResult,
  EffectStanding,
  EffectTarget,
  OwedEffect,
} from '../../ports/ledger/effects.js'
import type { OperationKey, OperationRecord } from '../../ports/operation.js'
import { toEffect, toEffectStanding } from '../rows.js'
import { DUE_EFFECTS } from './due.js'
import { type Connection, NOW } from './client/connection.js'

// What the ledger does with effects on a connection, each within one job of the queue.

/** Within the reference's transaction: all that is owed, or no reference. */
export function owe(on: Connection, operation: OperationRecord, effects: readonly OwedEffect[]): void {
  const { reference } = operation
  if (reference === null) return
  for (const { effectId, name, type, payload } of effects)
    on.run(
      `INSERT INTO landfall_effects (effect_id, owner, operation_id, kind, name, type, payload, due_at, created_at)
       VALUES (?, ?, ?, ?, ?, ?, ?, ${NOW}, ${NOW})`,
      [effectId, operation.owner, operation.id, operation.kind, name, type, JSON.stringify(payload(reference))],
    )
}

export function takeEffects(
  on: Connection,
  { kind, name }: EffectTarget,
  { holder, leaseMs, limit }: { holder: string; leaseMs: number; limit: number },
): EffectRecord[] {
  const disabled = on.get(`SELECT 1 AS there FROM landfall_disabled_targets WHERE kind = ? AND name = ?`, [kind, name])
  return on
    .all(
      `UPDATE landfall_effects SET attempts = attempts + 1, holder = ?, due_at = ${NOW} + ?
       WHERE effect_id IN (${DUE_EFFECTS}) RETURNING *, ? AS disabled`,
      [holder, leaseMs, kind, name, limit, disabled === undefined ? 0 : 1],
    )
    .map(toEffect)
}

export function settleEffect(
  on: Connection,
  { effectId, attempts }: Pick<EffectRecord, 'effectId' | 'attempts'>,
  result: EffectResult,
): void {
  switch (result.outcome) {
    case 'delivered': {
      const row = on.get(
        `UPDATE landfall_effects SET delivered_at = ${NOW}, due_at = NULL, given_up_at = NULL, holder = NULL, last_error = NULL
         WHERE effect_id = ? AND delivered_at IS NULL RETURNING owner, operation_id`,
        [effectId],
      )
      if (row === undefined) return
      on.run(
        `UPDATE landfall_operations SET point = 'completed', updated_at = ${NOW}
         WHERE owner = ? AND id = ? AND point = 'referenced' AND NOT EXISTS (SELECT 1 FROM landfall_effects e
           WHERE e.owner = landfall_operations.owner AND e.operation_id = landfall_operations.id AND e.delivered_at IS NULL)`,
        [row['owner'] as string, row['operation_id'] as string],
      )
      return
    }
    case 'again':
      on.run(
        `UPDATE landfall_effects SET due_at = ${NOW} + ?, holder = NULL, last_error = ?
         WHERE effect_id = ? AND attempts = ? AND delivered_at IS NULL AND given_up_at IS NULL`,
        [Math.round(result.retryInMs), result.error, effectId, attempts],
      )
      return
    case 'untried':
      on.run(
        `UPDATE landfall_effects SET due_at = ${NOW} + ?, holder = NULL, attempts = attempts - 1
         WHERE effect_id = ? AND attempts = ? AND delivered_at IS NULL AND given_up_at IS NULL`,
        [Math.round(result.retryInMs), effectId, attempts],
      )
      return
    case 'given-up': {
      const row = on.get(
        `UPDATE landfall_effects SET due_at = NULL, given_up_at = ${NOW}, holder = NULL, last_error = ?
         WHERE effect_id = ? AND attempts = ? AND delivered_at IS NULL AND given_up_at IS NULL RETURNING kind, name`,
        [result.error, effectId, attempts],
      )
      if (row !== undefined && result.disable === true)
        on.run(
          `INSERT INTO landfall_disabled_targets (kind, name, disabled_at) VALUES (?, ?, ${NOW}) ON CONFLICT DO NOTHING`,
          [row['kind'] as string, row['name'] as string],
        )
      return
    }
    default:
      return result satisfies never
  }
}

/** Those that were given up are owed again, and their targets are enabled. */
export function retryEffects(on: Connection, key: OperationKey): number {
  on.run(
    `DELETE FROM landfall_disabled_targets WHERE (kind, name) IN (
       SELECT kind, name FROM landfall_effects WHERE owner = ? AND operation_id = ? AND given_up_at IS NOT NULL)`,
    [key.owner, key.id],
  )
  return on.run(
    `UPDATE landfall_effects SET given_up_at = NULL, attempts = 0, due_at = ${NOW}
     WHERE owner = ? AND operation_id = ? AND given_up_at IS NOT NULL`,
    [key.owner, key.id],
  )
}

export const effectsOf = (on: Connection, key: OperationKey): EffectStanding[] =>
  on
    .all(`SELECT * FROM landfall_effects WHERE owner = ? AND operation_id = ? ORDER BY created_at, name`, [
      key.owner,
      key.id,
    ])
    .map(toEffectStanding)

/** When the next one of these targets is due, by SQLite's clock. */
export function effectsDueAt(on: Connection, targets: readonly EffectTarget[]): number | null {
  const due = targets.flatMap(({ kind, name }) => {
    const row = on.get(
      `SELECT MIN(due_at) AS due FROM landfall_effects WHERE kind = ? AND name = ? AND due_at IS NOT NULL`,
      [kind, name],
    )
    return row?.['due'] === null || row?.['due'] === undefined ? [] : [Number(row['due'])]
  })
  return due.length === 0 ? null : Math.min(...due)
}
