import { open, readFile, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { createStoreIdentity, IDENTITY_NAME, type StoreIdentity } from '../identity.js'
import { codeOf } from '../../lib/errors.js'
import { MODE } from '../../lib/private-modes.js'
import { type DirectorySync, storageFault } from './durable-files.js'

/** The identity of a directory of blobs. */
export function directoryIdentity(root: string, syncDirectory: DirectorySync['sync']): StoreIdentity {
  /**
   * Writes the text under another name and syncs it before the rename, so that a crash leaves either the old text or
   * the new one.
   */
  async function replace(name: string, text: string): Promise<void> {
    const path = join(root, name)
    const draft = `${path}.new`
    const file = await open(draft, 'w', MODE.file)
    try {
      await file.writeFile(`${text}\n`)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(draft, path)
    await syncDirectory(root)
  }

  return createStoreIdentity(
    {
      async read(name) {
        try {
          return await readFile(join(root, name), 'utf8')
        } catch (error) {
          if (codeOf(error) === 'ENOENT') return null
          throw storageFault(error)
        }
      },
      // The directory's lock excludes other processes.
      create: replace,
      replace,
      settle: () => syncDirectory(root),
    },
    {
      name: 'the directory of blobs',
      notThere: 'the directory of blobs is empty, but the database knows of one that was not. Is its disk mounted?',
      putAgain: `put a file ${IDENTITY_NAME} there`,
      foreign: 'this directory of blobs belongs to another database: give each environment a directory of its own',
    },
  )
}
