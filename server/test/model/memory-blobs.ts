import { createHash } from 'node:crypto'
import type { Appended, AppendRequest, BlobRef, BlobStore, StoredBlob } from '../../src/ports.js'
import { UploadError, wroteInThisBoot } from './modules.js'

interface Stored {
  bytes: Uint8Array
  /** What a power loss leaves. */
  durable: number
  /** In which boot of the machine it was written to. */
  boot: number
}

/** A disk in memory, which outlives the processes that use it and knows what was synced. */
export interface Disk {
  readonly stored: ReadonlyMap<string, Stored>
  /** As one process sees it; what it has in flight ends with `died`. */
  session(died: AbortSignal, options: { exclusive: boolean; checkpoints: boolean }): BlobStore
  /** What was not synced is gone, and it is another boot. */
  losePower(): void
  /** What a process that died in the middle of an append has left: bytes that nobody has synced. */
  leave(key: string, offset: number, bytes: Uint8Array): void
}

export const digestOf = (bytes: Uint8Array): string =>
  `sha-256=:${createHash('sha256').update(bytes).digest('base64')}:`

const away = (why: string): Error => new UploadError('storage-unavailable', why)
const large = (size: number): boolean => size > 1024 * 1024

/** Fulfils the contract of `BlobStore`: its suite is run on it. */
export function createDisk(belongsTo: string | null = null): Disk {
  const stored = new Map<string, Stored>()
  const quarantined = new Map<string, { blob: Stored; sinceAt: number }>()
  const tails = new Map<string, Promise<unknown>>()
  const writers = new Map<string, Set<AbortController>>()
  let boot = 0
  let identity = belongsTo
  let mark = 0

  /** Calls for one key run one after the other: a later one waits for the close of the earlier one's descriptor. */
  function serialised<T>(key: string, work: () => Promise<T>): Promise<T> {
    if (!/^[\w-]{1,128}$/.test(key)) return Promise.reject(away('this store has not made that key'))
    const result = (tails.get(key) ?? Promise.resolve()).then(work)
    const tail = result.catch(() => {}).finally(() => tails.get(key) === tail && tails.delete(key))
    tails.set(key, tail)
    return result
  }

  async function append(
    blob: BlobRef,
    request: AppendRequest,
    stop: AbortSignal,
    checkpoints: boolean,
  ): Promise<Appended> {
    let offset = request.offset
    if (stop.aborted) return { outcome: 'kept', offset, ended: 'stopped' }
    let entry = stored.get(blob.key)
    if (entry === undefined && offset > 0) return { outcome: 'lost' }
    if (entry === undefined) stored.set(blob.key, (entry = { bytes: new Uint8Array(), durable: 0, boot }))
    if (entry.bytes.length < offset) return { outcome: 'lost' }
    // Bytes beyond belong to a request that nobody was told of.
    entry.bytes = entry.bytes.slice(0, offset)
    entry.durable = Math.min(entry.durable, offset)
    const sync = (): void => {
      if (entry !== undefined) entry.durable = offset = entry.bytes.length
    }
    const stopped = new Promise<'stopped'>((resolve) =>
      stop.addEventListener('abort', () => resolve('stopped'), { once: true }),
    )
    const pieces: Uint8Array[] = []
    let length = offset
    const flush = (): void => {
      if (entry !== undefined && pieces.length > 0) entry.bytes = Buffer.concat([entry.bytes, ...pieces.splice(0)])
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
        entry.bytes = entry.bytes.slice(0, offset)
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

  return {
    stored,
    losePower() {
      boot++
      for (const entry of stored.values()) entry.bytes = entry.bytes.slice(0, entry.durable)
    },
    leave(key, offset, bytes) {
      const kept = stored.get(key) ?? { bytes: new Uint8Array(), durable: 0, boot }
      if (kept.bytes.length < offset) return
      stored.set(key, {
        bytes: Buffer.concat([kept.bytes.slice(0, offset), bytes]),
        durable: Math.min(kept.durable, offset),
        boot,
      })
    },
    session: (died, { exclusive, checkpoints }) => ({
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
          Promise.race([append(blob, request, stop.signal, checkpoints), dead]),
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
          if (!wroteInThisBoot(writtenBy) || entry.boot !== boot) return { outcome: 'kept', offset }
          entry.durable = entry.bytes.length
          return { outcome: 'kept', offset: Math.min(size, entry.bytes.length) }
        }),
      seal: ({ key, size }) =>
        serialised(key, async () => {
          if (size === 0 && !stored.has(key)) stored.set(key, { bytes: new Uint8Array(), durable: 0, boot })
          const entry = stored.get(key)
          if (entry === undefined) return 'absent'
          if (entry.bytes.length < size) return 'short'
          entry.bytes = entry.bytes.slice(0, size)
          entry.durable = size
          return 'sealed'
        }),
      inspect: ({ key, size }) =>
        serialised(key, async () => {
          const bytes = stored.get(key)?.bytes
          if (bytes?.length !== size) throw away('the blob has not its length')
          return { digest: digestOf(bytes), head: bytes.slice(0, 4_100) }
        }),
      digestOf: ({ key }, length) =>
        serialised(key, async () => digestOf((stored.get(key)?.bytes ?? new Uint8Array()).slice(0, length))),
      async read(key, { start, end }) {
        if (start >= end) return new Blob([]).stream()
        const entry = stored.get(key)
        if (entry === undefined) throw away('the stored bytes are not there')
        return new Blob([entry.bytes.slice(start, end)]).stream()
      },
      remove(key) {
        for (const writer of writers.get(key) ?? []) writer.abort()
        return serialised(key, async () => void stored.delete(key))
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
    }),
  }
}
