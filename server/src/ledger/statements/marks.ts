import {
  attended,
  type ClockFinding,
  findingOf,
  remembered,
  SAME_MS,
  stepsIn,
  takenBack,
  WAITS,
  type ClockStep,
} from '../clock-marks.js'
import type { Dialect } from '../dialect.js'
import { changes, type Plan, row } from '../query.js'
import { newOwnerKey, OPEN } from '../rows.js'
import { newTombstoneKey, TOMBSTONE_KEY } from '../tombstones.js'
import type { ClockLook, ClockSettled } from '../../ports/ledger/marks.js'

// Facts about the ledger as a whole are in `landfall_meta`, by their keys.

export function* meta(key: string): Plan<string | null> {
  const found = yield* row(`SELECT value FROM landfall_meta WHERE key = :key`, { key })
  return typeof found?.['value'] === 'string' ? found['value'] : null
}

/** @param value An expression; default: the argument `value`. */
const setting = (value = 'CAST(:value AS text)'): string =>
  `INSERT INTO landfall_meta (key, value) VALUES (:key, ${value}) ON CONFLICT (key) DO UPDATE SET value = excluded.value`

export function* setMeta(key: string, value: string): Plan<number> {
  return yield* changes(setting(), { key, value })
}

/**
 * If several processes do this at once, one of them sets the value. The others wait for its commit and read that value.
 */
export function* metaOnce(key: string, first: () => string): Plan<string> {
  for (;;) {
    const known = yield* meta(key)
    if (known !== null) return known
    yield* changes(`INSERT INTO landfall_meta (key, value) VALUES (:key, :value) ON CONFLICT (key) DO NOTHING`, {
      key,
      value: first(),
    })
  }
}

export const ownerKey = (): Plan<string> => metaOnce('owner_key', newOwnerKey)
export const tombstoneKey = (): Plan<string> => metaOnce(TOMBSTONE_KEY, newTombstoneKey)

/** Whether the blob store was opened with this ledger before. */
export function* store(): Plan<'new' | 'known'> {
  return (yield* meta('store')) === null ? 'new' : 'known'
}
export function* rememberStore(): Plan<void> {
  yield* metaOnce('store', () => 'known')
}

export function markStatements({ now, greater, hasOneWriter, lock }: Dialect) {
  function* mark(): Plan<{ mark: number; restoredAt: number | null }> {
    const restored = yield* meta('restored_at')
    return { mark: Number((yield* meta('mark')) ?? 0), restoredAt: restored === null ? null : Number(restored) }
  }

  function* lookAtClock(look: ClockLook): Plan<ClockFinding> {
    const found = yield* row(`SELECT ${now} AS now, (SELECT value FROM landfall_meta WHERE key = 'clock') AS mark`)
    const known = found?.['mark'] ?? null
    return findingOf(Number(found?.['now']), known === null ? null : Number(known), look)
  }

  function* setSteps(steps: readonly ClockStep[]): Plan<void> {
    yield* setMeta('clock_steps', JSON.stringify(steps))
  }

  /**
   * The clock was set ahead, and clients could not come back in the skipped time. So expiries move by the same amount.
   * A digest that is awaited until the expiry moves with it. A digest that is awaited for a short time does not,
   * because the clock may be set back.
   */
  const POSTPONE = `UPDATE landfall_operations SET
      expires_at = expires_at + :ms,
      digest_due_at = CASE WHEN ABS(digest_due_at - expires_at) <= ${SAME_MS} THEN digest_due_at + :ms ELSE digest_due_at END,
      due_at = CASE WHEN ${WAITS} THEN due_at + :ms ELSE due_at END
    WHERE point IN ${OPEN}`

  /**
   * The clock was set back, so times that were written before are in the future. Leases end as if they had just been
   * prolonged, and pauses are over. Rows that only wait for their expiry keep it, because an expiry may only become
   * later.
   */
  function* bringForward(
    nowAt: number,
    { leaseMs, effectLeaseMs }: ClockLook,
    beyond: { operationMs: number; effectMs: number },
  ): Plan<void> {
    const at = (ms: number): number => Math.round(nowAt + ms)
    yield* changes(
      `UPDATE landfall_operations SET
         lease_expires_at = CASE WHEN lease_expires_at > :lease_at THEN :lease_at ELSE lease_expires_at END,
         digest_due_at = CASE WHEN received_at > :now_at THEN digest_due_at - (received_at - :now_at) ELSE digest_due_at END,
         received_at = CASE WHEN received_at > :now_at THEN :now_at ELSE received_at END,
         due_at = CASE
           WHEN lease_holder IS NOT NULL THEN CASE WHEN due_at > :lease_at THEN :lease_at ELSE due_at END
           WHEN ${WAITS} THEN CASE WHEN due_at > expires_at THEN expires_at ELSE due_at END
           ELSE :now_at END
       WHERE due_at > :due_at AND (NOT ${WAITS} OR due_at > expires_at + ${SAME_MS})`,
      { lease_at: at(leaseMs), now_at: at(0), due_at: at(beyond.operationMs) },
    )
    yield* changes(
      `UPDATE landfall_effects SET due_at = CASE WHEN holder IS NULL THEN CAST(:now_at AS bigint) WHEN due_at > :lease_at THEN :lease_at ELSE due_at END
       WHERE due_at > :due_at`,
      { now_at: at(0), lease_at: at(effectLeaseMs), due_at: at(beyond.effectMs) },
    )
  }

  return {
    ownerKey,
    rememberStore,
    mark,
    lookAtClock,

    /** Must run in a transaction. Two nodes may raise the mark at once; the higher one stays. */
    *advanceMark(to: { mark: number; restored: boolean | null }): Plan<void> {
      yield* changes(
        `INSERT INTO landfall_meta AS m (key, value) VALUES ('mark', :mark) ON CONFLICT (key)
         DO UPDATE SET value = CAST(${greater}(CAST(m.value AS bigint), CAST(excluded.value AS bigint)) AS text)`,
        { mark: String(to.mark) },
      )
      if (to.restored === true) yield* changes(setting(`CAST(${now} AS text)`), { key: 'restored_at' })
      if (to.restored === false) yield* changes(`DELETE FROM landfall_meta WHERE key = 'restored_at'`)
    },

    *heartbeat(): Plan<void> {
      yield* changes(setting(`CAST(${now} AS text)`), { key: 'heartbeat' })
    },

    /** Must run in one transaction. It decides again, because another process may have settled the clock first. */
    *settleClock(look: ClockLook): Plan<ClockSettled> {
      const known = stepsIn(yield* metaOnce('clock_steps', () => '[]'))
      // The lock admits one process at a time. Its row always exists.
      const steps = hasOneWriter
        ? known
        : stepsIn(
            (yield* row(`SELECT value FROM landfall_meta WHERE key = 'clock_steps' ${lock('landfall_meta')}`))?.[
              'value'
            ],
          )
      const { nowAt, steppedMs } = yield* lookAtClock(look)
      if (steppedMs > 0) {
        yield* changes(POSTPONE, { ms: steppedMs })
        yield* setSteps(remembered(steps, { at: nowAt, byMs: steppedMs }))
      }
      if (steppedMs < 0) yield* setSteps(takenBack(steps, nowAt, -steppedMs))
      if (steppedMs < 0 || look.disturbed) yield* bringForward(nowAt, look, { operationMs: 0, effectMs: 0 })
      else if (look.longestPauses !== null) yield* bringForward(nowAt, look, look.longestPauses)
      yield* setMeta('clock', String(nowAt))
      return { nowAt, steppedMs }
    },

    *attendedMs(sinceAt: number): Plan<number> {
      const found = yield* row(`SELECT ${now} AS now`)
      return attended(stepsIn(yield* meta('clock_steps')), sinceAt, Number(found?.['now']))
    },
  }
}
