import { setTimeout as sleep } from 'node:timers/promises'
import type { StoreIdentity } from '../identity.js'
import { boundOf } from '../../lib/backoff.js'
import { UploadError } from '../../lib/errors.js'
import type { BlobRef } from '../../ports/blob-store.js'
import { payloadOf } from './blocks.js'
import type { S3Calls } from './calls.js'
import { isPartMismatch, s3Fault } from './faults.js'
import type { Names } from './names.js'
import { foldedWith, type Notes, partCount, partsIn, readNotes, unquoted } from './notes.js'
import type { Tails } from './tails.js'

export interface S3Examination {
  /**
   * What HeadObject says: 'whole' if the size and the token from the creation match, 'other' if the object is not this
   * blob.
   */
  atObject(blob: BlobRef, notes: Notes | null, signal?: AbortSignal): Promise<'whole' | 'absent' | 'other'>
  /**
   * Decides what a missing upload means. It is lost only if the object was missing both before and after the check of
   * its parts.
   */
  afterMissing(blob: BlobRef, notes: Notes | null): Promise<'whole' | 'lost'>
}

interface Deps {
  readonly calls: S3Calls
  readonly names: Names
  readonly identity: StoreIdentity
}

/** The token of a blob that is one PutObject is its key: nothing is created before, and the key is used only once. */
export const tokenOf = (blob: BlobRef, notes: Notes | null): string => notes?.token ?? blob.key

export function createExamination({ calls, names, identity }: Deps): S3Examination {
  const atObject: S3Examination['atObject'] = async (blob, notes, signal) => {
    const found = await calls.head(names.blob(blob.key), signal)
    if (found === null) return 'absent'
    return found.sizeBytes === blob.size && found.token === tokenOf(blob, notes) ? 'whole' : 'other'
  }
  return {
    atObject,
    async afterMissing(blob, notes) {
      if ((await atObject(blob, notes)) === 'whole') return 'whole'
      const uploadId = notes?.uploadId ?? null
      if (uploadId !== null && (await calls.listParts(names.blob(blob.key), uploadId, 1)) !== null)
        throw new UploadError('storage-unavailable', 'the object store gives contradicting answers about an upload')
      switch (await atObject(blob, notes)) {
        case 'whole':
          return 'whole'
        case 'other':
          throw new UploadError('storage-unavailable', 'another object exists under the name of the blob')
        case 'absent':
          await identity.expect()
          return 'lost'
      }
    },
  }
}

const ATTEMPTS = 6
const BACKOFF = { firstMs: 200, mostMs: 3_000 }

/**
 * Completes an upload as a separate step, with exactly the parts of the ledger. Only HeadObject proves that it
 * succeeded.
 */
export function createSeal({
  calls,
  names,
  identity,
  examination,
  tails,
}: Deps & { examination: S3Examination; tails: Tails }) {
  return async function seal(blob: BlobRef): Promise<'sealed' | 'short' | 'absent'> {
    const notes = readNotes(blob.state)
    if (blob.size === 0) return sealEmpty(blob)
    if (notes === null || notes.uploadId === null || partsIn(notes) < partCount(blob.size, notes.partBytes)) {
      switch (await examination.atObject(blob, notes)) {
        case 'whole':
          return clean(blob, notes)
        case 'other':
          throw new UploadError('storage-unavailable', 'another object exists under the name of the blob')
        case 'absent':
          await identity.expect()
          return notes !== null && (await isAnythingOf(blob, notes)) ? 'short' : 'absent'
      }
    }
    return (await complete(blob, notes, notes.uploadId)) ? clean(blob, notes) : 'absent'
  }

  async function isAnythingOf(blob: BlobRef, { uploadId, tail: [first] }: Notes): Promise<boolean> {
    if (uploadId !== null) return (await calls.listParts(names.blob(blob.key), uploadId, 1)) !== null
    return first !== undefined && (await calls.head(names.tail(blob.key, first.name))) !== null
  }

  async function sealEmpty(blob: BlobRef): Promise<'sealed'> {
    await calls.put(names.blob(blob.key), payloadOf([]), { once: true, token: blob.key, isBlob: true })
    if ((await examination.atObject(blob, null)) !== 'whole')
      throw new UploadError('storage-unavailable', 'an empty object was written, but it is not there')
    return 'sealed'
  }

  /** False if the upload is lost and nothing can complete it any more. */
  async function complete(blob: BlobRef, notes: Notes, uploadId: string): Promise<boolean> {
    const name = names.blob(blob.key)
    for (let attempt = 0; ; attempt++) {
      const etags = await etagsOf(name, notes, uploadId)
      if (etags === 'gone') return (await examination.afterMissing(blob, notes)) === 'whole'
      if (etags === 'others') {
        // What was acknowledged cannot be withdrawn, and these parts cannot be received again. One listing is not
        // enough to believe that they are lost.
        if (attempt + 1 < ATTEMPTS) {
          await sleep(boundOf(BACKOFF, attempt))
          continue
        }
        return (await examination.atObject(blob, notes)) === 'whole'
      }
      const parts = etags.map((ETag, index) => ({ ETag, PartNumber: index + 1 }))
      let failure: unknown = null
      try {
        await calls.complete(name, uploadId, parts)
      } catch (error) {
        // Its answer may be lost, an error in a 200, or a 500 for an upload that does not exist (Ceph). In every case,
        // examine the store.
        failure = error
      }
      if ((await examination.atObject(blob, notes)) === 'whole') return true
      const listed = await calls.listParts(name, uploadId)
      if (listed === null) return (await examination.afterMissing(blob, notes)) === 'whole'
      const inStore = new Map(listed.map(({ PartNumber, ETag }) => [PartNumber, unquoted(ETag ?? '')]))
      if (isPartMismatch(failure) && !parts.every(({ ETag, PartNumber }) => inStore.get(PartNumber) === unquoted(ETag)))
        // What was acknowledged cannot be withdrawn, and these parts cannot be received again.
        return (await examination.atObject(blob, notes)) === 'whole'
      if (attempt + 1 >= ATTEMPTS)
        throw failure === null
          ? new UploadError('storage-unavailable', 'an upload was completed, but its object is not there')
          : s3Fault(failure, 'CompleteMultipartUpload')
      await sleep(boundOf(BACKOFF, attempt))
    }
  }

  /** The ETags of all parts in the ledger. Those that it keeps as a digest are listed, and must match that digest. */
  async function etagsOf(
    name: string,
    { folded, parts }: Notes,
    uploadId: string,
  ): Promise<readonly string[] | 'gone' | 'others'> {
    if (folded === null) return parts
    const listed = await calls.listParts(name, uploadId)
    if (listed === null) return 'gone'
    const inStore = new Map(listed.map(({ PartNumber, ETag }) => [PartNumber, ETag]))
    const first = Array.from({ length: folded.count }, (_, index) => inStore.get(index + 1) ?? '')
    return foldedWith('', first) === folded.etags ? [...first, ...parts] : 'others'
  }

  /** Removes what attempts have left that was never recorded. A single PutObject of one request has left nothing. */
  async function clean(blob: BlobRef, notes: Notes | null): Promise<'sealed'> {
    if (notes !== null) await Promise.all([tails.removeAll(blob.key), tails.abortAll(blob.key)])
    return 'sealed'
  }
}
