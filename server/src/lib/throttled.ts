import { deadline } from './deadline.js'

/** The last answer, or null if there was none in time. */
export type ThrottledCheck<T> = () => Promise<{ readonly answer: T } | null>

/**
 * A question that has hung for this long may hang permanently, on a connection whose other end disappeared without
 * closing it. Then it is asked again, which gets another connection.
 */
const GIVEN_UP_MS = 10_000
const MOST_GIVEN_UP = 3

/**
 * Asks once for many callers that want to know at the same time: an answer is valid for `everyMs`, and no caller waits
 * longer than `waitMs`. While a question hangs, no other one is asked for ten seconds, and never more than a few at
 * once, so that health checks do not pile up on a database that is unavailable.
 */
export function createThrottledCheck<T>(
  ask: () => Promise<T>,
  { everyMs, waitMs }: { everyMs: number; waitMs: number },
): ThrottledCheck<T> {
  let last: { readonly atMs: number; readonly said: ReturnType<ThrottledCheck<T>>; hangs: boolean } | null = null
  let hanging = 0

  function askOnce(atMs: number): NonNullable<typeof last> {
    hanging += 1
    const answered = ask()
      .then(
        (answer) => ({ answer }),
        () => null,
      )
      .finally(() => {
        hanging -= 1
        asked.hangs = false
      })
    const asked = { atMs, said: deadline(() => answered, waitMs).catch(() => null), hangs: true }
    return asked
  }

  return () => {
    const nowMs = performance.now()
    const pauseMs = last?.hangs === true ? GIVEN_UP_MS : everyMs
    if (last === null || (hanging <= MOST_GIVEN_UP && nowMs - last.atMs >= pauseMs)) last = askOnce(nowMs)
    return last.said
  }
}
