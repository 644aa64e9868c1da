import assert from 'node:assert/strict'
import { problem } from '@landfall/shared'
import {
  accept,
  declared,
  DIGEST,
  dueIn,
  get,
  LEASE_MS,
  pick,
  reference,
  request,
  take,
  TAKING,
  type On,
} from './fixture.js'

/** What every ledger must do about leases: who may change an operation, and when it is due. */
export function leasesContract<Tx>(on: On<Tx>): void {
  on('a lease excludes other holders, and the token of the next lease is greater', async ({ ledger }) => {
    const { key } = await declared(ledger)
    const first = await take(ledger, key, 'n1')
    assert.equal((await ledger.lease(key, request('n2', 'receive'))).outcome, 'held')
    assert.equal((await ledger.lease(key, request('n2', 'drive'))).outcome, 'held')
    await ledger.record(first, await get(ledger, key), { release: true })
    const second = await take(ledger, key, 'n2')
    assert.ok(second.token > first.token)
    assert.equal((await get(ledger, key)).uncleanHolder, null)
  })

  on('a holder that has lost its lease cannot change anything', async ({ ledger }) => {
    const { key } = await declared(ledger)
    const first = await take(ledger, key, 'n1', 'receive', 0)
    const second = await take(ledger, key, 'n2')
    assert.equal((await get(ledger, key)).uncleanHolder, 'n1')
    const before = await get(ledger, key)
    assert.equal(await ledger.record(first, before, { offset: 50 }), null)
    assert.deepEqual(await ledger.renew([first, second], LEASE_MS), [second])
    assert.equal(
      (await ledger.refer(first, before, reference({ offset: 100, point: 'verified' }), accept)).outcome,
      'lost',
    )
    assert.deepEqual(await get(ledger, key), { ...before, dueAt: (await get(ledger, key)).dueAt })
    assert.equal((await ledger.record(second, before, { offset: 50 }))?.offset, 50)
  })

  on('a receiver learns that others ask for its lease until it releases the lease', async ({ ledger, another }) => {
    const other = await another()
    const { key } = await declared(ledger)
    assert.equal(await other.ask(key, { holder: 'n2', urgency: 'at-once' }), false)
    const lease = await take(ledger, key, 'n1')
    assert.deepEqual(await ledger.askedOf('n1'), [])
    assert.equal(await other.ask(key, { holder: 'n2', urgency: 'when-silent' }), true)
    assert.deepEqual(await ledger.askedOf('n1'), [{ key, urgency: 'when-silent' }])
    assert.equal(await other.ask(key, { holder: 'n2', urgency: 'at-once' }), true)
    assert.equal(await other.ask(key, { holder: 'n3', urgency: 'when-silent' }), true)
    assert.deepEqual(await ledger.askedOf('n1'), [{ key, urgency: 'at-once' }])
    assert.deepEqual(await ledger.askedOf('n2'), [])
    // A holder is never in its own way, and a holder that drives is never asked.
    assert.equal(await ledger.ask(key, { holder: 'n1', urgency: 'at-once' }), false)
    const driving = await ledger.record(lease, await get(ledger, key), { purpose: 'drive' })
    assert.equal(await other.ask(key, { holder: 'n2', urgency: 'at-once' }), false)
    await ledger.record(lease, driving ?? assert.fail(), { release: true })
    await take(ledger, key, 'n2')
    assert.deepEqual(await ledger.askedOf('n2'), [])
    // A dead holder is waited for no longer than its lease lasts.
    const gone = await declared(ledger)
    await take(ledger, gone.key, 'n1', 'receive', 0)
    await new Promise((resolve) => setTimeout(resolve, 20))
    assert.equal(await other.ask(gone.key, { holder: 'n2', urgency: 'at-once' }), false)
  })

  on('a lease to receive is granted only while bytes are missing', async ({ ledger }) => {
    const { key } = await declared(ledger)
    const lease = await take(ledger, key, 'n1')
    await ledger.record(lease, await get(ledger, key), { offset: 100, tailBase: 0, release: true })
    assert.equal((await ledger.lease(key, request('n1', 'receive'))).outcome, 'closed')
    assert.equal((await ledger.lease(key, request('n1', 'drive'))).outcome, 'granted')
  })

  on('a record changes an operation only if its point and its digest are the expected ones', async ({ ledger }) => {
    const { key } = await declared(ledger, { digest: 'pending' })
    const lease = await take(ledger, key, 'n1')
    const before = await get(ledger, key)
    assert.equal(await ledger.record(lease, { ...before, point: 'received' }, { attempts: 3 }), null)
    assert.equal(await ledger.setDigest(key, DIGEST), 'set')
    assert.equal(await ledger.record(lease, before, { attempts: 3 }), null)
    assert.equal((await ledger.record(lease, await get(ledger, key), { attempts: 3 }))?.attempts, 3)
  })

  on('an acknowledged offset never decreases, and no point moves back', async ({ ledger }) => {
    const { key } = await declared(ledger)
    const lease = await take(ledger, key, 'n1')
    const before = await ledger.record(lease, await get(ledger, key), { offset: 60 })
    assert.ok(before !== null)
    await assert.rejects(ledger.record(lease, before, { offset: 59 }))
    await assert.rejects(ledger.record(lease, before, { offset: 101 }))
    await assert.rejects(
      ledger.record(lease, before, { point: 'received' }),
      'the point received must not be recorded while bytes are missing',
    )
    const sealed = await ledger.record(lease, before, { offset: 100, tailBase: 40, point: 'sealed' })
    assert.ok(sealed !== null)
    await assert.rejects(ledger.record(lease, sealed, { point: 'received' }))
    assert.deepEqual(pick(await get(ledger, key), ['point', 'offset']), { point: 'sealed', offset: 100 })
  })

  on('the time of the last byte and the tail are recorded once', async ({ ledger }) => {
    const { key } = await declared(ledger)
    const lease = await take(ledger, key, 'n1')
    const first = await ledger.record(lease, await get(ledger, key), { offset: 100, tailBase: 40 })
    assert.ok(first !== null && first.receivedAt !== null)
    const second = await ledger.record(lease, first, { tailBase: 50 })
    assert.deepEqual(pick(second ?? first, ['tailBase', 'receivedAt']), { tailBase: 40, receivedAt: first.receivedAt })
  })

  on('only operations that are due are leased, the oldest first', async ({ ledger }) => {
    const late = await dueIn(ledger, -1_000)
    const later = await dueIn(ledger, -500)
    await dueIn(ledger, 60_000)
    const stalled = await dueIn(ledger, -2_000, { stalled: true })
    const leased = await dueIn(ledger, -2_000)
    await take(ledger, leased, 'n2', 'drive')
    const final = await declared(ledger)
    await ledger.cancel(final.key, problem('cancelled'))
    const one = await ledger.leaseDue({ holder: 'n1', leaseMs: LEASE_MS, limit: 1, inUse: [] })
    assert.deepEqual(
      one.map(({ operation }) => operation.id),
      [late.id],
    )
    const rest = await ledger.leaseDue({ holder: 'n1', leaseMs: LEASE_MS, limit: 10, inUse: [] })
    assert.deepEqual(rest.map(({ operation }) => operation.id).toSorted(), [later.id, final.key.id].toSorted())
    assert.deepEqual(await ledger.leaseDue({ holder: 'n1', leaseMs: LEASE_MS, limit: 10, inUse: [] }), [])
    assert.equal((await get(ledger, stalled)).leaseHolder, null)
  })

  on('an operation of a dead node is due after its lease has expired', async ({ ledger }) => {
    const { key } = await declared(ledger)
    await take(ledger, key, 'n1', 'receive', 30)
    assert.deepEqual(await ledger.leaseDue({ holder: 'n2', leaseMs: LEASE_MS, limit: 10, inUse: [] }), [])
    await new Promise((resolve) => setTimeout(resolve, 60))
    const [found] = await ledger.leaseDue({ holder: 'n2', leaseMs: LEASE_MS, limit: 10, inUse: [] })
    assert.equal(found?.operation.uncleanHolder, 'n1')
    // A holder's own lease that is in use is never due. The holder is alive, so an expired lease means that the clock
    // has jumped.
    const own = await declared(ledger)
    await take(ledger, own.key, 'n2', 'receive', 0)
    await new Promise((resolve) => setTimeout(resolve, 20))
    const ofOwn = { holder: 'n2', leaseMs: LEASE_MS, limit: 10 }
    assert.deepEqual(await ledger.leaseDue({ ...ofOwn, inUse: [key, own.key] }), [])
    // A lease that could not be given back is due, because nothing renews it.
    const [orphan] = await ledger.leaseDue({ ...ofOwn, inUse: [key] })
    assert.equal(orphan?.operation.id, own.key.id)
  })

  on('the leases of all other holders can be ended at once', async ({ ledger }) => {
    const { key } = await declared(ledger)
    const dead = await take(ledger, key, 'n1')
    const own = await declared(ledger)
    const alive = await take(ledger, own.key, 'n2')
    assert.equal(await ledger.forgetOtherHolders('n2'), 1)
    assert.equal(await ledger.record(dead, await get(ledger, key), { offset: 1 }), null)
    assert.deepEqual(await ledger.renew([alive], LEASE_MS), [alive])
    const [found] = await ledger.leaseDue({ holder: 'n2', leaseMs: LEASE_MS, limit: 10, inUse: [] })
    assert.deepEqual([found?.operation.id, found?.operation.uncleanHolder], [key.id, 'n1'])
  })

  on('a stalled operation stays stalled until an operator retries it', async ({ ledger }) => {
    const stalled = await dueIn(ledger, -1, { stalled: true, problem: problem('stalled') })
    assert.equal(await ledger.retry(stalled), true)
    assert.equal(await ledger.retry(stalled), false)
    assert.deepEqual(pick(await get(ledger, stalled), ['stalled', 'problem', 'attempts']), {
      stalled: false,
      problem: null,
      attempts: 0,
    })
    assert.equal((await ledger.leaseDue({ holder: 'n1', leaseMs: LEASE_MS, limit: 10, inUse: [] })).length, 1)
  })

  on('a stalled operation whose driver died is not due, and no completer wakes up for it', async ({ ledger }) => {
    const stalled = await dueIn(ledger, 0, { offset: 100, stalled: true })
    await take(ledger, stalled, 'dead', 'drive')
    await ledger.forgetOtherHolders('n1')
    assert.deepEqual(await ledger.leaseDue({ ...TAKING, inUse: [] }), [])
    assert.equal(await ledger.nextDueInMs([]), null)
    assert.equal(await ledger.retry(stalled), true)
    assert.equal(await ledger.nextDueInMs([]), 0)
  })

  on('the ledger says how long it is until the next operation is due', async ({ ledger }) => {
    assert.equal(await ledger.nextDueInMs([]), null)
    await dueIn(ledger, 5_000)
    const inMs = (await ledger.nextDueInMs([])) ?? 0
    assert.ok(inMs > 3_000 && inMs <= 5_000, String(inMs))
    await dueIn(ledger, -5_000)
    assert.equal(await ledger.nextDueInMs([]), 0)
  })

  on('an operation is due at the time that its row names, however late the change is recorded', async ({ ledger }) => {
    const { key } = await declared(ledger)
    const lease = await take(ledger, key, 'n1')
    const before = await get(ledger, key)
    await new Promise((resolve) => setTimeout(resolve, 20))
    const left = await ledger.record(lease, before, { dueAt: 'expiry', release: true })
    assert.equal(left?.dueAt, before.expiresAt)
    const again = await take(ledger, key, 'n1')
    const waiting = await ledger.record(again, left, { digestDueInMs: 60_000 })
    assert.ok(waiting)
    const later = await ledger.record(again, waiting, { dueAt: 'digest-due', release: true })
    assert.ok(later !== null && later.dueAt !== null)
    assert.equal(later.dueAt, waiting.digestDueAt)
  })
}
