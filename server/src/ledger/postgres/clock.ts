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
import { meta, setMeta } from './inventory.js'
import { NOW, type Queries } from './query.js'
import { OPEN } from '../rows.js'

// What is done about a database's clock that was set. The mark is how far it has come undisturbed.

export async function lookAtClock(on: Queries, look: ClockLook): Promise<ClockFinding> {
  const row = await on.get(`SELECT ${NOW} AS now, (SELECT value FROM landfall_meta WHERE key = 'clock') AS mark`)
  const mark = row?.['mark'] ?? null
  return findingOf(Number(row?.['now']), mark === null ? null : Number(mark), look)
}

/** In a transaction: decided once more, for another process may have been here first. */
export async function settleClock(on: Queries, look: ClockLook): Promise<ClockSettled> {
  await on.run(`INSERT INTO landfall_meta (key, value) VALUES ('clock_steps', '[]') ON CONFLICT (key) DO NOTHING`)
  // One at a time; this row is always there.
  await on.all(`SELECT 1 FROM landfall_meta WHERE key = 'clock_steps' FOR UPDATE`)
  const { nowAt, steppedMs } = await lookAtClock(on, look)
  if (steppedMs > 0) {
    await postpone(on, steppedMs)
    await setSteps(on, remembered(await stepsOf(on), { at: nowAt, byMs: steppedMs }))
  }
  if (steppedMs < 0) await setSteps(on, takenBack(await stepsOf(on), nowAt, -steppedMs))
  if (steppedMs < 0 || look.disturbed) await bringForward(on, nowAt, look, { operationMs: 0, effectMs: 0 })
  else if (look.longestPauses !== null) await bringForward(on, nowAt, look, look.longestPauses)
  await setMeta(on, 'clock', String(nowAt))
  return { nowAt, steppedMs }
}

const stepsOf = async (on: Queries): Promise<ClockStep[]> =>
  JSON.parse((await meta(on, 'clock_steps')) ?? '[]') as ClockStep[]
const setSteps = (on: Queries, steps: readonly ClockStep[]): Promise<number> =>
  setMeta(on, 'clock_steps', JSON.stringify(steps))

export async function attendedMs(on: Queries, sinceAt: number): Promise<number> {
  const row = await on.get(`SELECT ${NOW} AS now`)
  return attended(await stepsOf(on), sinceAt, Number(row?.['now']))
}

/**
 * The clock went ahead of the time in which clients could come: what ends for want of a client ends so much later. A
 * digest that is waited for until the expiry goes with it; what is waited for shortly is not, for the clock may go back.
 */
const postpone = (on: Queries, ms: number): Promise<number> =>
  on.run(
    `UPDATE landfall_operations SET
       expires_at = expires_at + ?,
       digest_due_at = CASE WHEN ABS(digest_due_at - expires_at) <= ${SAME_MS} THEN digest_due_at + ? ELSE digest_due_at END,
       due_at = CASE WHEN ${WAITS} THEN due_at + ? ELSE due_at END
     WHERE point IN ${OPEN}`,
    [ms, ms, ms],
  )

/**
 * The clock went back, and what was written before lies in the future: leases end as if they had just been prolonged,
 * pauses are over. Rows that only wait for their expiry are left alone; theirs may only become later.
 */
async function bringForward(
  on: Queries,
  nowAt: number,
  { leaseMs, effectLeaseMs }: ClockLook,
  beyond: { operationMs: number; effectMs: number },
): Promise<void> {
  // LEAST passes NULL over, which here must stay what it is.
  await on.run(
    `UPDATE landfall_operations SET
       lease_expires_at = CASE WHEN lease_expires_at > ? THEN ? ELSE lease_expires_at END,
       digest_due_at = CASE WHEN received_at > ? THEN digest_due_at - (received_at - ?) ELSE digest_due_at END,
       received_at = CASE WHEN received_at > ? THEN ? ELSE received_at END,
       due_at = CASE
         WHEN lease_holder IS NOT NULL THEN LEAST(due_at, ?)
         WHEN ${WAITS} THEN LEAST(due_at, expires_at)
         ELSE ? END
     WHERE due_at > ? AND (NOT ${WAITS} OR due_at > expires_at + ${SAME_MS})`,
    [
      nowAt + leaseMs,
      nowAt + leaseMs,
      nowAt,
      nowAt,
      nowAt,
      nowAt,
      nowAt + leaseMs,
      nowAt,
      nowAt + beyond.operationMs,
    ].map(Math.round),
  )
  await on.run(
    `UPDATE landfall_effects SET due_at = CASE WHEN holder IS NULL THEN CAST(? AS bigint) ELSE LEAST(due_at, ?) END WHERE due_at > ?`,
    [nowAt, nowAt + effectLeaseMs, nowAt + beyond.effectMs].map(Math.round),
  )
}
