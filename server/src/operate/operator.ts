import type { BlobStore } from '../ports/blob-store.js'
import type { Clock } from '../ports/clock.js'
import type { EffectStanding, LedgerEffects } from '../ports/ledger/effects.js'
import type { OperationFilter, LedgerInventory } from '../ports/ledger/inventory.js'
import type { LedgerMarks } from '../ports/ledger/marks.js'
import type { LedgerOperations } from '../ports/ledger/operations.js'
import type { Holdings, LedgerReferences } from '../ports/ledger/references.js'
import type { OperationKey, OperationRecord } from '../ports/operation.js'
import type { Cancel } from '../sequence/cancel.js'
import { type Check, diagnose } from './doctor.js'
import { reconcile, type ReconcileOptions, type ReconcileReport } from './reconcile.js'

/** For the person who runs the server: all owners, and things that no client may do. */
export interface Operator {
  /** Newest first, after the key of a blob. `limit`: default 100, at most 1,000 per call. */
  list(page: OperationFilter & { after?: string; limit?: number }): Promise<OperationRecord[]>
  show(key: OperationKey): Promise<{ operation: OperationRecord; effects: EffectStanding[] } | null>
  /** Clears a stall, and schedules effects again that were given up. False when the operation has neither. */
  retry(key: OperationKey): Promise<boolean>
  /**
   * Cancels as the owner could. @throws ProblemError `not-found`, or `already-referenced`; then nothing was changed.
   */
  cancel(key: OperationKey): Promise<OperationRecord>
  /** What an owner has. With `apply` the owner is forgotten as by `uploads.forgetOwner`, in a separate transaction. */
  forgetOwner(request: { owner: string; apply?: boolean }): Promise<Holdings>
  reconcile(options?: ReconcileOptions): Promise<ReconcileReport>
  /** Also reports what keeps the server from starting. */
  doctor(): Promise<Check[]>
}

const PAGE = 100
/** A call is answered at once and as a whole, by a process that has other requests to serve. */
const LARGEST_PAGE = 1_000

export function createOperator(deps: {
  ledger: LedgerOperations & LedgerEffects & LedgerInventory & LedgerReferences<unknown> & LedgerMarks
  blobs: BlobStore
  clock: Clock
  cancel: Cancel
  wake: () => void
  ready: () => Promise<void>
  completerIntervalMs: number
  expiresAfterMs: number
  automatic: boolean
}): Operator {
  const { ledger, wake, ready } = deps
  return {
    async list({ after, limit, ...filter }) {
      await ready()
      return ledger.list({ ...filter, after: after ?? null, limit: Math.min(limit ?? PAGE, LARGEST_PAGE) })
    },
    async show(key) {
      await ready()
      const operation = await ledger.find(key)
      return operation && { operation, effects: await ledger.effectsOf(key) }
    },
    async retry(key) {
      await ready()
      const retried = await ledger.retry(key)
      if (retried) wake()
      return retried
    },
    async cancel(key) {
      await ready()
      return deps.cancel(key)
    },
    async forgetOwner({ owner, apply = false }) {
      await ready()
      if (!apply) return ledger.holdings(owner)
      const forgotten = await ledger.forgetOwner(null, owner)
      wake()
      return forgotten
    },
    async reconcile(options) {
      await ready()
      return reconcile(deps, options)
    },
    async doctor() {
      const start = await ready().then(
        () => null,
        (error: unknown) => ({ error }),
      )
      return diagnose(deps, { ...deps, start })
    },
  }
}
