import { promisifyRequest } from 'idb-keyval'
import type { Clock, Source } from '../ports.js'
import { rangeOf } from './idb-journal.js'
import { openStore } from './idb-store.js'

/** After this time, a copy whose upload was never resumed is dropped. */
const KEEP_MS = 30 * 24 * 3_600_000
/** A younger copy may be one that another tab is making and has not yet noted in its record. */
const FRESH_MS = 3_600_000
const DEFAULT_MAX_BYTES = 1024 ** 3
/** The share of the space that the browser would still give to this origin. The application needs space too. */
const QUOTA_SHARE = 0.2

interface Copy {
  readonly blob: Blob
  readonly madeAtMs: number
}

const freeBytes = async (): Promise<number> => {
  if (typeof navigator === 'undefined' || !navigator.storage?.estimate) return Infinity
  const { quota = Infinity, usage = 0 } = await navigator.storage.estimate()
  return Math.max(0, quota - usage)
}

/**
 * Copies of files in IndexedDB, in a database of their own. Putting a `File` there copies it, without reading it in
 * this code.
 */
export function createIdbSource(options: { maxBytes?: number | undefined; clock: Pick<Clock, 'wallMs'> }): Source {
  const use = openStore('landfall-copies', 'files')
  const all = (): Promise<[IDBValidKey, Copy][]> =>
    use('readonly', async (store) => {
      // Both requests at once, because a transaction ends as soon as it has no open request.
      const [keys, copies] = await Promise.all([
        promisifyRequest(store.getAllKeys()),
        promisifyRequest<Copy[]>(store.getAll()),
      ])
      return copies.map((copy, at) => [keys[at] ?? [], copy])
    })
  const change = (work: (store: IDBObjectStore) => void): Promise<void> =>
    use('readwrite', (store) => {
      work(store)
      return promisifyRequest(store.transaction)
    })

  /**
   * Counted once and then kept up to date. Copies that other tabs add later are missed, which is acceptable for a
   * budget.
   */
  let keptBytes: number | null = null
  const sizes = new Map<string, number>()

  return {
    async keep(scope, id, blob) {
      keptBytes ??= (await all()).reduce((sum, [, copy]) => sum + copy.blob.size, 0)
      const shareBytes = QUOTA_SHARE * ((await freeBytes()) + keptBytes)
      const budgetBytes = options.maxBytes ?? Math.min(DEFAULT_MAX_BYTES, shareBytes)
      if (keptBytes + blob.size > budgetBytes) return false
      const copy: Copy = { blob, madeAtMs: options.clock.wallMs() }
      // Count it before it is written: during the write, other copies are dropped, and the total may have to be counted
      // again.
      keptBytes += blob.size
      sizes.set(id, blob.size)
      try {
        await change((store) => store.put(copy, [scope, id]))
      } catch (cause) {
        keptBytes = null
        throw cause
      }
      return true
    },
    read: async (scope, id) => {
      const copy = await use('readonly', (store) => promisifyRequest<Copy | undefined>(store.get([scope, id])))
      return copy?.blob ?? null
    },
    async drop(scope, id) {
      await change((store) => store.delete([scope, id]))
      const size = sizes.get(id)
      if (size === undefined || keptBytes === null) keptBytes = null
      else keptBytes -= size
      sizes.delete(id)
    },
    async sweep(scope, wanted) {
      const nowMs = options.clock.wallMs()
      const stale = (await all()).filter(([key, { madeAtMs }]) => {
        const [ofScope, id]: unknown[] = Array.isArray(key) ? key : []
        const isWanted = ofScope !== scope || (typeof id === 'string' && wanted.has(id))
        return nowMs - madeAtMs > (isWanted ? KEEP_MS : FRESH_MS)
      })
      if (stale.length > 0) await change((store) => stale.forEach(([key]) => store.delete(key)))
      keptBytes = null
    },
    async purge(scope) {
      await change((store) => store.delete(rangeOf(scope)))
      keptBytes = null
    },
  }
}

/** For an uploader without copies: after a tab was closed, the user has to pick the file again. */
export const withoutCopies: Source = {
  keep: async () => null,
  read: async () => null,
  drop: async () => {},
  sweep: async () => {},
  purge: async () => {},
}
