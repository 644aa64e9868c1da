import type { FileFacts, JsonObject, JsonValue, Point, Problem } from '@landfall/shared'

export interface OperationKey {
  readonly owner: string
  readonly id: string
}

/** What verification found in the stored bytes. */
export interface ContentFacts {
  /** `sha-256=:…:` of the stored bytes. */
  readonly digest: string
  /** The media type that the content shows, or the declared one if the content shows none. */
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

/** One row of the ledger: everything the server knows about an operation. */
export interface OperationRecord extends OperationKey {
  readonly kind: string
  readonly point: Point
  readonly stalled: boolean
  readonly file: FileFacts
  /** As the client sent it. */
  readonly metadata: JsonObject
  /** The output of the kind's schema for it. */
  readonly validated: JsonValue
  /** The header `Upload-Metadata` of a stock tus client. HEAD returns it unchanged. */
  readonly uploadMetadata: string | null
  /** Acknowledged bytes. It never decreases (invariant 4). */
  readonly offset: number
  readonly digest: string | null
  /** The client has announced that it will send its digest later. */
  readonly digestPending: boolean
  /** Until when the server waits for a pending digest. It is set when all bytes have arrived. */
  readonly digestDueAt: number | null
  readonly blobKey: string
  /** The blob store's own notes (S3: upload id and parts). */
  readonly blobState: JsonValue
  /** When all bytes were durable: t0 of the withheld tail. */
  readonly receivedAt: number | null
  /** The offset that stock clients see at t0. */
  readonly tailBase: number | null
  /** Results of the kind's `prepare` steps, by name. */
  readonly prepared: Readonly<Record<string, JsonValue>>
  readonly content: ContentFacts | null
  /** The holder of the lease, or the last holder if it did not give the lease back. */
  readonly leaseHolder: string | null
  /**
   * The name of a receiver that ended without recording its last offset, so that the blob must be examined; otherwise
   * null.
   */
  readonly uncleanHolder: string | null
  readonly attempts: number
  /** When the completer examines the operation next. null: never on its own. */
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
