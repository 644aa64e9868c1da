import type { JsonValue, Prefix } from '@landfall/shared'

/** A blob, as the ledger knows it. */
export interface BlobRef {
  readonly key: string
  /** Declared size in bytes. */
  readonly size: number
  readonly state: JsonValue
}

export interface AppendRequest {
  /** The number of acknowledged bytes, where the new ones begin. Bytes beyond it are cut off. */
  readonly offset: number
  /** Its iterator's `return` is not called, because the request still needs an answer. */
  readonly source: AsyncIterable<Uint8Array>
  /** Called whenever bytes have arrived. */
  readonly onBytes?: () => void
  /** Stops taking bytes. Received bytes are kept. If it has fired before the call, no blob is made. */
  readonly signal: AbortSignal
  /**
   * Called after a sync with the durable offset and the store's own notes, which are recorded together. Without notes
   * the earlier ones stay. False: the offset was not recorded this time, and the store continues. It rejects when the
   * lease was lost, and then the store writes nothing more.
   */
  readonly acknowledge: (offset: number, state?: JsonValue) => Promise<boolean>
}

export type Appended =
  /**
   * Everything up to `offset` is durable. `ended` says why the reading ended: the source was read to its end, it broke, it
   * was longer than the blob, or `signal` fired.
   */
  | {
      readonly outcome: 'kept'
      readonly offset: number
      /** Notes that the caller records together with the offset. */
      readonly state?: JsonValue
      readonly ended: 'whole' | 'broken' | 'excess' | 'stopped'
    }
  /** Acknowledged bytes are missing. */
  | { readonly outcome: 'lost' }

export type Recovered =
  { readonly outcome: 'kept'; readonly offset: number; readonly state?: JsonValue } | { readonly outcome: 'lost' }

/** The digest of a prefix, as in `Prefix`. */
export type PrefixDigest = Omit<Prefix, 'offset'>

/** The first bytes of a blob, which are enough to recognise its media type, and the digest of all its bytes. */
export interface Inspection {
  readonly digest: string
  readonly head: Uint8Array
}

export interface PresignOptions {
  /** 1 to 604,800. */
  readonly expiresInSeconds: number
  /** Headers of the answer. */
  readonly contentType?: string
  readonly contentDisposition?: string
}

/** Something in the store. */
export interface StoredBlob {
  /** null: this store has not made it. */
  readonly key: string | null
  /** For people. */
  readonly name: string
  readonly sizeBytes: number
  readonly modifiedAt: number
  /** It is whole, and parts or tails of its upload are still in the store. */
  readonly hasUploadRemains?: boolean
}

/** Blobs without a row in the ledger, which are set aside for a time before they are deleted. */
export interface Quarantine {
  list(): AsyncIterable<{ key: string; sizeBytes: number; sinceAt: number }>
  add(key: string, nowAt: number): Promise<void>
  /** Puts a blob back into the store. False: it is not in quarantine. */
  takeBack(key: string): Promise<boolean>
  remove(key: string): Promise<void>
}

/**
 * Stores bytes under keys that the server makes. The leases serialise the calls for one key. If two calls overlap because
 * a lease was lost, the later one waits until the earlier one's descriptor is closed.
 *
 * A fault rejects with an `UploadError` (`storage-unavailable`, `storage-full`). It is never reported as "absent".
 */
export interface BlobStore {
  /**
   * Whether the store belongs to one process at a time, which a lock proves. Leases of other holders are then dead.
   *
   * A store that several processes use must itself keep late writers out, because a lease protects only rows, and its
   * loser may not know of the loss yet. In such a store an upload begins under the lease (`acknowledge` with the offset
   * that it has), each byte has a fixed place no matter which process writes it, nothing is written to a blob that is
   * sealed or removed, and `append` and `recover` report a blob that another process has sealed as complete.
   */
  readonly exclusive: boolean
  /** Its directory on this machine, where commands look for the socket of its process. Absent: it has none. */
  readonly directory?: string
  /**
   * Calls the listener when another store of this process takes over the directory, because a development server has
   * loaded a module again. The listener resolves when nothing uses this store any more. Then every call rejects with
   * `setup`.
   */
  onTakenOver?(listener: () => Promise<void>): void
  /**
   * Must be called first. A new store gets the ledger's identity. It refuses a store with another ledger's identity, a
   * store that another process has open, and, if the ledger knows a store, one without an identity: the directory of a
   * disk that is not mounted is empty.
   */
  open(identity: string, store: 'new' | 'known'): Promise<void>
  append(blob: BlobRef, request: AppendRequest): Promise<Appended>
  /**
   * Finds what is durable after a receiver that did not record its last offset. Bytes beyond `offset` are used only if
   * they have provably survived, for which `writtenBy` (the receiver's name, as in the lease) is needed.
   */
  recover(blob: BlobRef, request: { offset: number; writtenBy: string | null }): Promise<Recovered>
  /** Makes the whole blob durable and final. It can be repeated. */
  seal(blob: BlobRef): Promise<'sealed' | 'short' | 'absent'>
  /** The part of its notes that a sealed blob still needs. Absent: all of them. */
  sealedState?(state: JsonValue): JsonValue
  /** Reads the stored bytes. */
  inspect(blob: BlobRef, signal: AbortSignal): Promise<Inspection>
  /** The digest of the first `length` stored bytes, also of an unfinished blob. */
  digestOf(blob: BlobRef, length: number, signal: AbortSignal): Promise<PrefixDigest>
  /** The stored bytes from `start` to `end` (exclusive). */
  read(key: string, range: { start: number; end: number }): Promise<ReadableStream<Uint8Array>>
  /** A URL with which anybody can read the blob for a limited time without this server. Not every store has this. */
  presign?(key: string, options: PresignOptions): Promise<string>
  /** Removes the blob and everything that belongs to it. It can be repeated, and a blob that does not exist is no error. */
  remove(key: string): Promise<void>
  /**
   * Everything in the store, in the order of the keys, with constant memory. Blobs that appear or disappear while it runs
   * may be missing.
   */
  list(): AsyncIterable<StoredBlob>
  /** In bytes; null: absent. */
  sizeOf(key: string): Promise<number | null>
  readonly quarantine: Quarantine
  /** Only for stores in which parts or tails of an upload can stay after its blob is complete. */
  readonly uploadRemains?: {
    found(key: string): Promise<boolean>
    remove(key: string): Promise<void>
  }
  /** Writes, syncs, reads and removes a few bytes. Also reports the free space, if the store knows it. */
  probe(): Promise<{ syncMs: number; freeBytes: number | null; totalBytes: number | null }>
  /**
   * The space on the disk. The value is at most a second old while there is enough space, and current otherwise. null: it
   * is unknown. Only for stores that refuse bytes (`storage-full`) before the disk is full.
   */
  room?(): Promise<StoreRoom | null>
  /** For `doctor`: checks whether the service that the store uses can do what the store needs. It changes no blob. */
  examine?(settings: { expiresAfterMs: number }): Promise<readonly StoreCheck[]>
  /** Calls the listener after each answered request to the service that the store uses. */
  observe?(onRequest: (request: StoreRequest) => void): void
  /** The highest restore mark that was written; 0 for none. A ledger with a lower mark was restored from a backup. */
  readMark(): Promise<number>
  writeMark(mark: number): Promise<void>
  close(): Promise<void>
}

/** The space on a store's disk. */
export interface StoreRoom {
  readonly freeBytes: number
  readonly totalBytes: number
  /** The space that uploads leave free. */
  readonly reserveBytes: number
  /** Bytes and new uploads are refused until there is more space. */
  readonly isFull: boolean
}

/** The result of one check. */
export interface CheckResult {
  readonly state: 'ok' | 'warning' | 'failed'
  /** What was found. */
  readonly found: string
  /** What to do about it; null: nothing. */
  readonly advice: string | null
}
export interface StoreCheck extends CheckResult {
  /** `abilities`: what the service can do. `lifecycle`: what it removes on its own. */
  readonly name: 'abilities' | 'lifecycle'
}

/** `outcome`: `ok`, `missing`, or the name of the fault. */
export interface StoreRequest {
  readonly name: string
  readonly outcome: string
  readonly tookMs: number
}
