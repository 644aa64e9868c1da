import type { ClockLook } from '../ports/ledger/marks.js'

// How a ledger judges its clock by the clock's mark: whether the clock has run undisturbed since then. The functions
// are pure and the same for every database.

/** Far above what NTP corrects on a running clock. A mark is up to half of this old. */
const TOLERATED_MS = 60_000
const MARK_EVERY_MS = 30_000
/** Two times that differ by less were set together, by one statement or by two. */
export const SAME_MS = 1_000

/** Condition of operations for which nothing is to be done until they expire. */
export const WAITS = `(point = 'declared' AND lease_holder IS NULL AND unclean_holder IS NULL AND "offset" < file_size)`

export interface ClockFinding {
  readonly nowAt: number
  readonly steppedMs: number
  /** Whether anything must be written. */
  readonly due: boolean
}

export function findingOf(nowAt: number, mark: number | null, look: ClockLook): ClockFinding {
  if (mark === null) return { nowAt, steppedMs: 0, due: true }
  const sinceMs = nowAt - mark
  const aheadMs = sinceMs - look.passedMs
  // Other processes set the mark too. So a mark that is younger than the last check of this process proves nothing.
  const steppedMs = sinceMs < -TOLERATED_MS ? sinceMs : aheadMs > TOLERATED_MS ? aheadMs : 0
  return {
    nowAt,
    steppedMs,
    due: steppedMs !== 0 || look.disturbed || look.longestPauses !== null || sinceMs >= MARK_EVERY_MS,
  }
}

/** When the clock was set ahead, and by how much. */
export interface ClockStep {
  readonly at: number
  readonly byMs: number
}
export const stepsIn = (value: unknown): ClockStep[] =>
  typeof value === 'string' ? (JSON.parse(value) as ClockStep[]) : []

/** More than occur in any week. */
const MOST_STEPS = 200

export function remembered(known: readonly ClockStep[], step: ClockStep): ClockStep[] {
  const steps = [...known, step]
  const [first, second] = steps
  // Two steps become one, at the later time. Then whatever is measured across them counts as younger, never as older.
  if (steps.length > MOST_STEPS && first !== undefined && second !== undefined)
    steps.splice(0, 2, { at: second.at, byMs: first.byMs + second.byMs })
  return steps
}

/** When the clock is set back, this undoes earlier steps ahead, the latest first. */
export function takenBack(known: readonly ClockStep[], nowAt: number, ms: number): ClockStep[] {
  let leftMs = ms
  const steps = known.toReversed().map(({ at, byMs }) => {
    const takenMs = Math.min(byMs, leftMs)
    leftMs -= takenMs
    return { at: Math.min(at, nowAt), byMs: byMs - takenMs }
  })
  return steps.toReversed().filter(({ byMs }) => byMs > 0)
}

/** How much time has passed since then, without the time by which the clock was set ahead. */
export function attended(steps: readonly ClockStep[], sinceAt: number, nowAt: number): number {
  const later = steps.filter(({ at }) => at > sinceAt && at <= nowAt)
  return Math.max(
    0,
    later.reduce((left, { byMs }) => left - byMs, nowAt - sinceAt),
  )
}

/** The time that was `ms` of attended time ago, as `attended` counts it. */
export function attendedSince(steps: readonly ClockStep[], nowAt: number, ms: number): number {
  let sinceAt = nowAt - ms
  // Each step between that time and now moves that time back by its length. Then another step may be in between.
  for (const { at, byMs } of steps.toSorted((one, other) => other.at - one.at))
    if (at > sinceAt && at <= nowAt) sinceAt -= byMs
  return sinceAt
}
