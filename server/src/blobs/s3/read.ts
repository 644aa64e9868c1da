import { createHash } from 'node:crypto'
import { Readable } from 'node:stream'
import { deadline } from '../../lib/deadline.js'
import { UploadError } from '../../lib/errors.js'
import type { BlobRef, Inspection, PrefixDigest } from '../../ports/blob-store.js'
import { between, payloadOf } from './blocks.js'
import type { S3Calls } from './calls.js'
import { s3Fault } from './faults.js'
import type { Names } from './names.js'
import { asDigest, chained, noted, partsIn, readNotes } from './notes.js'
import type { S3Examination } from './seal.js'
import type { Tails } from './tails.js'

/** Enough bytes for every signature that `file-type` recognises without a deeper inspection. */
const HEAD_BYTES = 4_100

const never = new AbortController().signal

export function createReading(deps: {
  calls: S3Calls
  names: Names
  examination: S3Examination
  tails: Tails
  /** How long a body that is read here may bring nothing. */
  timeoutMs: number
}) {
  const { calls, names, examination, tails, timeoutMs } = deps

  async function body(key: string, range: { start: number; end: number } | null, signal: AbortSignal) {
    const header = range === null ? null : `bytes=${range.start}-${range.end - 1}`
    const found = await calls.get(names.blob(key), header, signal)
    if (found?.Body === undefined) throw new UploadError('storage-unavailable', 'the stored bytes are not there')
    return { stream: found.Body as Readable, sizeBytes: found.ContentLength ?? 0 }
  }

  /** SHA-256 of the object's first `length` bytes, as the store returns them. */
  async function inspectObject(key: string, length: number, size: number, signal: AbortSignal): Promise<Inspection> {
    const { stream, sizeBytes } = await body(key, length === size ? null : { start: 0, end: length }, signal)
    const sha256 = createHash('sha256')
    const head: Uint8Array[] = []
    let seen = 0
    try {
      if (sizeBytes !== length) throw new UploadError('storage-unavailable', 'the object has another length')
      await deadline(
        async (silence) => {
          for await (const chunk of stream as AsyncIterable<Buffer>) {
            silence.again()
            if (seen < HEAD_BYTES) head.push(chunk.subarray(0, HEAD_BYTES - seen))
            seen += chunk.length
            sha256.update(chunk)
          }
        },
        timeoutMs,
        signal,
      )
    } catch (error) {
      stream.destroy()
      signal.throwIfAborted()
      throw s3Fault(error, 'GetObject')
    }
    if (seen !== length) throw new UploadError('storage-unavailable', 'the object ended early while it was read')
    // A copy, because a view would keep the whole chunk in memory.
    return { digest: asDigest(sha256.digest()), head: Uint8Array.from(Buffer.concat(head)) }
  }

  return {
    inspect: (blob: BlobRef, signal: AbortSignal): Promise<Inspection> =>
      inspectObject(blob.key, blob.size, blob.size, signal),

    async digestOf(blob: BlobRef, length: number, signal: AbortSignal): Promise<PrefixDigest> {
      const notes = readNotes(blob.state)
      if (length === 0) return { digest: asDigest(payloadOf([]).sha256) }
      // Parts of an unfinished upload cannot be read, so their digests are chained while they are sent.
      const parted = notes === null ? 0 : Math.min(blob.size, partsIn(notes) * notes.partBytes)
      if (notes !== null && length >= parted && length <= noted(notes, blob.size)) {
        const { proof, partBytes } = notes
        if (length === parted) return { digest: proof, partBytes }
        const tail = await tails.read(blob.key, notes.tail, signal)
        if (tail !== null)
          return { digest: chained(proof, payloadOf(between(tail, 0, length - parted)).sha256), partBytes }
      }
      if ((await examination.atObject(blob, notes, signal)) !== 'whole')
        throw new UploadError('storage-unavailable', 'the digest of these bytes is not known before all are there')
      return { digest: (await inspectObject(blob.key, length, blob.size, signal)).digest }
    },

    async read(key: string, range: { start: number; end: number }): Promise<ReadableStream<Uint8Array>> {
      if (range.start >= range.end) return new Blob([]).stream()
      const { stream } = await body(key, range, never)
      // When the reader stops, the request ends, too.
      return Readable.toWeb(stream) as ReadableStream<Uint8Array>
    },
  }
}
