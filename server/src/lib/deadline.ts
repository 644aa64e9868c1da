/** What a piece of work can know about its time limit. */
export interface Limit {
  /** Fires when the time is over, or when the work is ended from outside. */
  readonly signal: AbortSignal
  /** Starts the time again, with `ms` if given. */
  again(ms?: number): void
}

const tooLate = (): Error => new DOMException('it took too long', 'TimeoutError')

/**
 * Waits for `work` for at most `ms` milliseconds, and not longer than until `signal` fires. The server limits
 * everything that it waits for in this way: hooks, deliveries, calls to the store and to the ledger, the end of a
 * drain.
 *
 * Work that is given up goes on, but nothing waits for it. It learns of that by `limit.signal`. If the work may still
 * use something (a connection, a turn), the caller has to take that away from it, or back, when this rejects.
 *
 * It uses a timer of its own and not `AbortSignal.timeout`: nothing keeps a reference to the second signal of
 * `AbortSignal.any([other, AbortSignal.timeout(ms)])`, so in Node 20 (seen with 20.20.2) it is garbage-collected and
 * never fires.
 *
 * @param late What it rejects with when the time is over. Default: a `TimeoutError`.
 * @throws the reason of `signal` when that fires
 */
export async function deadline<T>(
  work: (limit: Limit) => T | PromiseLike<T>,
  ms: number,
  signal?: AbortSignal,
  late: () => unknown = tooLate,
): Promise<T> {
  signal?.throwIfAborted()
  let controller: AbortController | null = null
  /** Why it is over. Called only when it is needed, because an error costs its stack. */
  let over: (() => unknown) | null = null
  let giveUp = (_why: unknown): void => {}
  const given = new Promise<never>((_resolve, reject) => (giveUp = reject))
  given.catch(() => {})
  const end = (why: unknown): void => {
    over ??= () => why
    controller?.abort(over())
    giveUp(over())
  }
  const stopped = (): void => end(signal?.reason)
  let limitMs = ms
  let timer = setTimeout(() => end(late()), ms)
  signal?.addEventListener('abort', stopped, { once: true })
  const limit: Limit = {
    // Made only for work that uses it: most does not, and each signal costs more than a statement.
    get signal() {
      if (controller === null) {
        controller = new AbortController()
        if (over !== null) controller.abort(over())
      }
      return controller.signal
    },
    again(nextMs = limitMs) {
      if (over !== null) return
      if (nextMs === limitMs) {
        timer.refresh()
        return
      }
      limitMs = nextMs
      clearTimeout(timer)
      timer = setTimeout(() => end(late()), nextMs)
    },
  }
  try {
    const working = Promise.resolve(work(limit))
    working.catch(() => {})
    return await Promise.race([working, given])
  } finally {
    over ??= tooLate
    clearTimeout(timer)
    signal?.removeEventListener('abort', stopped)
  }
}

/** Whether `work` ends within `ms` milliseconds, successfully or not. */
export const endsWithin = (work: Promise<unknown>, ms: number): Promise<boolean> =>
  deadline(
    () =>
      work.then(
        () => true,
        () => true,
      ),
    ms,
  ).catch(() => false)

/**
 * Waits for something that has to be given back, such as a turn or a connection. If it comes too late, it is given back
 * at once.
 */
export function grantedWithin<T>(
  granting: Promise<T>,
  ms: number,
  { late, giveBack }: { late: () => unknown; giveBack: (granted: T) => void },
): Promise<T> {
  return deadline(() => granting, ms, undefined, late).catch((error: unknown) => {
    void granting.then(giveBack, () => {})
    throw error
  })
}
