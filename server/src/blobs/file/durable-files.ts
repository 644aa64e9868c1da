import {
  close,
  closeSync,
  constants,
  fdatasync,
  fstat,
  fsync,
  fsyncSync,
  ftruncate,
  mkdirSync,
  open,
  openSync,
  read,
  readSync,
  stat,
  type Stats,
  write,
  writev,
} from 'node:fs'
import { rmdir } from 'node:fs/promises'
import { dirname, resolve as absolute } from 'node:path'
import { promisify } from 'node:util'
import { codeOf, UploadError } from '../../lib/errors.js'
import { makeDirectoryPrivateNow, MODE } from '../../lib/private-modes.js'

// Uses the callback functions, because FileHandles cost about a third more CPU per small file.
export const files = {
  open: promisify(open) as (path: string, flags: number, mode?: number) => Promise<number>,
  openNow: openSync,
  close: promisify(close),
  /** For a file that is synced already: closing it has nothing left to wait for. */
  closeNow: closeSync,
  stat: promisify(fstat) as (file: number) => Promise<Stats>,
  statPath: promisify(stat) as (path: string) => Promise<Stats>,
  truncate: promisify(ftruncate) as (file: number, length: number) => Promise<void>,
  sync: promisify(fsync),
  dataSync: promisify(fdatasync),
}
export const { O_CREAT, O_DSYNC, O_EXCL, O_RDONLY, O_RDWR } = constants

const writeOnce = (file: number, buffers: readonly Uint8Array[], position: number): Promise<number> =>
  new Promise((resolve, reject) => {
    const done = (error: Error | null, written: number): void => (error === null ? resolve(written) : reject(error))
    const [only] = buffers
    if (only !== undefined && buffers.length === 1) write(file, only, 0, only.length, position, done)
    else writev(file, [...buffers], position, done)
  })

/** Writes all of the buffers, even if the system takes them in pieces (as a nearly full disk does). */
export async function writeAll(file: number, buffers: readonly Uint8Array[], position: number): Promise<void> {
  let rest = buffers
  for (let at = position; rest.length > 0;) {
    const written = await writeOnce(file, rest, at)
    if (written === 0) throw new UploadError('storage-full', 'the file system took no more bytes')
    at += written
    rest = dropFirst(rest, written)
  }
}

function dropFirst(buffers: readonly Uint8Array[], bytes: number): readonly Uint8Array[] {
  let left = bytes
  for (const [index, buffer] of buffers.entries()) {
    if (left < buffer.length) return [buffer.subarray(left), ...buffers.slice(index + 1)]
    left -= buffer.length
  }
  return []
}

/** Reads exactly `length` bytes from `position`, or fewer at the end of the file. */
export async function readAll(file: number, position: number, length: number): Promise<Buffer> {
  const buffer = Buffer.allocUnsafe(length)
  let filled = 0
  while (filled < length) {
    const bytes = await new Promise<number>((resolve, reject) =>
      read(file, buffer, filled, length - filled, position + filled, (error, count) =>
        error === null ? resolve(count) : reject(error),
      ),
    )
    if (bytes === 0) break
    filled += bytes
  }
  return buffer.subarray(0, filled)
}

/**
 * Reads what was written a moment ago. It is still in memory, and the way through a thread would cost more than the
 * read.
 */
export function readBack(file: number, length: number): Buffer {
  const buffer = Buffer.allocUnsafe(length)
  let filled = 0
  while (filled < length) {
    const bytes = readSync(file, buffer, filled, length - filled, filled)
    if (bytes === 0) break
    filled += bytes
  }
  return buffer.subarray(0, filled)
}

/** Makes names durable. A synced file without a synced name is lost in a power failure. */
export interface DirectorySync {
  /**
   * Makes the directory's entries durable. Calls that arrive while a sync of the same directory is running share the
   * next one.
   */
  sync(directory: string): Promise<void>
  /** As `sync`, but accepts a missing directory: it was synced before it was removed, or it contained nothing. */
  syncIfThere(directory: string): Promise<void>
  /**
   * Makes the name of an existing file durable, and the names of the directories above it. Each process syncs each of
   * these directories once, because the process that made it may have been killed before it synced the name.
   */
  syncName(path: string): Promise<void>
  /** Removes a directory if it is empty. A directory that is made later under the same name counts as another one. */
  removeIfEmpty(directory: string): Promise<void>
  close(): Promise<void>
}

/** How many directories stay open between two syncs. Nearly always it is the same directory. */
const MAX_OPEN = 8
/** More directories than a day has. A directory that is forgotten is only synced once more. */
const MAX_NAMED = 2_000

/** For the directories below `root`. The name of `root` itself is already durable. */
export function createDirectorySync(root: string): DirectorySync {
  const running = new Map<string, { now: Promise<void>; next: Promise<void> | null }>()
  const opened = new Map<string, Promise<number>>()
  /** Directories whose own names are durable, or will be when the promise resolves. */
  const named = new Map<string, Promise<void>>()

  const forget = async (directory: string): Promise<void> => {
    const file = opened.get(directory)
    opened.delete(directory)
    // A sync that is running now still uses the descriptor.
    await running.get(directory)?.now.catch(() => {})
    if (file !== undefined) await file.then(files.close, () => {})
  }
  const fileOf = (directory: string): Promise<number> => {
    const known = opened.get(directory)
    if (known !== undefined) return known
    const oldest = opened.keys().next().value
    if (opened.size >= MAX_OPEN && oldest !== undefined) void forget(oldest)
    const file = files.open(directory, O_RDONLY)
    opened.set(directory, file)
    file.catch(() => opened.delete(directory))
    return file
  }
  const start = async (directory: string): Promise<void> => files.sync(await fileOf(directory))
  const begin = (directory: string): Promise<void> => {
    const now = start(directory).finally(() => {
      const entry = running.get(directory)
      if (entry?.next === null) running.delete(directory)
    })
    running.set(directory, { now, next: null })
    return now
  }

  const sync = (directory: string): Promise<void> => {
    const entry = running.get(directory)
    if (entry === undefined) return begin(directory)
    // The running sync may already have passed our entry.
    return (entry.next ??= entry.now.then(
      () => begin(directory),
      () => begin(directory),
    ))
  }
  const nameDirectory = (directory: string): Promise<void> => {
    if (directory.length <= root.length) return Promise.resolve()
    const known = named.get(directory)
    if (known !== undefined) return known
    if (named.size >= MAX_NAMED) named.delete(named.keys().next().value ?? '')
    const now = nameEntry(directory)
    named.set(directory, now)
    now.catch(() => named.delete(directory))
    return now
  }
  const nameEntry = async (path: string): Promise<void> => {
    await Promise.all([sync(dirname(path)), nameDirectory(dirname(path))])
  }

  return {
    sync,
    async syncIfThere(directory) {
      await sync(directory).catch((error: unknown) => {
        if (codeOf(error) !== 'ENOENT') throw error
      })
    },
    syncName: nameEntry,
    async removeIfEmpty(directory) {
      // Forget the name before removing the directory. A request that makes a file there from now on finds the
      // directory removed and makes it again, or prevents its removal.
      named.delete(directory)
      try {
        await rmdir(directory)
      } catch (error) {
        if (!['ENOTEMPTY', 'EEXIST', 'ENOENT', 'EBUSY'].includes(codeOf(error))) throw error
        return
      }
      await forget(directory)
    },
    async close() {
      await Promise.all([...opened.keys()].map(forget))
    },
  }
}

/**
 * Creates a directory and its missing parents, for this user only, and makes all their names durable. This runs once,
 * at the start. If the directory exists already, other users of the machine lose their access to it.
 */
export function makeDirectoryNow(directory: string): void {
  mkdirSync(directory, { recursive: true, mode: MODE.directory })
  makeDirectoryPrivateNow(directory)
  // Sync all parents, not only new ones: the process that made them may have been killed before it synced them.
  for (let at = dirname(absolute(directory)); ; at = dirname(at)) {
    syncNow(at)
    if (at === dirname(at)) return
  }
}

/** A directory that may not be opened was not made by Landfall, and it has existed for longer. */
const NOT_OURS = ['EACCES', 'EPERM', 'EROFS', 'EINVAL']

function syncNow(directory: string): void {
  let file: number | null = null
  try {
    file = openSync(directory, constants.O_RDONLY)
    fsyncSync(file)
  } catch (error) {
    if (!NOT_OURS.includes(codeOf(error))) throw error
  } finally {
    if (file !== null) closeSync(file)
  }
}

/**
 * Turns a fault of the file system into an UploadError, by what an operator can do about it. Messages keep the code and
 * omit the path.
 */
export function storageFault(error: unknown): UploadError {
  if (error instanceof UploadError) return error
  const code = codeOf(error)
  if (code === 'ENOSPC' || code === 'EDQUOT' || code === 'EFBIG')
    return new UploadError('storage-full', `no space left for bytes (${code})`, { cause: error })
  return new UploadError('storage-unavailable', `the directory of blobs cannot be used (${code || 'unknown'})`, {
    cause: error,
  })
}
