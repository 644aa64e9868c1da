import { chmodSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'

/** Access only for the user that runs the server: names, owners and bytes do not concern other users of the machine. */
export const MODE = { directory: 0o700, file: 0o600 }

const GROUP_AND_OTHERS = 0o077
const OTHERS = 0o007

/**
 * Takes an existing directory or file away from other users of the machine. If only the group has rights on it,
 * somebody has given them on purpose (for a backup or an agent), and they stay. What belongs to another user, such as
 * the root of a mounted volume, stays as it is.
 */
export function makePrivateNow(path: string): void {
  try {
    const { mode, uid } = statSync(path)
    if ((mode & OTHERS) !== 0 && uid === process.geteuid?.()) chmodSync(path, mode & 0o7777 & ~GROUP_AND_OTHERS)
  } catch (error) {
    // The file system has no modes, or it is mounted read-only. A later write to it reports that.
    const { code = '' } = error as NodeJS.ErrnoException
    if (!['ENOENT', 'EPERM', 'EACCES', 'EROFS', 'ENOTSUP', 'ENOSYS'].includes(code)) throw error
  }
}

/** What a server makes in its data directory or in its directory of blobs, and what a file system has at its root. */
const OURS =
  /^(blobs|quarantine|lost\+found|ballast|(store|mark)\.json(\.new)?|landfall\.(db|lock|sock)(-(wal|shm|journal)|\.lock)?|probe\.\d+\.tmp)$/
const BELOW = ['blobs', 'quarantine']
const STICKY = 0o1000

/**
 * As `makePrivateNow`, for a directory and for the directories of Landfall in it. A directory that also contains other
 * things (somebody has named `/tmp` or a home directory) is not closed to others. What Landfall makes in it is private
 * by itself.
 */
export function makeDirectoryPrivateNow(directory: string): void {
  const isShared = (statSync(directory).mode & STICKY) !== 0
  if (!isShared && readdirSync(directory).every((name) => OURS.test(name))) makePrivateNow(directory)
  else for (const name of BELOW) makePrivateNow(join(directory, name))
}
