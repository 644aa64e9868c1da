import { PROBLEM_MEDIA_TYPE, type Problem, problem } from '@landfall/shared'
import type { Context } from 'hono'
import { AnsweredError } from '../lib/answered.js'
import { UploadError } from '../lib/errors.js'
import type { Logger } from '../lib/log.js'
import { ProblemError } from '../lib/problem-error.js'

/**
 * RFC 9110 section 11.6.1 requires a challenge with each 401. How a user signs in is known only to the application. An
 * application that has its own challenge throws its answer from `authenticate`.
 */
const CHALLENGE = 'Landfall realm="uploads"'

/** RFC 9457. `Retry-After` is sent whenever the problem says how long to wait. */
export function renderProblem(why: Problem, more: Readonly<Record<string, string>> = {}): Response {
  const headers = new Headers({ 'Content-Type': PROBLEM_MEDIA_TYPE, 'Cache-Control': 'no-store', ...more })
  if (why.status === 401) headers.set('WWW-Authenticate', CHALLENGE)
  if (why.retryAfterSeconds !== undefined) headers.set('Retry-After', String(Math.ceil(why.retryAfterSeconds)))
  return new Response(JSON.stringify(why), { status: why.status, headers })
}

/** A fault as clients see it. Its details stay in the log. */
export function problemOf(error: unknown): Problem {
  if (error instanceof ProblemError) return error.problem
  if (error instanceof UploadError) {
    switch (error.code) {
      case 'ledger-unavailable':
      case 'storage-unavailable':
      case 'writer-held':
        return problem('unavailable', { retryAfterSeconds: 1 })
      case 'storage-full':
        return problem('storage-full', { retryAfterSeconds: 30 })
      case 'lease-lost':
        return problem('locked', { retryAfterSeconds: 1 })
      default:
        break
    }
  }
  return problem('internal', { retryAfterSeconds: 1 })
}

export const renderRefusal = (refusal: ProblemError): Response => renderProblem(refusal.problem, refusal.headers)

export function renderError(error: unknown, c: Context, log: Logger): Response {
  if (error instanceof AnsweredError) return error.response
  const why = problemOf(error)
  if (why.status >= 500)
    log.error({ operationId: c.req.param('id'), method: c.req.method, err: error }, 'a request failed')
  return error instanceof ProblemError ? renderRefusal(error) : renderProblem(why)
}
