import { setTimeout as sleep } from 'node:timers/promises'
import type { Clock } from './ports.js'

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonicMs: () => performance.now(),
  async sleep(ms, signal) {
    try {
      await sleep(Math.min(Math.max(0, ms), 2 ** 31 - 1), undefined, {
        ref: false,
        ...(signal === undefined ? {} : { signal }),
      })
    } catch {
      // Woken early; whoever sleeps looks at the world anew anyway.
    }
  },
}

/** Says whether time is a reason to end something. */
export interface ClockGuard {
  trusted(): boolean
  /** When it is worth asking again, in milliseconds. */
  askAgainMs(): number
}

const TOLERATED_MS = 60_000
const ASK_AGAIN_MS = 60_000

/**
 * A wall clock that has run apart from the monotonic clock by more than a minute has been set: nothing expires and
 * nothing is deleted until it is set back or the process is started anew. Nothing expires in the first `settleMs`
 * after the start either: the clients had no chance to come back while the server was down.
 */
export function createClockGuard(clock: Clock, settleMs: number): ClockGuard {
  const start = { wall: clock.now(), monotonicMs: clock.monotonicMs() }
  const passed = (): number => clock.monotonicMs() - start.monotonicMs
  return {
    trusted: () => passed() >= settleMs && Math.abs(clock.now() - start.wall - passed()) <= TOLERATED_MS,
    askAgainMs: () => (passed() < settleMs ? settleMs - passed() : ASK_AGAIN_MS),
  }
}
