import type { JsonValue, Prefix } from '@landfall/shared'

/** A blob, as far as the ledger knows it. */
export interface BlobRef {
  readonly key: string
  /** Declared size in bytes. */
  readonly size: number
  readonly state: JsonValue
}

export interface AppendRequest {
  /** Acknowledged bytes: where the new ones go. What lies beyond is cut off. */
  readonly offset: number
  /** Is not returned early: its request still wants an answer. */
  readonly source: AsyncIterable<Uint8Array>
  /** Called whenever bytes have arrived. */
  readonly onBytes?: () => void
  /** Stops taking bytes; what was received so far is kept. One that has fired already makes nothing at all. */
  readonly signal: AbortSignal
  /**
   * Called after a sync, with what is durable now and the store's own notes of it, which are recorded together; without
   * notes those of before stay. False: not now, go on. Rejects when the lease was lost: then nothing more is written.
   */
  readonly acknowledge: (offset: number, state?: JsonValue) => Promise<boolean>
}

export type Appended =
  /** Everything up to `offset` is durable. `ended`: the source was read whole, broke, was longer than the blob, or `signal` fired. */
  | {
      readonly outcome: 'kept'
      readonly offset: number
      /** To be recorded with the offset. */
      readonly state?: JsonValue
      readonly ended: 'whole' | 'broken' | 'excess' | 'stopped'
    }
  /** Acknowledged bytes are missing. */
  | { readonly outcome: 'lost' }

export type Recovered =
  { readonly outcome: 'kept'; readonly offset: number; readonly state?: JsonValue } | { readonly outcome: 'lost' }

/** As it stands in `Prefix`. */
export type PrefixDigest = Omit<Prefix, 'offset'>

/** The first bytes of a blob, enough to tell its media type, and the digest of all of them. */
export interface Inspection {
  readonly digest: string
  readonly head: Uint8Array
}

export interface PresignOptions {
  /** 1 to 604,800. */
  readonly expiresInSeconds: number
  /** Headers of its answer. */
  readonly contentType?: string
  readonly contentDisposition?: string
}

/** Something that lies in the store. */
export interface StoredBlob {
  /** null: nothing that this store has made. */
  readonly key: string | null
  /** For people. */
  readonly name: string
  readonly sizeBytes: number
  readonly modifiedAt: number
  /** It is whole, and parts or tails of its upload are still in the store. */
  readonly hasUploadRemains?: boolean
}

/** Blobs that nobody knows, out of the way for a time before they are deleted. */
export interface Quarantine {
  list(): AsyncIterable<{ key: string; sizeBytes: number; sinceAt: number }>
  add(key: string, nowAt: number): Promise<void>
  /** Puts it back where it was; false: it is not there. */
  takeBack(key: string): Promise<boolean>
  remove(key: string): Promise<void>
}

/**
 * Where bytes live, under keys that the server makes. Calls for one key are serialised by the leases; where a lost
 * lease lets two overlap, the later one waits until the earlier one's descriptor is closed.
 *
 * Faults reject with an `UploadError` (`storage-unavailable`, `storage-full`); they never read as "absent".
 */
export interface BlobStore {
  /**
   * Belongs to one process at a time, proven by a lock: leases of others are then dead.
   *
   * A store of several processes must fence bytes by itself, for a lease fences rows only, and whoever lost one may not
   * know it yet. So there an upload is begun under the lease (`acknowledge` with the offset it has), bytes have their
   * place in it whoever writes them, nothing is written to what is sealed or removed, and `append` and `recover` answer
   * a blob that another has sealed as whole.
   */
  readonly exclusive: boolean
  /** Where it is on this machine; commands look there for the process that has it. Absent: it is elsewhere. */
  readonly directory?: string
  /**
   * Calls back when another store of this process takes its place (a module that a development server has loaded
   * again). The callback resolves when nothing uses this store any more; it answers every call with `setup` then.
   */
  onTakenOver?(listener: () => Promise<void>): void
  /**
   * Must be called first. A new store is given the ledger's identity; refused are one that carries another's, one that
   * another process has open, and where the ledger knows a store, one without any: a disk that is not mounted is empty.
   */
  open(identity: string, store: 'new' | 'known'): Promise<void>
  append(blob: BlobRef, request: AppendRequest): Promise<Appended>
  /**
   * After a receiver that did not say how far it came: what is durable now. Bytes beyond `offset` are used only
   * where they provably survived, which `writtenBy` (the receiver's name, as in the lease) helps to tell.
   */
  recover(blob: BlobRef, request: { offset: number; writtenBy: string | null }): Promise<Recovered>
  /** Makes the whole blob durable and final. Repeatable. */
  seal(blob: BlobRef): Promise<'sealed' | 'short' | 'absent'>
  /** What of its notes a sealed blob still needs. Absent: all of them. */
  sealedState?(state: JsonValue): JsonValue
  /** Reads the stored bytes. */
  inspect(blob: BlobRef, signal: AbortSignal): Promise<Inspection>
  /** Digest of the first `length` stored bytes, of an unfinished blob too. */
  digestOf(blob: BlobRef, length: number, signal: AbortSignal): Promise<PrefixDigest>
  /** The stored bytes from `start` to `end` (exclusive). */
  read(key: string, range: { start: number; end: number }): Promise<ReadableStream<Uint8Array>>
  /** A URL by which anybody can read the blob for a while, past this server. Only stores that can have it. */
  presign?(key: string, options: PresignOptions): Promise<string>
  /** Removes the blob and everything that belongs to it. Repeatable; absent is fine. */
  remove(key: string): Promise<void>
  /** All that is stored, in the order of the keys; memory does not grow with it. What comes or goes meanwhile may be missed. */
  list(): AsyncIterable<StoredBlob>
  /** In bytes; null: absent. */
  sizeOf(key: string): Promise<number | null>
  readonly quarantine: Quarantine
  /** Only of stores where parts or tails of an upload may stay after its blob is whole. */
  readonly uploadRemains?: {
    found(key: string): Promise<boolean>
    remove(key: string): Promise<void>
  }
  /** Writes, syncs, reads and removes a few bytes; and the room that is left, where the store knows it. */
  probe(): Promise<{ syncMs: number; freeBytes: number | null; totalBytes: number | null }>
  /**
   * The room on the disk: as of a second ago while there is enough, and as of now where there is not. null: nothing is
   * known. Only stores that refuse bytes (`storage-full`) before the last of it is taken.
   */
  room?(): Promise<StoreRoom | null>
  /** For `doctor`: whether what lies below can do what this store asks of it. Changes nothing that counts. */
  examine?(settings: { expiresAfterMs: number }): Promise<readonly StoreCheck[]>
  /** Tells of each request that it makes to what lies below, once it is answered. */
  observe?(onRequest: (request: StoreRequest) => void): void
  /** The highest mark that was written; 0 for none. A ledger whose mark is lower was restored from a backup. */
  readMark(): Promise<number>
  writeMark(mark: number): Promise<void>
  close(): Promise<void>
}

/** How much room a store's disk has. */
export interface StoreRoom {
  readonly freeBytes: number
  readonly totalBytes: number
  /** What uploads leave free. */
  readonly reserveBytes: number
  /** Bytes and new uploads are refused until there is more room. */
  readonly isFull: boolean
}

/** The result of one check. */
export interface CheckResult {
  readonly state: 'ok' | 'warning' | 'failed'
  /** What was found. */
  readonly found: string
  /** What to do; null where nothing is to be done. */
  readonly advice: string | null
}
export interface StoreCheck extends CheckResult {
  /** `abilities`: of the service. `lifecycle`: what it removes by itself. */
  readonly name: 'abilities' | 'lifecycle'
}

/** `outcome`: `ok`, `missing`, or what fault. */
export interface StoreRequest {
  readonly name: string
  readonly outcome: string
  readonly tookMs: number
}
