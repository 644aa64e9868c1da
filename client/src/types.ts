import type { FileFacts, JsonObject, KindTypes, Problem, Reference } from '@landfall/shared'
import type { ClientPoint } from './operation.js'
import type { Progress } from './progress.js'

/** What is happening with an upload now. This is separate from its point, and it is never stored. */
export type Activity =
  /** A request to the server is running, or bytes are being sent. */
  | { readonly state: 'running' }
  /**
   * - `turn`: other uploads use the connections.
   * - `network`: there was no answer. The next attempt is at `untilMs` (wall clock), or earlier when the network or the
   *   page is back.
   * - `server`: the server asked for time, or there was an answer that cannot come from the server itself.
   * - `authentication`: fresh credentials are needed. The event `unauthenticated` was sent.
   * - `other-owner`: another user is signed in. The event `unauthenticated` was sent. The upload resumes when the right
   *   user is signed in again.
   * - `another-tab`: another tab handles this upload. This tab takes over when the other one stops.
   */
  | {
      readonly state: 'waiting'
      readonly why: 'turn' | 'network' | 'server' | 'authentication' | 'other-owner' | 'another-tab'
      readonly untilMs: number | null
    }
  | { readonly state: 'paused' }
  /**
   * All bytes are accepted and durable, and the server is working on them. `stalled`: an operator of the server is
   * needed, and nothing is lost.
   */
  | { readonly state: 'finishing'; readonly stalled: boolean }
  /**
   * The upload waits for `provide(file)`.
   * - `source-missing`: the tab was closed, and there is no verified copy.
   * - `source-changed`: the provided file is not the one whose bytes were accepted, or it was edited since.
   * - `source-unreadable`: the file cannot be read now. It was changed on disk, moved, or access is forbidden. The
   *   upload resumes by itself when the same bytes can be read again.
   */
  | { readonly state: 'needs-file'; readonly why: 'source-missing' | 'source-changed' | 'source-unreadable' }
  /** The user has cancelled it, and the server has not confirmed this yet. */
  | { readonly state: 'cancelling' }
  /** Nothing is happening: the upload is settled, or the uploader is not started. */
  | { readonly state: 'idle' }

/** One upload at one moment. It is the same object until something changes. */
export interface UploadSnapshot<Name extends string = string, Metadata = JsonObject, Data = unknown> {
  readonly id: string
  /** Null if the kind was left out. */
  readonly kind: Name | null
  readonly metadata: Metadata
  readonly file: FileFacts
  /** What is already true. */
  readonly point: ClientPoint
  /** What is happening now. */
  readonly activity: Activity
  readonly progress: Progress
  /** The upload was read from the journal: an earlier page had begun it. */
  readonly recovered: boolean
  readonly reference: Reference<Data> | null
  /** The final refusal, or the reason for a stall or for a refusal that will be tried again. */
  readonly problem: Problem | null
}

export type Outcome<Data = unknown> =
  { readonly ok: true; readonly reference: Reference<Data> } | { readonly ok: false; readonly problem: Problem }

/** The upload of one file. It is the same object for as long as the uploader knows it. */
export interface Upload<Name extends string = string, Metadata = JsonObject, Data = unknown> {
  readonly id: string
  readonly kind: Name | null
  readonly file: FileFacts
  readonly metadata: Metadata
  /** Set once the server has the reference. */
  readonly reference: Reference<Data> | null
  /** Set once there is a final refusal. */
  readonly problem: Problem | null
  /** Stops sending, also after a reload. If all bytes have been received, the server continues its work. */
  pause(): void
  /** Resumes the upload. If it is waiting, the next attempt starts now. */
  resume(): void
  /**
   * Cancels the upload in this browser at once. Resolves when the journal has recorded the intention. The cancellation
   * is repeated until the server confirms it, also after a reload. If the reference was faster, the upload is a success
   * after all.
   */
  cancel(): Promise<void>
  /**
   * Provides a new pick of the file. No byte of it is sent before it is proven against what the server has accepted.
   */
  provide(file: Blob): void
  /**
   * Resolves when the outcome is certain: with the reference, or with the final problem (`cancelled` once the server
   * has confirmed it). It stays pending after `close()`.
   *
   * @throws the signal's reason when the signal ends first. `UploadError` `forgotten` when the scope was purged, or
   * when another tab has acknowledged the upload. Nothing else.
   */
  settled(options?: { signal?: AbortSignal }): Promise<Outcome<Data>>
  /**
   * Tells that the application has processed the outcome. The upload leaves the list and the journal, and is never
   * reported again. Does nothing before there is an outcome.
   */
  acknowledge(): Promise<void>
  snapshot(): UploadSnapshot<Name, Metadata, Data>
}

/** A feature is missing or has failed. Every upload continues, except where it says otherwise. */
export interface Warning {
  /**
   * - `journal-in-memory`: IndexedDB cannot be written, or a newer version of the page has taken over its contents. If
   *   the tab is closed, unfinished uploads are lost.
   * - `no-locks`: there are no Web Locks. Two tabs may disturb each other (the server still takes every byte only
   *   once).
   * - `no-worker`: the script at `workerUrl` did not start or stopped answering. Digests run on the page's own thread,
   *   and no copies are made.
   * - `no-copy`: a file could not be copied. After the tab was closed, the user has to pick it again.
   * - `no-owner`: answers come without the header `Landfall-Owner` (from an older server, through a proxy, or because
   *   CORS does not expose it). The client cannot know whose account they are about, so it sends nothing. All uploads
   *   wait until answers carry the header.
   * - `handler-failed`: a handler of an event threw.
   */
  readonly code: 'journal-in-memory' | 'no-locks' | 'no-worker' | 'no-copy' | 'no-owner' | 'handler-failed'
  readonly cause?: unknown
}

/** Why nothing is sent: no user is signed in, or another one. Nothing is lost in either case. */
export interface Unauthenticated {
  /**
   * - `credentials`: the server asks for credentials, and fresh ones from `headers` were refused.
   * - `other-owner`: another user is signed in than the one for whom these uploads were begun. All of them are kept,
   *   and resume when that user is signed in again. The client checks this when the page becomes visible or gets the
   *   focus, at `start()`, and from time to time.
   */
  readonly reason: 'credentials' | 'other-owner'
}

/**
 * - `closed`: `add` was called after `close()`.
 * - `forgotten`: the record does not exist any more. The scope was purged, or another tab acknowledged the upload.
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

/** What the handlers get. They may be asynchronous, and their return value is not used. */
export interface UploaderEvents<K extends Kinds> {
  /**
   * The server has the reference. Each new page reports it again until `upload.acknowledge()`: at least once, under the
   * same id. If a handler throws, the outcome is not acknowledged.
   */
  referenced: (upload: Referenced<UploadOf<K>>) => unknown
  /** A final refusal, with `upload.problem`. Each new page reports it again until `upload.acknowledge()`. */
  failed: (upload: Failed<UploadOf<K>>) => unknown
  warning: (warning: Warning) => unknown
  /** The right user is not signed in (any more). Sent once each time that happens. */
  unauthenticated: (why: Unauthenticated) => unknown
}

export interface UploaderSnapshot<K extends Kinds> {
  /** In the order in which they were added. */
  readonly uploads: readonly SnapshotOf<K>[]
  /** The journal was read, and the list contains the uploads of earlier pages. */
  readonly recovered: boolean
  /** What is missing or has failed so far: the first warning of each code, the oldest first. */
  readonly warnings: readonly Warning[]
}

/** The list of uploads of one user in one page. */
export interface Uploader<K extends Kinds = Kinds> {
  /**
   * Takes a file. It is in the list at once, and in the journal before a byte is sent. Starts the uploader if it was
   * never started. `kind` may be left out if the server has only one kind.
   *
   * @throws UploadError `closed` after `close()`. Then nothing was kept or sent.
   */
  add: Add<K>
  /** The upload with that id, or null if there is none (any more). */
  get(id: string): UploadOf<K> | null
  /**
   * Registers a handler, and returns a function that removes it. A handler that is added late is called for each
   * outcome that was not acknowledged yet, and for the first warning of each code.
   */
  on<E extends keyof UploaderEvents<K>>(event: E, handler: UploaderEvents<K>[E]): () => void
  /**
   * Calls the listener after the snapshot changed, at most once per frame. Returns a function that removes the
   * listener.
   */
  subscribe(listener: () => void): () => void
  /** Everything at this moment. It is the identical object until something changes. */
  snapshot(): UploaderSnapshot<K>
  /**
   * Resumes the uploads of earlier pages. Resolves when the journal was read; the uploads continue by themselves. May
   * be called repeatedly, also after `close()`. If it is called while the uploader runs, every waiting upload makes its
   * next attempt now.
   */
  start(): Promise<void>
  /** Stops all requests at once and keeps the journal. Resolves when the locks are released. */
  close(): Promise<void>
  /**
   * Removes a user's records, copies and owner tag from this browser (default: those of this scope), for signing out.
   * It cancels no upload.
   */
  purge(scope?: string): Promise<void>
}

export interface UploaderOptions {
  /** Where the server's routes are mounted: `/uploads`, or a whole URL. */
  endpoint: string
  /**
   * The signed-in user, as an opaque text. Together with the endpoint, it separates the records, locks and copies of
   * users.
   */
  scope: string
  /**
   * The result of `uploads.ownerTag(user)` on the server, for applications that render the page themselves. Uploads of
   * this scope are then sent only to that user's account, from the first one on. Default: the owner that the server
   * names first.
   */
  ownerTag?: string
  /**
   * Where `@landfall/client/worker` is served. Without it, digests run on the page's own thread, and no copy is kept.
   */
  workerUrl?: string | URL
  /** Credentials in addition to cookies. The function is called again after each 401. */
  headers?: () => HeadersInit | Promise<HeadersInit>
  /** Default `same-origin`. */
  credentials?: 'same-origin' | 'include'
  /** How many uploads send at the same time. Default 3: a browser has six connections to an HTTP/1.1 server. */
  concurrency?: number
  /**
   * The limit of all copies together. They allow an upload to continue after its tab was closed. Default: the lesser of
   * 1 GiB and a fifth of the free quota.
   */
  copy?: { maxBytes: number } | false
}
