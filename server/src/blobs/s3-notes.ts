import { createHash } from 'node:crypto'
import type { JsonValue } from '@landfall/shared'
import * as v from 'valibot'
import { UploadError } from '../errors.js'

/** A stored piece of the part that is not full yet. */
export interface Piece {
  readonly name: string
  readonly bytes: number
}

/**
 * What the ledger keeps of an unfinished upload. Part n is always bytes [(n-1)P, nP): sizes need not be kept, and who
 * writes a part again, or late, writes it at its own place.
 */
export interface Notes {
  /** In the object's metadata: proves that an object under this key is the end of this upload. */
  readonly token: string
  /** P; fixed at creation, whatever the settings are later. */
  readonly partBytes: number
  /** null: all fits one part, and becomes one PutObject. */
  readonly uploadId: string | null
  /** ETags of the parts from the first one on, without a gap. */
  readonly parts: readonly string[]
  /** The digest of those parts as a chain (see `Prefix`): they cannot be read back before the upload is complete. */
  readonly proof: string
  /** What lies behind the parts, in order. */
  readonly tail: readonly Piece[]
}

const count = v.pipe(v.number(), v.integer(), v.minValue(0))
const schema = v.object({
  token: v.string(),
  partBytes: count,
  uploadId: v.nullable(v.string()),
  parts: v.array(v.string()),
  proof: v.string(),
  tail: v.array(v.object({ name: v.string(), bytes: count })),
})

/** @throws UploadError `setup`: written by a version that is newer than this one. */
export function readNotes(state: JsonValue): Notes | null {
  if (state === null) return null
  const parsed = v.safeParse(schema, state)
  if (!parsed.success) throw new UploadError('setup', 'the notes of the blob store in the ledger cannot be read')
  return parsed.output
}

export const toState = (notes: Notes): JsonValue => notes as unknown as JsonValue

export const bytesOf = (pieces: readonly Piece[]): number => pieces.reduce((sum, { bytes }) => sum + bytes, 0)

/** How far the notes say that bytes are stored. */
export const noted = ({ parts, partBytes, tail }: Notes, sizeBytes: number): number =>
  Math.min(sizeBytes, parts.length * partBytes) + bytesOf(tail)

export const partCount = (sizeBytes: number, partBytes: number): number => Math.ceil(sizeBytes / partBytes)

export const asDigest = (sha256: Buffer): string => `sha-256=:${sha256.toString('base64')}:`

/** The chain with one part more. */
export const chained = (proof: string, sha256: Buffer): string =>
  asDigest(
    createHash('sha256')
      .update(proof + asDigest(sha256))
      .digest(),
  )
