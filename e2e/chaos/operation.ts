import { createHash } from 'node:crypto'
import { sweptBytes } from '../clients/bytes.js'
import type { PlannedOperation } from './plan.js'

/** What the harness knows of an upload that a client began. */
export interface Operation {
  readonly planned: PlannedOperation
  readonly via: 'tab' | 'stock'
  /** Empty until a page has made the operation. */
  id: string
  /** The last parts of the paths to which its bytes were sent. */
  readonly fileIds: Set<string>
  startedAtMs: number | null
  /** What its user was told; null if nothing yet, or if the user was away. */
  told: 'success' | 'cancelled' | 'failure' | null
  /** The reason of a failure. */
  why: string | null
  /** Whether a client is there that continues the upload. */
  attended: boolean
}

export const newOperation = (planned: PlannedOperation, via: Operation['via'], id: string): Operation => ({
  planned,
  via,
  id,
  fileIds: new Set(),
  startedAtMs: null,
  told: null,
  why: null,
  attended: false,
})

export const bytesOf = ({ sizeBytes, contentSeed }: PlannedOperation): Buffer => {
  const bytes = sweptBytes(sizeBytes, contentSeed)
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
}

/** In lower-case hexadecimal. */
export const digestOf = (planned: PlannedOperation): string =>
  createHash('sha256').update(bytesOf(planned)).digest('hex')
