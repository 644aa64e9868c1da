import type { ClockLook, ClockSettled } from '../../ports/ledger/marks.js'
import {
  attended,
  type ClockFinding,
  type ClockStep,
  findingOf,
  remembered,
  SAME_MS,
  takenBack,
  WAITS,
} from '../clock-marks.js'
import { OPEN } from '../rows.js'
import { meta, setMeta } from './inventory.js'
import { type Connection, NOW } from './client/connection.js'

// What is done about a database's clock that was set. The mark is how far it has come undisturbed.

export function lookAtClock(on: Connection, look: ClockLook): ClockFinding {
  const row = on.get(`SELECT ${NOW} AS now, (SELECT value FROM landfall_meta WHERE key = 'clock') AS mark`)
  const mark = row?.['mark'] ?? null
  return findingOf(Number(row?.['now']), mark === null ? null : Number(mark), look)
}

/** In one transaction: decided once more, for another process may have been here first. */
export function settleClock(on: Connection, look: ClockLook): ClockSettled {
  const { nowAt, steppedMs } = lookAtClock(on, look)
  if (steppedMs > 0) {
    postpone(on, steppedMs)
    setSteps(on, remembered(stepsOf(on), { at: nowAt, byMs: steppedMs }))
  }
  if (steppedMs < 0) setSteps(on, takenBack(stepsOf(on), nowAt, -steppedMs))
  if (steppedMs < 0 || look.disturbed) bringForward(on, nowAt, look, { operationMs: 0, effectMs: 0 })
  else if (look.longestPauses !== null) bringForward(on, nowAt, look, look.longestPauses)
  setMeta(on, 'clock', String(nowAt))
  return { nowAt, steppedMs }
}

const stepsOf = (on: Connection): ClockStep[] => JSON.parse(meta(on, 'clock_steps') ?? '[]') as ClockStep[]
const setSteps = (on: Connection, steps: readonly ClockStep[]): void =>
  setMeta(on, 'clock_steps', JSON.stringify(steps))

export function attendedMs(on: Connection, sinceAt: number): number {
  const nowAt = Number(on.get(`SELECT ${NOW} AS now`)?.['now'])
  return attended(stepsOf(on), sinceAt, nowAt)
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
