import type { Dialect } from '../dialect.js'
import { changes, type Plan, rows } from '../query.js'
import { EFFECT_COLUMNS, STANDING_COLUMNS, toEffect, toEffectStanding } from '../rows.js'
import type { EffectRecord, EffectResult, EffectStanding, EffectTarget } from '../../ports/ledger/effects.js'
import type { LeaseRequest } from '../../ports/ledger/leases.js'
import type { OperationKey } from '../../ports/operation.js'
import { dueEffects, writeBoth } from './due.js'

const OF_THIS_ATTEMPT = `effect_id = :effect_id AND attempts = :attempts AND delivered_at IS NULL AND given_up_at IS NULL`
const GIVEN_UP = `owner = :owner AND operation_id = :id AND given_up_at IS NOT NULL`

export function effectStatements(dialect: Dialect) {
  const { now, owed } = dialect
  const TAKE = `WITH due AS MATERIALIZED (${dueEffects(dialect)})
    UPDATE landfall_effects AS e SET attempts = attempts + 1, holder = :holder, due_at = ${now} + :lease_ms
    FROM due WHERE e.effect_id = due_id
    RETURNING ${EFFECT_COLUMNS}, CASE WHEN EXISTS (
      SELECT 1 FROM landfall_disabled_targets d WHERE d.kind = :kind AND d.name = :name) THEN 1 ELSE 0 END AS disabled`
  const deliver = writeBoth(
    dialect,
    `UPDATE landfall_effects SET delivered_at = ${now}, due_at = NULL, given_up_at = NULL, holder = NULL, last_error = NULL
     WHERE effect_id = :effect_id AND delivered_at IS NULL RETURNING owner, operation_id`,
    { alias: 'delivered', named: ['owner', 'operation_id'], second: owed.delivered },
  )
  const giveUp = writeBoth(
    dialect,
    `UPDATE landfall_effects SET due_at = NULL, given_up_at = ${now}, holder = NULL, last_error = :error
     WHERE ${OF_THIS_ATTEMPT} RETURNING kind, name`,
    {
      alias: 'ended',
      named: ['kind', 'name'],
      second: (from) => `INSERT INTO landfall_disabled_targets (kind, name, disabled_at)
        SELECT kind, name, ${now} FROM ${from} WHERE CAST(:disable AS smallint) = 1 ON CONFLICT DO NOTHING`,
    },
  )

  return {
    *takeEffects(
      { kind, name }: EffectTarget,
      { holder, leaseMs, limit }: LeaseRequest & { limit: number },
    ): Plan<EffectRecord[]> {
      return (yield* rows(TAKE, { kind, name, limit, holder, lease_ms: leaseMs })).map(toEffect)
    },

    *settleEffect(
      { effectId, attempts }: Pick<EffectRecord, 'effectId' | 'attempts'>,
      result: EffectResult,
    ): Plan<void> {
      const effect = { effect_id: effectId, attempts }
      switch (result.outcome) {
        case 'delivered':
          yield* deliver(effect)
          return
        case 'again':
          yield* changes(
            `UPDATE landfall_effects SET due_at = ${now} + :retry_ms, holder = NULL, last_error = :error WHERE ${OF_THIS_ATTEMPT}`,
            { ...effect, retry_ms: Math.round(result.retryInMs), error: result.error },
          )
          return
        case 'untried':
          yield* changes(
            `UPDATE landfall_effects SET due_at = ${now} + :retry_ms, holder = NULL, attempts = attempts - 1 WHERE ${OF_THIS_ATTEMPT}`,
            { ...effect, retry_ms: Math.round(result.retryInMs) },
          )
          return
        case 'given-up':
          yield* giveUp({ ...effect, error: result.error, disable: result.disable === true ? 1 : 0 })
          return
        default:
          return result satisfies never
      }
    },

    /**
     * Must run in a transaction. It clears stalls, makes effects owed again that were given up, and enables their
     * targets.
     */
    *retry({ owner, id }: OperationKey): Plan<boolean> {
      const stalls = yield* changes(
        `UPDATE landfall_operations SET stalled = 0, attempts = 0, problem = 'null', due_at = ${now}, updated_at = ${now}
         WHERE owner = :owner AND id = :id AND stalled = 1`,
        { owner, id },
      )
      yield* changes(
        `DELETE FROM landfall_disabled_targets WHERE (kind, name) IN (SELECT kind, name FROM landfall_effects WHERE ${GIVEN_UP})`,
        { owner, id },
      )
      const effects = yield* changes(
        `UPDATE landfall_effects SET given_up_at = NULL, attempts = 0, due_at = ${now} WHERE ${GIVEN_UP}`,
        { owner, id },
      )
      return stalls + effects > 0
    },

    *effectsOf({ owner, id }: OperationKey): Plan<EffectStanding[]> {
      const all = yield* rows(
        `SELECT ${STANDING_COLUMNS} FROM landfall_effects WHERE owner = :owner AND operation_id = :id ORDER BY created_at, name`,
        { owner, id },
      )
      return all.map(toEffectStanding)
    },
  }
}
