/** The last answer, or null where there was none in time. */
export type Look<T> = () => Promise<{ readonly answer: T } | null>

/**
 * Asks on behalf of many who want to know at once: an answer is good for `everyMs`, and nobody waits longer than
 * `waitMs`. While a question hangs no other one is asked, so that health checks do not pile up on a database that is away.
 */
export function createLook<T>(
  ask: () => Promise<T>,
  { everyMs, waitMs }: { everyMs: number; waitMs: number },
): Look<T> {
  let last: { readonly atMs: number; readonly said: ReturnType<Look<T>> } | null = null
  let hanging = false

  async function askOnce(): Promise<{ answer: T } | null> {
    hanging = true
    let timer: ReturnType<typeof setTimeout> | undefined
    const late = new Promise<null>((resolve) => (timer = setTimeout(() => resolve(null), waitMs)))
    const answered = ask()
      .then(
        (answer) => ({ answer }),
        () => null,
      )
      .finally(() => (hanging = false))
    return Promise.race([answered, late]).finally(() => clearTimeout(timer))
  }

  return () => {
    const nowMs = performance.now()
    if (last === null || (!hanging && nowMs - last.atMs >= everyMs)) last = { atMs: nowMs, said: askOnce() }
    return last.said
  }
}
