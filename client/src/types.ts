import type { FileFacts, JsonObject, KindTypes, Problem, Reference } from '@landfall/shared'
import type { ClientPoint } from './operation.js'
import type { Progress } from './progress.js'

/** What is happening now with an upload; the other axis, beside the point. Never stored. */
export type Activity =
  /** Talking to the server, or bytes are on their way. */
  | { readonly state: 'running' }
  /**
   * - `turn`: other uploads have the connections.
   * - `network`: no answer; tried again at `untilMs` (wall clock) or when there are signs of life.
   * - `server`: it asked for time, or answered what cannot be its own word.
   * - `authentication`: fresh credentials are needed; the event `unauthenticated` was told.
   * - `other-owner`: somebody else is signed in; the event `unauthenticated` was told. Goes on when the right user is back.
   * - `another-tab`: that one is at it; taken over when it goes.
   */
  | {
      readonly state: 'waiting'
      readonly why: 'turn' | 'network' | 'server' | 'authentication' | 'other-owner' | 'another-tab'
      readonly untilMs: number | null
    }
  | { readonly state: 'paused' }
  /** All bytes are accepted and durable; the server is at it. `stalled`: it needs its operator; nothing is lost. */
  | { readonly state: 'finishing'; readonly stalled: boolean }
  /**
   * `provide(file)` is awaited.
   * - `source-missing`: the tab was closed, and there is no verified copy.
   * - `source-changed`: what was provided is not the file whose bytes were accepted, or was edited since.
   * - `source-unreadable`: the file cannot be read now: changed on disk, moved, or forbidden. It goes on by itself when
   *   the same bytes can be read again.
   */
  | { readonly state: 'needs-file'; readonly why: 'source-missing' | 'source-changed' | 'source-unreadable' }
  /** Cancelled here; the server's confirmation is awaited. */
  | { readonly state: 'cancelling' }
  /** Nothing: settled, or the uploader is not started. */
  | { readonly state: 'idle' }

/** One upload at one moment. The same object until something changed. */
export interface UploadSnapshot<Name extends string = string, Metadata = JsonObject, Data = unknown> {
  readonly id: string
  /** Null where it was left out. */
  readonly kind: Name | null
  readonly metadata: Metadata
  readonly file: FileFacts
  /** What is true. */
  readonly point: ClientPoint
  /** What is happening. */
  readonly activity: Activity
  readonly progress: Progress
  /** It came out of the journal: an earlier page had begun it. */
  readonly recovered: boolean
  readonly reference: Reference<Data> | null
  /** The final no; or what a stall, or a refusal that will be tried again, was about. */
  readonly problem: Problem | null
}

export type Outcome<Data = unknown> =
  { readonly ok: true; readonly reference: Reference<Data> } | { readonly ok: false; readonly problem: Problem }

/** One file on its way; the same object for as long as the uploader knows it. */
export interface Upload<Name extends string = string, Metadata = JsonObject, Data = unknown> {
  readonly id: string
  readonly kind: Name | null
  readonly file: FileFacts
  readonly metadata: Metadata
  /** Set once the server holds the reference. */
  readonly reference: Reference<Data> | null
  /** Set once there is a final no. */
  readonly problem: Problem | null
  /** Stops sending, also beyond a reload. What the server has to do with bytes that are all there goes on. */
  pause(): void
  /** Goes on, and ends a wait: the next attempt is made now. */
  resume(): void
  /**
   * Cancels here at once; resolves when the journal has the intention. It is repeated to the server until that confirms
   * it, beyond a reload too. If the reference was faster, the upload is a success after all.
   */
  cancel(): Promise<void>
  /** A new pick of the file. Not a byte of it is sent before it is proven against what the server accepted. */
  provide(file: Blob): void
  /**
   * Resolves when it is certain: with the reference, or with the final problem (`cancelled` once the server confirmed).
   * Stays pending over `close()`.
   *
   * @throws the signal's reason when it ends first; `UploadError` `forgotten` when the scope was purged, or another tab
   * has acknowledged it. Nothing else.
   */
  settled(options?: { signal?: AbortSignal }): Promise<Outcome<Data>>
  /**
   * The application has taken the outcome over: the upload leaves the list and the journal, and is never told again.
   * Does nothing before there is an outcome.
   */
  acknowledge(): Promise<void>
  snapshot(): UploadSnapshot<Name, Metadata, Data>
}

/** Something is missing or broke; every upload goes on all the same, except where it says otherwise. */
export interface Warning {
  /**
   * - `journal-in-memory`: IndexedDB cannot be written, or a newer version of the page has taken over what it holds; a
   *   closed tab loses what is not finished.
   * - `no-locks`: no Web Locks; two tabs may get in each other's way (the server still takes every byte once).
   * - `no-worker`: `workerUrl` did not start or fell silent; digests cost the page's own thread, and no copies are made.
   * - `no-copy`: a file could not be copied; after a closed tab it has to be picked again.
   * - `no-owner`: answers come without the header `Landfall-Owner` (an older server, or a proxy, or CORS that does not expose
   *   it). Nobody can tell whose account they are about, so nothing is sent; all uploads wait until they carry it.
   * - `handler-failed`: a handler of an event threw.
   */
  readonly code: 'journal-in-memory' | 'no-locks' | 'no-worker' | 'no-copy' | 'no-owner' | 'handler-failed'
  readonly cause?: unknown
}

/** Why nothing is sent: whoever is signed in is nobody, or somebody else. Nothing is lost by either. */
export interface Unauthenticated {
  /**
   * - `credentials`: the server wants some, and fresh ones of `headers` did not do.
   * - `other-owner`: another user is signed in than the one for whom these uploads were begun. All of them are kept, and go
   *   on when that one is back: looked for when the page is seen or gets the focus, at `start()`, and now and then.
   */
  readonly reason: 'credentials' | 'other-owner'
}

/**
 * - `closed`: `add` after `close()`.
 * - `forgotten`: the record is gone: purged, or acknowledged in another tab.
 */
export type UploadErrorCode = 'closed' | 'forgotten'
export interface UploadError extends Error {
  readonly name: 'UploadError'
  readonly code: UploadErrorCode
}

type Kinds = Record<string, KindTypes>
type NameOf<K> = keyof K & string
export type UploadOf<K extends Kinds, N extends NameOf<K> = NameOf<K>> =
  N extends NameOf<K> ? Upload<N, K[N]['metadata'], K[N]['data']> : never
export type SnapshotOf<K extends Kinds, N extends NameOf<K> = NameOf<K>> =
  N extends NameOf<K> ? UploadSnapshot<N, K[N]['metadata'], K[N]['data']> : never
type Referenced<U> = U extends Upload<string, unknown, infer Data> ? U & { readonly reference: Reference<Data> } : never
type Failed<U> = U extends Upload<string, unknown> ? U & { readonly problem: Problem } : never

// oxlint-disable-next-line typescript/no-generated-empty-object-type -- the question is what an empty object may be
type Empty = Record<never, never>
type MetadataOption<Metadata> = Empty extends Metadata
  ? { readonly metadata?: Metadata }
  : { readonly metadata: Metadata }
type IsUnion<T, U = T> = T extends U ? ([U] extends [T] ? false : true) : never
type OptionsOf<K extends Kinds, N extends NameOf<K>> = { readonly kind: N } & MetadataOption<K[N]['metadata']>
type SingleOptions<K extends Kinds> = { readonly kind?: NameOf<K> } & MetadataOption<K[NameOf<K>]['metadata']>
type Add<K extends Kinds> =
  IsUnion<NameOf<K>> extends true
    ? <N extends NameOf<K>>(file: File, options: OptionsOf<K, N>) => UploadOf<K, N>
    : Empty extends SingleOptions<K>
      ? (file: File, options?: SingleOptions<K>) => UploadOf<K>
      : (file: File, options: SingleOptions<K>) => UploadOf<K>

/** What the handlers get; they may be asynchronous, and what they return is not used. */
export interface UploaderEvents<K extends Kinds> {
  /**
   * The server holds the reference. Told again on each new page until `upload.acknowledge()`: at least once, under one
   * id. A handler that throws has not acknowledged.
   */
  referenced: (upload: Referenced<UploadOf<K>>) => unknown
  /** A final no, with `upload.problem`. Told again on each new page until `upload.acknowledge()`. */
  failed: (upload: Failed<UploadOf<K>>) => unknown
  warning: (warning: Warning) => unknown
  /** The right user is not signed in (any more). Once for each time. */
  unauthenticated: (why: Unauthenticated) => unknown
}

export interface UploaderSnapshot<K extends Kinds> {
  /** In the order in which they were added. */
  readonly uploads: readonly SnapshotOf<K>[]
  /** The journal was read: what an earlier page left behind is in the list. */
  readonly recovered: boolean
  /** What is missing or broke so far: the first warning of each code, the oldest first. */
  readonly warnings: readonly Warning[]
}

/** The list of uploads of one user in one page. */
export interface Uploader<K extends Kinds = Kinds> {
  /**
   * Takes a file: it is in the list at once, and in the journal before a byte leaves. Starts the uploader if it never was.
   * `kind` may be left out where the server has one kind.
   *
   * @throws UploadError `closed` after `close()`; nothing was kept or sent.
   */
  add: Add<K>
  /** The upload of that id, or null when there is none (any more). */
  get(id: string): UploadOf<K> | null
  /**
   * Calls the handler; returns the way to stop. A late handler is told what was not acknowledged yet, and the first
   * warning of each code.
   */
  on<E extends keyof UploaderEvents<K>>(event: E, handler: UploaderEvents<K>[E]): () => void
  /** Calls the listener when the snapshot changed, at most once a frame. Returns the way to stop. */
  subscribe(listener: () => void): () => void
  /** Everything at this moment; the identical object until something changed. */
  snapshot(): UploaderSnapshot<K>
  /**
   * Goes on where the last page stopped. Resolves when the journal was read; the uploads go on by themselves.
   * Idempotent, and goes on again after `close()`; called while it runs, it ends all waiting for a next attempt.
   */
  start(): Promise<void>
  /** Stops all requests at once and keeps the journal. Resolves when the locks are free. */
  close(): Promise<void>
  /** Forgets a user's records, copies and owner tag in this browser (default: this scope), on signing out. Cancels nothing. */
  purge(scope?: string): Promise<void>
}

export interface UploaderOptions {
  /** Where the server's routes are mounted: `/uploads`, or a whole URL. */
  endpoint: string
  /** The signed-in user, opaque: records, locks and copies are kept apart by it and the endpoint. */
  scope: string
  /**
   * What `uploads.ownerTag(user)` answers on the server, for applications that render the page themselves: uploads of this
   * scope are then only ever sent to that user's account, from the first one on. Default: what the server says first.
   */
  ownerTag?: string
  /** Where `@landfall/client/worker` is served. Without it digests cost the page's own thread, and no copy is kept. */
  workerUrl?: string | URL
  /** Credentials beside cookies; asked again after each 401. */
  headers?: () => HeadersInit | Promise<HeadersInit>
  /** Default `same-origin`. */
  credentials?: 'same-origin' | 'include'
  /** How many uploads send at the same time. Default 3: a browser has six connections to an HTTP/1.1 server. */
  concurrency?: number
  /** Copies for after a closed tab, all together. Default the lesser of 1 GiB and a fifth of the free quota. */
  copy?: { maxBytes: number } | false
}
