import { chmodSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'

/** Only the user that runs the server: names, owners and bytes are nobody else's on the machine. */
export const MODE = { directory: 0o700, file: 0o600 }

const GROUP_AND_OTHERS = 0o077
const OTHERS = 0o007

/**
 * Takes a directory or a file that is there away from other users of the machine. Where only the group has rights on
 * it somebody has given them on purpose (a backup, an agent), and they stay. What belongs to another user, such as the
 * root of a mounted volume, stays as it is.
 */
export function makePrivateNow(path: string): void {
  try {
    const { mode, uid } = statSync(path)
    if ((mode & OTHERS) !== 0 && uid === process.geteuid?.()) chmodSync(path, mode & 0o7777 & ~GROUP_AND_OTHERS)
  } catch (error) {
    // A file system without modes, or one that is mounted to be read only: whoever writes to it will say so.
    const { code = '' } = error as NodeJS.ErrnoException
    if (!['ENOENT', 'EPERM', 'EACCES', 'EROFS', 'ENOTSUP', 'ENOSYS'].includes(code)) throw error
  }
}

/** What a server makes in its data directory, or in its directory of blobs; and what a file system has at its root. */
const OURS =
  /^(blobs|quarantine|lost\+found|ballast|(store|mark)\.json(\.new)?|landfall\.(db|lock|sock)(-(wal|shm|journal)|\.lock)?|probe\.\d+\.tmp)$/
const BELOW = ['blobs', 'quarantine']
const STICKY = 0o1000

/**
 * The same for a directory and for the directories of ours in it. One that holds other things as well (somebody has named
 * `/tmp`, or a home) is not ours to close: what is made in it is private by itself.
 */
export function makeDirectoryPrivateNow(directory: string): void {
  const isShared = (statSync(directory).mode & STICKY) !== 0
  if (!isShared && readdirSync(directory).every((name) => OURS.test(name))) makePrivateNow(directory)
  else for (const name of BELOW) makePrivateNow(join(directory, name))
}
