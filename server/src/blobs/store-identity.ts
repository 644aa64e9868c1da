import { open, readFile, rename } from 'node:fs/promises'
import { join } from 'node:path'
import * as v from 'valibot'
import { UploadError } from '../errors.js'
import { codeOf, type DirectorySync, storageFault } from './durable-files.js'

const schema = v.object({ format: v.literal(1), ledger: v.string() })

/**
 * A directory of blobs carries the identity of its ledger in `store.json`: another environment's ledger would take all
 * blobs for garbage. `ledger` null only asks whether the store is there at all.
 *
 * @throws UploadError `setup` for another ledger's store, `storage-unavailable` where none is found.
 */
export async function checkIdentity(
  root: string,
  ledger: string | null,
  syncDirectory: DirectorySync['sync'],
): Promise<void> {
  const path = join(root, 'store.json')
  const found = await readIdentity(path)
  if (ledger === null) {
    if (found === null)
      throw new UploadError('storage-unavailable', 'the directory of blobs is gone (is its disk mounted?)')
    return
  }
  if (found === ledger) return
  if (found !== null)
    throw new UploadError(
      'setup',
      'this directory of blobs belongs to another database: give each environment a directory of its own',
    )
  // Whole or not at all: written beside, synced, then renamed.
  const draft = `${path}.new`
  const file = await open(draft, 'w', 0o640)
  try {
    await file.writeFile(`${JSON.stringify({ format: 1, ledger })}\n`)
    await file.sync()
  } finally {
    await file.close()
  }
  await rename(draft, path)
  await syncDirectory(root)
}

async function readIdentity(path: string): Promise<string | null> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return null
    throw storageFault(error)
  }
  try {
    return v.parse(schema, JSON.parse(text)).ledger
  } catch (error) {
    throw new UploadError('setup', 'store.json in the directory of blobs cannot be read', { cause: error })
  }
}
