import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, unlink } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { Readable } from 'node:stream'
import { createKeyQueue } from '../key-queue.js'
import { relativePath } from '../key.js'
import { createStop, type Stop } from '../read-chunks.js'
import { codeOf, UploadError } from '../../lib/errors.js'
import { wroteInThisBoot } from '../../lib/holder-name.js'
import { milliseconds, nonEmptyText, optional, readOptions, wholeNumber } from '../../lib/options.js'
import { MODE } from '../../lib/private-modes.js'
import type { Appended, AppendRequest, BlobRef, BlobStore, Inspection } from '../../ports/blob-store.js'
import { createDigester } from './digester.js'
import { nextTurn, takeDirectory, takenOver } from './directory-lock.js'
import { patiently } from './disk-patience.js'
import {
  createDirectorySync,
  files,
  makeDirectoryNow,
  O_CREAT,
  O_DSYNC,
  O_EXCL,
  O_RDONLY,
  O_RDWR,
  readAll,
  readBack,
  storageFault,
} from './durable-files.js'
import { directoryIdentity } from './identity.js'
import { createInventory } from './inventory.js'
import { probe } from './probe.js'
import { createRoom } from './room.js'
import { takeBytes } from './take-bytes.js'
import { whenPulled } from './when-pulled.js'

export interface FileBlobsOptions {
  /**
   * Where the bytes are stored. The directory belongs to exactly one process. It is created if it is missing, but it
   * becomes a store only while the ledger knows of no store. Afterwards, a directory without its `store.json` is
   * `storage-unavailable` until the disk is mounted. If the blobs are lost permanently, put there the `store.json` that
   * the error's message spells out.
   */
  directory: string
  /** A long request is synced and acknowledged after at most this many bytes. Default 16 MiB. */
  checkpointBytes?: number
  /** A long request is also synced and acknowledged after at most this time. In milliseconds, default 2,000. */
  checkpointMs?: number
  /**
   * How long a request waits while the disk is full or not writable before it fails. While it waits, its bytes stay in
   * the network. In milliseconds, default 5,000.
   */
  patienceMs?: number
  /**
   * Space on the disk that uploads leave free. Bytes that would take it are refused with `storage-full` (507), and so
   * are new uploads. So a database on the same disk can still record what frees space: a cancellation, an expiry or a
   * removal. In bytes. Default 5 % of the disk, at least 32 MiB and at most 256 MiB. With 0, uploads may fill the disk.
   */
  reserveBytes?: number
}

/** By name: what each option may be, and its default. */
export const OPTIONS = {
  directory: nonEmptyText,
  checkpointBytes: optional(wholeNumber(1), 16 * 1024 * 1024),
  checkpointMs: optional(milliseconds(1), 2_000),
  patienceMs: optional(milliseconds(0), 5_000),
  reserveBytes: optional(wholeNumber(0)),
}

/** Blobs up to this size are opened with O_DSYNC, so that each write is also the sync. */
const SYNCED_BYTES = 128 * 1024
/** Blobs up to this size are hashed at once from the page cache. The hashing thread follows larger ones. */
const SMALL_BYTES = 1024 * 1024
/** Enough bytes for every signature that `file-type` recognises without a deeper inspection. */
const HEAD_BYTES = 4_100
/** How often to try to make a file in a directory that other requests remove whenever it is empty. */
const MOST_TRIES = 10

/**
 * Stores blobs as files in a directory. Each blob is one file, which keeps one path for its whole life.
 *
 * Unlike the store of @tus/file-store, it creates files without truncating, acknowledges only what was synced (file and
 * name), and keeps what was received when a source breaks. It needs no sidecar file that could be torn: the ledger is
 * the only truth about an upload. The server makes the keys, so that no name from a user becomes a path.
 *
 * @throws UploadError `setup` for an option that cannot work.
 */
export function fileBlobs(options: FileBlobsOptions): BlobStore {
  const { directory, checkpointBytes, checkpointMs, patienceMs, reserveBytes } = readOptions(
    'fileBlobs',
    OPTIONS,
    options,
  )
  const root = resolve(directory)
  const checkpoint = { bytes: checkpointBytes, ms: checkpointMs }
  const directories = createDirectorySync(root)
  const digester = createDigester()
  const queue = createKeyQueue()
  const identity = directoryIdentity(root, directories.sync)
  const room = createRoom(root, reserveBytes, () => identity.expect())
  /** Keys whose file and name this process has synced, with the size. It saves the seal a second sync. */
  const durable = new Map<string, number>()
  const inspected = new Map<string, Inspection>()
  let lock: { release(): void } | null = null
  let opening: Promise<void> = Promise.resolve()
  let leaving: Promise<void> | null = null
  let onTakenOver = async (): Promise<void> => {}
  const holder = {
    turn: nextTurn(),
    leave: () => (leaving ??= leave()),
  }

  const pathOf = (key: string): string => join(root, 'blobs', relativePath(key))
  const inventory = createInventory(root, pathOf, directories)

  /** A missing file counts as absent only if the store itself is there: an unmounted disk has no files either. */
  const missing = (): Promise<void> => identity.expect()

  const openIfThere = async (path: string, flags: number): Promise<number | null> => {
    try {
      return await files.open(path, flags)
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw error
      await missing()
      return null
    }
  }

  const create = async (path: string, flags: number): Promise<number> => {
    for (let triesLeft = MOST_TRIES; ; triesLeft -= 1)
      try {
        // Waking a thread costs more than making a small file, and a commit of the database waits for the same journal.
        return (flags & O_DSYNC) === O_DSYNC
          ? files.openNow(path, flags | O_CREAT, MODE.file)
          : await files.open(path, flags | O_CREAT, MODE.file)
      } catch (error) {
        if (codeOf(error) !== 'ENOENT' || triesLeft === 0) throw error
        await missing()
        // A request that removes the last file of a directory may remove this directory before it contains anything.
        await mkdir(dirname(path), { recursive: true, mode: MODE.directory })
      }
  }

  /** Opens the file and cuts it to what was acknowledged. Returns null if less than that is there. */
  async function openAt(path: string, offset: number, flags: number): Promise<number | null> {
    if (offset === 0) {
      // Opening never truncates: an existing file may belong to a request that is still running.
      const made = await create(path, O_RDWR | O_EXCL | flags).catch((error: unknown) => {
        if (codeOf(error) !== 'EEXIST') throw error
        return null
      })
      if (made !== null) return made
    }
    const file = await openIfThere(path, O_RDWR | flags)
    if (file === null) return null
    try {
      const { size } = await files.stat(file)
      // Bytes beyond the acknowledged offset belong to a request whose client was never told about them.
      if (size > offset) await files.truncate(file, offset)
      if (size >= offset) return file
    } catch (error) {
      await files.close(file)
      throw error
    }
    await files.close(file)
    return null
  }

  async function append(blob: BlobRef, request: AppendRequest, stop: Stop): Promise<Appended> {
    // The blob may be removed already: a request that takes a lease away first stops its holder.
    if (stop.asked()) return { outcome: 'kept', offset: request.offset, ended: 'stopped' }
    const path = pathOf(blob.key)
    durable.delete(blob.key)
    inspected.delete(blob.key)
    // With O_DSYNC the writes of a small blob are also its sync: one call instead of two, for nearly every file of an
    // album or an inbox.
    const synced = blob.size <= SYNCED_BYTES
    // Check the space before a file is made for bytes that would be refused.
    const file = await patiently(
      () => room.within(1, () => openAt(path, request.offset, synced ? O_DSYNC : 0)),
      stop,
      patienceMs,
    )
    if (file === null) return { outcome: 'lost' }
    // Once bytes of a file were acknowledged, its name is durable already.
    const naming = request.offset === 0 ? directories.syncName(path) : Promise.resolve()
    naming.catch(() => {})
    // Hash only what was acknowledged: the rest may be cut off again and replaced by other bytes.
    const hashed = (offset: number): void => {
      if (offset > 0 && blob.size > SMALL_BYTES) digester.follow(blob.key, path, offset)
    }
    hashed(request.offset)
    let durableUpTo = request.offset
    let written = -1
    try {
      const taken = await takeBytes({
        ...request,
        stop,
        file,
        limit: blob.size,
        checkpoint,
        patiently: (bytes, write) => patiently(() => room.within(bytes, write), stop, patienceMs),
        sync: async (offset) => {
          await Promise.all([synced ? undefined : files.dataSync(file), naming])
          durableUpTo = offset
        },
        acknowledge: async (offset) => {
          const acknowledged = await request.acknowledge(offset)
          if (acknowledged) hashed(offset)
          return acknowledged
        },
      })
      written = taken.offset
      if (written === blob.size) {
        if (blob.size <= SMALL_BYTES)
          keepNewest(inspected, blob.key, inspectSmall(readBack(file, blob.size), blob.size))
        keepNewest(durable, blob.key, blob.size)
      }
      return { outcome: 'kept', ...taken }
    } finally {
      await naming.catch(() => {})
      if (written === durableUpTo) files.closeNow(file)
      else await files.close(file)
    }
  }

  async function seal(blob: BlobRef): Promise<'sealed' | 'short' | 'absent'> {
    if (durable.get(blob.key) === blob.size) return 'sealed'
    const path = pathOf(blob.key)
    // An empty blob was never appended to.
    const file = blob.size === 0 ? await create(path, O_RDWR) : await openIfThere(path, O_RDWR)
    if (file === null) return 'absent'
    try {
      const { size } = await files.stat(file)
      if (size < blob.size) return 'short'
      if (size > blob.size) await files.truncate(file, blob.size)
      await files.sync(file)
      await directories.syncName(path)
    } finally {
      await files.close(file)
    }
    return 'sealed'
  }

  async function inspect(blob: BlobRef, signal: AbortSignal): Promise<Inspection> {
    const known = inspected.get(blob.key)
    inspected.delete(blob.key)
    if (known !== undefined) return known
    const path = pathOf(blob.key)
    const file = await files.open(path, O_RDONLY)
    try {
      if (blob.size <= SMALL_BYTES) return inspectSmall(await readAll(file, 0, blob.size), blob.size)
      const head = await readAll(file, 0, HEAD_BYTES)
      return { head, digest: asDigest(await digester.digest(blob.key, path, blob.size, signal)) }
    } finally {
      await files.close(file)
    }
  }

  async function remove(key: string): Promise<void> {
    const path = pathOf(key)
    inspected.delete(key)
    durable.delete(key)
    digester.forget(key)
    try {
      await unlink(path)
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw error
      await missing()
    }
    // Also sync the directory of a file that is gone already: the process that removed it may have been killed before
    // its sync, and a power failure may still follow.
    await directories.syncIfThere(dirname(path))
    await directories.removeIfEmpty(dirname(path))
  }

  const opened = (): void => {
    if (leaving !== null) throw takenOver()
    if (lock === null) throw new UploadError('storage-unavailable', 'the store of blobs is not open')
  }

  /**
   * Wraps every call: it requires an open store, runs one call at a time for each key, and maps faults to their codes.
   */
  const guarded = async <T>(key: string, work: () => Promise<T>, interrupt?: () => void): Promise<T> => {
    opened()
    try {
      return await queue.run(key, work, interrupt)
    } catch (error) {
      throw isStorageFault(error) ? storageFault(error) : error
    }
  }

  async function open(ledger: string, store: 'new' | 'known'): Promise<void> {
    if (leaving !== null) throw takenOver()
    try {
      makeDirectoryNow(root)
      lock ??= await takeDirectory(root, holder)
      await identity.open(ledger, store)
      await room.open()
    } catch (error) {
      lock?.release()
      lock = null
      throw error instanceof UploadError ? error : storageFault(error)
    }
  }

  async function close(): Promise<void> {
    // A prefix of a large file may be being hashed for a waiting client. This ends first, and with a fault.
    await digester.close()
    await queue.closeAll()
    await room.close()
    await digester.close()
    await directories.close()
    lock?.release()
    lock = null
  }

  /**
   * Runs when a newer store of this process takes over: running writes are finished, or ended at what was acknowledged.
   */
  async function leave(): Promise<void> {
    await opening.catch(() => {})
    try {
      await onTakenOver()
    } finally {
      await close()
    }
  }

  return {
    exclusive: true,

    directory: root,

    open(ledger, store) {
      opening = open(ledger, store)
      return opening
    },

    append: (blob, request) => {
      const stop = createStop()
      const { signal } = request
      signal.addEventListener('abort', stop.ask, { once: true })
      if (signal.aborted) stop.ask()
      return guarded(blob.key, () => append(blob, request, stop), stop.ask).finally(() =>
        signal.removeEventListener('abort', stop.ask),
      )
    },

    recover: (blob, { offset, writtenBy }) =>
      guarded(blob.key, async () => {
        const path = pathOf(blob.key)
        const file = await openIfThere(path, O_RDWR)
        if (file === null) return offset === 0 ? { outcome: 'kept', offset } : { outcome: 'lost' }
        try {
          const { size } = await files.stat(file)
          if (size < offset) return { outcome: 'lost' }
          // The kernel that took the bytes is still running, so they survived the process. They were written in order,
          // without gaps.
          if (!wroteInThisBoot(writtenBy)) return { outcome: 'kept', offset }
          await files.sync(file)
          await directories.syncName(path)
          return { outcome: 'kept', offset: Math.min(size, blob.size) }
        } finally {
          await files.close(file)
        }
      }),

    seal: (blob) => guarded(blob.key, () => seal(blob)),
    inspect: (blob, signal) => guarded(blob.key, () => inspect(blob, signal)),

    digestOf: (blob, length, signal) =>
      guarded(blob.key, async () => ({
        digest:
          length === 0
            ? asDigest(createHash('sha256').digest('base64'))
            : asDigest(await digester.digest(blob.key, pathOf(blob.key), length, signal)),
      })),

    async read(key, { start, end }) {
      opened()
      if (start >= end) return new Blob([]).stream()
      const path = pathOf(key)
      const there = await files.statPath(path).catch(async (error: unknown) => {
        if (codeOf(error) !== 'ENOENT') throw storageFault(error)
        await missing()
        return null
      })
      if (there === null) throw new UploadError('storage-unavailable', 'the stored bytes are not there')
      return whenPulled(
        () =>
          // The stream closes its descriptor, even if its reader stops in the middle.
          Readable.toWeb(createReadStream(path, { start, end: end - 1 })) as ReadableStream<Uint8Array>,
        storageFault,
      )
    },

    remove: (key) => {
      queue.interrupt(key)
      return guarded(key, () => remove(key))
    },

    list: inventory.list,

    quarantine: {
      list: inventory.quarantine.list,
      add: (key, nowAt) => guarded(key, () => inventory.quarantine.add(key, nowAt)),
      takeBack: (key) => guarded(key, () => inventory.quarantine.takeBack(key)),
      remove: (key) => guarded(key, () => inventory.quarantine.remove(key)),
    },

    sizeOf: (key) =>
      guarded(key, async () => {
        const file = await openIfThere(pathOf(key), O_RDONLY)
        if (file === null) return null
        try {
          return (await files.stat(file)).size
        } finally {
          await files.close(file)
        }
      }),

    async probe() {
      opened()
      try {
        return await probe(root)
      } catch (error) {
        throw storageFault(error)
      }
    },

    readMark: () => identity.readMark(),
    writeMark: (mark) => identity.writeMark(mark),

    room: room.now,

    onTakenOver: (listener) => void (onTakenOver = listener),
    close,
  }
}

const asDigest = (base64: string): string => `sha-256=:${base64}:`

function inspectSmall(bytes: Buffer, size: number): Inspection {
  if (bytes.length !== size) throw new UploadError('storage-unavailable', 'the file is shorter than its length')
  // A copy, because a view would keep all of the bytes in memory.
  return {
    digest: asDigest(createHash('sha256').update(bytes).digest('base64')),
    head: Uint8Array.from(bytes.subarray(0, HEAD_BYTES)),
  }
}

/**
 * How many results are kept of blobs between their last byte and their verification. The oldest is dropped, and is
 * computed again if it is needed.
 */
const MAX_KEPT = 1_000

function keepNewest<T>(map: Map<string, T>, key: string, value: T): void {
  if (map.size >= MAX_KEPT) map.delete(map.keys().next().value ?? '')
  map.set(key, value)
}

/**
 * Whether the error came from the file system. An abort or a lost lease belongs to the caller and is thrown as it is.
 */
const isStorageFault = (error: unknown): boolean => codeOf(error).startsWith('E')
