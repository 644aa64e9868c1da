import { createHash } from 'node:crypto'
import type { Appended, AppendRequest, BlobRef, BlobStore, StoredBlob } from '../../src/ports/blob-store.js'
import { UploadError, wroteInThisBoot } from './modules.js'

interface Stored {
  bytes: Uint8Array
  /** The number of bytes that survive a loss of power. */
  durable: number
  /** The boot of the machine in which it was last written. */
  boot: number
  sealed: boolean
}

/** A disk in memory, which outlives the processes that use it and knows what was synced. */
export interface Disk {
  readonly stored: ReadonlyMap<string, Stored>
  /** The store of one process. Its running calls end with `died`. */
  session(died: AbortSignal, options: { exclusive: boolean; checkpoints: boolean }): BlobStore
  /** Removes acknowledged bytes, all or the last ones. Answers false if there are none or they are sealed. */
  damage(key: string, how: 'gone' | 'cut'): boolean
  /** Everything that was not synced is lost, and a new boot begins. */
  losePower(): void
  /** Leaves unsynced bytes, like a process that died in the middle of an append. */
  leave(key: string, offset: number, bytes: Uint8Array): void
}

export const digestOf = (bytes: Uint8Array): string =>
  `sha-256=:${createHash('sha256').update(bytes).digest('base64')}:`

const away = (why: string): Error => new UploadError('storage-unavailable', why)
const overlaid = (under: Uint8Array, at: number, bytes: Uint8Array): Uint8Array =>
  Buffer.concat([under.slice(0, at), bytes, under.slice(at + bytes.length)])
const large = (size: number): boolean => size > 1024 * 1024

/**
 * Fulfils the contract of `BlobStore`: its suite is run on it, for a store of one process and for a shared one.
 *
 * The first models a directory: bytes beyond the offset are cut off. The shared one models an object store, which
 * must fence bytes itself, because the lease fences only rows: an upload is begun under the lease, bytes have fixed
 * places in it, and once it is sealed or removed it cannot be written any more.
 */
export function createDisk(belongsTo: string | null = null): Disk {
  const stored = new Map<string, Stored>()
  const quarantined = new Map<string, { blob: Stored; sinceAt: number }>()
  const inOneProcess = new Map<string, Promise<unknown>>()
  const writers = new Map<string, Set<AbortController>>()
  /** Uploads that were begun on a shared store and are not yet recorded under the lease. */
  const begun = new Map<string, Set<Stored>>()
  let boot = 0
  let identity = belongsTo
  let mark = 0

  /**
   * Calls for one key run one after the other: a later one waits for the close of the earlier one's descriptor. Those of
   * several processes do not wait for each other.
   */
  function serialisedIn(tails: Map<string, Promise<unknown>>) {
    return <T>(key: string, work: () => Promise<T>): Promise<T> => {
      if (!/^[\w-]{1,128}$/.test(key)) return Promise.reject(away('this store has not made that key'))
      const result = (tails.get(key) ?? Promise.resolve()).then(work)
      const tail = result.catch(() => {}).finally(() => tails.get(key) === tail && tails.delete(key))
      tails.set(key, tail)
      return result
    }
  }

  /** Records the upload under the lease before anything is written. A removal of the key also ends uploads of others. */
  async function beginShared(key: string, { offset, acknowledge }: AppendRequest): Promise<Stored> {
    const entry = empty()
    const all = begun.get(key) ?? new Set()
    begun.set(key, all.add(entry))
    try {
      await acknowledge(offset)
      if (!all.has(entry) || stored.has(key)) throw away('no such upload')
    } finally {
      all.delete(entry)
    }
    stored.set(key, entry)
    return entry
  }

  async function append(
    blob: BlobRef,
    request: AppendRequest,
    stop: AbortSignal,
    { exclusive, checkpoints }: { exclusive: boolean; checkpoints: boolean },
  ): Promise<Appended> {
    let offset = request.offset
    if (stop.aborted) return { outcome: 'kept', offset, ended: 'stopped' }
    if (!stored.has(blob.key) && offset > 0) return { outcome: 'lost' }
    if (!stored.has(blob.key)) {
      if (exclusive) stored.set(blob.key, empty())
      else await beginShared(blob.key, request)
    }
    const entry = stored.get(blob.key)
    if (entry === undefined) throw away('no such upload')
    // A holder that had lost its lease without knowing it has sealed the blob, and the blob is whole.
    if (!exclusive && entry.sealed) return { outcome: 'kept', offset: blob.size, ended: 'whole' }
    if (entry.bytes.length < offset) return { outcome: 'lost' }
    if (exclusive) {
      // Bytes beyond the offset were never acknowledged.
      entry.bytes = entry.bytes.slice(0, offset)
      entry.durable = Math.min(entry.durable, offset)
    }
    let written = offset
    const sync = (): void => {
      entry.durable = Math.max(entry.durable, written)
      offset = written
    }
    const stopped = new Promise<'stopped'>((resolve) =>
      stop.addEventListener('abort', () => resolve('stopped'), { once: true }),
    )
    const pieces: Uint8Array[] = []
    let length = offset
    const flush = (): void => {
      if (pieces.length === 0) return
      if (!exclusive && (entry.sealed || stored.get(blob.key) !== entry)) throw away('no such upload')
      const all = Buffer.concat(pieces.splice(0))
      entry.bytes = overlaid(entry.bytes, written, all)
      written += all.length
    }
    const chunks = request.source[Symbol.asyncIterator]()
    for (;;) {
      const next = await Promise.race([stopped, chunks.next().catch(() => 'broken' as const)])
      if (next === 'stopped' || next === 'broken') {
        flush()
        sync()
        return { outcome: 'kept', offset, ended: next }
      }
      if (next.done === true) break
      request.onBytes?.()
      if (length + next.value.length > blob.size) {
        if (exclusive) entry.bytes = entry.bytes.slice(0, offset)
        return { outcome: 'kept', offset, ended: 'excess' }
      }
      pieces.push(next.value)
      length += next.value.length
      entry.boot = boot
      if (!large(blob.size) || length - offset >= 16 * 1024 * 1024) {
        flush()
        if (length < blob.size && (checkpoints || large(blob.size))) {
          const before = offset
          sync()
          if (!(await request.acknowledge(offset))) offset = before
        }
      }
    }
    flush()
    sync()
    return { outcome: 'kept', offset, ended: 'whole' }
  }

  const empty = (): Stored => ({ bytes: new Uint8Array(), durable: 0, boot, sealed: false })

  return {
    stored,
    damage(key, how) {
      const entry = stored.get(key)
      if (entry === undefined || entry.sealed || entry.bytes.length === 0) return false
      if (how === 'gone') stored.delete(key)
      else entry.bytes = entry.bytes.slice(0, -1)
      entry.durable = Math.min(entry.durable, entry.bytes.length)
      return true
    },
    losePower() {
      boot++
      for (const entry of stored.values()) entry.bytes = entry.bytes.slice(0, entry.durable)
    },
    leave(key, offset, bytes) {
      const kept = stored.get(key) ?? empty()
      if (kept.bytes.length < offset || kept.sealed) return
      stored.set(key, {
        bytes: Buffer.concat([kept.bytes.slice(0, offset), bytes]),
        durable: Math.min(kept.durable, offset),
        boot,
        sealed: false,
      })
    },
    session(died, { exclusive, checkpoints }) {
      const serialised = serialisedIn(exclusive ? inOneProcess : new Map())
      return {
        exclusive,
        async open(wanted, store) {
          if (identity === null && store === 'new') identity = wanted
          if (identity !== wanted) throw new UploadError('setup', 'the store belongs to another ledger')
        },
        append(blob, request) {
          const stop = new AbortController()
          const ask = (): void => stop.abort()
          for (const signal of [request.signal, died]) {
            if (signal.aborted) ask()
            signal.addEventListener('abort', ask, { once: true })
          }
          const all = writers.get(blob.key) ?? new Set()
          writers.set(blob.key, all.add(stop))
          // A process that dies while it waits for its ledger closes its descriptors.
          const dead = new Promise<never>((_resolve, reject) =>
            died.addEventListener('abort', () => reject(away('its process is dead')), { once: true }),
          )
          dead.catch(() => {})
          return serialised(blob.key, () =>
            Promise.race([append(blob, request, stop.signal, { exclusive, checkpoints }), dead]),
          ).finally(() => {
            all.delete(stop)
            for (const signal of [request.signal, died]) signal.removeEventListener('abort', ask)
          })
        },
        recover: ({ key, size }, { offset, writtenBy }) =>
          serialised(key, async () => {
            const entry = stored.get(key)
            if (entry === undefined) return offset === 0 ? { outcome: 'kept', offset } : { outcome: 'lost' }
            if (entry.bytes.length < offset) return { outcome: 'lost' }
            // A sealed blob is not written any more, so every reader must see that it is whole.
            if (!exclusive && entry.sealed) return { outcome: 'kept', offset: size }
            if (!wroteInThisBoot(writtenBy) || entry.boot !== boot) return { outcome: 'kept', offset }
            entry.durable = entry.bytes.length
            return { outcome: 'kept', offset: Math.min(size, entry.bytes.length) }
          }),
        seal: ({ key, size }) =>
          serialised(key, async () => {
            if (size === 0 && !stored.has(key)) stored.set(key, empty())
            const entry = stored.get(key)
            if (entry === undefined) return 'absent'
            if (entry.bytes.length < size) return 'short'
            entry.bytes = entry.bytes.slice(0, size)
            entry.durable = size
            entry.sealed = true
            return 'sealed'
          }),
        inspect: ({ key, size }) =>
          serialised(key, async () => {
            const bytes = stored.get(key)?.bytes
            if (bytes?.length !== size) throw away('the blob has not its length')
            return { digest: digestOf(bytes), head: bytes.slice(0, 4_100) }
          }),
        digestOf: ({ key }, length) =>
          serialised(key, async () => ({
            digest: digestOf((stored.get(key)?.bytes ?? new Uint8Array()).slice(0, length)),
          })),
        async read(key, { start, end }) {
          if (start >= end) return new Blob([]).stream()
          const entry = stored.get(key)
          if (entry === undefined) throw away('the stored bytes are not there')
          return new Blob([entry.bytes.slice(start, end)]).stream()
        },
        remove(key) {
          for (const writer of writers.get(key) ?? []) writer.abort()
          return serialised(key, async () => {
            stored.delete(key)
            begun.get(key)?.clear()
          })
        },
        async *list() {
          for (const [key, { bytes }] of [...stored].toSorted(([a], [b]) => (a < b ? -1 : 1)))
            yield { key, name: key, sizeBytes: bytes.length, modifiedAt: Date.now() } satisfies StoredBlob
        },
        sizeOf: async (key) => stored.get(key)?.bytes.length ?? null,
        quarantine: {
          async *list() {
            for (const [key, { blob, sinceAt }] of quarantined) yield { key, sizeBytes: blob.bytes.length, sinceAt }
          },
          async add(key, nowAt) {
            const blob = stored.get(key)
            if (blob !== undefined) quarantined.set(key, { blob, sinceAt: nowAt })
            stored.delete(key)
          },
          async takeBack(key) {
            const found = quarantined.get(key)
            if (found !== undefined) stored.set(key, found.blob)
            return quarantined.delete(key)
          },
          remove: async (key) => void quarantined.delete(key),
        },
        probe: async () => ({ syncMs: 0, freeBytes: null, totalBytes: null }),
        readMark: async () => mark,
        writeMark: async (to) => void (mark = to),
        close: async () => {},
      }
    },
  }
}
