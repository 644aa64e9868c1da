import * as v from 'valibot'

/**
 * What a problem means for the client's next move:
 *
 * - `final`: this operation will never become a reference; the same answer for ever.
 * - `retry`: a fault that passes, or a wait; nothing is lost.
 * - `authenticate`: fresh credentials, then again.
 * - `declare`: the server does not know the operation (any more); declare it again.
 */
export type Consequence = 'final' | 'retry' | 'authenticate' | 'declare'

interface ProblemEntry {
  readonly status: number
  readonly title: string
  readonly consequence: Consequence
}

/**
 * Every "no" of the wire and its meaning (RFC 9457). The key is the last part of the problem's `type` and its `code`.
 *
 * An application's own `reject(code)` has the type `rejected` and the application's code.
 */
export const PROBLEMS = {
  'invalid-request': { status: 400, title: 'The request is not of the expected form', consequence: 'final' },
  'invalid-operation-id': { status: 400, title: 'An operation id is a UUID', consequence: 'final' },
  unauthenticated: { status: 401, title: 'Sign in first', consequence: 'authenticate' },
  forbidden: { status: 403, title: 'You may not upload this here', consequence: 'final' },
  'cross-site': { status: 403, title: 'Requests from other sites are not accepted', consequence: 'final' },
  'not-found': { status: 404, title: 'No such operation', consequence: 'declare' },
  'digest-conflict': { status: 409, title: 'Another digest was recorded before', consequence: 'final' },
  'offset-conflict': { status: 409, title: 'Upload-Offset is not the acknowledged offset', consequence: 'retry' },
  'already-referenced': { status: 409, title: 'The file is stored already', consequence: 'retry' },
  cancelled: { status: 410, title: 'The upload was cancelled', consequence: 'final' },
  expired: { status: 410, title: 'The upload was abandoned and has expired', consequence: 'final' },
  removed: { status: 410, title: 'The stored file was removed', consequence: 'final' },
  'too-large': { status: 413, title: 'The file is too large', consequence: 'final' },
  'metadata-too-large': { status: 413, title: 'The metadata is too large', consequence: 'final' },
  'type-not-accepted': { status: 415, title: 'Files of this type are not accepted', consequence: 'final' },
  'range-not-satisfiable': { status: 416, title: 'The range lies outside the file', consequence: 'retry' },
  'unknown-kind': { status: 422, title: 'No such kind of upload', consequence: 'final' },
  'invalid-metadata': { status: 422, title: 'The metadata does not fit the kind', consequence: 'final' },
  'operation-mismatch': { status: 422, title: 'This id belongs to another file', consequence: 'final' },
  'digest-mismatch': { status: 422, title: 'The stored bytes are not those of the file', consequence: 'final' },
  'bytes-lost': { status: 422, title: 'Stored bytes were lost; upload the file again', consequence: 'final' },
  'not-acceptable': { status: 422, title: 'The content is not of an accepted type', consequence: 'final' },
  rejected: { status: 422, title: 'The application did not accept the file', consequence: 'final' },
  locked: { status: 423, title: 'Another request is using this upload', consequence: 'retry' },
  'too-many-open': { status: 429, title: 'Too many unfinished uploads', consequence: 'retry' },
  internal: { status: 500, title: 'Something went wrong on the server', consequence: 'retry' },
  'not-offered': { status: 501, title: 'This tus extension is not offered', consequence: 'final' },
  stalled: { status: 503, title: 'The upload needs an operator; nothing is lost', consequence: 'retry' },
  unavailable: { status: 503, title: 'Storage is away for a moment', consequence: 'retry' },
  'storage-full': { status: 507, title: 'The storage is full', consequence: 'retry' },
} as const satisfies Record<string, ProblemEntry>

export type ProblemCode = keyof typeof PROBLEMS

const TYPE_PREFIX = 'urn:landfall:problem:'

/** `type` as it stands on the wire. A URN, because it names a meaning and no page. */
export const problemType = (code: ProblemCode): string => TYPE_PREFIX + code

export const PROBLEM_MEDIA_TYPE = 'application/problem+json'

/** RFC 9457 section 3, with two members of ours. */
export const problemSchema = v.object({
  type: v.string(),
  title: v.string(),
  status: v.pipe(v.number(), v.safeInteger()),
  detail: v.optional(v.string()),
  /** The last part of `type`; for `rejected` the application's own code. */
  code: v.string(),
  /** How long to wait, in seconds; the same as the header `Retry-After`. */
  retryAfterSeconds: v.optional(v.pipe(v.number(), v.minValue(0))),
})
export type Problem = v.InferOutput<typeof problemSchema>

/** Makes a problem of the wire. `code` only where the application has one of its own. */
export function problem(
  of: ProblemCode,
  extra: { detail?: string; code?: string; retryAfterSeconds?: number } = {},
): Problem {
  const { status, title } = PROBLEMS[of]
  return {
    type: problemType(of),
    title,
    status,
    code: extra.code ?? of,
    ...(extra.detail === undefined ? {} : { detail: extra.detail }),
    ...(extra.retryAfterSeconds === undefined ? {} : { retryAfterSeconds: extra.retryAfterSeconds }),
  }
}

/** Which problem of ours this is, or null: anybody's proxy can answer 404. */
export function problemCode(candidate: Problem): ProblemCode | null {
  if (!candidate.type.startsWith(TYPE_PREFIX)) return null
  const code = candidate.type.slice(TYPE_PREFIX.length)
  return Object.hasOwn(PROBLEMS, code) ? (code as ProblemCode) : null
}

/** What a problem asks of the client; `retry` for whatever is not ours. */
export function consequenceOf(candidate: Problem): Consequence {
  const code = problemCode(candidate)
  return code === null ? 'retry' : PROBLEMS[code].consequence
}
