/** What a piece of work can know of the time that it has. */
export interface Limit {
  /** Fires when the time is over, or when the work is ended from outside. */
  readonly signal: AbortSignal
  /** The time begins anew, with `ms` where they are given. */
  again(ms?: number): void
}

const tooLate = (): Error => new DOMException('it took too long', 'TimeoutError')

/**
 * Waits for `work` for at most `ms` milliseconds, and not longer than until `signal` fires. THE way in which the server
 * bounds what others do: hooks, deliveries, calls to the store and to the ledger, the end of a drain.
 *
 * What is given up goes on without anybody who waits; it hears of that by `limit.signal`. Whoever holds something that
 * it may still use (a connection, a turn) takes that away, or back, when this rejects.
 *
 * A timer of its own and not `AbortSignal.timeout`: of `AbortSignal.any([other, AbortSignal.timeout(ms)])` nothing holds
 * the second one, and in Node 20 (seen with 20.20.2) it is collected as garbage and never fires.
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
  /** Why it is over; asked for only where somebody wants to know, because an error costs its stack. */
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
    // Made only for those who ask: many do not, and each costs more than a statement.
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

/** Whether `work` ends within so many milliseconds, well or not. */
export const endsWithin = (work: Promise<unknown>, ms: number): Promise<boolean> =>
  deadline(
    () =>
      work.then(
        () => true,
        () => true,
      ),
    ms,
  ).catch(() => false)

/** Waits for something that is to be given back, such as a turn or a connection: what comes too late is given back at once. */
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
