import type { FileFacts, FinalPoint, JsonObject, JsonValue, OpenPoint, Point, Prefix, Problem } from '@landfall/shared'
import type { Limit } from '../lib/deadline.js'

/** Times are milliseconds since 1970 by the ledger's clock, unless a name says otherwise. */
export interface Clock {
  /** Wall clock, in milliseconds since 1970. */
  now(): number
  /** Never jumps; for durations within this process. */
  monotonicMs(): number
  sleep(ms: number, signal?: AbortSignal): Promise<void>
}

export interface OperationKey {
  readonly owner: string
  readonly id: string
}

export type LeasePurpose = 'receive' | 'drive'

/** The fenced right to receive bytes for one operation or to drive it. Every later write carries its token. */
export interface Lease extends OperationKey {
  readonly holder: string
  readonly token: number
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

/** What step 0 inserts: all intents, before anything else happens. */
export interface Intent extends OperationKey {
  readonly kind: string
  readonly file: FileFacts
  readonly metadata: JsonObject
  readonly validated: JsonValue
  readonly uploadMetadata: string | null
  /** Digest over kind, size, name, type and metadata in canonical form: "the same facts". */
  readonly facts: string
  /** `pending`: it will follow. */
  readonly digest: `sha-256=:${string}:` | 'pending' | null
  readonly blobKey: string
  readonly expiresAfterMs: number
  readonly maxOpenPerOwner: number
  /** What the owner's references and open operations may hold together, in bytes; null: any number. */
  readonly quotaBytes: number | null
  /** How many references and open operations the owner may have together; null: any number. */
  readonly quotaFiles: number | null
  /** How often the owner may declare; null: as often as it likes. */
  readonly rate: DeclarationRate | null
}

/** `count` at once, and after that one more each time a `count`-th of `perMs` has passed. Both are whole numbers. */
export interface DeclarationRate {
  readonly count: number
  readonly perMs: number
}

/** How an operation ended of which only a tombstone is left; `completed`: its reference was removed. */
export type TombstonePoint = 'completed' | FinalPoint

export type Declared =
  | { readonly outcome: 'created' | 'existing'; readonly operation: OperationRecord }
  | { readonly outcome: 'mismatch' }
  | { readonly outcome: 'too-many-open' }
  | { readonly outcome: 'over-quota'; readonly usedBytes: number }
  | { readonly outcome: 'over-file-quota'; readonly usedFiles: number }
  /** Sooner than the rate allows. */
  | { readonly outcome: 'too-many-declared'; readonly retryInMs: number }
  /** The id was used before, and only its tombstone is left. */
  | { readonly outcome: 'forgotten'; readonly point: TombstonePoint }

/** What a holder of the lease may record. `undefined` leaves a column alone. */
export interface Changes {
  point?: Point
  offset?: number
  blobState?: JsonValue
  /** Records t0 (now) and the base of the withheld tail, once. */
  tailBase?: number
  /** Sets `digestDueAt` this long after now. */
  digestDueInMs?: number
  prepared?: Readonly<Record<string, JsonValue>>
  content?: ContentFacts
  uncleanHolder?: null
  attempts?: number
  stalled?: boolean
  problem?: Problem | null
  lastError?: string | null
  cleanupDue?: boolean
  /** null: the completer need not come by itself. */
  dueInMs?: number | null
  /**
   * Instead: at a moment that the row names itself. A process may stand still between its look and this write; counted
   * from the write, the operation would then be looked at so much too late.
   */
  dueAt?: 'expiry' | 'digest-due'
  /** Slides the expiry: this long after now. */
  expiresInMs?: number
  purpose?: LeasePurpose
  /** Gives the lease back in the same statement. */
  release?: true
}

export type LeaseOutcome =
  | { readonly outcome: 'granted'; readonly lease: Lease; readonly operation: OperationRecord }
  | { readonly outcome: 'held' }
  /** No such operation, or nothing that this purpose could do at its point. */
  | { readonly outcome: 'closed' }

/** How soon a receiver on another node is to let go: when its client sends nothing, or at once. */
export type Urgency = 'when-silent' | 'at-once'

export interface LeaseRequest {
  readonly holder: string
  readonly leaseMs: number
}

/** What a kind without `onReference` comes to. */
export const NO_HOOK = { outcome: 'accepted', data: null } as const satisfies HookOutcome

/** What `onReference` came to. */
export type HookOutcome =
  | { readonly outcome: 'accepted'; readonly data: JsonValue }
  | { readonly outcome: 'rejected'; readonly problem: Problem }

export type Referred =
  | { readonly outcome: 'referenced'; readonly operation: OperationRecord }
  | { readonly outcome: 'rejected'; readonly problem: Problem }
  /** The lease or the digest is another now, or the operation is not open any more; everything was rolled back. */
  | { readonly outcome: 'lost' }

export interface ReferenceIntent {
  /** What was not recorded yet and goes into the same transaction. */
  readonly changes: Changes
  readonly content: ContentFacts
  readonly digestSource: 'client' | 'server'
  readonly timeLimitMs: number
  readonly effects: readonly OwedEffect[]
}

/** Where effects go to: a kind's effect by its name; Landfall's own have the kind ''. */
export interface EffectTarget {
  readonly kind: string
  readonly name: string
}

/** Of the bytes of what was removed: Landfall's own. */
export const REMOVAL: EffectTarget = { kind: '', name: 'landfall:remove-bytes' }

export type EffectType = 'remove-bytes' | 'webhook' | 'function'

/** What the reference's transaction writes down as owed. */
export interface OwedEffect {
  readonly effectId: string
  readonly name: string
  readonly type: EffectType
  /** What is delivered, made of the reference as it is being committed. */
  readonly payload: (reference: ReferenceRecord) => JsonValue
}

/** An effect that is owed: delivered at least once, under this id. */
export interface EffectRecord extends OperationKey, EffectTarget {
  readonly effectId: string
  readonly type: EffectType
  readonly payload: JsonValue
  /** The present one included. */
  readonly attempts: number
  /** The receiver of this target wants nothing any more. */
  readonly disabled: boolean
}

/** How an effect stands, for people. */
export interface EffectStanding extends EffectTarget {
  readonly effectId: string
  readonly type: EffectType
  readonly attempts: number
  /** When it is tried (again); null: never by itself. */
  readonly dueAt: number | null
  readonly deliveredAt: number | null
  readonly givenUpAt: number | null
  readonly lastError: string | null
}

export type EffectResult =
  | { readonly outcome: 'delivered' }
  | { readonly outcome: 'again'; readonly error: string; readonly retryInMs: number }
  /** Taken and not tried: it does not count as an attempt. */
  | { readonly outcome: 'untried'; readonly retryInMs: number }
  /** `disable`: so are all others of the same target, until an operator's `retry`. */
  | { readonly outcome: 'given-up'; readonly error: string; readonly disable?: true }

/** What an operation's row claims of the store. */
export interface Claim extends OperationKey {
  readonly blobKey: string
  readonly point: Point
  readonly sizeBytes: number
  readonly offset: number
  readonly leased: boolean
  readonly cleanupDue: boolean
  readonly removed: boolean
  readonly referenced: boolean
}

export interface OperationFilter {
  readonly id?: string
  readonly owner?: string
  readonly point?: Point
  readonly stalled?: boolean
  /** With an effect that was given up. */
  readonly givenUp?: boolean
}

/** What a process knows of time when it asks the ledger to look at its clock. */
export interface ClockLook {
  /** By the monotonic clock since its last look; 0: it has just begun, and knows nothing of the time before. */
  readonly passedMs: number
  /** It has seen the clock set and set back since. */
  readonly disturbed: boolean
  /** How long leases on operations last, and those on effects. */
  readonly leaseMs: number
  readonly effectLeaseMs: number
  /** Also to be looked for: what is due later than any pause could have put it. null: not now. */
  readonly longestPauses: { readonly operationMs: number; readonly effectMs: number } | null
}

export interface ClockSettled {
  readonly nowAt: number
  /** How far the ledger's clock was set, ahead or back; 0: it was not. */
  readonly steppedMs: number
}

/** How long what has ended is kept. In milliseconds; null: permanently. */
export interface Retention {
  /** Operations that ended without a reference, or whose reference was removed. */
  readonly finalMs: number | null
  /** Effects that were delivered. One that was given up stays visible for as long as its operation is kept. */
  readonly effectsMs: number | null
}

/** What the ledger knows of one owner. */
export interface Holdings {
  readonly operations: number
  readonly openOperations: number
  readonly references: number
  /** What the references hold. */
  readonly bytes: number
}

export interface LedgerHealth {
  readonly identity: string
  readonly nowAt: number
  readonly heartbeatAt: number | null
  /** All that have a row; tombstones are not counted. */
  readonly operations: number
  readonly openOperations: number
  readonly stalledOperations: number
  readonly dueEffects: number
  readonly givenUpEffects: number
}

/** Two values that a ledger reads at once, however much is in it. */
export interface LedgerPulse {
  readonly nowAt: number
  /** When a completer of any process was last alive. */
  readonly heartbeatAt: number | null
}

/** What is not finished yet. A ledger may stop counting at `BACKLOG_MOST` of a kind: then there are at least so many. */
export interface LedgerBacklog {
  readonly nowAt: number
  /** Operations that are not final, by their recovery point. */
  readonly points: Readonly<Record<OpenPoint | 'referenced', number>>
  readonly stalled: number
  /** When the oldest open operation of which bytes are missing was declared: its client is waited for. */
  readonly oldestUnreceivedAt: number | null
  /** When the oldest open one of which all bytes are durable had them: whatever is still missing is up to a server. */
  readonly oldestReceivedAt: number | null
  /** Effects that are owed and not given up, those in a pause included. */
  readonly dueEffects: number
  readonly givenUpEffects: number
}

/** Enough to raise any alarm, and few enough to count every few seconds. */
export const BACKLOG_MOST = 100_000

/**
 * The server's tables in the application's database: the only truth about where an operation stands.
 *
 * `Tx` is the application's own transaction handle, as its `onReference` gets it.
 *
 * Every method that changes an operation is atomic, and durable when it resolves; on a fault it rejects with an
 * `UploadError` of code `ledger-unavailable` or with the database's own error, and then nothing is known until read again.
 */
export interface Ledger<Tx> {
  /**
   * Creates or upgrades the tables, and makes again what of them somebody has dropped (triggers, indexes). Safe when
   * several processes start at once; tables that are in order are only read, which needs no right to create any.
   * `check` changes nothing. Answers the ledger's identity, and whether a blob store was opened with it before.
   *
   * @throws UploadError `setup` for `check`, when something is missing: what, by number and name; for both when tables
   *   are gone that were there
   */
  migrate(how?: 'apply' | 'check'): Promise<{ identity: string; store: 'new' | 'known' }>
  /** From now on the store is known: one that is empty is not it. After the store has its identity, never before. */
  rememberStore(): Promise<void>
  /**
   * The key of the owners' tags: random, made once by whoever asks first, the same for all processes and for ever. After
   * `migrate`. Secret: who has it can tell which owner a tag stands for.
   */
  ownerKey(): Promise<string>
  /** Step 0. The same id with the same facts answers what is there. */
  declare(intent: Intent): Promise<Declared>
  find(key: OperationKey): Promise<OperationRecord | null>
  /** How the operation ended whose row is gone; null: this owner never used the id, or its row is still there. */
  tombstone(key: OperationKey): Promise<TombstonePoint | null>
  findMany(owner: string, ids: readonly string[]): Promise<OperationRecord[]>
  /** The owner's open operations, oldest first, at most `limit`, behind the cursor `after`. */
  listOpen(owner: string, page: { after: string | null; limit: number }): Promise<OperationRecord[]>
  /** Sets a digest that was pending; once. */
  setDigest(key: OperationKey, digest: string): Promise<'set' | 'conflict' | 'closed'>
  /** Takes the lease by one statement; the token grows. To receive is only for `declared` operations that lack bytes. */
  lease(key: OperationKey, request: LeaseRequest & { purpose: LeasePurpose }): Promise<LeaseOutcome>
  /**
   * Leases operations that are due, oldest first: without a lease, or with one that has expired. One of the same holder
   * counts as expired only where it is not `inUse`.
   */
  leaseDue(
    request: LeaseRequest & { limit: number; inUse: readonly OperationKey[] },
  ): Promise<{ lease: Lease; operation: OperationRecord }[]>
  /** Asks whoever else receives bytes for it to let go. False: nobody else does (any more). */
  ask(key: OperationKey, request: { holder: string; urgency: Urgency }): Promise<boolean>
  /** For which of this holder's leases others have asked. */
  askedOf(holder: string): Promise<{ key: OperationKey; urgency: Urgency }[]>
  /** Prolongs leases; answers those that are still held. */
  renew(leases: readonly Lease[], leaseMs: number): Promise<readonly Lease[]>
  /**
   * Compare-and-set by lease, point and digest, as they were in `from`. null: one of them is another now, and nothing
   * changed (invariant 8). The digest, because it may arrive while its operation is being verified.
   */
  record(lease: Lease, from: OperationRecord, changes: Changes): Promise<OperationRecord | null>
  /**
   * Step 6: `hook`, the reference row, the effects, the point and `intent.changes` in ONE transaction of the
   * application's database. Compare-and-set by lease and digest, from any open point. `hook` null: the kind has none, and
   * nothing but the ledger's own rows is written.
   */
  refer(
    lease: Lease,
    from: OperationRecord,
    intent: ReferenceIntent,
    hook: ((tx: Tx, limit: Limit) => Promise<HookOutcome>) | null,
  ): Promise<Referred>
  /** Step x: only from before `referenced`; needs no lease, and takes it from whoever has it. */
  cancel(key: OperationKey, problem: Problem): Promise<OperationRecord | null>
  /** Clears a stall, and asks for the effects again that were given up; enables their targets. False: there was nothing. */
  retry(key: OperationKey): Promise<boolean>
  effectsOf(key: OperationKey): Promise<EffectStanding[]>
  /** Takes a reference back within the application's transaction; owes the removal of the bytes as an effect. */
  remove(tx: Tx, id: string, owner: string | null): Promise<boolean>
  /**
   * The right to erasure: removes all references of the owner as `remove` does, cancels its open operations, and keeps of
   * its names, metadata and of the owner itself only tombstones. Within the application's transaction; null: in one of
   * its own. Effects that were not delivered yet are dropped. Answers what there was.
   *
   * Until their bytes are removed the rows stay, without anything of the owner's in them.
   */
  forgetOwner(tx: Tx | null, owner: string): Promise<Holdings>
  /** What `forgetOwner` would find. */
  holdings(owner: string): Promise<Holdings>
  /**
   * Replaces operations by tombstones that ended `finalMs` ago, or whose owner was forgotten, and deletes effects that
   * were delivered `effectsMs` ago: at most `limit` of each, in one short transaction. Time in which the clock was set
   * ahead, or in which nobody was there, does not count.
   *
   * Never an operation whose bytes are still to be removed, that has a lease or a reference, or that owes an effect; one
   * whose removal was given up stays as well.
   */
  retire(retention: Retention, limit: number): Promise<{ operations: number; effects: number }>
  /** Step 9 in one statement for all: referenced operations that owe nothing any more become completed. */
  complete(limit: number): Promise<number>
  /** Takes a target's effects that are due, oldest first; they come again after `leaseMs` unless settled. */
  takeEffects(
    target: EffectTarget,
    request: { holder: string; leaseMs: number; limit: number },
  ): Promise<EffectRecord[]>
  /**
   * Records how a delivery ended; with the last one an operation becomes completed. Of an attempt that is not the
   * latest only a success counts.
   */
  settleEffect(effect: Pick<EffectRecord, 'effectId' | 'attempts'>, result: EffectResult): Promise<void>
  /**
   * Declares every lease of other holders dead, those on effects included. Only for a process that has proven that it is alone (a lock on the
   * blob store's directory).
   */
  forgetOtherHolders(holder: string): Promise<number>
  /** What the operations claim of the store, in the order of the keys: behind `after`, up to `upTo` (null: all). */
  claims(range: { after: string; upTo: string | null; limit: number }): Promise<Claim[]>
  /** Operations for an operator, newest first. */
  list(page: OperationFilter & { after: string | null; limit: number }): Promise<OperationRecord[]>
  /** The ledger's mark, which only grows; and when it was found to be older than its store, if ever. */
  mark(): Promise<{ mark: number; restoredAt: number | null }>
  /** Sets a higher mark, and records or forgets that the ledger was restored from a backup. */
  advanceMark(to: { mark: number; restored: boolean | null }): Promise<void>
  /** Says that the completer lives. */
  heartbeat(): Promise<void>
  /** Whether the database answers, and when the completer last said so: no counting, for every health check. */
  pulse(): Promise<LedgerPulse>
  /** What metrics ask every few seconds: costs what is unfinished, never what is finished. */
  backlog(): Promise<LedgerBacklog>
  /**
   * Compares the ledger's clock with the time that has passed for this process. Where it was set by more than a minute,
   * and where nobody was there for so long, one transaction moves the times of rows: ahead, so that nothing ends
   * earlier for want of a client; back, so that nothing is due and no lease ends later than pauses and leases last.
   */
  settleClock(look: ClockLook): Promise<ClockSettled>
  /** How much time has passed since then, without that by which the clock was set ahead and in which nobody was there. */
  attendedMs(sinceAt: number): Promise<number>
  /** What `doctor` asks: the database's clock and when the completer was last alive. */
  health(): Promise<LedgerHealth>
  /** When the next operation, or effect of these targets, is due, in milliseconds from now; null: none. */
  nextDueInMs(targets: readonly EffectTarget[]): Promise<number | null>
  /** For each a word that is another one after a change, whichever node has made it; null: there is no such operation. */
  versions(keys: readonly OperationKey[]): Promise<(string | null)[]>
  /** Calls back after each commit that changed an operation. A hint: it may be lost, and says nothing of other nodes. */
  onChange(listener: (operation: OperationRecord) => void): () => void
}

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
  /** It is whole, and beside it lies what only the way to it needed. */
  readonly hasScraps?: boolean
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
  /** Of stores where a whole blob may have something beside it that only the way to it needed. */
  readonly scraps?: {
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

/** One thing that was looked at. */
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

/** Something that happened in this process and is counted. */
export type MetricEvent =
  /** An operation was declared, or is at a point that ends something for its client. */
  | { readonly type: 'reached'; readonly point: 'declared' | 'referenced' | 'cancelled' | 'expired' | 'rejected' }
  /** From the last durable byte to the committed reference. */
  | { readonly type: 'finalised'; readonly lagMs: number }
  /** A lease that was in use here is somebody else's. */
  | { readonly type: 'lease-lost' }
  /** A write under a lease was refused (invariant 8): it is another holder's, or the operation was cancelled. */
  | { readonly type: 'write-fenced'; readonly by: 'holder' | 'cancel' }
  /** Bytes are durable that were not before. */
  | { readonly type: 'bytes-accepted'; readonly bytes: number }
  | { readonly type: 'effect-settled'; readonly outcome: EffectResult['outcome'] }
  /** A call of the blob store. `outcome`: `ok`, or what fault. */
  | { readonly type: 'store-call'; readonly call: string; readonly outcome: string; readonly tookMs: number }
  /** A request of the blob store to what lies below it (S3). */
  | ({ readonly type: 'store-request' } & StoreRequest)

/** Where an operator's numbers come from. Neither method may throw or wait: uploads do not depend on being counted. */
export interface Metrics {
  count(event: MetricEvent): void
  /** Whom to ask for what stands in the ledger, whenever somebody wants to know. */
  observe(look: () => Promise<LedgerPulse & LedgerBacklog>): void
}

export type { OpenPoint }
