import type { ClockGuard } from './clock.js'
import type { Logger } from '../lib/log.js'
import type { Clock } from '../ports/clock.js'
import type { ClockLook, LedgerMarks } from '../ports/ledger/marks.js'

/** Looks whether a clock was set, and lets the ledger put its rows in order. */
export interface Timekeeping {
  /** The first look: nothing is known of the time before. Then it looks by itself. */
  begin(): Promise<void>
  look(): Promise<void>
  stop(): void
}

/** Without asking the ledger; a clock that is set for a shorter time than this may stay unseen. */
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
  /** What was being written by the old clock while the rows were put in order is looked for once more. */
  let searchAtMs: number | null = null
  let timer: ReturnType<typeof setInterval> | null = null
  let looking: Promise<void> | null = null

  async function lookOnce(): Promise<void> {
    const atMs = clock.monotonicMs()
    const searches = lookedAtMs === null || (searchAtMs !== null && atMs >= searchAtMs)
    // A clock that is still apart has its step yet to be told by the ledger's.
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
      log.warn({ steppedMs }, 'the clock was set, or nobody was there: nothing ends for it')
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
        look().catch((error: unknown) => log.warn({ err: error }, 'the clock could not be compared'))
      }, GLANCE_MS).unref()
    },
    stop() {
      if (timer !== null) clearInterval(timer)
      timer = null
    },
  }
}
