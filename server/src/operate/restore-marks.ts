import type { Logger } from '../lib/log.js'
import type { BlobStore } from '../ports/blob-store.js'
import type { LedgerMarks } from '../ports/ledger/marks.js'
import type { LedgerOperations } from '../ports/ledger/operations.js'

/**
 * Marks that the ledger sets and the store repeats, always the ledger first. So the store's mark is never higher than
 * the ledger's, unless the ledger was restored from a backup. In that case the store may have blobs whose rows the
 * ledger has lost, and reconcile must not take them for garbage.
 */
export interface RestoreMarks {
  /** Checks whether the ledger is older than its store, and sets the first mark of this process. */
  begin(): Promise<void>
  /** Sets another mark if anything has happened since the last one. */
  advance(): Promise<void>
}

export function createRestoreMarks(deps: {
  ledger: LedgerOperations & LedgerMarks
  blobs: BlobStore
  log: Logger
}): RestoreMarks {
  const { ledger, blobs, log } = deps
  let changed = false
  ledger.onChange(() => (changed = true))

  async function raise(above: number, restored: true | null): Promise<void> {
    changed = false
    const { mark } = await ledger.mark()
    const next = Math.max(mark, above) + 1
    await ledger.advanceMark({ mark: next, restored })
    await blobs.writeMark(next)
  }

  return {
    async begin() {
      const [{ mark }, stored] = await Promise.all([ledger.mark(), blobs.readMark()])
      const isRestored = stored > mark
      if (isRestored)
        log.error(
          { mark, stored },
          'the ledger is older than its store of blobs: it was restored from a backup, and the rows of later uploads may be lost',
        )
      await raise(stored, isRestored ? true : null)
    },
    async advance() {
      if (changed) await raise(0, null)
    },
  }
}
