import { v4 as uuidv4 } from 'uuid'
import type { Stop } from '../read-chunks.js'
import { UploadError } from '../../lib/errors.js'
import type { Appended, AppendRequest, BlobRef } from '../../ports/blob-store.js'
import { Gone } from './filling.js'
import { type Notes, noted, readNotes, toState } from './notes.js'
import { tokenOf } from './seal.js'
import { type S3AppendDeps, takeParts } from './take.js'

/** Begins an upload or resumes it. However the source ends, everything that was received without a gap is kept. */
export async function appendToS3(
  deps: S3AppendDeps,
  blob: BlobRef,
  request: AppendRequest,
  stop: Stop,
): Promise<Appended> {
  if (stop.asked()) return { outcome: 'kept', offset: request.offset, ended: 'stopped' }
  const known = readNotes(blob.state)
  const answer = async (): Promise<Appended> =>
    (await deps.examination.afterMissing(blob, known)) === 'whole'
      ? { outcome: 'kept', offset: blob.size, ended: 'whole' }
      : { outcome: 'lost' }
  const upTo = known === null ? 0 : noted(known, blob.size)
  if (request.offset !== upTo) {
    if (request.offset > upTo) return answer()
    throw new UploadError('storage-unavailable', 'the notes of the blob store do not fit the acknowledged offset')
  }
  // All parts are there already. What remains is to seal the upload.
  if (upTo === blob.size) return { outcome: 'kept', offset: upTo, ended: 'whole' }
  try {
    return await takeParts(deps, blob, request, stop, known ?? (await begin(deps, blob, request)))
  } catch (error) {
    if (error instanceof Gone) return answer()
    throw error
  }
}

/**
 * Begins the upload under the lease, before a part is sent. The ledger then knows the upload, and the next request
 * resumes it.
 */
async function begin(deps: S3AppendDeps, blob: BlobRef, { offset, acknowledge }: AppendRequest): Promise<Notes> {
  const { calls, names, partBytesOf } = deps
  const partBytes = partBytesOf(blob.size)
  const fresh = { partBytes, folded: null, parts: [], proof: '', tail: [] }
  if (blob.size <= partBytes) return { ...fresh, token: tokenOf(blob, null), uploadId: null }
  const token = uuidv4()
  const name = names.blob(blob.key)
  const uploadId = await calls.createMultipart(name, token, new AbortController().signal)
  const notes = { ...fresh, token, uploadId }
  let recorded: boolean
  try {
    recorded = await acknowledge(offset, toState(notes))
  } catch (error) {
    // The ledger has no record of this upload, so nothing else would ever end it.
    await calls.abort(name, uploadId).catch(() => {})
    throw error
  }
  if (!recorded) throw new UploadError('ledger-unavailable', 'the start of an upload could not be recorded')
  return notes
}
