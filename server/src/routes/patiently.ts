import type { Context } from 'hono'
import { ProblemError, refuse } from '../context.js'
import type { Logger } from '../log.js'
import type { Clock } from '../ports.js'

const WAIT_MS = 8_000
const RETRY_MS = 200

/** The status of an upload, asked for by tus. */
export const isTusHead = (c: Context): boolean => c.req.method === 'HEAD' && c.req.header('Tus-Resumable') !== undefined

/**
 * What a tus HEAD needs, asked again while a fault lasts, and then 423: at any other status but 2xx a stock client
 * begins a second upload of the same file.
 *
 * @throws ProblemError as `ask` did, or `locked` when it is not known in time.
 */
export async function patiently<T>(
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
      log.warn({ operationId: c.req.param('id'), err: error }, 'a HEAD waits')
    }
    if (clock.monotonicMs() > deadline || c.req.raw.signal.aborted) throw refuse('locked', { retryAfterSeconds: 1 })
  }
}
