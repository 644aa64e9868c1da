import type { StoreRequest } from './blob-store.js'
import type { EffectResult } from './ledger/effects.js'
import type { LedgerBacklog, LedgerPulse } from './ledger/inventory.js'

/** Something that happened in this process and is counted. */
export type MetricEvent =
  /** An operation was declared, or is at a point that ends something for its client. */
  | { readonly type: 'reached'; readonly point: 'declared' | 'referenced' | 'cancelled' | 'expired' | 'rejected' }
  /** From the last durable byte to the committed reference. */
  | { readonly type: 'finalised'; readonly lagMs: number }
  /** A lease that was in use here is somebody else's. */
  | { readonly type: 'lease-lost' }
  /** A write under a lease was refused (invariant 8): it is another holder's, or the operation was cancelled. */
  | { readonly type: 'write-fenced'; readonly by: 'holder' | 'cancel' }
  /** Bytes are durable that were not before. */
  | { readonly type: 'bytes-accepted'; readonly bytes: number }
  | { readonly type: 'effect-settled'; readonly outcome: EffectResult['outcome'] }
  /** A call of the blob store. `outcome`: `ok`, or what fault. */
  | { readonly type: 'store-call'; readonly call: string; readonly outcome: string; readonly tookMs: number }
  /** A request of the blob store to what lies below it (S3). */
  | ({ readonly type: 'store-request' } & StoreRequest)

/** Where an operator's numbers come from. Neither method may throw or wait: uploads do not depend on being counted. */
export interface Metrics {
  count(event: MetricEvent): void
  /** Whom to ask for what stands in the ledger, whenever somebody wants to know. */
  observe(look: () => Promise<LedgerPulse & LedgerBacklog>): void
}

/** Counts nothing. */
export const NO_METRICS: Metrics = { count: () => {}, observe: () => {} }
