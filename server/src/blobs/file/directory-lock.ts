import { closeSync, openSync, statSync } from 'node:fs'
import { join } from 'node:path'
import Database from 'libsql'
import { endsWithin } from '../../lib/deadline.js'
import { UploadError } from '../../lib/errors.js'
import { makePrivateNow, MODE } from './private-modes.js'

/**
 * The proof that something in a directory belongs to this process: an exclusive lock of the operating system on a file
 * in it. It is gone in the moment in which the process dies, however it dies, so that a restart waits for nothing and
 * nothing stale is left. Node has no call for such a lock; SQLite has, within the process too, and is here anyway.
 *
 * The file is this user's only: any other user that may read it could take a shared lock, and keep a server from
 * starting. Another process of the same user still can, as it could end the server, too.
 *
 * @returns null when another process, or another part of this one, has it.
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
 * A file that is there is never opened here: with the descriptor's close the process would lose its own lock on it
 * (fcntl(2), "Traditional record locks").
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

/** A store that has a directory, as the other stores of its process see it. */
export interface Holder {
  /** Stores are numbered as they are made: of two, the one with the greater number is the newer. */
  readonly turn: number
  /** Ends whatever uses the store, and resolves when it has let go of the directory. */
  leave(): Promise<void>
}

/**
 * What has which directory in this process, whichever copy of this module it was made by: a development server (Next,
 * Vite) loads a module again after an edit, and bundles may hold it twice.
 */
const REGISTRY = Symbol.for('landfall.directories')
interface Registry {
  turns: number
  readonly holders: Map<string, Holder>
}
const registry = (): Registry =>
  ((globalThis as { [REGISTRY]?: Registry })[REGISTRY] ??= { turns: 0, holders: new Map() })

export const nextTurn = (): number => (registry().turns += 1)

/** How long the earlier store of this process may take to end what it does. */
const LEAVE_MS = 15_000

/**
 * Takes a directory for a store: it belongs to exactly one of one process. An earlier one of this process is asked to
 * leave first, and is waited for, so that two never write to it. It is not asked by one that is older.
 *
 * @throws UploadError `setup` when another process, or a newer store of this one, has the directory;
 * `storage-unavailable` when an earlier store of this process does not let go in time.
 */
export async function takeDirectory(directory: string, holder: Holder): Promise<{ release(): void }> {
  const { holders } = registry()
  const { dev, ino } = statSync(directory)
  const name = `${dev}:${ino}`
  for (let before = holders.get(name); before !== undefined && before !== holder; before = holders.get(name)) {
    if (before.turn > holder.turn) throw takenOver()
    // However it ended: what counts is whether it has let go.
    await endsWithin(before.leave(), LEAVE_MS)
    if (holders.get(name) === before)
      throw new UploadError(
        'storage-unavailable',
        'an earlier instance of this application in the same process has the directory of blobs, and did not let go of it yet',
      )
  }
  // From here to the entry nothing waits: of several that waited for the same one, the first has it.
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

/** Said by the older store from then on. */
export const takenOver = (): UploadError =>
  new UploadError(
    'setup',
    'a newer instance of this application in the same process has taken over the directory of blobs. That is as it should be where a development server has loaded the module again. Otherwise create the uploads once for a process, or give each instance a directory of its own',
  )
