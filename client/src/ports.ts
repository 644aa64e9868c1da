import type { Consequence, DeclareRequest, Operation, Prefix, Problem } from '@landfall/shared'
import type { Change, JournalRecord } from './operation.js'

/** Where the records live. Only faults throw. */
export interface Journal {
  load(scope: string): Promise<JournalRecord[]>
  /**
   * Reads, changes and writes one record in a single transaction, so that two tabs never overwrite each other's facts.
   * Resolves with what is stored now, durable against a killed browser; `undefined` removes it, and the journal remembers
   * that: a removed record is not written again, whatever a slow or a frozen tab still wants to change in it.
   *
   * @param known What the caller has last seen of it. A record that is missing although nobody has removed it, because
   *   the browser deleted the site's data, is written again from it.
   */
  update(scope: string, id: string, change: Change, known?: JournalRecord): Promise<JournalRecord | undefined>
  /** Removes all records of a scope, in every tab. */
  purge(scope: string): Promise<void>
  /**
   * The owner tag that is pinned for a scope, after `change` in the same transaction: of two tabs that pin at once, both
   * hear of one tag. Goes with `purge`.
   */
  owner(scope: string, change: (pinned: string | null) => string | null): Promise<string | null>
  /** Takes over what an earlier version has kept by another name. */
  adopt(from: string, to: string): Promise<void>
}

/** A "no" of the server, or no answer at all. `problem` only where it is one of ours, `status` null without an answer. */
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

/** The server's operations. Nothing throws: an aborted request answers like a lost one. */
export interface Ledger {
  /** Declares or continues; safe to repeat any number of times. */
  put(id: string, request: DeclareRequest, signal: AbortSignal): Promise<Answer<Operation>>
  /**
   * Waits up to `waitSeconds` for something to differ from `etag`; then `operations` is null. `unreadable`: ids of such as
   * a newer server has written otherwise; they are there.
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
  /** How long the last chunk took, for the stall watchdog; 0 when there was none. */
  readonly lastChunkMs: number
  /** Called when bytes were handed to the network; says nothing about what was accepted. */
  readonly onSent: () => void
}
export type ChunkOutcome =
  | { readonly kind: 'accepted'; readonly offsetBytes: number }
  | { readonly kind: 'refused'; readonly refusal: Refusal }
  /** No answer: the connection broke, nothing moved any more, or the source could not be read. */
  | { readonly kind: 'broken' }
  | { readonly kind: 'stopped' }

/** Sends bytes. `accepted` says durable, never "there is a reference". */
export interface Transfer {
  send(chunk: Chunk, signal: AbortSignal): Promise<ChunkOutcome>
}

/** Where a file's bytes come from after its tab was closed. Only faults throw. */
export interface Source {
  /** Makes a copy if all copies together stay within the budget. False: there is no room; null: nobody wants copies. */
  keep(scope: string, id: string, file: Blob): Promise<boolean | null>
  read(scope: string, id: string): Promise<Blob | null>
  drop(scope: string, id: string): Promise<void>
  /** Drops what is too old, and in this scope what no record asks for, unless it is fresh. */
  sweep(scope: string, wanted: ReadonlySet<string>): Promise<void>
  purge(scope: string): Promise<void>
}

/** Whose uploads these are: the tag that goes with every request, and that every answer must carry to be believed. */
export interface Owner {
  /**
   * The pinned tag. Where none is yet, the server is asked first, once for all who wait. A refusal: nothing may be sent
   * now, because the server has not said whose uploads they would be, or because somebody else is signed in.
   */
  read(signal: AbortSignal): Promise<Answer<string>>
  /**
   * Of the answer to a request with the tag `sent`: null where it is a success that may be believed, else what it means.
   * Another tag stops everything. Without any, nobody knows whose word it is: it passes, like a proxy's.
   */
  judge(sent: string, answer: { said: string | null; status: number; refusal: Refusal | null }): Refusal | null
  /** Nothing is sent, because an answer was about somebody else. */
  isOther(): boolean
  /** Pins the tag, and looks again after somebody else, until `signal` ends. */
  keep(signal: AbortSignal): void
  /** Looks now, if it waits to look for somebody else's going. */
  hurry(): void
  /** Calls when the right user is back. */
  onBack(listener: () => void): void
  /** The scope was purged: the tag must be pinned anew before anything is sent. */
  forget(): void
}

export interface Hold {
  /** Ends when somebody took the lock away. */
  readonly lost: AbortSignal
  release(): void
}

/** One owner per operation across tabs. */
export interface Exclusive {
  /** Resolves when the lock is ours, null when `signal` ended before. `onElsewhere`: another one has it; still waiting. */
  hold(name: string, onElsewhere: () => void, signal: AbortSignal): Promise<Hold | null>
}

/** A hash under way, to be continued behind the bytes that it has seen. */
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
  /** False: it costs the page's own thread; then nothing is hashed but what is sent, and no copy is kept. */
  inBackground(): boolean
  digest(blob: Blob, options: { from?: DigestState | null; signal: AbortSignal }): Promise<DigestOutcome>
  close(): void
}

/** Time, randomness and the browser's signs of life. */
export interface Clock {
  /** Monotonic, milliseconds; for all waiting. */
  nowMs(): number
  /** Milliseconds since 1970; only to show and to store. */
  wallMs(): number
  random(): number
  online(): boolean
  /** Resolves after `ms`, or at once when `signal` ends. */
  sleep(ms: number, signal: AbortSignal): Promise<void>
  /** Calls when the network is back, the page is seen again or was woken. Returns the way to stop. */
  onWake(listener: () => void): () => void
  /** Calls when the window gets the focus: somebody may have signed in in another one. Returns the way to stop. */
  onFocus(listener: () => void): () => void
  /** Calls when the page goes (perhaps into the back/forward cache) and when it is back. */
  onPage(listener: { hidden: () => void; shown: () => void }): () => void
  /** Before the next frame, or soon where there are none. */
  frame(callback: () => void): void
}

export interface Ports {
  /** The name by which records, locks and copies of a user at this endpoint are kept apart. */
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
