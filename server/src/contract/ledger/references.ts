import assert from 'node:assert/strict'
import { problem } from '@landfall/shared'
import { REMOVAL } from '../../ports/ledger/effects.js'
import {
  accept,
  declared,
  DELIVERED,
  DIGEST,
  get,
  OTHER_DIGEST,
  pick,
  reference,
  referenced,
  take,
  TAKING,
  type On,
} from './fixture.js'

/** What every ledger must do about references: make each exactly once, complete its operation, and remove it. */
export function referencesContract<Tx>(on: On<Tx>): void {
  on('the rows that the hook wrote commit together with the reference', async ({ ledger, write, written }) => {
    const { key } = await declared(ledger)
    const lease = await take(ledger, key, 'n1', 'drive')
    const referred = await ledger.refer(
      lease,
      await get(ledger, key),
      reference({ offset: 100, tailBase: 0, point: 'verified' }),
      async (tx) => {
        await write(tx, 'photo')
        return { outcome: 'accepted', data: { photoId: 7 } }
      },
    )
    assert.equal(referred.outcome, 'referenced')
    const found = await get(ledger, key)
    assert.equal(found.point, 'referenced')
    assert.equal(found.leaseHolder, null)
    assert.deepEqual(
      pick(found.reference ?? assert.fail(), ['blobKey', 'size', 'type', 'digest', 'digestSource', 'data']),
      {
        blobKey: found.blobKey,
        size: 100,
        type: 'image/png',
        digest: DIGEST,
        digestSource: 'server',
        data: { photoId: 7 },
      },
    )
    assert.deepEqual(await written(), ['photo'])
    assert.equal(await ledger.cancel(key, problem('cancelled')), null)
  })

  on('a reference without a hook commits once, and not with a lost lease', async ({ ledger }) => {
    const whole = reference({ offset: 100, tailBase: 0, point: 'verified' })
    const { key } = await declared(ledger)
    const lease = await take(ledger, key, 'n1', 'drive')
    const from = await get(ledger, key)
    const referred = await ledger.refer(lease, from, whole, null)
    assert.equal(referred.outcome === 'referenced' && referred.operation.reference?.data, null)
    assert.equal((await ledger.refer(lease, from, whole, null)).outcome, 'lost')
    const found = await get(ledger, key)
    assert.deepEqual(pick(found, ['point', 'leaseHolder', 'offset']), {
      point: 'referenced',
      leaseHolder: null,
      offset: 100,
    })
    assert.deepEqual(pick(found.reference ?? assert.fail(), ['blobKey', 'size', 'type', 'data']), {
      blobKey: found.blobKey,
      size: 100,
      type: 'image/png',
      data: null,
    })
    const { key: cancelled } = await declared(ledger)
    const late = await take(ledger, cancelled, 'n1', 'drive')
    const before = await get(ledger, cancelled)
    await ledger.cancel(cancelled, problem('cancelled'))
    assert.equal((await ledger.refer(late, before, whole, null)).outcome, 'lost')
    assert.equal((await get(ledger, cancelled)).reference, null)
  })

  on(
    'the hook is rolled back when it rejects, throws or takes too long, or when the lease was lost',
    async ({ ledger, another, write, written }) => {
      const { key } = await declared(ledger)
      const lease = await take(ledger, key, 'n1', 'drive')
      const now = await get(ledger, key)
      const whole = reference({ offset: 100, tailBase: 0, point: 'verified' })
      const rejected = await ledger.refer(lease, now, whole, async (tx) => {
        await write(tx, 'rejected')
        return { outcome: 'rejected', problem: problem('rejected', { code: 'infected' }) }
      })
      assert.equal(rejected.outcome === 'rejected' && rejected.problem.code, 'infected')
      await assert.rejects(
        ledger.refer(lease, now, whole, async (tx) => {
          await write(tx, 'thrown')
          throw new Error('the application fails')
        }),
        /the application fails/,
      )
      await assert.rejects(
        ledger.refer(lease, now, { ...whole, timeLimitMs: 50 }, async (tx) => {
          await write(tx, 'late')
          await new Promise((resolve) => setTimeout(resolve, 200))
          await write(tx, 'later').catch(() => {})
          return { outcome: 'accepted', data: null }
        }),
        { code: 'hook-timeout' },
      )
      const other = await another()
      const lost = await ledger.refer(lease, now, whole, async (tx) => {
        // The other node takes over before the first write of this hook. On SQLite that write would keep the only
        // writer.
        await other.cancel(key, problem('cancelled'))
        await write(tx, 'lost')
        return { outcome: 'accepted', data: null }
      })
      assert.equal(lost.outcome, 'lost')
      assert.deepEqual(await written(), [])
      assert.deepEqual(pick(await get(ledger, key), ['point', 'reference', 'offset']), {
        point: 'cancelled',
        reference: null,
        offset: 0,
      })
    },
  )

  on('several drives at once make exactly one reference', async ({ ledger, write, written }) => {
    const { key } = await declared(ledger)
    const lease = await take(ledger, key, 'n1', 'drive')
    const now = await get(ledger, key)
    const outcomes = await Promise.allSettled(
      Array.from({ length: 8 }, (_, n) =>
        ledger.refer(lease, now, reference({ offset: 100, tailBase: 0, point: 'verified' }), async (tx) => {
          await write(tx, `row ${n}`)
          return { outcome: 'accepted', data: n }
        }),
      ),
    )
    const outcomeOf = outcomes.map((result) => (result.status === 'fulfilled' ? result.value.outcome : 'fault'))
    assert.equal(outcomeOf.filter((outcome) => outcome === 'referenced').length, 1)
    assert.equal((await written()).length, 1)
  })

  on('a hook that writes nothing still makes a reference', async ({ ledger }) => {
    const { key } = await declared(ledger)
    const lease = await take(ledger, key, 'n1', 'drive')
    const referred = await ledger.refer(
      lease,
      await get(ledger, key),
      reference({ offset: 100, tailBase: 0, point: 'verified' }),
      accept,
    )
    assert.equal(referred.outcome, 'referenced')
  })

  on('a digest that arrives while the hook runs is not ignored', async ({ ledger }) => {
    const { key } = await declared(ledger, { digest: 'pending' })
    const lease = await take(ledger, key, 'n1', 'drive')
    const referred = await ledger.refer(
      lease,
      await get(ledger, key),
      reference({ offset: 100, tailBase: 0, point: 'verified' }),
      async () => {
        assert.equal(await ledger.setDigest(key, OTHER_DIGEST), 'set')
        return { outcome: 'accepted', data: null }
      },
    )
    assert.equal(referred.outcome, 'lost')
    assert.deepEqual(pick(await get(ledger, key), ['point', 'digest', 'leaseHolder']), {
      point: 'declared',
      digest: OTHER_DIGEST,
      leaseHolder: 'n1',
    })
  })

  on('an operation with a reference is completed once it owes no effect', async ({ ledger, transaction }) => {
    const first = await referenced(ledger)
    const second = await referenced(ledger)
    await transaction(async (tx) => void (await ledger.remove(tx, first.id, first.owner)))
    assert.equal(await ledger.complete(10), 1)
    assert.equal((await get(ledger, second)).point, 'completed')
    assert.equal((await get(ledger, first)).point, 'referenced')
    for (const effect of await ledger.takeEffects(REMOVAL, TAKING)) await ledger.settleEffect(effect, DELIVERED)
    assert.equal((await get(ledger, first)).point, 'completed')
    assert.equal(await ledger.complete(10), 0)
  })

  on(
    'a removal commits with the transaction of the application, and owes the removal of the bytes',
    async ({ ledger, transaction }) => {
      const operation = await referenced(ledger)
      await assert.rejects(
        transaction(async (tx) => {
          assert.equal(await ledger.remove(tx, operation.id, null), true)
          throw new Error('the application fails')
        }),
      )
      assert.ok((await get(ledger, operation)).reference !== null)
      assert.deepEqual(await ledger.takeEffects(REMOVAL, TAKING), [])

      assert.equal(await transaction((tx) => ledger.remove(tx, operation.id, 'bob')), false)
      assert.equal(await transaction((tx) => ledger.remove(tx, operation.id, null)), true)
      assert.equal(await transaction((tx) => ledger.remove(tx, operation.id, null)), false)
      const removed = await get(ledger, operation)
      assert.deepEqual([removed.reference, removed.problem?.code, removed.removedAt !== null], [null, 'removed', true])
      const [effect] = await ledger.takeEffects(REMOVAL, TAKING)
      assert.deepEqual(effect && pick(effect, ['owner', 'id', 'type', 'payload', 'attempts']), {
        owner: operation.owner,
        id: operation.id,
        type: 'remove-bytes',
        payload: { blobKey: operation.blobKey },
        attempts: 1,
      })
    },
  )

  on('a removal that names no owner is refused when two owners use the id', async ({ ledger, transaction }) => {
    const ann = await referenced(ledger)
    const bob = await referenced(ledger, { owner: 'bob', id: ann.id })
    await assert.rejects(
      transaction((tx) => ledger.remove(tx, ann.id, null)),
      { code: 'ambiguous-operation' },
    )
    assert.equal(await transaction((tx) => ledger.remove(tx, ann.id, 'bob')), true)
    assert.ok((await get(ledger, ann)).reference !== null)
    assert.equal((await get(ledger, bob)).reference, null)
  })
}
