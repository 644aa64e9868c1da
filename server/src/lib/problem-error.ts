import { type Problem, problem, type ProblemCode } from '@landfall/shared'
import { UploadError, faultMessage } from './errors.js'

/**
 * A refusal with its problem: a route answers it, or an operator's call fails with it. `headers` go into the answer,
 * `cause` into the log.
 */
export class ProblemError extends Error {
  override readonly name = 'ProblemError'
  readonly problem: Problem
  readonly headers: Readonly<Record<string, string>>
  constructor(why: Problem, headers: Readonly<Record<string, string>> = {}, options?: { cause?: unknown }) {
    super(why.title, options)
    this.problem = why
    this.headers = headers
  }
}

export const refuse = (
  code: ProblemCode,
  extra?: Parameters<typeof problem>[1],
  headers?: Readonly<Record<string, string>>,
): ProblemError => new ProblemError(problem(code, extra), headers)

/** For the person who runs the server. */
export function messageOf(error: unknown): string {
  if (error instanceof ProblemError) return error.problem.detail ?? error.problem.title
  return error instanceof UploadError ? error.message : faultMessage(error)
}
