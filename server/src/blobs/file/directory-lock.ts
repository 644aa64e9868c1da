import { closeSync, openSync, statSync } from 'node:fs'
import { join } from 'node:path'
import Database from 'libsql'
import { endsWithin } from '../../lib/deadline.js'
import { UploadError } from '../../lib/errors.js'
import { makePrivateNow, MODE } from './private-modes.js'

/**
 * Proves that something in a directory belongs to this process: it takes an exclusive lock of the operating system on a
 * file there. The lock disappears at the moment the process dies, however it dies. So a restart does not wait, and no
 * stale lock remains. Node has no call for such a lock. SQLite has one, which also works within one process, and the
 * package depends on SQLite anyway.
 *
 * Only the user that runs the server may open the file. Any other user that could read it could take a shared lock and
 * keep a server from starting. Another process of the same user still can, but it could also end the server.
 *
 * @returns null when another process, or another part of this process, holds the lock.
 */
export function lockFile(directory: string, name: string): { release(): void } | null {
  const path = join(directory, name)
  makePrivately(path)
  let db: InstanceType<typeof Database> | null = null
  try {
    db = new Database(path, { timeout: 0 })
    db.exec('PRAGMA locking_mode=EXCLUSIVE')
    db.exec('BEGIN EXCLUSIVE')
  } catch (error) {
    db?.close()
    if (isTaken(error)) return null
    throw new UploadError('setup', `the lock ${name} in a directory of the server cannot be taken`, { cause: error })
  }
  const held = db
  return {
    release() {
      if (held.open) held.close()
    },
  }
}

/** SQLITE_BUSY. @see https://www.sqlite.org/rescode.html */
const isTaken = (error: unknown): boolean =>
  error instanceof Database.SqliteError && (error.code.startsWith('SQLITE_BUSY') || error.rawCode === 5)

/**
 * Creates the file with private permissions if it does not exist. An existing file is never opened here: closing that
 * descriptor would make the process lose its own lock on the file (fcntl(2), "Traditional record locks").
 */
function makePrivately(path: string): void {
  try {
    closeSync(openSync(path, 'wx', MODE.file))
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException
    if (code !== 'EEXIST') throw error
    makePrivateNow(path)
  }
}

/** A store that holds a directory, as the other stores of its process see it. */
export interface Holder {
  /** Stores are numbered in the order in which they are made. Of two, the one with the greater number is the newer. */
  readonly turn: number
  /** Ends everything that uses the store, and resolves when the store has released the directory. */
  leave(): Promise<void>
}

/**
 * Which store of this process holds which directory, whichever copy of this module made the store. A development server
 * (Next, Vite) loads a module again after an edit, and bundles may contain it twice.
 */
const REGISTRY = Symbol.for('landfall.directories')
interface Registry {
  turns: number
  readonly holders: Map<string, Holder>
}
const registry = (): Registry =>
  ((globalThis as { [REGISTRY]?: Registry })[REGISTRY] ??= { turns: 0, holders: new Map() })

export const nextTurn = (): number => (registry().turns += 1)

/** How long an earlier store of this process may take to end what it is doing. */
const LEAVE_MS = 15_000

/**
 * Takes a directory for a store. A directory belongs to exactly one store of one process. If an earlier store of this
 * process holds it, that store is asked to leave and this call waits for it, so that two stores never write to the
 * directory. An older store never asks a newer one to leave.
 *
 * @throws UploadError `setup` when another process, or a newer store of this process, holds the directory.
 * `storage-unavailable` when an earlier store of this process does not release it in time.
 */
export async function takeDirectory(directory: string, holder: Holder): Promise<{ release(): void }> {
  const { holders } = registry()
  const { dev, ino } = statSync(directory)
  const name = `${dev}:${ino}`
  for (let before = holders.get(name); before !== undefined && before !== holder; before = holders.get(name)) {
    if (before.turn > holder.turn) throw takenOver()
    // The result of `leave` does not matter. What counts is whether the store has released the directory.
    await endsWithin(before.leave(), LEAVE_MS)
    if (holders.get(name) === before)
      throw new UploadError(
        'storage-unavailable',
        'an earlier instance of this application in the same process still holds the directory of blobs',
      )
  }
  // There is no await between here and `holders.set`. If several stores waited for the same one, the first gets the
  // directory.
  const lock = lockFile(directory, 'landfall.lock')
  if (lock === null)
    throw new UploadError(
      'setup',
      'another process uses this directory of blobs; a directory belongs to exactly one. It is another server, or an application that embeds Landfall. Commands talk to it through its socket; where it has none, stop it first',
    )
  holders.set(name, holder)
  return {
    release() {
      lock.release()
      if (holders.get(name) === holder) holders.delete(name)
    },
  }
}

/** The error that the older store throws from then on. */
export const takenOver = (): UploadError =>
  new UploadError(
    'setup',
    'a newer instance of this application in the same process has taken over the directory of blobs. This is normal when a development server has loaded the module again. Otherwise create the uploads once per process, or give each instance its own directory',
  )
