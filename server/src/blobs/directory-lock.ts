import { closeSync, openSync } from 'node:fs'
import { join } from 'node:path'
import Database from 'libsql'
import { UploadError } from '../errors.js'
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

/**
 * A directory of blobs belongs to exactly one store of one process.
 *
 * @throws UploadError `setup` when another process has the directory.
 */
export function lockDirectory(directory: string): { release(): void } {
  const lock = lockFile(directory, 'landfall.lock')
  if (lock === null)
    throw new UploadError(
      'setup',
      'another process uses this directory of blobs; a directory belongs to exactly one. It is another server, or an application that embeds Landfall',
    )
  return lock
}
