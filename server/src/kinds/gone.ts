import { type Problem, problem, type ProblemCode } from '@landfall/shared'
import { ProblemError, refuse } from '../lib/problem-error.js'
import type { TombstonePoint, LedgerOperations } from '../ports/ledger/operations.js'
import type { OperationKey } from '../ports/operation.js'

/**
 * How it ended, in codes that clients of every version know. The reason why a file was rejected (`digest-mismatch`, or
 * a code of the application) is not kept.
 */
const CODES: Readonly<Record<TombstonePoint, ProblemCode>> = {
  cancelled: 'cancelled',
  expired: 'expired',
  rejected: 'rejected',
  completed: 'removed',
}

/** The final answer for an operation of which only a tombstone is left: 410, whatever its status was before. */
export const forgottenProblem = (point: TombstonePoint): Problem => ({
  ...problem(CODES[point], { detail: 'It has ended, and no more is kept of it. Its id cannot be used again.' }),
  status: 410,
})

/** The answer for an operation without a row: 410 if its id was used before, otherwise 404. */
export async function absent(ledger: LedgerOperations, key: OperationKey): Promise<ProblemError> {
  const point = await ledger.tombstone(key)
  return point === null ? refuse('not-found') : new ProblemError(forgottenProblem(point))
}
