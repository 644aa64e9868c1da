import { v4 as uuidv4 } from 'uuid'
import { UploadError } from '../../lib/errors.js'
import { payloadOf } from './blocks.js'
import type { S3Calls } from './calls.js'
import type { Names } from './names.js'

/** Writes a small object, reads it and deletes it. A bucket does not report how much space is left. */
export async function probe(
  calls: S3Calls,
  names: Names,
): Promise<{ syncMs: number; freeBytes: null; totalBytes: null }> {
  const name = names.probes + uuidv4()
  const bytes = Buffer.from('may be removed\n')
  const startMs = performance.now()
  await calls.put(name, payloadOf([bytes]))
  const syncMs = performance.now() - startMs
  const found = await calls.getBytes(name)
  await calls.delete(name)
  if (found === null || !Buffer.from(found).equals(bytes))
    throw new UploadError('storage-unavailable', 'the object store returned other bytes than it was given')
  return { syncMs, freeBytes: null, totalBytes: null }
}
