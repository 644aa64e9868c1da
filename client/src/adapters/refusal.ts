import { consequenceOf, parseProblem, problemCode } from '@landfall/shared'
import { retryAfterMs } from '../pace.js'
import type { Refusal } from '../ports.js'

/** No answer came. */
export const noAnswer: Refusal = { ok: false, consequence: 'retry', status: null, problem: null, retryAfterMs: null }

/**
 * Interprets an answer that is not the expected one. Only one of Landfall's problems can be more than a fault that
 * passes: a proxy's 404, 403 or 200 with HTML does not come from the server. A 401 always asks for credentials.
 */
export function refusalOf(status: number, body: unknown, retryAfter: string | null, wallMs: number): Refusal {
  const parsed = parseProblem(body)
  const problem = parsed.ok && problemCode(parsed.value) !== null ? parsed.value : null
  const consequence = status === 401 ? 'authenticate' : problem === null ? 'retry' : consequenceOf(problem)
  const inBodyMs = problem?.retryAfterSeconds === undefined ? null : problem.retryAfterSeconds * 1000
  return { ok: false, consequence, status, problem, retryAfterMs: retryAfterMs(retryAfter, wallMs) ?? inBodyMs }
}

/** The body as JSON, or null if it is not JSON. */
export function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}
