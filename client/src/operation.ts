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
 * Where an operation stands, as far as this browser knows: facts that are already true, each with what is true only
 * there. What is happening *now* is another axis (`Activity`) and is never stored.
 *
 * - `intended`: the user wants it and the journal says so; whether the server has heard of it is not known.
 * - `declared`: the server has it, and has accepted `acceptedBytes`.
 * - `received`: every byte is durable on the server, which brings it to the reference without us.
 * - `referenced`: exactly one reference; kept until the application acknowledged it.
 * - `failed`: a final no, the same for ever; kept until acknowledged.
 * - `cancelled`: the user does not want it any more; kept until the server has confirmed.
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
 * Where each point may go. To the left only on the server's own word: it has lost the operation, or bytes of it; or
 * the cancellation came after the reference.
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
  /** Of this layout; a record of another one is left alone. */
  readonly version: 1
  readonly id: string
  /** Endpoint and user, by one name: see `namespaceOf`. */
  readonly scope: string
  /** Null where the server has one kind. */
  readonly kind: string | null
  readonly file: FileFacts
  readonly metadata: JsonObject
  /** By the wall clock, milliseconds since 1970. */
  readonly addedAtMs: number
  /** The user's wish, which outlives the tab. */
  readonly paused: boolean
  /** SHA-256 of the file as picked, once it was computed here or recorded by the server. */
  readonly digest: string | null
  /** Only a copy that was read back whole and equals `digest` is ever sent. */
  readonly copy: 'none' | 'made' | 'verified'
  readonly standing: Standing
}

/** A change of a record, applied to whatever is stored at that moment; `undefined` is "there is none (any more)". */
export type Change = (stored: JournalRecord | undefined) => JournalRecord | undefined

/** Moves a record by compare-and-set: only from the point that the mover started at, and only where an arrow leads. */
export const moved =
  (from: ClientPoint, to: Standing): Change =>
  (stored) =>
    stored === undefined || stored.standing.point !== from || !(NEXT[from] as readonly ClientPoint[]).includes(to.point)
      ? stored
      : { ...stored, standing: to }

/** Notes facts that are true at any point. */
export const noted =
  (facts: Partial<Pick<JournalRecord, 'paused' | 'digest' | 'copy'>>): Change =>
  (stored) =>
    stored && { ...stored, ...facts }

/** The user's cancellation, from any point that is not an end. */
export const cancelled: Change = (stored) =>
  stored === undefined || isSettled(stored.standing) ? stored : { ...stored, standing: { point: 'cancelled' } }

/** Nothing will change any more: only the application's acknowledgement is awaited. */
export const isSettled = (standing: Standing): standing is StandingAt<'referenced' | 'failed'> =>
  standing.point === 'referenced' || standing.point === 'failed'

/** Bytes accepted by the server, as far as known here. */
export const acceptedBytes = ({ standing, file }: JournalRecord): number =>
  standing.point === 'declared'
    ? standing.acceptedBytes
    : standing.point === 'received' || standing.point === 'referenced'
      ? file.size
      : 0

/** What the server's operation says, as a standing of ours. */
export function standingOf(operation: Operation): Standing {
  const { recoveryPoint, reference, problem, offset, file } = operation
  // Of a newer server: it is at it, and nothing is sent for what nobody here understands.
  if (recoveryPoint === 'unknown') return { point: 'received' }
  if (isReferenced(recoveryPoint) && reference !== null) return { point: 'referenced', reference }
  // A reference without itself was removed again, before this browser heard of it.
  if (problem !== null && (isFinal(recoveryPoint) || isReferenced(recoveryPoint))) return { point: 'failed', problem }
  return offset < file.size ? { point: 'declared', acceptedBytes: offset } : { point: 'received' }
}
