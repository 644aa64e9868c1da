import type { FileFacts, JsonValue } from '@landfall/shared'
import type { OperationFacts } from './facts.js'

/** The reference as it was committed, even if it has been removed since. */
export interface ReferenceFacts<Data> {
  /** Bytes. */
  readonly size: number
  readonly type: string
  /** `sha-256=:…:` of the stored bytes. */
  readonly digest: string
  readonly storedAt: Date
  /** What `onReference` returned. */
  readonly data: Data
}

export interface EffectContext<Metadata, Data> {
  /** The same for every attempt at this effect, so that the receiver can recognise a repetition. */
  readonly effectId: string
  /** 1 for the first attempt. */
  readonly attempt: number
  readonly operation: OperationFacts<Metadata>
  readonly reference: ReferenceFacts<Data>
  /** Fires when the time limit is over: stop. */
  readonly signal: AbortSignal
}

/** How one attempt at a delivery ended. A thrown error counts as `again`. */
export type Delivered =
  | { readonly outcome: 'delivered' }
  /** `afterMs`: the time that the receiver asked for. It applies to everything that goes to this receiver. */
  | { readonly outcome: 'again'; readonly detail: string; readonly afterMs?: number }
  /** The receiver wants no more deliveries. */
  | { readonly outcome: 'gone'; readonly detail: string }

/**
 * A side effect of the application after the reference. It is done when this resolves, and tried again when it rejects.
 */
export type EffectFunction<Metadata, Data> = (context: EffectContext<Metadata, Data>) => Promise<unknown>

/** A receiver that an effect is delivered to, such as `standardWebhook(…)`. */
export interface Receiver {
  readonly type: 'webhook'
  /** How long one attempt may take. In milliseconds. */
  readonly timeLimitMs: number
  deliver(context: EffectContext<unknown, unknown>): Promise<Delivered>
}

export type Effect<Metadata, Data> = EffectFunction<Metadata, Data> | Receiver

/** The content of an effect's row: enough to deliver it when everything else has been removed. */
export interface OwedPayload {
  readonly operation: {
    readonly id: string
    readonly owner: string
    readonly kind: string
    readonly file: FileFacts
    readonly metadata: JsonValue
    readonly createdAt: number
  }
  readonly reference: {
    readonly size: number
    readonly type: string
    readonly digest: string
    readonly storedAt: number
    readonly data: JsonValue
  }
}

export function contextOf(
  payload: JsonValue,
  { effectId, attempt, signal }: { effectId: string; attempt: number; signal: AbortSignal },
): EffectContext<unknown, unknown> {
  const { operation, reference } = payload as unknown as OwedPayload
  return {
    effectId,
    attempt,
    operation: {
      ...operation,
      createdAt: new Date(operation.createdAt),
    },
    reference: { ...reference, storedAt: new Date(reference.storedAt) },
    signal,
  }
}
