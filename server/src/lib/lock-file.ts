import { closeSync, openSync } from 'node:fs'
import { join } from 'node:path'
import Database from 'libsql'
import { UploadError } from './errors.js'
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
