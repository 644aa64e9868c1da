import {
  type FileFacts,
  isFinal,
  isReferenced,
  type JsonObject,
  type Operation,
  type Problem,
  type Reference,
} from '@landfall/shared'

/**
 * Where an operation stands, as far as this browser knows. Each point is a fact that is already true, with the data
 * that exists only at this point. What is happening *now* is separate (`Activity`) and is never stored.
 *
 * - `intended`: the user wants it and the journal has recorded it. Whether the server knows of it is not known.
 * - `declared`: the server has it, and has accepted `acceptedBytes`.
 * - `received`: every byte is durable on the server, which makes the reference without the client.
 * - `referenced`: there is exactly one reference. The record is kept until the application has acknowledged it.
 * - `failed`: a permanent refusal. The record is kept until it is acknowledged.
 * - `cancelled`: the user does not want it any more. The record is kept until the server has confirmed this.
 */
export type Standing =
  | { readonly point: 'intended' }
  | { readonly point: 'declared'; readonly acceptedBytes: number }
  | { readonly point: 'received' }
  | { readonly point: 'referenced'; readonly reference: Reference }
  | { readonly point: 'failed'; readonly problem: Problem }
  | { readonly point: 'cancelled' }
export type ClientPoint = Standing['point']
export type StandingAt<P extends ClientPoint> = Extract<Standing, { point: P }>

/**
 * Where each point may move. It moves to the left only when the server says so: the server has lost the operation or
 * bytes of it, or the cancellation came after the reference.
 */
const NEXT = {
  intended: ['declared', 'received', 'referenced', 'failed', 'cancelled'],
  declared: ['declared', 'received', 'referenced', 'failed', 'cancelled'],
  received: ['intended', 'declared', 'received', 'referenced', 'failed', 'cancelled'],
  referenced: [],
  failed: [],
  cancelled: ['received'],
} as const satisfies Record<ClientPoint, readonly ClientPoint[]>

/** One operation in the journal. */
export interface JournalRecord {
  /** The version of this layout. A record of another version is left alone. */
  readonly version: 1
  readonly id: string
  /** Endpoint and user in one name: see `namespaceOf`. */
  readonly scope: string
  /** Null if the server has only one kind. */
  readonly kind: string | null
  readonly file: FileFacts
  readonly metadata: JsonObject
  /** By the wall clock, in milliseconds since 1970. */
  readonly addedAtMs: number
  /** The user's wish. It remains after the tab is closed. */
  readonly paused: boolean
  /** SHA-256 of the file as picked, once it was computed here or recorded by the server. */
  readonly digest: string | null
  /** Only a copy that was read back completely and equals `digest` is ever sent. */
  readonly copy: 'none' | 'made' | 'verified'
  readonly standing: Standing
}

/**
 * A change of a record, applied to what is stored at that moment. `undefined` means that there is no record (any more).
 */
export type Change = (stored: JournalRecord | undefined) => JournalRecord | undefined

/** Moves a record by compare-and-set: only from the point at which the caller started, and only along `NEXT`. */
export const moved =
  (from: ClientPoint, to: Standing): Change =>
  (stored) =>
    stored === undefined || stored.standing.point !== from || !(NEXT[from] as readonly ClientPoint[]).includes(to.point)
      ? stored
      : { ...stored, standing: to }

/** Records facts that are true at any point. */
export const noted =
  (facts: Partial<Pick<JournalRecord, 'paused' | 'digest' | 'copy'>>): Change =>
  (stored) =>
    stored && { ...stored, ...facts }

/** The user's cancellation, from any point that is not an end. */
export const cancelled: Change = (stored) =>
  stored === undefined || isSettled(stored.standing) ? stored : { ...stored, standing: { point: 'cancelled' } }

/** Whether nothing will change any more, and only the application's acknowledgement is missing. */
export const isSettled = (standing: Standing): standing is StandingAt<'referenced' | 'failed'> =>
  standing.point === 'referenced' || standing.point === 'failed'

/** The bytes that the server has accepted, as far as this page knows. */
export const acceptedBytes = ({ standing, file }: JournalRecord): number =>
  standing.point === 'declared'
    ? standing.acceptedBytes
    : standing.point === 'received' || standing.point === 'referenced'
      ? file.size
      : 0

/** Translates the server's operation into a standing of the client. */
export function standingOf(operation: Operation): Standing {
  const { recoveryPoint, reference, problem, offset, file } = operation
  // The point comes from a newer server. The server works on it, and the client sends nothing for a point that it does
  // not know.
  if (recoveryPoint === 'unknown') return { point: 'received' }
  if (isReferenced(recoveryPoint) && reference !== null) return { point: 'referenced', reference }
  // The point says that there was a reference, but the reference is missing: it was removed before this browser knew of
  // it.
  if (problem !== null && (isFinal(recoveryPoint) || isReferenced(recoveryPoint))) return { point: 'failed', problem }
  return offset < file.size ? { point: 'declared', acceptedBytes: offset } : { point: 'received' }
}
