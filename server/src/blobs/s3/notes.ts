import { createHash } from 'node:crypto'
import type { JsonValue } from '@landfall/shared'
import * as v from 'valibot'
import { UploadError } from '../../lib/errors.js'

/** A stored piece of the part that is not full yet. */
export interface Piece {
  readonly name: string
  readonly bytes: number
}

/**
 * What the ledger keeps about an unfinished upload. Part n is always the bytes [(n-1)P, nP). So sizes need not be kept,
 * and a request that writes a part again, or late, writes it at its own place.
 */
export interface Notes {
  /** Is in the object's metadata. It proves that an object under this key is the result of this upload. */
  readonly token: string
  /** P. It is fixed at creation, even if the settings change later. */
  readonly partBytes: number
  /** Null if everything fits in one part. Then the blob becomes one PutObject. */
  readonly uploadId: string | null
  /** The first parts of a long upload, whose ETags are kept as one digest. Null if there are none. */
  readonly folded: Folded | null
  /** ETags of the parts after those, without a gap. */
  readonly parts: readonly string[]
  /**
   * The digests of those parts as a chain (see `Prefix`), because parts cannot be read back before the upload is
   * complete.
   */
  readonly proof: string
  /** The pieces after the parts, in order. */
  readonly tail: readonly Piece[]
}

/** The number of first parts, and `foldedWith` over their ETags. The store lists them when they are needed. */
export interface Folded {
  readonly count: number
  readonly etags: string
}

/**
 * More ETags than this are folded. Each checkpoint writes all notes again: 10,000 ETags are 381 KiB, and cause 0.95 GB
 * of writes for one upload of 80 GiB. With fewer ETags, nothing has to be listed to complete an upload.
 */
const MOST_ETAGS = 128

const count = v.pipe(v.number(), v.integer(), v.minValue(0))
const schema = v.object({
  token: v.string(),
  partBytes: count,
  uploadId: v.nullable(v.string()),
  // If some parts are folded, the type differs. So a version that does not know folding cannot take the rest for all
  // parts.
  parts: v.union([v.array(v.string()), v.object({ folded: count, etags: v.string(), last: v.array(v.string()) })]),
  proof: v.string(),
  tail: v.array(v.object({ name: v.string(), bytes: count })),
})

/** @throws UploadError `setup` if a newer version than this one wrote the notes. */
export function readNotes(state: JsonValue): Notes | null {
  if (state === null) return null
  const parsed = v.safeParse(schema, state)
  if (!parsed.success) throw new UploadError('setup', 'the notes of the blob store in the ledger cannot be read')
  const { parts, ...rest } = parsed.output
  return Array.isArray(parts)
    ? { ...rest, folded: null, parts }
    : { ...rest, folded: { count: parts.folded, etags: parts.etags }, parts: parts.last }
}

export function toState({ folded, ...notes }: Notes): JsonValue {
  const parts = folded === null ? notes.parts : { folded: folded.count, etags: folded.etags, last: notes.parts }
  return { ...notes, parts } as unknown as JsonValue
}

/** The notes of a sealed blob: what identifies its object, and the proof of its bytes. */
export function sealedState(state: JsonValue): JsonValue {
  const notes = readNotes(state)
  if (notes === null) return null
  return toState({ ...notes, uploadId: null, folded: { count: partsIn(notes), etags: '' }, parts: [], tail: [] })
}

/** How many whole parts the notes contain. */
export const partsIn = ({ folded, parts }: Pick<Notes, 'folded' | 'parts'>): number =>
  (folded?.count ?? 0) + parts.length

/** The notes with the ETags of the next parts. */
export function withParts(notes: Notes, etags: readonly string[]): Pick<Notes, 'folded' | 'parts'> {
  const parts = [...notes.parts, ...etags]
  if (parts.length <= MOST_ETAGS) return { folded: notes.folded, parts }
  return {
    folded: { count: partsIn({ ...notes, parts }), etags: foldedWith(notes.folded?.etags ?? '', parts) },
    parts: [],
  }
}

/** Some stores return ETags sometimes with quotes and sometimes without. */
export const unquoted = (etag: string): string => etag.replaceAll('"', '')

/** A digest over the ETags, one after the other. */
export const foldedWith = (before: string, etags: readonly string[]): string =>
  etags.reduce(
    (digest, etag) =>
      createHash('sha256')
        .update(digest + unquoted(etag))
        .digest('base64'),
    before,
  )

export const bytesOf = (pieces: readonly Piece[]): number => pieces.reduce((sum, { bytes }) => sum + bytes, 0)

/** Up to which byte the notes say that bytes are stored. */
export const noted = (notes: Notes, sizeBytes: number): number =>
  Math.min(sizeBytes, partsIn(notes) * notes.partBytes) + bytesOf(notes.tail)

export const partCount = (sizeBytes: number, partBytes: number): number => Math.ceil(sizeBytes / partBytes)

export const asDigest = (sha256: Buffer): string => `sha-256=:${sha256.toString('base64')}:`

/** The chain, extended by one part. */
export const chained = (proof: string, sha256: Buffer): string =>
  asDigest(
    createHash('sha256')
      .update(proof + asDigest(sha256))
      .digest(),
  )
