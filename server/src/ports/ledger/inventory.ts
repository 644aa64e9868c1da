import type { OpenPoint, Point } from '@landfall/shared'
import type { OperationKey, OperationRecord } from '../operation.js'

/** What an operation's row claims of the store. */
export interface Claim extends OperationKey {
  readonly blobKey: string
  readonly point: Point
  readonly sizeBytes: number
  readonly offset: number
  readonly leased: boolean
  readonly cleanupDue: boolean
  readonly removed: boolean
  readonly referenced: boolean
}

export interface OperationFilter {
  readonly id?: string
  readonly owner?: string
  readonly point?: Point
  readonly stalled?: boolean
  /** With an effect that was given up. */
  readonly givenUp?: boolean
}

/** How long what has ended is kept. In milliseconds; null: permanently. */
export interface Retention {
  /** Operations that ended without a reference, or whose reference was removed. */
  readonly finalMs: number | null
  /** Effects that were delivered. One that was given up stays visible for as long as its operation is kept. */
  readonly effectsMs: number | null
}

export interface LedgerHealth {
  readonly identity: string
  readonly nowAt: number
  readonly heartbeatAt: number | null
  /** All that have a row; tombstones are not counted. */
  readonly operations: number
  readonly openOperations: number
  readonly stalledOperations: number
  readonly dueEffects: number
  readonly givenUpEffects: number
}

/** Two values that a ledger reads at once, however much is in it. */
export interface LedgerPulse {
  readonly nowAt: number
  /** When a completer of any process was last alive. */
  readonly heartbeatAt: number | null
}

/** What is not finished yet. A ledger may stop counting at `BACKLOG_MOST` of a kind: then there are at least so many. */
export interface LedgerBacklog {
  readonly nowAt: number
  /** Operations that are not final, by their recovery point. */
  readonly points: Readonly<Record<OpenPoint | 'referenced', number>>
  readonly stalled: number
  /** When the oldest open operation of which bytes are missing was declared: its client is waited for. */
  readonly oldestUnreceivedAt: number | null
  /** When the oldest open one of which all bytes are durable had them: whatever is still missing is up to a server. */
  readonly oldestReceivedAt: number | null
  /** Effects that are owed and not given up, those in a pause included. */
  readonly dueEffects: number
  readonly givenUpEffects: number
}

/** Enough to raise any alarm, and few enough to count every few seconds. */
export const BACKLOG_MOST = 100_000

export interface LedgerInventory {
  /** What the operations claim of the store, in the order of the keys: behind `after`, up to `upTo` (null: all). */
  claims(range: { after: string; upTo: string | null; limit: number }): Promise<Claim[]>
  /** Operations for an operator, newest first. */
  list(page: OperationFilter & { after: string | null; limit: number }): Promise<OperationRecord[]>
  /** What `doctor` asks: the database's clock and when the completer was last alive. */
  health(): Promise<LedgerHealth>
  /** Whether the database answers, and when the completer last said so: no counting, for every health check. */
  pulse(): Promise<LedgerPulse>
  /** What metrics ask every few seconds: costs what is unfinished, never what is finished. */
  backlog(): Promise<LedgerBacklog>
  /**
   * Replaces operations by tombstones that ended `finalMs` ago, or whose owner was forgotten, and deletes effects that
   * were delivered `effectsMs` ago: at most `limit` of each, in one short transaction. Time in which the clock was set
   * ahead, or in which nobody was there, does not count.
   *
   * Never an operation whose bytes are still to be removed, that has a lease or a reference, or that owes an effect; one
   * whose removal was given up stays as well.
   */
  retire(retention: Retention, limit: number): Promise<{ operations: number; effects: number }>
}
