import type { ClockLook } from '../ports/ledger/marks.js'

// What a ledger makes of its clock's mark: how far the clock has come undisturbed. Pure; the same for every database.

/** What NTP does to a clock in operation stays far below; and a mark is up to half of it old. */
const TOLERATED_MS = 60_000
const MARK_EVERY_MS = 30_000
/** Between times that were set by one statement or by two. */
export const SAME_MS = 1_000

/** Nothing is to be done for it until it expires. */
export const WAITS = `(point = 'declared' AND lease_holder IS NULL AND unclean_holder IS NULL AND "offset" < file_size)`

export interface ClockFinding {
  readonly nowAt: number
  readonly steppedMs: number
  /** Whether anything is to be written. */
  readonly due: boolean
}

export function findingOf(nowAt: number, mark: number | null, look: ClockLook): ClockFinding {
  if (mark === null) return { nowAt, steppedMs: 0, due: true }
  const sinceMs = nowAt - mark
  const aheadMs = sinceMs - look.passedMs
  // Others set the mark too: that it is younger than the last look of this process says nothing.
  const steppedMs = sinceMs < -TOLERATED_MS ? sinceMs : aheadMs > TOLERATED_MS ? aheadMs : 0
  return {
    nowAt,
    steppedMs,
    due: steppedMs !== 0 || look.disturbed || look.longestPauses !== null || sinceMs >= MARK_EVERY_MS,
  }
}

/** When the clock went ahead, and by how much. */
export interface ClockStep {
  readonly at: number
  readonly byMs: number
}
export const stepsIn = (value: unknown): ClockStep[] =>
  typeof value === 'string' ? (JSON.parse(value) as ClockStep[]) : []

/** More than there are in any week. */
const MOST_STEPS = 200

export function remembered(known: readonly ClockStep[], step: ClockStep): ClockStep[] {
  const steps = [...known, step]
  const [first, second] = steps
  // Two as one, and later: what is measured across them counts as younger, never as older.
  if (steps.length > MOST_STEPS && first !== undefined && second !== undefined)
    steps.splice(0, 2, { at: second.at, byMs: first.byMs + second.byMs })
  return steps
}

/** A clock that goes back takes back what it went ahead before, the latest first. */
export function takenBack(known: readonly ClockStep[], nowAt: number, ms: number): ClockStep[] {
  let leftMs = ms
  const steps = known.toReversed().map(({ at, byMs }) => {
    const takenMs = Math.min(byMs, leftMs)
    leftMs -= takenMs
    return { at: Math.min(at, nowAt), byMs: byMs - takenMs }
  })
  return steps.toReversed().filter(({ byMs }) => byMs > 0)
}

/** How much time has passed since then, without that by which the clock went ahead. */
export function attended(steps: readonly ClockStep[], sinceAt: number, nowAt: number): number {
  const later = steps.filter(({ at }) => at > sinceAt && at <= nowAt)
  return Math.max(
    0,
    later.reduce((left, { byMs }) => left - byMs, nowAt - sinceAt),
  )
}

/** What happened at this time or before it was `ms` of attended time ago, as `attended` counts it. */
export function attendedSince(steps: readonly ClockStep[], nowAt: number, ms: number): number {
  let sinceAt = nowAt - ms
  // Each step between then and now makes it so much earlier, which may bring another step in between.
  for (const { at, byMs } of steps.toSorted((one, other) => other.at - one.at))
    if (at > sinceAt && at <= nowAt) sinceAt -= byMs
  return sinceAt
}
