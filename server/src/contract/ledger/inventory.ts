import assert from 'node:assert/strict'
import { problem } from '@landfall/shared'
import { REMOVAL } from '../../ports/ledger/effects.js'
import { declared, DELIVERED, dueIn, get, owing, pick, referenced, TAKING, type On } from './fixture.js'

/** What every ledger must tell an operator: claims, operations, health and backlog. */
export function inventoryContract<Tx>(on: On<Tx>): void {
  on(
    'the blobs that operations claim are listed in pages, in the order of their keys',
    async ({ ledger, transaction }) => {
      const keys = ['a1', 'b2', 'c3', 'd4', 'e5'].map((end) => `${'0'.repeat(30)}${end}`)
      const [open, whole, gone, cancelled, last] = keys
      await declared(ledger, { blobKey: open ?? '' })
      await referenced(ledger, { blobKey: whole ?? '' })
      const removed = await referenced(ledger, { blobKey: gone ?? '' })
      await transaction((tx) => ledger.remove(tx, removed.id, removed.owner))
      const { key } = await declared(ledger, { blobKey: cancelled ?? '' })
      await ledger.cancel(key, problem('cancelled'))
      await declared(ledger, { blobKey: last ?? '' })
      const range = (after: string, upTo: string | null, limit = 10) => ledger.claims({ after, upTo, limit })
      const claimed = await range('', null)
      assert.deepEqual(
        claimed.map(({ blobKey }) => blobKey),
        keys,
      )
      assert.deepEqual(
        claimed.map((claim) => pick(claim, ['point', 'referenced', 'removed', 'cleanupDue', 'leased', 'offset'])),
        [
          { point: 'declared', referenced: false, removed: false, cleanupDue: false, leased: false, offset: 0 },
          { point: 'referenced', referenced: true, removed: false, cleanupDue: false, leased: false, offset: 100 },
          { point: 'referenced', referenced: false, removed: true, cleanupDue: true, leased: false, offset: 100 },
          { point: 'cancelled', referenced: false, removed: false, cleanupDue: true, leased: false, offset: 0 },
          { point: 'declared', referenced: false, removed: false, cleanupDue: false, leased: false, offset: 0 },
        ],
      )
      assert.deepEqual(
        (await range(open ?? '', cancelled ?? '')).map(({ blobKey }) => blobKey),
        [whole, gone, cancelled],
      )
      assert.deepEqual(
        (await range(open ?? '', null, 2)).map(({ blobKey }) => blobKey),
        [whole, gone],
      )
      for (const effect of await ledger.takeEffects(REMOVAL, TAKING)) await ledger.settleEffect(effect, DELIVERED)
      assert.equal((await range(whole ?? '', gone ?? ''))[0]?.cleanupDue, false)
    },
  )

  on('operations are listed for an operator, the newest first', async ({ ledger }) => {
    const first = await owing(ledger, ['first'])
    const { key: second } = await declared(ledger, { owner: 'bob', id: first.id })
    const third = await dueIn(ledger, 0, { stalled: true })
    const ids = async (page: Parameters<typeof ledger.list>[0]): Promise<string[]> =>
      (await ledger.list(page)).map(({ owner, id }) => `${owner} ${id}`)
    const all = { after: null, limit: 10 }
    const names = [third, second, first].map(({ owner, id }) => `${owner} ${id}`)
    assert.deepEqual(await ids(all), names)
    assert.deepEqual(await ids({ ...all, limit: 1 }), names.slice(0, 1))
    const newest = await get(ledger, third)
    assert.deepEqual(await ids({ ...all, after: newest.blobKey }), names.slice(1))
    assert.deepEqual(await ids({ ...all, owner: 'bob' }), [names[1]])
    assert.deepEqual(await ids({ ...all, id: first.id }), names.slice(1))
    assert.deepEqual(await ids({ ...all, point: 'referenced' }), [names[2]])
    assert.deepEqual(await ids({ ...all, stalled: true }), [names[0]])
    assert.deepEqual(await ids({ ...all, givenUp: true }), [])
    const [effect] = await ledger.takeEffects({ kind: 'photo', name: 'first' }, TAKING)
    assert.ok(effect !== undefined)
    await ledger.settleEffect(effect, { outcome: 'given-up', error: 'no' })
    assert.deepEqual(await ids({ ...all, givenUp: true }), [names[2]])
  })

  on('the health of the ledger counts its operations and its effects', async ({ ledger }) => {
    const { identity } = await ledger.migrate()
    assert.deepEqual(pick(await ledger.health(), ['identity', 'heartbeatAt', 'operations']), {
      identity,
      heartbeatAt: null,
      operations: 0,
    })
    await ledger.heartbeat()
    await declared(ledger)
    await dueIn(ledger, 0, { stalled: true })
    await owing(ledger, ['first'])
    const { nowAt, heartbeatAt, ...counts } = await ledger.health()
    assert.ok(heartbeatAt !== null && nowAt - heartbeatAt < 10_000)
    assert.ok(Math.abs(nowAt - Date.now()) < 60_000)
    assert.deepEqual(counts, {
      identity,
      operations: 3,
      openOperations: 2,
      stalledOperations: 1,
      dueEffects: 1,
      givenUpEffects: 0,
    })
  })

  on('every process sees when a completer was last alive', async ({ ledger, another }) => {
    const before = await ledger.pulse()
    assert.equal(before.heartbeatAt, null)
    assert.ok(Math.abs(before.nowAt - Date.now()) < 60_000)
    await ledger.heartbeat()
    const { nowAt, heartbeatAt } = await (await another()).pulse()
    assert.ok(heartbeatAt !== null && heartbeatAt >= before.nowAt && heartbeatAt <= nowAt)
  })

  on('the backlog counts what is unfinished, and says how old it is', async ({ ledger }) => {
    const none = { declared: 0, received: 0, sealed: 0, verified: 0, referenced: 0 }
    const { nowAt: emptyAt, ...empty } = await ledger.backlog()
    assert.ok(Math.abs(emptyAt - Date.now()) < 60_000)
    assert.deepEqual(empty, {
      points: none,
      stalled: 0,
      oldestUnreceivedAt: null,
      oldestReceivedAt: null,
      dueEffects: 0,
      givenUpEffects: 0,
    })
    const { key: waiting } = await declared(ledger)
    await declared(ledger)
    const whole = await dueIn(ledger, 0, { offset: 100, tailBase: 0, point: 'received', stalled: true })
    await dueIn(ledger, 0, { offset: 100, tailBase: 0, point: 'verified' })
    const { key: cancelled } = await declared(ledger)
    await ledger.cancel(cancelled, problem('cancelled'))
    await referenced(ledger)
    await owing(ledger, ['first', 'second'])
    const given = await owing(ledger, ['third'])
    const [effect] = await ledger.takeEffects({ kind: 'photo', name: 'third' }, TAKING)
    assert.ok(effect !== undefined && effect.id === given.id)
    await ledger.settleEffect(effect, { outcome: 'given-up', error: 'no' })
    const { nowAt, ...counts } = await ledger.backlog()
    assert.ok(nowAt >= emptyAt)
    assert.deepEqual(counts, {
      points: { declared: 2, received: 1, sealed: 0, verified: 1, referenced: 3 },
      stalled: 1,
      oldestUnreceivedAt: (await get(ledger, waiting)).createdAt,
      oldestReceivedAt: (await get(ledger, whole)).receivedAt,
      dueEffects: 2,
      givenUpEffects: 1,
    })
    // The operation that owed nothing is completed, and a completed operation is not counted any more.
    assert.equal(await ledger.complete(10), 1)
    assert.equal((await ledger.backlog()).points.referenced, 2)
  })
}
