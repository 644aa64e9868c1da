import type { Clock } from '../ports/clock.js'

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonicMs: () => performance.now(),
  // Woken early it resolves too: whoever sleeps looks at the world again anyway. That of `node:timers/promises` rejects
  // then, and its error costs each request that is read in time more than the reading.
  sleep: (ms, signal) =>
    new Promise((resolve) => {
      if (signal?.aborted === true) return resolve()
      const end = (): void => {
        clearTimeout(timer)
        signal?.removeEventListener('abort', end)
        resolve()
      }
      const timer = setTimeout(end, Math.min(Math.max(0, ms), 2 ** 31 - 1)).unref()
      signal?.addEventListener('abort', end, { once: true })
    }),
}

/** Says whether time is a reason to end something. */
export interface ClockGuard {
  trusted(): boolean
  /** When it is worth asking again, in milliseconds. */
  askAgainMs(): number
  /** Wall clock and monotonic clock disagree: one of them was set. */
  apart(): boolean
  /** Whether they were found apart since the last `settled`. */
  disturbed(): boolean
  /** The ledger's clock reads `nowAt`, and its rows are in order with that; `stepped`: they had to be put in order. */
  settled(nowAt: number, stepped: boolean): void
}

const TOLERATED_MS = 60_000
const ASK_AGAIN_MS = 60_000

/**
 * A wall clock that has run apart from the monotonic clock by more than a minute has been set: nothing expires and
 * nothing is deleted until the ledger's rows have been put in order, and `settleMs` longer. Nothing expires in the
 * first `settleMs` after the start either: the clients had no chance to come back while the server was down.
 */
export function createClockGuard(clock: Clock, settleMs: number): ClockGuard {
  const look = () => ({ wall: clock.now(), monotonicMs: clock.monotonicMs() })
  let anchor = look()
  let calmSinceMs = anchor.monotonicMs
  let wasApart = false
  const passed = (): number => clock.monotonicMs() - calmSinceMs
  const apart = (): boolean => {
    const { wall, monotonicMs } = look()
    const isApart = Math.abs(wall - anchor.wall - (monotonicMs - anchor.monotonicMs)) > TOLERATED_MS
    wasApart ||= isApart
    return isApart
  }
  return {
    trusted: () => !apart() && passed() >= settleMs,
    askAgainMs: () => (passed() < settleMs ? settleMs - passed() : ASK_AGAIN_MS),
    apart,
    disturbed: () => wasApart,
    settled(nowAt, stepped) {
      // A process whose clock is not that of its ledger compares times of two clocks: it must not judge by them.
      if (Math.abs(clock.now() - nowAt) > TOLERATED_MS) return
      anchor = look()
      if (stepped || wasApart) calmSinceMs = anchor.monotonicMs
      wasApart = false
    },
  }
}
