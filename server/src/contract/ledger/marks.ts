import assert from 'node:assert/strict'
import { declared, dueIn, get, LEASE_MS, LOOK, owing, take, TAKING, type On } from './fixture.js'

/** What every ledger must remember about itself: its restore mark, and what its clock did. */
export function marksContract<Tx>(on: On<Tx>): void {
  on('the restore mark only grows, and the ledger remembers that it was restored', async ({ ledger }) => {
    assert.deepEqual(await ledger.mark(), { mark: 0, restoredAt: null })
    await ledger.advanceMark({ mark: 7, restored: null })
    await ledger.advanceMark({ mark: 3, restored: null })
    assert.deepEqual(await ledger.mark(), { mark: 7, restoredAt: null })
    await ledger.advanceMark({ mark: 8, restored: true })
    await ledger.advanceMark({ mark: 9, restored: null })
    const { mark, restoredAt } = await ledger.mark()
    assert.equal(mark, 9)
    assert.ok(restoredAt !== null)
    await ledger.advanceMark({ mark: 0, restored: false })
    assert.deepEqual(await ledger.mark(), { mark: 9, restoredAt: null })
  })

  on('a clock that was not set changes nothing', async ({ ledger, another }) => {
    const { nowAt: before } = await ledger.health()
    const { nowAt, steppedMs } = await ledger.settleClock(LOOK)
    assert.equal(steppedMs, 0)
    assert.ok(nowAt >= before && nowAt < before + 10_000)
    const { key } = await declared(ledger)
    const waiting = await get(ledger, key)
    const other = await another()
    for (const each of await Promise.all([ledger, other, ledger].map((one) => one.settleClock(LOOK))))
      assert.equal(each.steppedMs, 0)
    assert.deepEqual(await get(ledger, key), waiting)
  })

  on(
    'after the clock was set ahead, operations that wait for a client expire later by the same time',
    async ({ ledger }) => {
      const DAYS_MS = 8 * 24 * 60 * 60_000
      await ledger.settleClock(LOOK)
      const { key } = await declared(ledger)
      const before = await get(ledger, key)
      // The monotonic clock says that this much less time has passed than by the ledger's clock.
      const { steppedMs } = await ledger.settleClock({ ...LOOK, passedMs: -DAYS_MS })
      assert.ok(Math.abs(steppedMs - DAYS_MS) < 10_000)
      assert.ok((await ledger.attendedMs(before.createdAt - DAYS_MS)) < 10_000)
      const { expiresAt, dueAt } = await get(ledger, key)
      assert.equal(expiresAt, before.expiresAt + steppedMs)
      assert.equal(dueAt, (before.dueAt ?? 0) + steppedMs)
    },
  )

  on(
    'after the clock was set back, leases and pauses end, and operations that wait for a client stay as they are',
    async ({ ledger }) => {
      const { key: waiting } = await declared(ledger)
      const { key: held } = await declared(ledger)
      const lease = await take(ledger, held, 'holder', 'drive')
      const paused = await dueIn(ledger, 60 * 60_000, { offset: 100, attempts: 1 })
      await owing(ledger, ['notify'])
      const target = { kind: 'photo', name: 'notify' }
      const [effect] = await ledger.takeEffects(target, TAKING)
      assert.ok(effect)
      await ledger.settleEffect(effect, { outcome: 'again', error: 'no', retryInMs: 60 * 60_000 })
      const before = await get(ledger, waiting)
      const ids = async () => (await ledger.leaseDue({ ...TAKING, inUse: [] })).map(({ operation: { id } }) => id)

      // Nothing is due later than it could be.
      const longestPauses = { operationMs: 2 * 60 * 60_000, effectMs: 2 * 60 * 60_000 }
      await ledger.settleClock({ ...LOOK, longestPauses })
      assert.deepEqual([await ids(), await ledger.takeEffects(target, TAKING)], [[], []])
      await ledger.settleClock({ ...LOOK, disturbed: true })
      assert.deepEqual(await ids(), [paused.id])
      assert.equal((await ledger.takeEffects(target, TAKING)).length, 1)
      assert.deepEqual(await get(ledger, waiting), before)
      assert.deepEqual(await ledger.renew([lease], LEASE_MS), [lease])
      await ledger.settleClock({ ...LOOK, disturbed: true, leaseMs: 0 })
      assert.deepEqual((await ids()).toSorted(), [held.id, paused.id].toSorted())
    },
  )

  on('an operation that is due later than the longest pause allows is due at once', async ({ ledger }) => {
    const paused = await dueIn(ledger, 60 * 60_000, { offset: 100, attempts: 1 })
    await ledger.settleClock({ ...LOOK, longestPauses: { operationMs: 30 * 60_000, effectMs: 30 * 60_000 } })
    assert.deepEqual(
      (await ledger.leaseDue({ ...TAKING, inUse: [] })).map(({ operation: { id } }) => id),
      [paused.id],
    )
  })
}
