import type { ClockLook, ClockSettled } from '../ports.js'
import { meta, setMeta } from './sqlite-inventory.js'
import { NOW, OPEN } from './sqlite-rows.js'
import type { Connection } from './statements.js'

// What is done about a database's clock that was set. The mark is how far it has come undisturbed.

/** What NTP does to a clock in operation stays far below; and a mark is up to half of it old. */
const TOLERATED_MS = 60_000
const MARK_EVERY_MS = 30_000
/** Between times that were set by one statement or by two. */
const SAME_MS = 1_000

/** Nothing is to be done for it until it expires. */
const WAITS = `(point = 'declared' AND lease_holder IS NULL AND unclean_holder IS NULL AND "offset" < file_size)`

interface Finding {
  readonly nowAt: number
  readonly steppedMs: number
  /** Whether anything is to be written. */
  readonly due: boolean
}

export function lookAtClock(on: Connection, look: ClockLook): Finding {
  const row = on.get(`SELECT ${NOW} AS now, (SELECT value FROM landfall_meta WHERE key = 'clock') AS mark`)
  const nowAt = Number(row?.['now'])
  const mark = row?.['mark'] ?? null
  if (mark === null) return { nowAt, steppedMs: 0, due: true }
  const sinceMs = nowAt - Number(mark)
  const aheadMs = sinceMs - look.passedMs
  // Others set the mark too: that it is younger than the last look of this process says nothing.
  const steppedMs = sinceMs < -TOLERATED_MS ? sinceMs : aheadMs > TOLERATED_MS ? aheadMs : 0
  return {
    nowAt,
    steppedMs,
    due: steppedMs !== 0 || look.disturbed || look.longestPauses !== null || sinceMs >= MARK_EVERY_MS,
  }
}

/** In one transaction: decided once more, for another process may have been here first. */
export function settleClock(on: Connection, look: ClockLook): ClockSettled {
  const { nowAt, steppedMs } = lookAtClock(on, look)
  if (steppedMs > 0) {
    postpone(on, steppedMs)
    remember(on, { at: nowAt, byMs: steppedMs })
  }
  if (steppedMs < 0) takeBack(on, nowAt, -steppedMs)
  if (steppedMs < 0 || look.disturbed) bringForward(on, nowAt, look, { operationMs: 0, effectMs: 0 })
  else if (look.longestPauses !== null) bringForward(on, nowAt, look, look.longestPauses)
  setMeta(on, 'clock', String(nowAt))
  return { nowAt, steppedMs }
}

interface Step {
  readonly at: number
  readonly byMs: number
}
/** More than there are in any week. */
const MOST_STEPS = 200

const stepsOf = (on: Connection): Step[] => JSON.parse(meta(on, 'clock_steps') ?? '[]') as Step[]

function remember(on: Connection, step: Step): void {
  const steps = [...stepsOf(on), step]
  const [first, second] = steps
  // Two as one, and later: what is measured across them counts as younger, never as older.
  if (steps.length > MOST_STEPS && first !== undefined && second !== undefined)
    steps.splice(0, 2, { at: second.at, byMs: first.byMs + second.byMs })
  setMeta(on, 'clock_steps', JSON.stringify(steps))
}

/** A clock that goes back takes back what it went ahead before, the latest first. */
function takeBack(on: Connection, nowAt: number, ms: number): void {
  let leftMs = ms
  const steps = stepsOf(on)
    .toReversed()
    .map(({ at, byMs }) => {
      const takenMs = Math.min(byMs, leftMs)
      leftMs -= takenMs
      return { at: Math.min(at, nowAt), byMs: byMs - takenMs }
    })
  setMeta(on, 'clock_steps', JSON.stringify(steps.toReversed().filter(({ byMs }) => byMs > 0)))
}

export function attendedMs(on: Connection, sinceAt: number): number {
  const nowAt = Number(on.get(`SELECT ${NOW} AS now`)?.['now'])
  const steps = stepsOf(on).filter(({ at }) => at > sinceAt && at <= nowAt)
  return Math.max(
    0,
    steps.reduce((left, { byMs }) => left - byMs, nowAt - sinceAt),
  )
}

/**
 * The clock went ahead of the time in which clients could come: what ends for want of a client ends so much later. A
 * digest that is waited for until the expiry goes with it; what is waited for shortly is not, for the clock may go back.
 */
function postpone(on: Connection, ms: number): void {
  on.run(
    `UPDATE landfall_operations SET
       expires_at = expires_at + ?1,
       digest_due_at = CASE WHEN ABS(digest_due_at - expires_at) <= ${SAME_MS} THEN digest_due_at + ?1 ELSE digest_due_at END,
       due_at = CASE WHEN ${WAITS} THEN due_at + ?1 ELSE due_at END
     WHERE point IN ${OPEN}`,
    [ms],
  )
}

/**
 * The clock went back, and what was written before lies in the future: leases end as if they had just been prolonged,
 * pauses are over. Rows that only wait for their expiry are left alone; theirs may only become later.
 */
function bringForward(
  on: Connection,
  nowAt: number,
  { leaseMs, effectLeaseMs }: ClockLook,
  beyond: { operationMs: number; effectMs: number },
): void {
  on.run(
    `UPDATE landfall_operations SET
       lease_expires_at = MIN(lease_expires_at, ?1 + ?2),
       digest_due_at = CASE WHEN received_at > ?1 THEN digest_due_at - (received_at - ?1) ELSE digest_due_at END,
       received_at = MIN(received_at, ?1),
       due_at = CASE
         WHEN lease_holder IS NOT NULL THEN MIN(due_at, ?1 + ?2)
         WHEN ${WAITS} THEN MIN(due_at, expires_at)
         ELSE ?1 END
     WHERE due_at > ?1 + ?3 AND (NOT ${WAITS} OR due_at > expires_at + ${SAME_MS})`,
    [nowAt, leaseMs, beyond.operationMs],
  )
  on.run(
    `UPDATE landfall_effects SET due_at = CASE WHEN holder IS NULL THEN ?1 ELSE MIN(due_at, ?1 + ?2) END
     WHERE due_at > ?1 + ?3`,
    [nowAt, effectLeaseMs, beyond.effectMs],
  )
}
