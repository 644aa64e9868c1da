import { join } from 'node:path'
import Database from 'libsql'
import { UploadError } from '../errors.js'

/**
 * The proof that a directory belongs to this process: an exclusive lock of the operating system on a file in it. It is
 * gone in the moment in which the process dies, however it dies, so that a restart waits for nothing and nothing stale
 * is left. Node has no call for such a lock; SQLite has, within the process too, and is here anyway.
 *
 * @throws UploadError `setup` when another process, or another store of this one, has the directory.
 */
export function lockDirectory(directory: string): { release(): void } {
  const db = new Database(join(directory, 'landfall.lock'), { timeout: 0 })
  try {
    db.exec('PRAGMA locking_mode=EXCLUSIVE')
    db.exec('BEGIN EXCLUSIVE')
  } catch (error) {
    db.close()
    throw new UploadError('setup', 'another process uses this directory of blobs; a directory belongs to exactly one', {
      cause: error,
    })
  }
  return {
    release() {
      if (db.open) db.close()
    },
  }
}
