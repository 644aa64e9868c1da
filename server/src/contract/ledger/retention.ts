import assert from 'node:assert/strict'
import { problem } from '@landfall/shared'
import { v7 as uuidv7 } from 'uuid'
import type { Ledger } from '../../ports/ledger.js'
import { REMOVAL } from '../../ports/ledger/effects.js'
import type { OperationKey } from '../../ports/operation.js'
import {
  accept,
  declared,
  get,
  intentOf,
  later,
  owing,
  reference,
  referenced,
  take,
  TAKING,
  type On,
} from './fixture.js'

const NOW = { finalMs: 0, effectsMs: 0 }
const NOTHING = { operations: 0, effects: 0 }
const DAY_MS = 24 * 60 * 60_000

/** What a ledger owes to privacy: retention and the right to erasure. */
export function retentionContract<Tx>(on: On<Tx>): void {
  /** Records that the bytes are removed, as the completer does. */
  async function clean(ledger: Ledger<unknown>, key: OperationKey): Promise<void> {
    const lease = await take(ledger, key, 'setup', 'drive')
    const cleaned = await ledger.record(lease, await get(ledger, key), {
      cleanupDue: false,
      dueInMs: null,
      release: true,
    })
    assert.ok(cleaned !== null)
  }

  async function cancelled(ledger: Ledger<unknown>, owner = 'ann'): Promise<OperationKey> {
    const { key } = await declared(ledger, { owner })
    assert.ok((await ledger.cancel(key, problem('cancelled'))) !== null)
    await clean(ledger, key)
    return key
  }

  /** Delivers the removal of a reference's bytes. */
  async function deliver(ledger: Ledger<unknown>): Promise<void> {
    for (const effect of await ledger.takeEffects(REMOVAL, TAKING))
      await ledger.settleEffect(effect, { outcome: 'delivered' })
  }

  on('an operation that has ended is retired, and its id is never used again', async ({ ledger, another }) => {
    const key = await cancelled(ledger)
    assert.deepEqual(await ledger.retire({ finalMs: DAY_MS, effectsMs: DAY_MS }, 10), NOTHING)
    assert.deepEqual(await ledger.retire({ finalMs: null, effectsMs: null }, 10), NOTHING)
    assert.equal(await ledger.tombstone(key), null)
    assert.deepEqual(await ledger.retire(NOW, 10), { operations: 1, effects: 0 })
    assert.equal(await ledger.find(key), null)
    assert.deepEqual(await ledger.list({ owner: key.owner, after: null, limit: 10 }), [])
    for (const each of [ledger, await another()]) {
      assert.equal(await each.tombstone(key), 'cancelled')
      assert.deepEqual(await each.declare(intentOf(key)), { outcome: 'forgotten', point: 'cancelled' })
      assert.deepEqual(await each.declare(intentOf({ ...key, facts: 'others' })), {
        outcome: 'forgotten',
        point: 'cancelled',
      })
    }
    assert.equal(await ledger.cancel(key, problem('cancelled')), null)
    assert.equal(await ledger.setDigest(key, 'sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:'), 'closed')
    assert.equal((await ledger.lease(key, { holder: 'n1', leaseMs: 1_000, purpose: 'receive' })).outcome, 'closed')
    assert.equal((await ledger.lease(key, { holder: 'n1', leaseMs: 1_000, purpose: 'drive' })).outcome, 'closed')
    assert.deepEqual(await ledger.retire(NOW, 10), NOTHING)
  })

  on('the same id of another owner is another operation, also after a tombstone', async ({ ledger }) => {
    const key = await cancelled(ledger)
    await ledger.retire(NOW, 10)
    const other = { owner: 'bob', id: key.id }
    assert.equal(await ledger.tombstone(other), null)
    assert.equal((await ledger.declare(intentOf(other))).outcome, 'created')
    assert.equal((await ledger.cancel(other, problem('cancelled')))?.point, 'cancelled')
    await clean(ledger, other)
    assert.deepEqual(await ledger.retire(NOW, 10), { operations: 1, effects: 0 })
    assert.equal(await ledger.tombstone(other), 'cancelled')
  })

  on(
    'an operation is not retired while it is open or referenced, or while its bytes are still to be removed',
    async ({ ledger, transaction }) => {
      const open = await declared(ledger)
      const stored = await referenced(ledger)
      await ledger.complete(10)
      const unclean = await declared(ledger)
      await ledger.cancel(unclean.key, problem('cancelled'))
      assert.deepEqual(await ledger.retire(NOW, 10), NOTHING)
      // A process removes the bytes at this moment.
      const lease = await take(ledger, unclean.key, 'n1', 'drive')
      const cleaning = await ledger.record(lease, await get(ledger, unclean.key), { cleanupDue: false })
      assert.ok(cleaning !== null)
      assert.deepEqual(await ledger.retire(NOW, 10), NOTHING)
      await ledger.record(lease, cleaning, { dueInMs: null, release: true })
      assert.deepEqual(await ledger.retire(NOW, 10), { operations: 1, effects: 0 })
      assert.equal((await get(ledger, open.key)).point, 'declared')
      assert.ok((await get(ledger, stored)).reference !== null)
      // An operation whose reference was removed is retired as soon as its bytes are removed.
      await transaction((tx) => ledger.remove(tx, stored.id, stored.owner))
      assert.deepEqual(await ledger.retire(NOW, 10), NOTHING)
      await deliver(ledger)
      assert.equal((await ledger.retire(NOW, 10)).operations, 1)
      assert.equal(await ledger.tombstone(stored), 'completed')
    },
  )

  on(
    'a removal that was given up keeps its operation, and any other effect keeps it only for a time',
    async ({ ledger, transaction }) => {
      const stuck = await referenced(ledger)
      await transaction((tx) => ledger.remove(tx, stuck.id, stuck.owner))
      for (const effect of await ledger.takeEffects(REMOVAL, TAKING))
        await ledger.settleEffect(effect, { outcome: 'given-up', error: 'the store is gone' })
      const told = await owing(ledger, ['notify'])
      const [notify] = await ledger.takeEffects({ kind: 'photo', name: 'notify' }, TAKING)
      await ledger.settleEffect(notify ?? assert.fail(), { outcome: 'given-up', error: 'nobody listens' })
      assert.deepEqual(await ledger.retire(NOW, 10), NOTHING)
      await transaction((tx) => ledger.remove(tx, told.id, told.owner))
      assert.deepEqual(await ledger.retire(NOW, 10), NOTHING)
      await deliver(ledger)
      assert.equal((await ledger.retire({ finalMs: 0, effectsMs: null }, 10)).operations, 1)
      assert.equal(await ledger.tombstone(told), 'completed')
      assert.deepEqual(await ledger.effectsOf(told), [])
      assert.equal((await ledger.effectsOf(stuck)).length, 1)
      assert.equal(await ledger.retry(stuck), true)
      await deliver(ledger)
      assert.equal((await ledger.retire(NOW, 10)).operations, 1)
    },
  )

  on('effects that were delivered are deleted, and their operation stays complete', async ({ ledger }) => {
    const operation = await owing(ledger, ['notify', 'index'])
    const settle = async (name: string): Promise<void> => {
      const [effect] = await ledger.takeEffects({ kind: 'photo', name }, TAKING)
      await ledger.settleEffect(effect ?? assert.fail(), { outcome: 'delivered' })
    }
    await settle('notify')
    assert.deepEqual(await ledger.retire({ finalMs: 0, effectsMs: DAY_MS }, 10), NOTHING)
    assert.deepEqual(await ledger.retire({ finalMs: 0, effectsMs: null }, 10), NOTHING)
    assert.deepEqual(await ledger.retire(NOW, 10), { operations: 0, effects: 1 })
    assert.deepEqual(
      (await ledger.effectsOf(operation)).map(({ name }) => name),
      ['index'],
    )
    assert.equal((await get(ledger, operation)).point, 'referenced')
    await settle('index')
    assert.equal((await get(ledger, operation)).point, 'completed')
    assert.deepEqual(await ledger.retire(NOW, 10), { operations: 0, effects: 1 })
    assert.ok((await get(ledger, operation)).reference !== null)
  })

  on(
    'several nodes retire operations in batches at once, and each operation is retired once',
    async ({ ledger, another }) => {
      const keys: OperationKey[] = []
      for (let n = 0; n < 25; n += 1) keys.push(await cancelled(ledger, `owner-${n % 3}`))
      const nodes = [ledger, await another(), await another()]
      let retired = 0
      for (let round = 0; round < 20 && retired < keys.length; round += 1) {
        const taken = await Promise.all(nodes.map((node) => node.retire(NOW, 4)))
        for (const { operations } of taken) assert.ok(operations <= 4)
        retired += taken.reduce((sum, { operations }) => sum + operations, 0)
      }
      assert.equal(retired, keys.length)
      for (const key of keys) {
        assert.equal(await ledger.find(key), null)
        assert.equal(await ledger.tombstone(key), 'cancelled')
      }
    },
  )

  on(
    'a declaration that runs while its operation is retired never makes a new operation',
    async ({ ledger, another }) => {
      const other = await another()
      for (let round = 0; round < 10; round += 1) {
        const intent = intentOf()
        await ledger.declare(intent)
        await ledger.cancel(intent, problem('cancelled'))
        await clean(ledger, intent)
        const [outcomes] = await Promise.all([
          Promise.all(
            Array.from({ length: 6 }, (_, n) =>
              (n % 2 === 0 ? ledger : other).declare({ ...intent, blobKey: uuidv7().replaceAll('-', '') }),
            ),
          ),
          other.retire(NOW, 10),
        ])
        for (const { outcome } of outcomes) assert.ok(['existing', 'forgotten'].includes(outcome), outcome)
        assert.equal((await ledger.declare(intent)).outcome, 'forgotten')
      }
    },
  )

  on('the time by which the clock was set ahead does not count', async ({ ledger }) => {
    const key = await cancelled(ledger)
    const look = { disturbed: false, leaseMs: 30_000, effectLeaseMs: 30_000, longestPauses: null }
    await ledger.settleClock({ ...look, passedMs: 0 })
    const retention = { finalMs: 1_500, effectsMs: 1_500 }
    await later(1_600)
    // By the monotonic clock of this process, one hour less has passed.
    const { steppedMs } = await ledger.settleClock({ ...look, passedMs: -60 * 60_000 })
    assert.ok(steppedMs >= 60 * 60_000)
    assert.deepEqual(await ledger.retire(retention, 10), NOTHING)
    assert.notEqual(await ledger.find(key), null)
    await later(1_600)
    assert.deepEqual(await ledger.retire(retention, 10), { operations: 1, effects: 0 })
  })

  on(
    'an owner is forgotten within the transaction of the application, or not at all',
    async ({ ledger, transaction, write, written }) => {
      const stored = await referenced(ledger)
      const open = await declared(ledger)
      const ended = await cancelled(ledger)
      const other = await referenced(ledger, { owner: 'bob' })
      const before = await get(ledger, stored)
      assert.deepEqual(await ledger.holdings('ann'), { operations: 3, openOperations: 1, references: 1, bytes: 100 })
      await assert.rejects(
        transaction(async (tx) => {
          await write(tx, 'account closed')
          await ledger.forgetOwner(tx, 'ann')
          throw new Error('the application fails')
        }),
        /the application fails/,
      )
      assert.deepEqual(await get(ledger, stored), before)
      assert.equal(await ledger.tombstone(stored), null)
      assert.deepEqual(await written(), [])

      const forgotten = await transaction(async (tx) => {
        await write(tx, 'account closed')
        return ledger.forgetOwner(tx, 'ann')
      })
      assert.deepEqual(forgotten, { operations: 3, openOperations: 1, references: 1, bytes: 100 })
      assert.deepEqual(await written(), ['account closed'])
      for (const [key, point] of [
        [stored, 'completed'],
        [open.key, 'cancelled'],
        [ended, 'cancelled'],
      ] as const) {
        assert.equal(await ledger.find(key), null)
        assert.equal(await ledger.tombstone(key), point)
        assert.equal((await ledger.declare(intentOf({ owner: key.owner, id: key.id }))).outcome, 'forgotten')
      }
      assert.deepEqual(await ledger.listOpen('ann', { after: null, limit: 10 }), [])
      assert.deepEqual(await ledger.holdings('ann'), { operations: 0, openOperations: 0, references: 0, bytes: 0 })
      assert.deepEqual(await ledger.forgetOwner(null, 'ann'), {
        operations: 0,
        openOperations: 0,
        references: 0,
        bytes: 0,
      })
      assert.deepEqual(await get(ledger, other), other)
      // The account may be created again.
      assert.equal(
        (await ledger.declare(intentOf({ quotaBytes: 100, maxOpenPerOwner: 1, quotaFiles: 1 }))).outcome,
        'created',
      )
      assert.equal((await ledger.declare(intentOf({ maxOpenPerOwner: 1 }))).outcome, 'too-many-open')
    },
  )

  on('the bytes of a forgotten owner are removed, and then its rows are removed', async ({ ledger }) => {
    const stored = await referenced(ledger)
    const open = await declared(ledger)
    const openKey = (await get(ledger, open.key)).blobKey
    await ledger.forgetOwner(null, 'ann')
    // The rows that drive the removal contain nothing of the owner.
    const claims = await ledger.claims({ after: '', upTo: null, limit: 10 })
    assert.deepEqual(
      claims.map(({ blobKey, cleanupDue, referenced: is }) => ({ blobKey, cleanupDue, is })),
      [stored.blobKey, openKey].toSorted().map((blobKey) => ({ blobKey, cleanupDue: true, is: false })),
    )
    for (const row of await ledger.list({ after: null, limit: 10 })) {
      const { file, metadata, validated, uploadMetadata, prepared, digest, content, problem: why, lastError } = row
      assert.deepEqual(
        { file, metadata, validated, uploadMetadata, prepared, digest, content, why, lastError },
        {
          file: { name: '', size: 100, type: '' },
          metadata: {},
          validated: null,
          uploadMetadata: null,
          prepared: {},
          digest: null,
          content: null,
          why: null,
          lastError: null,
        },
      )
      assert.notEqual(row.owner, 'ann')
    }
    const never = { finalMs: null, effectsMs: null }
    assert.deepEqual(await ledger.retire(never, 10), NOTHING)
    const effects = await ledger.takeEffects(REMOVAL, TAKING)
    assert.deepEqual(
      effects.map(({ payload }) => payload),
      [{ blobKey: stored.blobKey }],
    )
    for (const effect of effects) await ledger.settleEffect(effect, { outcome: 'delivered' })
    assert.deepEqual(await ledger.retire(never, 10), { operations: 1, effects: 0 })
    const due = await ledger.leaseDue({ ...TAKING, inUse: [] })
    assert.deepEqual(
      due.map(({ operation }) => operation.blobKey),
      [openKey],
    )
    for (const { lease, operation } of due)
      await ledger.record(lease, operation, { cleanupDue: false, dueInMs: null, release: true })
    assert.deepEqual(await ledger.retire(never, 10), { operations: 1, effects: 0 })
    assert.deepEqual(await ledger.list({ after: null, limit: 10 }), [])
    assert.equal(await ledger.tombstone(stored), 'completed')
    assert.equal(await ledger.tombstone(open.key), 'cancelled')
  })

  on('a process that receives or drives for a forgotten owner has lost the lease', async ({ ledger }) => {
    const { key } = await declared(ledger)
    const lease = await take(ledger, key, 'n1')
    const before = await get(ledger, key)
    await ledger.forgetOwner(null, 'ann')
    assert.equal(await ledger.record(lease, before, { offset: 50 }), null)
    assert.deepEqual(await ledger.renew([lease], 30_000), [])
    const driven = await declared(ledger)
    const driving = await take(ledger, driven.key, 'n1', 'drive')
    const seen = await get(ledger, driven.key)
    await ledger.forgetOwner(null, 'ann')
    const referring = reference({ offset: 100, tailBase: 0, point: 'verified' })
    assert.equal((await ledger.refer(driving, seen, referring, accept)).outcome, 'lost')
    assert.deepEqual(await ledger.holdings('ann'), { operations: 0, openOperations: 0, references: 0, bytes: 0 })
  })

  on('the effects of a forgotten owner are not delivered any more', async ({ ledger }) => {
    const target = { kind: 'photo', name: 'notify' }
    const settled = await owing(ledger, ['notify'])
    const [running] = await ledger.takeEffects(target, TAKING)
    await owing(ledger, ['notify'])
    await ledger.forgetOwner(null, settled.owner)
    assert.deepEqual(await ledger.takeEffects(target, TAKING), [])
    await ledger.settleEffect(running ?? assert.fail(), { outcome: 'delivered' })
    assert.equal((await ledger.takeEffects(REMOVAL, TAKING)).length, 2)
  })

  on(
    'an owner that is forgotten while its operations are declared, driven and retired is consistent',
    async ({ ledger, another }) => {
      const other = await another()
      for (let round = 0; round < 5; round += 1) {
        const driven = await declared(ledger)
        const lease = await take(ledger, driven.key, 'n1', 'drive')
        const seen = await get(ledger, driven.key)
        const intents = Array.from({ length: 5 }, () => intentOf())
        const [referred] = await Promise.all([
          other.refer(lease, seen, reference({ offset: 100, tailBase: 0, point: 'verified' }), accept),
          ledger.forgetOwner(null, 'ann'),
          ...intents.map((intent) => other.declare(intent)),
          other.retire(NOW, 10),
        ])
        assert.ok(['referenced', 'lost'].includes(referred.outcome))
        for (const intent of intents) {
          const row = await ledger.find(intent)
          assert.equal(row === null, (await ledger.tombstone(intent)) === 'cancelled')
        }
        await ledger.forgetOwner(null, 'ann')
        assert.deepEqual(await ledger.holdings('ann'), { operations: 0, openOperations: 0, references: 0, bytes: 0 })
        // The owner's usage was counted correctly: nothing of it is left.
        assert.equal(
          (await ledger.declare(intentOf({ maxOpenPerOwner: 1, quotaBytes: 100, quotaFiles: 1 }))).outcome,
          'created',
        )
      }
    },
  )
}
