import type { FileFacts, JsonObject, JsonValue, Point, Problem } from '@landfall/shared'

export interface OperationKey {
  readonly owner: string
  readonly id: string
}

/** What verification found in the stored bytes. */
export interface ContentFacts {
  /** `sha-256=:…:` of the stored bytes. */
  readonly digest: string
  /** Media type by content, or as declared where the content does not tell. */
  readonly type: string
}

export interface ReferenceRecord {
  readonly blobKey: string
  readonly size: number
  readonly type: string
  readonly digest: string
  readonly digestSource: 'client' | 'server'
  readonly storedAt: number
  readonly data: JsonValue
}

/** One row of the ledger: everything the server knows of an operation. */
export interface OperationRecord extends OperationKey {
  readonly kind: string
  readonly point: Point
  readonly stalled: boolean
  readonly file: FileFacts
  /** As sent. */
  readonly metadata: JsonObject
  /** What the kind's schema made of it. */
  readonly validated: JsonValue
  /** The header `Upload-Metadata` of a stock tus client, returned by HEAD as it was given. */
  readonly uploadMetadata: string | null
  /** Acknowledged bytes. Never falls (invariant 4). */
  readonly offset: number
  readonly digest: string | null
  /** The client said that its digest will follow. */
  readonly digestPending: boolean
  /** Until when a pending digest is waited for; set when all bytes are in. */
  readonly digestDueAt: number | null
  readonly blobKey: string
  /** The blob store's own notes (S3: upload id and parts). */
  readonly blobState: JsonValue
  /** When all bytes were durable: t0 of the withheld tail. */
  readonly receivedAt: number | null
  /** The offset that stock clients are shown at t0. */
  readonly tailBase: number | null
  /** Results of the kind's `prepare` steps, by name. */
  readonly prepared: Readonly<Record<string, JsonValue>>
  readonly content: ContentFacts | null
  /** Who holds the lease, or held it last without giving it back. */
  readonly leaseHolder: string | null
  /** A receiver went away without saying how far it came: the blob must be looked at. Holds that receiver's name. */
  readonly uncleanHolder: string | null
  readonly attempts: number
  /** When the completer is to look at it again; null: never by itself. */
  readonly dueAt: number | null
  readonly problem: Problem | null
  readonly lastError: string | null
  /** The bytes of a final operation are still to be removed. */
  readonly cleanupDue: boolean
  readonly removedAt: number | null
  readonly createdAt: number
  readonly updatedAt: number
  readonly expiresAt: number
  readonly reference: ReferenceRecord | null
}
