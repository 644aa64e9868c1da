import type { OpenPoint, Point } from '@landfall/shared'
import type { OperationKey, OperationRecord } from '../operation.js'

/** What an operation's row says about the store. */
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
  /** Only operations with an effect that was given up. */
  readonly givenUp?: boolean
}

/** How long ended operations and delivered effects are kept. In milliseconds; null: permanently. */
export interface Retention {
  /** Operations that ended without a reference, or whose reference was removed. */
  readonly finalMs: number | null
  /** Effects that were delivered. An effect that was given up stays visible as long as its operation is kept. */
  readonly effectsMs: number | null
}

export interface LedgerHealth {
  readonly identity: string
  readonly nowAt: number
  readonly heartbeatAt: number | null
  /** All operations with a row. Tombstones are not counted. */
  readonly operations: number
  readonly openOperations: number
  readonly stalledOperations: number
  readonly dueEffects: number
  readonly givenUpEffects: number
}

/** Two values that a ledger can read quickly, however large it is. */
export interface LedgerPulse {
  readonly nowAt: number
  /** When a completer of any process was last alive. */
  readonly heartbeatAt: number | null
}

/** What is not finished yet. A ledger may stop counting each of these at `BACKLOG_MOST`: there may then be more. */
export interface LedgerBacklog {
  readonly nowAt: number
  /** Operations that are not final, by their recovery point. */
  readonly points: Readonly<Record<OpenPoint | 'referenced', number>>
  readonly stalled: number
  /** When the oldest open operation that lacks bytes was declared. It waits for its client. */
  readonly oldestUnreceivedAt: number | null
  /** When the oldest open operation with all bytes received the last one. It waits for a server. */
  readonly oldestReceivedAt: number | null
  /** Effects that are owed and not given up, including those that wait for their next attempt. */
  readonly dueEffects: number
  readonly givenUpEffects: number
}

/** Large enough to raise any alarm, and small enough to be counted every few seconds. */
export const BACKLOG_MOST = 100_000

export interface LedgerInventory {
  /** What the rows say about the store, ordered by blob key, from after `after` up to `upTo` (null: to the end). */
  claims(range: { after: string; upTo: string | null; limit: number }): Promise<Claim[]>
  /** Operations for an operator, newest first. */
  list(page: OperationFilter & { after: string | null; limit: number }): Promise<OperationRecord[]>
  /** For `doctor`: the database's clock, when a completer was last alive, and what there is. It counts all rows. */
  health(): Promise<LedgerHealth>
  /** For every health check: whether the database answers, and when a completer was last alive. It counts nothing. */
  pulse(): Promise<LedgerPulse>
  /** For metrics, every few seconds. Its cost depends on what is unfinished, never on what is finished. */
  backlog(): Promise<LedgerBacklog>
  /**
   * Replaces operations that ended `finalMs` ago, or whose owner was forgotten, by tombstones, and deletes effects that
   * were delivered `effectsMs` ago. It takes at most `limit` of each, in one short transaction. Time by which the clock
   * was set ahead, and time in which no process ran, do not count.
   *
   * It never takes an operation that has a lease or a reference, owes an effect, or has bytes that are still to be
   * removed, also when that removal was given up.
   */
  retire(retention: Retention, limit: number): Promise<{ operations: number; effects: number }>
}
