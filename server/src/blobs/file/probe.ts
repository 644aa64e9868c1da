import { open, readFile, statfs, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { UploadError } from '../../lib/errors.js'
import { MODE } from '../../lib/private-modes.js'

const TEXT = 'may be removed\n'

/** Writes, syncs, reads and removes a file, and asks the file system how much space is left. */
export async function probe(root: string): Promise<{ syncMs: number; freeBytes: number; totalBytes: number }> {
  const path = join(root, `probe.${process.pid}.tmp`)
  const startMs = performance.now()
  const file = await open(path, 'w', MODE.file)
  let syncMs: number
  try {
    try {
      await file.writeFile(TEXT)
      await file.sync()
    } finally {
      await file.close()
    }
    syncMs = performance.now() - startMs
    if ((await readFile(path, 'utf8')) !== TEXT)
      throw new UploadError('storage-unavailable', 'the directory of blobs returned other bytes than it was given')
  } finally {
    await unlink(path)
  }
  const { bavail, blocks, bsize } = await statfs(root)
  return { syncMs, freeBytes: bavail * bsize, totalBytes: blocks * bsize }
}
