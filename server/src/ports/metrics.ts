import type { StoreRequest } from './blob-store.js'
import type { EffectResult } from './ledger/effects.js'
import type { LedgerBacklog, LedgerPulse } from './ledger/inventory.js'

/** Something that happened in this process and is counted. */
export type MetricEvent =
  /** An operation was declared, or has reached a point that ends something for its client. */
  | { readonly type: 'reached'; readonly point: 'declared' | 'referenced' | 'cancelled' | 'expired' | 'rejected' }
  /** `lagMs`: from the last durable byte to the committed reference. */
  | { readonly type: 'finalised'; readonly lagMs: number }
  /** Another holder has taken a lease that was in use in this process. */
  | { readonly type: 'lease-lost' }
  /** A write under a lease was refused (invariant 8): another holder has the lease, or the operation was cancelled. */
  | { readonly type: 'write-fenced'; readonly by: 'holder' | 'cancel' }
  /** More bytes have become durable. */
  | { readonly type: 'bytes-accepted'; readonly bytes: number }
  | { readonly type: 'effect-settled'; readonly outcome: EffectResult['outcome'] }
  /** A call of the blob store. `outcome`: `ok`, or the name of the fault. */
  | { readonly type: 'store-call'; readonly call: string; readonly outcome: string; readonly tookMs: number }
  /** A request of the blob store to the service that it uses (S3). */
  | ({ readonly type: 'store-request' } & StoreRequest)

/** Counts events for an operator. Neither method may throw or block, because uploads do not depend on being counted. */
export interface Metrics {
  count(event: MetricEvent): void
  /** Sets the function that reads the ledger's numbers. It is called whenever the metrics are read. */
  observe(look: () => Promise<LedgerPulse & LedgerBacklog>): void
}

/** Counts nothing. */
export const NO_METRICS: Metrics = { count: () => {}, observe: () => {} }
