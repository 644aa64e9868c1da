import { setTimeout as sleep } from 'node:timers/promises'
import { boundOf } from '../../lib/backoff.js'
import { UploadError } from '../../lib/errors.js'
import type { BlobRef } from '../../ports/blob-store.js'
import { payloadOf } from './blocks.js'
import type { S3Calls } from './calls.js'
import { isPartMismatch, s3Fault } from './faults.js'
import type { StoreIdentity } from '../identity.js'
import type { Names } from './names.js'
import { foldedWith, type Notes, partCount, partsIn, readNotes, unquoted } from './notes.js'
import type { Tails } from './tails.js'

export interface S3Look {
  /** Complete is what HeadObject says: the size, and the token that was given at creation. `other`: not this blob. */
  atObject(blob: BlobRef, notes: Notes | null, signal?: AbortSignal): Promise<'whole' | 'absent' | 'other'>
  /** What a missing upload means. Lost is only what was looked for in vain before and after its parts were. */
  afterMissing(blob: BlobRef, notes: Notes | null): Promise<'whole' | 'lost'>
}

interface Deps {
  readonly calls: S3Calls
  readonly names: Names
  readonly identity: StoreIdentity
}

/** Of a blob that is one PutObject: nothing is created before, and its key is used once. */
export const tokenOf = (blob: BlobRef, notes: Notes | null): string => notes?.token ?? blob.key

export function createLook({ calls, names, identity }: Deps): S3Look {
  const atObject: S3Look['atObject'] = async (blob, notes, signal) => {
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
        throw new UploadError('storage-unavailable', 'the object store does not agree with itself about an upload')
      switch (await atObject(blob, notes)) {
        case 'whole':
          return 'whole'
        case 'other':
          throw new UploadError('storage-unavailable', 'under the name of a blob lies an object that is not it')
        case 'absent':
          await identity.expect()
          return 'lost'
      }
    },
  }
}

const ATTEMPTS = 6
const BACKOFF = { firstMs: 200, mostMs: 3_000 }

/** Completion: a step of its own, taken with exactly the parts of the ledger and believed only of HeadObject. */
export function createSeal({ calls, names, identity, look, tails }: Deps & { look: S3Look; tails: Tails }) {
  return async function seal(blob: BlobRef): Promise<'sealed' | 'short' | 'absent'> {
    const notes = readNotes(blob.state)
    if (blob.size === 0) return sealEmpty(blob)
    if (notes === null || notes.uploadId === null || partsIn(notes) < partCount(blob.size, notes.partBytes)) {
      switch (await look.atObject(blob, notes)) {
        case 'whole':
          return clean(blob, notes)
        case 'other':
          throw new UploadError('storage-unavailable', 'under the name of a blob lies an object that is not it')
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
    if ((await look.atObject(blob, null)) !== 'whole')
      throw new UploadError('storage-unavailable', 'an empty object was put and is not there')
    return 'sealed'
  }

  /** False: lost, and nothing can make it complete any more. */
  async function complete(blob: BlobRef, notes: Notes, uploadId: string): Promise<boolean> {
    const name = names.blob(blob.key)
    for (let attempt = 0; ; attempt++) {
      const etags = await etagsOf(name, notes, uploadId)
      if (etags === 'gone') return (await look.afterMissing(blob, notes)) === 'whole'
      if (etags === 'others') {
        // What was acknowledged cannot be taken back, and these parts cannot be had again. Not believed of one list.
        if (attempt + 1 < ATTEMPTS) {
          await sleep(boundOf(BACKOFF, attempt))
          continue
        }
        return (await look.atObject(blob, notes)) === 'whole'
      }
      const parts = etags.map((ETag, index) => ({ ETag, PartNumber: index + 1 }))
      let failure: unknown = null
      try {
        await calls.complete(name, uploadId, parts)
      } catch (error) {
        // Its answer may be lost, an error in a 200, or a 500 on an upload that is gone (Ceph): whatever it was, look.
        failure = error
      }
      if ((await look.atObject(blob, notes)) === 'whole') return true
      const listed = await calls.listParts(name, uploadId)
      if (listed === null) return (await look.afterMissing(blob, notes)) === 'whole'
      const inStore = new Map(listed.map(({ PartNumber, ETag }) => [PartNumber, unquoted(ETag ?? '')]))
      if (isPartMismatch(failure) && !parts.every(({ ETag, PartNumber }) => inStore.get(PartNumber) === unquoted(ETag)))
        // What was acknowledged cannot be taken back, and these parts cannot be had again.
        return (await look.atObject(blob, notes)) === 'whole'
      if (attempt + 1 >= ATTEMPTS)
        throw failure === null
          ? new UploadError('storage-unavailable', 'an upload was completed, and its object is not there')
          : s3Fault(failure, 'CompleteMultipartUpload')
      await sleep(boundOf(BACKOFF, attempt))
    }
  }

  /** Of all parts of the ledger: those that it keeps as a digest are listed, and must be the ones of that digest. */
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

  /** What attempts have left that nobody was told of. A single PutObject of one request has left nothing. */
  async function clean(blob: BlobRef, notes: Notes | null): Promise<'sealed'> {
    if (notes !== null) await Promise.all([tails.removeAll(blob.key), tails.abortAll(blob.key)])
    return 'sealed'
  }
}
