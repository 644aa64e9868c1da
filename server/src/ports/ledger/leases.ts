import type { JsonValue, Point, Problem } from '@landfall/shared'
import type { ContentFacts, OperationKey, OperationRecord } from '../operation.js'
import type { EffectTarget } from './effects.js'

export type LeasePurpose = 'receive' | 'drive'

/** The fenced right to receive bytes for one operation or to drive it. Every later write carries its token. */
export interface Lease extends OperationKey {
  readonly holder: string
  readonly token: number
}

/** What a holder of the lease may record. `undefined` leaves a column alone. */
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
  /** null: the completer need not come by itself. */
  dueInMs?: number | null
  /**
   * Instead: at a moment that the row names itself. A process may stand still between its look and this write; counted
   * from the write, the operation would then be looked at so much too late.
   */
  dueAt?: 'expiry' | 'digest-due'
  /** Slides the expiry: this long after now. */
  expiresInMs?: number
  purpose?: LeasePurpose
  /** Gives the lease back in the same statement. */
  release?: true
}

export type LeaseOutcome =
  | { readonly outcome: 'granted'; readonly lease: Lease; readonly operation: OperationRecord }
  | { readonly outcome: 'held' }
  /** No such operation, or nothing that this purpose could do at its point. */
  | { readonly outcome: 'closed' }

/** How soon a receiver on another node is to let go: when its client sends nothing, or at once. */
export type Urgency = 'when-silent' | 'at-once'

export interface LeaseRequest {
  readonly holder: string
  readonly leaseMs: number
}

export interface LedgerLeases {
  /** Takes the lease by one statement; the token grows. To receive is only for `declared` operations that lack bytes. */
  lease(key: OperationKey, request: LeaseRequest & { purpose: LeasePurpose }): Promise<LeaseOutcome>
  /**
   * Leases operations that are due, oldest first: without a lease, or with one that has expired. One of the same holder
   * counts as expired only where it is not `inUse`.
   */
  leaseDue(
    request: LeaseRequest & { limit: number; inUse: readonly OperationKey[] },
  ): Promise<{ lease: Lease; operation: OperationRecord }[]>
  /** Asks whoever else receives bytes for it to let go. False: nobody else does (any more). */
  ask(key: OperationKey, request: { holder: string; urgency: Urgency }): Promise<boolean>
  /** For which of this holder's leases others have asked. */
  askedOf(holder: string): Promise<{ key: OperationKey; urgency: Urgency }[]>
  /** Prolongs leases; answers those that are still held. */
  renew(leases: readonly Lease[], leaseMs: number): Promise<readonly Lease[]>
  /**
   * Compare-and-set by lease, point and digest, as they were in `from`. null: one of them is another now, and nothing
   * changed (invariant 8). The digest, because it may arrive while its operation is being verified.
   */
  record(lease: Lease, from: OperationRecord, changes: Changes): Promise<OperationRecord | null>
  /** When the next operation, or effect of these targets, is due, in milliseconds from now; null: none. */
  nextDueInMs(targets: readonly EffectTarget[]): Promise<number | null>
  /**
   * Declares every lease of other holders dead, those on effects included. Only for a process that has proven that it is alone (a lock on the
   * blob store's directory).
   */
  forgetOtherHolders(holder: string): Promise<number>
}
