import { randomBytes } from 'node:crypto'
import { open, stat, statfs, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { UploadError } from '../../lib/errors.js'
import type { StoreRoom } from '../../ports/blob-store.js'
import { MODE } from './private-modes.js'

/**
 * Keeps uploaded bytes away from the last of a disk's room. The database is often on the same disk, and needs room to
 * record a cancellation, an expiry or a removal. Without it a full disk could not be emptied again.
 */
export interface Room {
  /**
   * Writes bytes where they leave the reserve alone. Granted bytes count before they are written, so that uploads that
   * run at the same time cannot take the same room twice.
   *
   * @throws UploadError `storage-full` where they do not fit; then nothing was written.
   */
  within<T>(bytes: number, write: () => Promise<T>): Promise<T>
  /** While it is full it looks again, so that nobody is refused for what was; null: the file system does not say. */
  now(): Promise<StoreRoom | null>
  /** Looks for the first time, and from then on once a second. */
  open(): Promise<void>
  close(): Promise<void>
}

const MIB = 1024 * 1024
/**
 * Cancelling 1,000 operations, the most that an owner may have open, and removing their bytes was measured to grow the
 * database by 0.2 MiB and its log to 4 MiB, where SQLite checkpoints it. The log grows beyond that while a reader keeps
 * an old snapshot, and other programs write to the disk as well; so the default is a multiple of it. Too much wastes
 * room, which an option gives back; too little makes a disk that nobody can empty.
 */
const MOST_RESERVED = 256 * MIB
/** A small disk keeps less, but never too little for the log and the tables that are written from it. */
const LEAST_RESERVED = 32 * MIB
const RESERVED_SHARE = 0.05
/** Writes of what comes over a network are no larger (`take-bytes.ts`): where this does not fit, the store is full. */
const LARGEST_WRITE = 512 * 1024
const LOOK_EVERY_MS = 1_000
/** The event loop, or the file system's answer, was late: what is known may be out of date. */
const STALE_MS = 2 * LOOK_EVERY_MS
/** Everybody who finds no room asks again; so often is enough for all of them together. */
const LEAST_LOOK_MS = 100
/**
 * A file without meaning that is removed when other programs have filled the disk in spite of the reserve. It leaves
 * SQLite 2,000 pages for its log; without it a database whose log is still short cannot record a single cancellation.
 */
const BALLAST_NAME = 'ballast'
const MOST_BALLAST = 8 * MIB
/** It is made when there is less room than so many reserves: a disk that is far from full needs none. */
const BALLAST_BELOW_RESERVES = 8

const defaultReserve = (totalBytes: number): number =>
  Math.min(MOST_RESERVED, Math.max(LEAST_RESERVED, Math.round(totalBytes * RESERVED_SHARE)))

export function createRoom(
  root: string,
  wantedReserveBytes: number | undefined,
  expectStore: () => Promise<void>,
): Room {
  let seen: { freeBytes: number; totalBytes: number; reserveBytes: number } | null = null
  /** What may still be written until the next look. */
  let leftBytes = Number.POSITIVE_INFINITY
  /** Granted, and maybe not in the file system's own count yet. */
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
      // Some network file systems say 0 of 0.
      if (totalBytes === 0) return unknown()
      const freeBytes = bavail * bsize
      const reserveBytes = wantedReserveBytes ?? defaultReserve(totalBytes)
      seen = { freeBytes, totalBytes, reserveBytes }
      // Of bytes that were being written during the look some may be counted twice: that is corrected by the next look.
      leftBytes = freeBytes - reserveBytes - beforeBytes - grantedSinceLook
    } catch {
      // The write itself meets the same fault, and has a name for it.
      unknown()
    } finally {
      lookedAtMs = performance.now()
    }
  }

  function unknown(): void {
    seen = null
    leftBytes = Number.POSITIVE_INFINITY
  }

  /** What is known will do while it is young, and grants so many bytes. */
  async function lookFor(bytes: number): Promise<void> {
    if (timer === null) return
    if (performance.now() - lookedAtMs > STALE_MS) await look()
    if (leftBytes < bytes) await lookAgain()
  }

  const look = (): Promise<void> => (looking ??= ask().finally(() => (looking = null)))

  /** Resolves after a look that began after this call, so that nobody is refused for what was; one for all who ask. */
  const lookAgain = (): Promise<void> =>
    (nextLook ??= (async () => {
      await sleep(Math.max(0, LEAST_LOOK_MS - (performance.now() - lookedAtMs)))
      // One that is under way may have begun before.
      await looking
      nextLook = null
      await look()
    })())

  const path = join(root, BALLAST_NAME)
  const ballastBytes = (): number => (seen === null ? 0 : Math.min(MOST_BALLAST, Math.floor(seen.reserveBytes / 4)))

  /** Makes the ballast while the disk gets full, gives it up when nearly nothing is left, and makes it again after that. */
  async function tend(): Promise<void> {
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
      // Never on the empty mount point of a disk that is not mounted.
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
          .then(tend)
          // A directory that cannot be used now, or is too full for it: tried again in a second.
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

/** With chance: a file system may compress, or leave out, what is all the same. Whole or not at all. */
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
