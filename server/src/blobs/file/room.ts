import { randomBytes } from 'node:crypto'
import { open, stat, statfs, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { UploadError } from '../../lib/errors.js'
import { MODE } from '../../lib/private-modes.js'
import type { StoreRoom } from '../../ports/blob-store.js'

/**
 * Keeps uploaded bytes out of the last free space of a disk. The database is often on the same disk, and needs space to
 * record a cancellation, an expiry or a removal. Without this reserve, a full disk could not be emptied again.
 */
export interface Room {
  /**
   * Writes bytes if they leave the reserve untouched. Granted bytes count before they are written, so that uploads that
   * run at the same time cannot take the same space twice.
   *
   * @throws UploadError `storage-full` if they do not fit. Then nothing was written.
   */
  within<T>(bytes: number, write: () => Promise<T>): Promise<T>
  /**
   * The space as far as it is known. While the store is full this asks the file system again, so that no upload is
   * refused because of an old answer. Null if the file system does not report its space.
   */
  now(): Promise<StoreRoom | null>
  /** Asks the file system for the first time, and from then on once a second. */
  open(): Promise<void>
  close(): Promise<void>
}

const MIB = 1024 * 1024
/**
 * Cancelling 1,000 operations, the most that one owner may have open, and removing their bytes was measured to grow the
 * database by 0.2 MiB and its log to 4 MiB, at which SQLite checkpoints it. The log grows further while a reader keeps
 * an old snapshot, and other programs write to the disk as well. So the default is a multiple of that. Too much wastes
 * space, which an option gives back. Too little makes a disk that cannot be emptied.
 */
const MOST_RESERVED = 256 * MIB
/** A small disk keeps less, but always enough for the log and the tables that are written from it. */
const LEAST_RESERVED = 32 * MIB
const RESERVED_SHARE = 0.05
/**
 * Writes of bytes from the network are never larger (`take-bytes.ts`). If this many bytes do not fit, the store is
 * full.
 */
const LARGEST_WRITE = 512 * 1024
const LOOK_EVERY_MS = 1_000
/** After this time the event loop or the file system's answer was late, and what is known may be out of date. */
const STALE_MS = 2 * LOOK_EVERY_MS
/** Every request that finds no space asks again. One check in this time is enough for all of them together. */
const LEAST_LOOK_MS = 100
/**
 * The name of a file without content of value. It is removed when other programs have filled the disk in spite of the
 * reserve. That leaves SQLite 2,000 pages for its log. Without them, a database whose log is still short cannot record
 * a single cancellation.
 */
const BALLAST_NAME = 'ballast'
const MOST_BALLAST = 8 * MIB
/** The ballast is made when less than this many reserves are free. A disk that is far from full needs none. */
const BALLAST_BELOW_RESERVES = 8

const defaultReserve = (totalBytes: number): number =>
  Math.min(MOST_RESERVED, Math.max(LEAST_RESERVED, Math.round(totalBytes * RESERVED_SHARE)))

export function createRoom(
  root: string,
  wantedReserveBytes: number | undefined,
  expectStore: () => Promise<void>,
): Room {
  let seen: { freeBytes: number; totalBytes: number; reserveBytes: number } | null = null
  /** What may still be written until the next check. */
  let leftBytes = Number.POSITIVE_INFINITY
  /** Granted bytes that may not be in the file system's own count yet. */
  let writingBytes = 0
  let grantedSinceLook = 0
  let lookedAtMs = Number.NEGATIVE_INFINITY
  let looking: Promise<void> | null = null
  let nextLook: Promise<void> | null = null
  let timer: ReturnType<typeof setInterval> | null = null
  let tending: Promise<void> = Promise.resolve()
  let hasBallast = false

  async function ask(): Promise<void> {
    grantedSinceLook = 0
    const beforeBytes = writingBytes
    try {
      const { bavail, blocks, bsize } = await statfs(root)
      const totalBytes = blocks * bsize
      // Some network file systems report 0 of 0.
      if (totalBytes === 0) return unknown()
      const freeBytes = bavail * bsize
      const reserveBytes = wantedReserveBytes ?? defaultReserve(totalBytes)
      seen = { freeBytes, totalBytes, reserveBytes }
      // Bytes that were being written during the check may be counted twice. The next check corrects that.
      leftBytes = freeBytes - reserveBytes - beforeBytes - grantedSinceLook
    } catch {
      // The write itself meets the same fault and reports it with its own code.
      unknown()
    } finally {
      lookedAtMs = performance.now()
    }
  }

  function unknown(): void {
    seen = null
    leftBytes = Number.POSITIVE_INFINITY
  }

  /** Makes sure that the known space is recent and, if possible, that it allows so many bytes. */
  async function lookFor(bytes: number): Promise<void> {
    if (timer === null) return
    if (performance.now() - lookedAtMs > STALE_MS) await look()
    if (leftBytes < bytes) await lookAgain()
  }

  const look = (): Promise<void> => (looking ??= ask().finally(() => (looking = null)))

  /**
   * Resolves after a check that began after this call, so that no upload is refused because of an old answer. All
   * callers that wait share one check.
   */
  const lookAgain = (): Promise<void> =>
    (nextLook ??= (async () => {
      await sleep(Math.max(0, LEAST_LOOK_MS - (performance.now() - lookedAtMs)))
      // A check that is already running may have begun before this call.
      await looking
      nextLook = null
      await look()
    })())

  const path = join(root, BALLAST_NAME)
  const ballastBytes = (): number => (seen === null ? 0 : Math.min(MOST_BALLAST, Math.floor(seen.reserveBytes / 4)))

  /**
   * Makes the ballast while the disk gets full, removes it when almost no space is left, and makes it again afterwards.
   */
  async function guardExchange(): Promise<void> {
    const bytes = ballastBytes()
    if (seen === null || bytes === 0) return
    if (hasBallast && seen.freeBytes < bytes / 2) {
      await unlink(path).catch(() => {})
      hasBallast = false
    } else if (
      !hasBallast &&
      leftBytes > bytes + LARGEST_WRITE &&
      seen.freeBytes < BALLAST_BELOW_RESERVES * seen.reserveBytes
    ) {
      // Never make it on the empty mount point of a disk that is not mounted.
      await expectStore()
      if ((await sizeOf(path)) !== bytes) await fill(path, bytes)
      hasBallast = true
    }
  }

  return {
    async within(bytes, write) {
      await lookFor(bytes)
      if (leftBytes < bytes)
        throw new UploadError(
          'storage-full',
          `the disk has ${seen?.freeBytes ?? 0} bytes left, and ${seen?.reserveBytes ?? 0} are kept free for the database`,
        )
      leftBytes -= bytes
      grantedSinceLook += bytes
      writingBytes += bytes
      try {
        return await write()
      } finally {
        writingBytes -= bytes
      }
    },

    async now() {
      await lookFor(LARGEST_WRITE)
      return seen === null ? null : { ...seen, isFull: leftBytes < LARGEST_WRITE }
    },

    async open() {
      await look()
      hasBallast = (await sizeOf(path)) === ballastBytes()
      timer ??= setInterval(() => {
        tending = Promise.all([tending, look()])
          .then(guardExchange)
          // The directory cannot be used now, or is too full. It is tried again in a second.
          .catch(() => {})
      }, LOOK_EVERY_MS).unref()
    },

    async close() {
      if (timer !== null) clearInterval(timer)
      timer = null
      await tending
    },
  }
}

const sizeOf = (path: string): Promise<number> =>
  stat(path).then(
    ({ size }) => size,
    () => 0,
  )

/**
 * Fills the file with random bytes, because a file system may compress or omit equal bytes. Writes all of it or
 * nothing.
 */
async function fill(path: string, bytes: number): Promise<void> {
  const file = await open(path, 'w', MODE.file)
  try {
    for (let left = bytes; left > 0; left -= MIB) await file.writeFile(randomBytes(Math.min(left, MIB)))
    await file.datasync()
  } catch (error) {
    await unlink(path).catch(() => {})
    throw error
  } finally {
    await file.close()
  }
}
