import { deadline } from './deadline.js'

/** The last answer, or null where there was none in time. */
export type Look<T> = () => Promise<{ readonly answer: T } | null>

/**
 * A question that has hung for so long may hang for ever, on a connection whose other end is gone without a word: another
 * one is asked, which gets another connection.
 */
const GIVEN_UP_MS = 10_000
const MOST_GIVEN_UP = 3

/**
 * Asks on behalf of many who want to know at once: an answer is good for `everyMs`, and nobody waits longer than
 * `waitMs`. While a question hangs no other one is asked for ten seconds, and never more than a few at once, so that
 * health checks do not pile up on a database that is away.
 */
export function createLook<T>(
  ask: () => Promise<T>,
  { everyMs, waitMs }: { everyMs: number; waitMs: number },
): Look<T> {
  let last: { readonly atMs: number; readonly said: ReturnType<Look<T>>; hangs: boolean } | null = null
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
