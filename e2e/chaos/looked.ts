import { type Stored, type StoredBlob, type StoredLedger, waitsForClient } from '../truth/stored.js'

/** What chaos needs to know of what is stored. */
export interface Looked {
  /** What is acknowledged of each operation, as a text that changes when that changes. */
  readonly progress: ReadonlyMap<string, string>
  /** The bytes of each reference, by operation. */
  readonly references: ReadonlyMap<string, readonly StoredBlob[]>
  /** Bytes that no row knows. */
  readonly orphans: readonly string[]
  readonly open: number
  readonly stalled: number
  /**
   * Operations that are neither final, nor open within their expiry, nor stalled, each with its state. Empty when
   * nothing changes any more.
   */
  readonly unfinished: readonly string[]
}

const FINAL = new Set(['completed', 'cancelled', 'expired', 'rejected'])
const NO_BLOB: StoredBlob = { digest: async () => null }

export function progressOf({ operations, references }: StoredLedger): Looked['progress'] {
  const progress = new Map<string, string>()
  const add = (id: string, words: string): void => void progress.set(id, `${progress.get(id) ?? ''} ${words}`)
  for (const { id, point, offset } of operations) add(id, `${point} ${offset}`)
  for (const { id } of references) add(id, 'row')
  return progress
}

export function lookedAt(stored: Stored): Looked {
  const references = new Map<string, StoredBlob[]>()
  for (const { id, blobKey } of stored.references)
    references.set(id, [...(references.get(id) ?? []), stored.blobs.get(blobKey) ?? NO_BLOB])
  const claimed = new Set(stored.operations.map(({ blobKey }) => blobKey))
  const open = stored.operations.filter((operation) => !operation.stalled && waitsForClient(operation))
  const unfinished = stored.operations.filter(
    (operation) =>
      !operation.stalled &&
      (operation.leased || operation.cleanupDue || (!FINAL.has(operation.point) && !open.includes(operation))),
  )
  return {
    progress: progressOf(stored),
    references,
    orphans: [...[...stored.blobs.keys()].filter((key) => !claimed.has(key)), ...stored.leftovers],
    open: open.length,
    stalled: stored.operations.filter(({ stalled }) => stalled).length,
    unfinished: unfinished.map(
      ({ id, point, offset, size, leased, cleanupDue, dueAt, lastError }) =>
        `${id} ${point} ${offset}/${size}${leased ? ', leased' : ''}${cleanupDue ? ', cleanup due' : ''}, ` +
        `${dueAt === null ? 'never due' : `due in ${((dueAt - Date.now()) / 1000).toFixed(0)} s`}${lastError === null ? '' : `: ${lastError}`}`,
    ),
  }
}
