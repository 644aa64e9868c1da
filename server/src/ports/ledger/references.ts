import type { JsonValue, Problem } from '@landfall/shared'
import type { ContentFacts, OperationRecord } from '../operation.js'
import type { Limit } from '../../lib/deadline.js'
import type { OwedEffect } from './effects.js'
import type { Changes, Lease } from './leases.js'

/** The outcome for a kind without `onReference`. */
export const NO_HOOK = { outcome: 'accepted', data: null } as const satisfies HookOutcome

/** The outcome of `onReference`. */
export type HookOutcome =
  | { readonly outcome: 'accepted'; readonly data: JsonValue }
  | { readonly outcome: 'rejected'; readonly problem: Problem }

export type Referred =
  | { readonly outcome: 'referenced'; readonly operation: OperationRecord }
  | { readonly outcome: 'rejected'; readonly problem: Problem }
  /** The lease or the digest has changed, or the operation is no longer open. Everything was rolled back. */
  | { readonly outcome: 'lost' }

export interface ReferenceIntent {
  /** Changes that were not recorded yet. They are written in the same transaction. */
  readonly changes: Changes
  readonly content: ContentFacts
  readonly digestSource: 'client' | 'server'
  readonly timeLimitMs: number
  readonly effects: readonly OwedEffect[]
}

/** What the ledger has of one owner. */
export interface Holdings {
  readonly operations: number
  readonly openOperations: number
  readonly references: number
  /** The bytes of the references. */
  readonly bytes: number
}

export interface LedgerReferences<Tx> {
  /**
   * Step 6: `hook`, the reference row, the effects, the point and `intent.changes` in ONE transaction of the
   * application's database. It compares lease and digest first, and works from any open point. `hook` is null if the kind
   * has none; then only the ledger's own rows are written.
   */
  refer(
    lease: Lease,
    from: OperationRecord,
    intent: ReferenceIntent,
    hook: ((tx: Tx, limit: Limit) => Promise<HookOutcome>) | null,
  ): Promise<Referred>
  /** Step 9, for many operations in one statement: referenced operations that owe nothing become completed. */
  complete(limit: number): Promise<number>
  /** Removes a reference in the application's transaction. The removal of the bytes is an effect of it. */
  remove(tx: Tx, id: string, owner: string | null): Promise<boolean>
  /**
   * The right to erasure: removes all references of the owner as `remove` does, cancels its open operations, and erases
   * names, metadata and the owner itself, except for tombstones. It runs in the application's transaction, or in one of
   * its own if `tx` is null. Effects that were not delivered yet are dropped. Returns what there was before.
   *
   * The rows stay until their bytes are removed, without any data of the owner.
   */
  forgetOwner(tx: Tx | null, owner: string): Promise<Holdings>
  /** What `forgetOwner` would return. */
  holdings(owner: string): Promise<Holdings>
}
