import type { Consequence, DeclareRequest, Operation, Prefix, Problem } from '@landfall/shared'
import type { Change, JournalRecord } from './operation.js'

/** Where the records are stored. Only faults throw. */
export interface Journal {
  load(scope: string): Promise<JournalRecord[]>
  /**
   * Reads, changes and writes one record in a single transaction, so that two tabs never overwrite each other's facts.
   * Resolves with what is stored now, which survives a killed browser. `undefined` removes the record, and the journal
   * remembers the removal: a removed record is not written again, whatever change a slow or frozen tab still has for
   * it.
   *
   * @param known What the caller has seen of it last. If the record is missing although it was not removed, because the
   * browser deleted the site's data, it is written again from this.
   */
  update(scope: string, id: string, change: Change, known?: JournalRecord): Promise<JournalRecord | undefined>
  /** Removes all records of a scope, in every tab. */
  purge(scope: string): Promise<void>
  /**
   * Reads the owner tag that is pinned for a scope and applies `change` in the same transaction. If two tabs pin at
   * once, both get the same tag. `purge` removes it.
   */
  owner(scope: string, change: (pinned: string | null) => string | null): Promise<string | null>
  /** Takes over what an earlier version has stored under another name. */
  adopt(from: string, to: string): Promise<void>
}

/**
 * A refusal of the server, or no answer at all. `problem` is set only for Landfall's problems. `status` is null without
 * an answer.
 */
export interface Refusal {
  readonly ok: false
  readonly consequence: Consequence
  readonly status: number | null
  readonly problem: Problem | null
  readonly retryAfterMs: number | null
}
export type Answer<T> = { readonly ok: true; readonly value: T } | Refusal

export interface Listed {
  readonly operations: Operation[] | null
  readonly unreadable: readonly string[]
  readonly etag: string | null
}

/** The server's operations. Nothing throws: an aborted request has the same answer as a lost one. */
export interface Ledger {
  /** Declares or continues an operation. It is safe to repeat any number of times. */
  put(id: string, request: DeclareRequest, signal: AbortSignal): Promise<Answer<Operation>>
  /**
   * Waits up to `waitSeconds` for a change since `etag`. If there was none, `operations` is null. `unreadable` has the
   * ids of operations that a newer server has written in another form; they exist.
   */
  list(
    ids: readonly string[],
    wait: { waitSeconds: number; etag: string | null },
    signal: AbortSignal,
  ): Promise<Answer<Listed>>
  cancel(id: string, signal: AbortSignal): Promise<Answer<Operation>>
  prefix(id: string, signal: AbortSignal): Promise<Answer<Prefix>>
}

export interface Chunk {
  readonly id: string
  readonly source: Blob
  readonly offsetBytes: number
  readonly endBytes: number
  /** How long the last chunk took, for the stall watchdog. 0 if there was none. */
  readonly lastChunkMs: number
  /** Called when bytes were handed to the network. It says nothing about what was accepted. */
  readonly onSent: () => void
}
export type ChunkOutcome =
  | { readonly kind: 'accepted'; readonly offsetBytes: number }
  | { readonly kind: 'refused'; readonly refusal: Refusal }
  /** No answer: the connection broke, nothing was transferred any more, or the source could not be read. */
  | { readonly kind: 'broken' }
  | { readonly kind: 'stopped' }

/** Sends bytes. `accepted` means that they are durable. It never means that there is a reference. */
export interface Transfer {
  send(chunk: Chunk, signal: AbortSignal): Promise<ChunkOutcome>
}

/** Where a file's bytes come from after its tab was closed. Only faults throw. */
export interface Source {
  /**
   * Makes a copy if all copies together stay within the budget. Returns false if there is no room, and null if copies
   * are switched off.
   */
  keep(scope: string, id: string, file: Blob): Promise<boolean | null>
  read(scope: string, id: string): Promise<Blob | null>
  drop(scope: string, id: string): Promise<void>
  /**
   * Drops copies that are too old, and copies of this scope that belong to no record in `wanted`, unless they are
   * recent.
   */
  sweep(scope: string, wanted: ReadonlySet<string>): Promise<void>
  purge(scope: string): Promise<void>
}

/** The owner of these uploads: the tag that every request carries. An answer counts only if it carries the same tag. */
export interface Owner {
  /**
   * The pinned tag. If there is none yet, the server is asked first, once for all callers that wait. A refusal means
   * that nothing may be sent now: the server has not named the owner, or another user is signed in.
   */
  read(signal: AbortSignal): Promise<Answer<string>>
  /**
   * Judges the answer to a request with the tag `sent`. Null if it is a success that counts, otherwise what it means.
   * Another tag stops everything. An answer without a tag has an unknown source and counts as a fault that passes, as a
   * proxy's does.
   */
  judge(sent: string, answer: { said: string | null; status: number; refusal: Refusal | null }): Refusal | null
  /** Whether nothing is sent because an answer was about another user. */
  isOther(): boolean
  /** Pins the tag, and checks again after another user was signed in, until `signal` ends. */
  keep(signal: AbortSignal): void
  /** Checks now, if it is waiting for another user to sign out. */
  hurry(): void
  /** Calls the listener when the right user is signed in again. */
  onBack(listener: () => void): void
  /** The scope was purged. The tag must be pinned again before anything is sent. */
  forget(): void
}

export interface Hold {
  /** Ends when another holder took the lock away. */
  readonly lost: AbortSignal
  release(): void
}

/** One tab at a time for each operation. */
export interface Exclusive {
  /**
   * Resolves with the lock, or with null if `signal` ended before. `onElsewhere` is called when another tab has the
   * lock; the call keeps waiting.
   */
  hold(name: string, onElsewhere: () => void, signal: AbortSignal): Promise<Hold | null>
}

/** A hash in progress, which can be continued after the bytes that it has seen. */
export interface DigestState {
  readonly state: Int32Array
  readonly buffer: Uint8Array | undefined
  readonly bufferLength: number
  readonly bytesHashed: number
}
export type DigestOutcome =
  | { readonly ok: true; readonly digest: string; readonly state: DigestState }
  | { readonly ok: false; readonly why: 'unreadable' | 'unavailable' | 'stopped' }

/** SHA-256 of a blob in the form of RFC 9530. */
export interface Digester {
  /** False if hashing runs on the page's own thread. Then only what is sent is hashed, and no copy is kept. */
  inBackground(): boolean
  digest(blob: Blob, options: { from?: DigestState | null; signal: AbortSignal }): Promise<DigestOutcome>
  close(): void
}

/** Time, randomness and the browser's events. */
export interface Clock {
  /** Monotonic, in milliseconds. All waiting uses it. */
  nowMs(): number
  /** Milliseconds since 1970, only to be shown and stored. */
  wallMs(): number
  random(): number
  online(): boolean
  /** Resolves after `ms`, or at once when `signal` ends. */
  sleep(ms: number, signal: AbortSignal): Promise<void>
  /**
   * Calls the listener when the network is back, or when the page is visible again or was woken. Returns a function
   * that stops it.
   */
  onWake(listener: () => void): () => void
  /**
   * Calls the listener when the window gets the focus: the user may have signed in in another window. Returns a
   * function that stops it.
   */
  onFocus(listener: () => void): () => void
  /** Calls `hidden` when the page is left (perhaps into the back/forward cache) and `shown` when it is back. */
  onPage(listener: { hidden: () => void; shown: () => void }): () => void
  /** Calls back before the next frame, or soon if there are no frames. */
  frame(callback: () => void): void
}

export interface Ports {
  /** The name that separates the records, locks and copies of users and endpoints. */
  readonly namespaceOf: (scope: string) => string
  readonly owner: Owner
  readonly journal: Journal
  readonly ledger: Ledger
  readonly transfer: Transfer
  readonly source: Source
  readonly exclusive: Exclusive
  readonly digester: Digester
  readonly clock: Clock
}
