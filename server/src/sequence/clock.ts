import type { Clock } from '../ports/clock.js'

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonicMs: () => performance.now(),
  // It also resolves when the signal wakes it early, because every caller checks the state again anyway. The
  // `setTimeout` of `node:timers/promises` rejects in that case, and creating its error costs more than reading a
  // request that arrives in time.
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

/** Says whether the clock may be used as a reason to end something (expire, delete). */
export interface ClockGuard {
  trusted(): boolean
  /** Time until asking again can give another answer, in milliseconds. */
  askAgainMs(): number
  /** The wall clock and the monotonic clock disagree: one of them was set. */
  apart(): boolean
  /** Whether the two clocks disagreed at any time since the last `settled`. */
  disturbed(): boolean
  /**
   * Reports that the ledger's clock reads `nowAt` and that the times in its rows agree with it. `stepped`: they had to
   * be corrected.
   */
  settled(nowAt: number, stepped: boolean): void
}

const TOLERATED_MS = 60_000
const ASK_AGAIN_MS = 60_000

/**
 * A wall clock that has moved away from the monotonic clock by more than a minute has been set. Nothing expires and
 * nothing is deleted until the ledger has corrected the times in its rows, and for `settleMs` after that. Nothing
 * expires in the first `settleMs` after the start either, because clients could not come back while the server was
 * down.
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
      // A process whose clock differs from its ledger's clock would compare times of two clocks, so it must not end
      // anything by them.
      if (Math.abs(clock.now() - nowAt) > TOLERATED_MS) return
      anchor = look()
      if (stepped || wasApart) calmSinceMs = anchor.monotonicMs
      wasApart = false
    },
  }
}
