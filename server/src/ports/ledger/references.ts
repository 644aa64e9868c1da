import type { JsonValue, Problem } from '@landfall/shared'
import type { ContentFacts, OperationRecord } from '../operation.js'
import type { Limit } from '../../lib/deadline.js'
import type { OwedEffect } from './effects.js'
import type { Changes, Lease } from './leases.js'

/** What a kind without `onReference` comes to. */
export const NO_HOOK = { outcome: 'accepted', data: null } as const satisfies HookOutcome

/** What `onReference` came to. */
export type HookOutcome =
  | { readonly outcome: 'accepted'; readonly data: JsonValue }
  | { readonly outcome: 'rejected'; readonly problem: Problem }

export type Referred =
  | { readonly outcome: 'referenced'; readonly operation: OperationRecord }
  | { readonly outcome: 'rejected'; readonly problem: Problem }
  /** The lease or the digest is another now, or the operation is not open any more; everything was rolled back. */
  | { readonly outcome: 'lost' }

export interface ReferenceIntent {
  /** What was not recorded yet and goes into the same transaction. */
  readonly changes: Changes
  readonly content: ContentFacts
  readonly digestSource: 'client' | 'server'
  readonly timeLimitMs: number
  readonly effects: readonly OwedEffect[]
}

/** What the ledger knows of one owner. */
export interface Holdings {
  readonly operations: number
  readonly openOperations: number
  readonly references: number
  /** What the references hold. */
  readonly bytes: number
}

export interface LedgerReferences<Tx> {
  /**
   * Step 6: `hook`, the reference row, the effects, the point and `intent.changes` in ONE transaction of the
   * application's database. Compare-and-set by lease and digest, from any open point. `hook` null: the kind has none, and
   * nothing but the ledger's own rows is written.
   */
  refer(
    lease: Lease,
    from: OperationRecord,
    intent: ReferenceIntent,
    hook: ((tx: Tx, limit: Limit) => Promise<HookOutcome>) | null,
  ): Promise<Referred>
  /** Step 9 in one statement for all: referenced operations that owe nothing any more become completed. */
  complete(limit: number): Promise<number>
  /** Takes a reference back within the application's transaction; owes the removal of the bytes as an effect. */
  remove(tx: Tx, id: string, owner: string | null): Promise<boolean>
  /**
   * The right to erasure: removes all references of the owner as `remove` does, cancels its open operations, and keeps of
   * its names, metadata and of the owner itself only tombstones. Within the application's transaction; null: in one of
   * its own. Effects that were not delivered yet are dropped. Answers what there was.
   *
   * Until their bytes are removed the rows stay, without anything of the owner's in them.
   */
  forgetOwner(tx: Tx | null, owner: string): Promise<Holdings>
  /** What `forgetOwner` would find. */
  holdings(owner: string): Promise<Holdings>
}
