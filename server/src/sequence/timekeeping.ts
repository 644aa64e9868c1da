import type { Logger } from '../lib/log.js'
import type { Clock } from '../ports/clock.js'
import type { ClockLook, LedgerMarks } from '../ports/ledger/marks.js'
import type { ClockGuard } from './clock.js'

/** Detects that a clock was set, and lets the ledger correct the times in its rows. */
export interface Timekeeping {
  /** The first check: nothing is known about the time before it. After that it checks by itself. */
  begin(): Promise<void>
  look(): Promise<void>
  stop(): void
}

/**
 * How often the clocks of this process are compared, without asking the ledger. If the clock is set and set back within
 * this time, that may stay undetected.
 */
const GLANCE_MS = 1_000
const LOOK_MS = 10_000

export function createTimekeeping(deps: {
  ledger: LedgerMarks
  clock: Clock
  guard: ClockGuard
  log: Logger
  settings: Pick<ClockLook, 'leaseMs' | 'effectLeaseMs'> & {
    readonly longestPauses: NonNullable<ClockLook['longestPauses']>
  }
}): Timekeeping {
  const { ledger, clock, guard, log, settings } = deps
  const { leaseMs, effectLeaseMs, longestPauses } = settings
  let lookedAtMs: number | null = null
  /** When to search once more for rows that were written with the old clock while the others were being corrected. */
  let searchAtMs: number | null = null
  let timer: ReturnType<typeof setInterval> | null = null
  let looking: Promise<void> | null = null

  async function lookOnce(): Promise<void> {
    const atMs = clock.monotonicMs()
    const searches = lookedAtMs === null || (searchAtMs !== null && atMs >= searchAtMs)
    // While this process's clock still differs, the ledger's clock has not yet shown its step.
    const disturbed = !guard.apart() && guard.disturbed()
    const { nowAt, steppedMs } = await ledger.settleClock({
      passedMs: lookedAtMs === null ? 0 : atMs - lookedAtMs,
      disturbed,
      leaseMs,
      effectLeaseMs,
      longestPauses: searches ? longestPauses : null,
    })
    lookedAtMs = atMs
    const stepped = steppedMs !== 0 || disturbed
    if (searches) searchAtMs = null
    if (stepped) {
      searchAtMs = atMs + leaseMs
      log.warn({ steppedMs }, 'the clock was set, or no process was running: nothing expires because of it')
    }
    guard.settled(nowAt, stepped)
  }

  const look = (): Promise<void> => (looking ??= lookOnce().finally(() => (looking = null)))

  return {
    look,
    async begin() {
      await look()
      timer ??= setInterval(() => {
        if (!guard.apart() && clock.monotonicMs() - (lookedAtMs ?? 0) < LOOK_MS) return
        look().catch((error: unknown) => log.warn({ err: error }, 'could not compare the clock with the ledger'))
      }, GLANCE_MS).unref()
    },
    stop() {
      if (timer !== null) clearInterval(timer)
      timer = null
    },
  }
}
