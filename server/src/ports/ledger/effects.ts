import type { JsonValue } from '@landfall/shared'
import type { OperationKey, ReferenceRecord } from '../operation.js'

/** Where effects go to: a kind's effect by its name; Landfall's own have the kind ''. */
export interface EffectTarget {
  readonly kind: string
  readonly name: string
}

/** Of the bytes of what was removed: Landfall's own. */
export const REMOVAL: EffectTarget = { kind: '', name: 'landfall:remove-bytes' }

export type EffectType = 'remove-bytes' | 'webhook' | 'function'

/** What the reference's transaction writes down as owed. */
export interface OwedEffect {
  readonly effectId: string
  readonly name: string
  readonly type: EffectType
  /** What is delivered, made of the reference as it is being committed. */
  readonly payload: (reference: ReferenceRecord) => JsonValue
}

/** An effect that is owed: delivered at least once, under this id. */
export interface EffectRecord extends OperationKey, EffectTarget {
  readonly effectId: string
  readonly type: EffectType
  readonly payload: JsonValue
  /** The present one included. */
  readonly attempts: number
  /** The receiver of this target wants nothing any more. */
  readonly disabled: boolean
}

/** How an effect stands, for people. */
export interface EffectStanding extends EffectTarget {
  readonly effectId: string
  readonly type: EffectType
  readonly attempts: number
  /** When it is tried (again); null: never by itself. */
  readonly dueAt: number | null
  readonly deliveredAt: number | null
  readonly givenUpAt: number | null
  readonly lastError: string | null
}

export type EffectResult =
  | { readonly outcome: 'delivered' }
  | { readonly outcome: 'again'; readonly error: string; readonly retryInMs: number }
  /** Taken and not tried: it does not count as an attempt. */
  | { readonly outcome: 'untried'; readonly retryInMs: number }
  /** `disable`: so are all others of the same target, until an operator's `retry`. */
  | { readonly outcome: 'given-up'; readonly error: string; readonly disable?: true }

export interface LedgerEffects {
  /** Takes a target's effects that are due, oldest first; they come again after `leaseMs` unless settled. */
  takeEffects(
    target: EffectTarget,
    request: { holder: string; leaseMs: number; limit: number },
  ): Promise<EffectRecord[]>
  /**
   * Records how a delivery ended; with the last one an operation becomes completed. Of an attempt that is not the
   * latest only a success counts.
   */
  settleEffect(effect: Pick<EffectRecord, 'effectId' | 'attempts'>, result: EffectResult): Promise<void>
  effectsOf(key: OperationKey): Promise<EffectStanding[]>
  /** Clears a stall, and asks for the effects again that were given up; enables their targets. False: there was nothing. */
  retry(key: OperationKey): Promise<boolean>
}
