import type { Context } from 'hono'
import { AnsweredError } from '../lib/answered.js'
import type { Logger } from '../lib/log.js'
import { ProblemError, refuse } from '../lib/problem-error.js'
import type { Clock } from '../ports/clock.js'

const WAIT_MS = 8_000
const RETRY_MS = 200

const OVERRIDABLE = ['PATCH', 'DELETE', 'HEAD'] as const

/**
 * The method that the client means. tus 1.0.0, "X-HTTP-Method-Override": for environments that know only GET and POST.
 *
 * @see https://tus.io/protocols/resumable-upload#x-http-method-override
 */
export function methodOf(c: Context): string {
  if (c.req.method !== 'POST') return c.req.method
  const meant = c.req.header('X-HTTP-Method-Override')?.trim().toUpperCase()
  return OVERRIDABLE.find((method) => method === meant) ?? 'POST'
}

/** Whether tus asks for the status of an upload. */
export const isTusHead = (c: Context): boolean => c.req.header('Tus-Resumable') !== undefined && methodOf(c) === 'HEAD'

/**
 * After a HEAD with such a status a stock client begins a second upload of the same file, although the fault passes.
 */
const passes = (status: number): boolean => status >= 500 || status === 429

/**
 * Asks for what a tus HEAD needs, repeats that while a fault lasts, and then answers 423. At any other status but 2xx a
 * stock client begins a second upload of the same file.
 *
 * @throws ProblemError and AnsweredError as `ask` did, or `locked` when there is no answer in time.
 */
export async function withRetries<T>(
  c: Context,
  { clock, log }: { clock: Clock; log: Logger },
  ask: () => Promise<T | 'not-yet'>,
): Promise<T> {
  for (const deadline = clock.monotonicMs() + WAIT_MS; ; await clock.sleep(RETRY_MS)) {
    try {
      const answer = await ask()
      if (answer !== 'not-yet') return answer
    } catch (error) {
      if (error instanceof ProblemError) throw error
      if (error instanceof AnsweredError && !passes(error.response.status)) throw error
      log.warn({ operationId: c.req.param('id'), err: error }, 'a HEAD waits because its question failed')
    }
    if (clock.monotonicMs() > deadline || c.req.raw.signal.aborted) throw refuse('locked', { retryAfterSeconds: 1 })
  }
}
