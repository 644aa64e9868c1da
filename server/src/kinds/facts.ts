import type { FileFacts } from '@landfall/shared'

/** What an application's hooks get to know of the operation. */
export interface OperationFacts<Metadata> {
  readonly id: string
  readonly owner: string
  readonly kind: string
  readonly file: FileFacts
  /** As the kind's schema returned it. */
  readonly metadata: Metadata
  readonly createdAt: Date
}

/** The stored and verified bytes. */
export interface BlobFacts {
  readonly key: string
  /** Bytes. */
  readonly size: number
  /** Media type by content; as declared where the content does not tell. */
  readonly type: string
  /** `sha-256=:…:` of the stored bytes. */
  readonly digest: string
  /** Reads the stored bytes, from `start` to `end` (exclusive), the whole by default. */
  read(range?: { start?: number; end?: number }): Promise<ReadableStream<Uint8Array>>
}
