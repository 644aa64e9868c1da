import { join } from 'node:path'
import { UploadError } from '../lib/errors.js'

/**
 * The server makes the keys. They are not UUIDs: a key has 32 hexadecimal digits. The first 12 are the time in
 * milliseconds and the other 20 are random (`newBlobKey` in `kinds/admission.ts`).
 */
export const isKey = (name: string): boolean => /^[0-9a-f]{32}$/.test(name)

/**
 * The path of a blob, in directories by the time in the key (its first 48 bits). Each lowest directory covers 65
 * seconds, and its parent covers 4.7 hours. Files that arrive together share a directory, and so they share the sync of
 * their names.
 *
 * @throws UploadError `storage-unavailable` for anything that is not a key of this store. No path is ever made from it.
 */
export function relativePath(key: string): string {
  if (!isKey(key)) throw new UploadError('storage-unavailable', 'not a key of this store')
  return join(key.slice(0, 6), key.slice(6, 8), key)
}
