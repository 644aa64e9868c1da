import type { JsonValue } from '@landfall/shared'
import type { OperationKey, ReferenceRecord } from '../operation.js'

/** The destination of effects: a kind's effect, by its name. Landfall's own effects have the kind ''. */
export interface EffectTarget {
  readonly kind: string
  readonly name: string
}

/** Landfall's own effect, which removes the bytes of a removed reference. */
export const REMOVAL: EffectTarget = { kind: '', name: 'landfall:remove-bytes' }

export type EffectType = 'remove-bytes' | 'webhook' | 'function'

/** An effect that the reference's transaction records as owed. */
export interface OwedEffect {
  readonly effectId: string
  readonly name: string
  readonly type: EffectType
  /** Makes what is delivered, from the reference that is being committed. */
  readonly payload: (reference: ReferenceRecord) => JsonValue
}

/** An effect that is owed. It is delivered at least once, under this id. */
export interface EffectRecord extends OperationKey, EffectTarget {
  readonly effectId: string
  readonly type: EffectType
  readonly payload: JsonValue
  /** Including the current one. */
  readonly attempts: number
  /** The receiver of this target has refused all further deliveries (410 Gone). */
  readonly disabled: boolean
}

/** The state of an effect, for people. */
export interface EffectStanding extends EffectTarget {
  readonly effectId: string
  readonly type: EffectType
  readonly attempts: number
  /** When the next attempt is made. null: never on its own. */
  readonly dueAt: number | null
  readonly deliveredAt: number | null
  readonly givenUpAt: number | null
  readonly lastError: string | null
}

export type EffectResult =
  | { readonly outcome: 'delivered' }
  | { readonly outcome: 'again'; readonly error: string; readonly retryInMs: number }
  /** It was taken but not tried, which does not count as an attempt. */
  | { readonly outcome: 'untried'; readonly retryInMs: number }
  /** `disable`: all other effects of the same target are given up too, until an operator calls `retry`. */
  | { readonly outcome: 'given-up'; readonly error: string; readonly disable?: true }

export interface LedgerEffects {
  /** Takes a target's effects that are due, oldest first. An effect is due again after `leaseMs` unless it was settled. */
  takeEffects(
    target: EffectTarget,
    request: { holder: string; leaseMs: number; limit: number },
  ): Promise<EffectRecord[]>
  /**
   * Records how a delivery ended. With the last delivery its operation becomes completed. For an attempt that is not the
   * latest one, only a success counts.
   */
  settleEffect(effect: Pick<EffectRecord, 'effectId' | 'attempts'>, result: EffectResult): Promise<void>
  effectsOf(key: OperationKey): Promise<EffectStanding[]>
  /** Clears a stall, makes given-up effects due again, and enables their targets. False: there was nothing to do. */
  retry(key: OperationKey): Promise<boolean>
}
