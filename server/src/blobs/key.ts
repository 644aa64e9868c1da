import { join } from 'node:path'
import { UploadError } from '../lib/errors.js'

/**
 * Keys are made by the server, and are not UUIDs: 32 hexadecimal digits, of which the first 12 are the time in
 * milliseconds, and the other 20 are random (`newBlobKey` in `access.ts`).
 */
export const isKey = (name: string): boolean => /^[0-9a-f]{32}$/.test(name)

/**
 * Directories by the time in the key (its first 48 bits): one for every 65 seconds, in one for every 4.7
 * hours. Files that arrive together share a directory and with it the sync of their names.
 *
 * @throws UploadError `storage-unavailable` for anything that is no key of ours: no path is ever made of it.
 */
export function relativePath(key: string): string {
  if (!isKey(key)) throw new UploadError('storage-unavailable', 'not a key of this store')
  return join(key.slice(0, 6), key.slice(6, 8), key)
}
