import * as v from 'valibot'

/**
 * What a problem means for the client's next action:
 *
 * - `final`: this operation will never become a reference. The answer stays the same permanently.
 * - `retry`: a fault that passes, or a wait. Nothing is lost.
 * - `authenticate`: get fresh credentials, then repeat.
 * - `declare`: the server does not know the operation (any more). Declare it again.
 */
export type Consequence = 'final' | 'retry' | 'authenticate' | 'declare'

/**
 * Every refusal of the wire, and what it asks of the client. The key is the last part of the problem's `type` and its
 * `code`.
 *
 * An application's own `reject(code)` has the type `rejected` and the application's code.
 */
const CONSEQUENCES = {
  'invalid-request': 'final',
  'invalid-operation-id': 'final',
  unauthenticated: 'authenticate',
  forbidden: 'final',
  'cross-site': 'final',
  'not-executable': 'final',
  'not-found': 'declare',
  'digest-conflict': 'final',
  'offset-conflict': 'retry',
  'already-referenced': 'retry',
  cancelled: 'final',
  expired: 'final',
  removed: 'final',
  'precondition-failed': 'final',
  'other-owner': 'authenticate',
  'too-large': 'final',
  'quota-exceeded': 'final',
  'metadata-too-large': 'final',
  'type-not-accepted': 'final',
  'range-not-satisfiable': 'retry',
  'unknown-kind': 'final',
  'invalid-metadata': 'final',
  'operation-mismatch': 'final',
  'digest-mismatch': 'final',
  'bytes-lost': 'final',
  'not-acceptable': 'final',
  rejected: 'final',
  locked: 'retry',
  'owner-required': 'retry',
  'too-many-open': 'retry',
  'too-many-declared': 'retry',
  'too-many-waiting': 'retry',
  'too-slow': 'retry',
  'head-too-large': 'retry',
  internal: 'retry',
  'not-offered': 'final',
  stalled: 'retry',
  unavailable: 'retry',
  'storage-full': 'retry',
} as const satisfies Record<string, Consequence>

export type ProblemCode = keyof typeof CONSEQUENCES

const TYPE_PREFIX = 'urn:landfall:problem:'

/** The `type` as it is on the wire. It is a URN, because it names a meaning and not a page. */
export const problemType = (code: ProblemCode): string => TYPE_PREFIX + code

export const PROBLEM_MEDIA_TYPE = 'application/problem+json'

/** A client also reports it by itself, if an upload was cancelled before the server knew of it. */
export const CANCELLED = {
  type: problemType('cancelled'),
  title: 'The upload was cancelled',
  status: 410,
  code: 'cancelled',
} as const

/** A client also reports it by itself, if an answer shows that another user is signed in. */
export const OTHER_OWNER = {
  type: problemType('other-owner'),
  title: 'Another user is signed in, so nothing was changed',
  status: 412,
  code: 'other-owner',
} as const

interface ProblemEntry {
  readonly status: number
  readonly title: string
}

/**
 * The status and the meaning of each problem (RFC 9457). They are separate from the consequences, because only a server
 * needs them: a client's bundle does not contain these texts.
 */
export const PROBLEMS: Readonly<Record<ProblemCode, ProblemEntry>> = {
  'invalid-request': { status: 400, title: 'The request is not of the expected form' },
  'invalid-operation-id': { status: 400, title: 'An operation id is a UUID' },
  unauthenticated: { status: 401, title: 'Sign in first' },
  forbidden: { status: 403, title: 'You may not upload this here' },
  'cross-site': { status: 403, title: 'Requests from other sites are not accepted' },
  'not-executable': { status: 403, title: 'Stored files are not served as scripts, styles or workers' },
  'not-found': { status: 404, title: 'No such operation' },
  'digest-conflict': { status: 409, title: 'Another digest was recorded before' },
  'offset-conflict': { status: 409, title: 'Upload-Offset is not the acknowledged offset' },
  'already-referenced': { status: 409, title: 'The file is stored already' },
  cancelled: CANCELLED,
  expired: { status: 410, title: 'The upload was abandoned and has expired' },
  removed: { status: 410, title: 'The stored file was removed' },
  'precondition-failed': { status: 412, title: 'The file is not the one that the request expects' },
  'other-owner': OTHER_OWNER,
  'too-large': { status: 413, title: 'The file is too large' },
  'quota-exceeded': { status: 413, title: 'The storage quota does not suffice for this file' },
  'metadata-too-large': { status: 413, title: 'The metadata is too large' },
  'type-not-accepted': { status: 415, title: 'Files of this type are not accepted' },
  'range-not-satisfiable': { status: 416, title: 'The range is outside the file' },
  'unknown-kind': { status: 422, title: 'No such kind of upload' },
  'invalid-metadata': { status: 422, title: 'The metadata does not fit the kind' },
  'operation-mismatch': { status: 422, title: 'This id belongs to another file' },
  'digest-mismatch': { status: 422, title: 'The stored bytes are not those of the file' },
  'bytes-lost': { status: 422, title: 'Stored bytes were lost; upload the file again' },
  'not-acceptable': { status: 422, title: 'The content is not of an accepted type' },
  rejected: { status: 422, title: 'The application did not accept the file' },
  locked: { status: 423, title: 'Another request is using this upload' },
  'owner-required': { status: 428, title: 'The owner tag is missing. GET /operations?open returns it' },
  'too-many-open': { status: 429, title: 'Too many unfinished uploads' },
  'too-many-declared': { status: 429, title: 'Too many uploads were started in a short time' },
  'too-many-waiting': { status: 429, title: 'Too many requests are waiting for a change' },
  'too-slow': { status: 408, title: 'The request did not arrive in time' },
  'head-too-large': { status: 431, title: 'The head of the request is too large' },
  internal: { status: 500, title: 'Something went wrong on the server' },
  'not-offered': { status: 501, title: 'This tus extension is not offered' },
  stalled: { status: 503, title: 'The upload needs an operator; nothing is lost' },
  unavailable: { status: 503, title: 'The storage is unavailable at the moment' },
  'storage-full': { status: 507, title: 'The storage is full' },
}

/** RFC 9457 section 3, with two members that Landfall adds. */
export const problemSchema = v.object({
  type: v.string(),
  title: v.string(),
  status: v.pipe(v.number(), v.safeInteger()),
  detail: v.optional(v.string()),
  /** The last part of `type`. For `rejected`, the application's own code. */
  code: v.string(),
  /** How long to wait, in seconds. The same as in the header `Retry-After`. */
  retryAfterSeconds: v.optional(v.pipe(v.number(), v.minValue(0))),
})
export type Problem = v.InferOutput<typeof problemSchema>

/** Makes a problem for the wire. `code` is given only if the application has its own. */
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

/** Which of Landfall's problems this is, or null. Any proxy can answer 404, for example. */
export function problemCode(candidate: Problem): ProblemCode | null {
  if (!candidate.type.startsWith(TYPE_PREFIX)) return null
  const code = candidate.type.slice(TYPE_PREFIX.length)
  return Object.hasOwn(CONSEQUENCES, code) ? (code as ProblemCode) : null
}

/** What a problem asks of the client. `retry` for every problem that is not Landfall's. */
export function consequenceOf(candidate: Problem): Consequence {
  const code = problemCode(candidate)
  return code === null ? 'retry' : CONSEQUENCES[code]
}
