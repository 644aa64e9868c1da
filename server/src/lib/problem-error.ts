import { type Problem, problem, type ProblemCode } from '@landfall/shared'
import { UploadError, faultMessage } from './errors.js'

/** A "no" with its problem: what a route answers, and what an operator's call is refused with. `headers` go with it, `cause` into the log. */
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

/** For whoever runs the server. */
export function messageOf(error: unknown): string {
  if (error instanceof ProblemError) return error.problem.detail ?? error.problem.title
  return error instanceof UploadError ? error.message : faultMessage(error)
}
