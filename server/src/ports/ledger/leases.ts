import type { JsonValue, Point, Problem } from '@landfall/shared'
import type { ContentFacts, OperationKey, OperationRecord } from '../operation.js'
import type { EffectTarget } from './effects.js'

export type LeasePurpose = 'receive' | 'drive'

/** The exclusive right to receive bytes for one operation, or to drive it. Every write under it carries its token. */
export interface Lease extends OperationKey {
  readonly holder: string
  readonly token: number
}

/** What a holder of the lease may record. `undefined` leaves a column unchanged. */
export interface Changes {
  point?: Point
  offset?: number
  blobState?: JsonValue
  /** Records t0 (now) and the base of the withheld tail, once. */
  tailBase?: number
  /** Sets `digestDueAt` this long after now. */
  digestDueInMs?: number
  prepared?: Readonly<Record<string, JsonValue>>
  content?: ContentFacts
  uncleanHolder?: null
  attempts?: number
  stalled?: boolean
  problem?: Problem | null
  lastError?: string | null
  cleanupDue?: boolean
  /** null: the completer does not examine the operation on its own. */
  dueInMs?: number | null
  /**
   * In place of `dueInMs`: a time that is in the row. A process may be suspended between its decision and this write. If
   * the time were counted from the write, the completer would come too late by that pause.
   */
  dueAt?: 'expiry' | 'digest-due'
  /** Moves the expiry to this long after now. */
  expiresInMs?: number
  purpose?: LeasePurpose
  /** Gives the lease back in the same statement. */
  release?: true
}

export type LeaseOutcome =
  | { readonly outcome: 'granted'; readonly lease: Lease; readonly operation: OperationRecord }
  | { readonly outcome: 'held' }
  /** There is no such operation, or this purpose has nothing to do at its point. */
  | { readonly outcome: 'closed' }

/** How soon a receiver on another node should release the lease: when its client stops sending, or at once. */
export type Urgency = 'when-silent' | 'at-once'

export interface LeaseRequest {
  readonly holder: string
  readonly leaseMs: number
}

export interface LedgerLeases {
  /**
   * Takes the lease in one statement, which increases the token. The purpose `receive` is possible only for `declared`
   * operations that lack bytes.
   */
  lease(key: OperationKey, request: LeaseRequest & { purpose: LeasePurpose }): Promise<LeaseOutcome>
  /**
   * Leases operations that are due, oldest first, and that have no lease or an expired one. A lease of the same holder
   * counts as expired only if it is not `inUse`.
   */
  leaseDue(
    request: LeaseRequest & { limit: number; inUse: readonly OperationKey[] },
  ): Promise<{ lease: Lease; operation: OperationRecord }[]>
  /** Asks another receiver of this operation to release its lease. False: there is no other receiver. */
  ask(key: OperationKey, request: { holder: string; urgency: Urgency }): Promise<boolean>
  /** Those of this holder's leases that others have asked for. */
  askedOf(holder: string): Promise<{ key: OperationKey; urgency: Urgency }[]>
  /** Prolongs leases, and returns those that are still held. */
  renew(leases: readonly Lease[], leaseMs: number): Promise<readonly Lease[]>
  /**
   * Compares lease, point and digest with `from`, and writes if they are unchanged. null: one of them has changed, and
   * nothing was written (invariant 8). The digest is compared because it may arrive during verification.
   */
  record(lease: Lease, from: OperationRecord, changes: Changes): Promise<OperationRecord | null>
  /** When the next operation, or effect of these targets, is due. In milliseconds from now; null: none is. */
  nextDueInMs(targets: readonly EffectTarget[]): Promise<number | null>
  /**
   * Ends every lease of other holders, also those on effects. Only for a process that has proven that it is the only
   * one, by a lock on the blob store's directory.
   */
  forgetOtherHolders(holder: string): Promise<number>
}
