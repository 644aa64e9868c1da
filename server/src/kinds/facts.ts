import type { FileFacts } from '@landfall/shared'

/** What an application's hooks learn about the operation. */
export interface OperationFacts<Metadata> {
  readonly id: string
  readonly owner: string
  readonly kind: string
  readonly file: FileFacts
  /** The metadata as the kind's schema returned it. */
  readonly metadata: Metadata
  readonly createdAt: Date
}

/** The stored and verified bytes. */
export interface BlobFacts {
  readonly key: string
  /** Bytes. */
  readonly size: number
  /** The media type by content, or the declared type if the content does not reveal it. */
  readonly type: string
  /** `sha-256=:…:` of the stored bytes. */
  readonly digest: string
  /** Reads the stored bytes from `start` to `end` (exclusive). Default: all of them. */
  read(range?: { start?: number; end?: number }): Promise<ReadableStream<Uint8Array>>
}
