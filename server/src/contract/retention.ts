import assert from 'node:assert/strict'
import { problem } from '@landfall/shared'
import { v7 as uuidv7 } from 'uuid'
import type { Ledger } from '../ports/ledger.js'
import type { OperationKey } from '../ports/operation.js'
import { REMOVAL } from '../ports/ledger/effects.js'
import type * as Common from './ledger.js'

const TAKING = { holder: 'n1', leaseMs: 30_000, limit: 10 }
const NOW = { finalMs: 0, effectsMs: 0 }
const NOTHING = { operations: 0, effects: 0 }
const DAY_MS = 24 * 60 * 60_000
const later = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

/** What the cases of a ledger have in common. */
type Steps = Pick<
  typeof Common,
  'accept' | 'declared' | 'get' | 'intentOf' | 'owing' | 'reference' | 'referenced' | 'take'
>

/** What a ledger owes to privacy: retention, the right to erasure, and limits of how fast it grows. */
export function retentionContract<Tx>(
  on: (name: string, body: (fixture: Common.LedgerFixture<Tx>) => Promise<void>) => void,
  { accept, declared, get, intentOf, owing, reference, referenced, take }: Steps,
): void {
  /** As the completer does when the bytes are removed. */
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

  on('retires what has ended, and its id is never used again', async ({ ledger, another }) => {
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

  on("another owner's equal id is another operation, also after a tombstone", async ({ ledger }) => {
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
    'never retires what is open, or referenced, or whose bytes are still to be removed',
    async ({ ledger, transaction }) => {
      const open = await declared(ledger)
      const stored = await referenced(ledger)
      await ledger.complete(10)
      const unclean = await declared(ledger)
      await ledger.cancel(unclean.key, problem('cancelled'))
      assert.deepEqual(await ledger.retire(NOW, 10), NOTHING)
      // Somebody removes its bytes just now.
      const lease = await take(ledger, unclean.key, 'n1', 'drive')
      const cleaning = await ledger.record(lease, await get(ledger, unclean.key), { cleanupDue: false })
      assert.ok(cleaning !== null)
      assert.deepEqual(await ledger.retire(NOW, 10), NOTHING)
      await ledger.record(lease, cleaning, { dueInMs: null, release: true })
      assert.deepEqual(await ledger.retire(NOW, 10), { operations: 1, effects: 0 })
      assert.equal((await get(ledger, open.key)).point, 'declared')
      assert.ok((await get(ledger, stored)).reference !== null)
      // A reference that was removed, as soon as its bytes are.
      await transaction((tx) => ledger.remove(tx, stored.id, stored.owner))
      assert.deepEqual(await ledger.retire(NOW, 10), NOTHING)
      await deliver(ledger)
      assert.equal((await ledger.retire(NOW, 10)).operations, 1)
      assert.equal(await ledger.tombstone(stored), 'completed')
    },
  )

  on(
    'a removal that was given up keeps its operation, another effect only for a time',
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

  on('deletes effects that were delivered, and their operation stays complete', async ({ ledger }) => {
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

  on('retires in batches, also on several nodes at once, and each operation once', async ({ ledger, another }) => {
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
  })

  on('declared again while it is retired, it is never a new operation', async ({ ledger, another }) => {
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
  })

  on('time in which the clock was set ahead does not count', async ({ ledger }) => {
    const key = await cancelled(ledger)
    const look = { disturbed: false, leaseMs: 30_000, effectLeaseMs: 30_000, longestPauses: null }
    await ledger.settleClock({ ...look, passedMs: 0 })
    const retention = { finalMs: 1_500, effectsMs: 1_500 }
    await later(1_600)
    // By the monotonic clock of this process an hour less has passed.
    const { steppedMs } = await ledger.settleClock({ ...look, passedMs: -60 * 60_000 })
    assert.ok(steppedMs >= 60 * 60_000)
    assert.deepEqual(await ledger.retire(retention, 10), NOTHING)
    assert.notEqual(await ledger.find(key), null)
    await later(1_600)
    assert.deepEqual(await ledger.retire(retention, 10), { operations: 1, effects: 0 })
  })

  on(
    'forgets an owner within the application’s transaction, or not at all',
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
      // The account may exist again.
      assert.equal(
        (await ledger.declare(intentOf({ quotaBytes: 100, maxOpenPerOwner: 1, quotaFiles: 1 }))).outcome,
        'created',
      )
      assert.equal((await ledger.declare(intentOf({ maxOpenPerOwner: 1 }))).outcome, 'too-many-open')
    },
  )

  on('the bytes of a forgotten owner are removed, and then its rows are', async ({ ledger }) => {
    const stored = await referenced(ledger)
    const open = await declared(ledger)
    const openKey = (await get(ledger, open.key)).blobKey
    await ledger.forgetOwner(null, 'ann')
    // Nothing of the owner's is in what drives that.
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

  on('whoever receives or drives for a forgotten owner has lost the lease', async ({ ledger }) => {
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

  on('of what a forgotten owner’s effects tell, nothing is delivered any more', async ({ ledger }) => {
    const target = { kind: 'photo', name: 'notify' }
    const settled = await owing(ledger, ['notify'])
    const [running] = await ledger.takeEffects(target, TAKING)
    await owing(ledger, ['notify'])
    await ledger.forgetOwner(null, settled.owner)
    assert.deepEqual(await ledger.takeEffects(target, TAKING), [])
    await ledger.settleEffect(running ?? assert.fail(), { outcome: 'delivered' })
    assert.equal((await ledger.takeEffects(REMOVAL, TAKING)).length, 2)
  })

  on('forgotten while it is declared, driven and retired, an owner is consistent', async ({ ledger, another }) => {
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
      // What the owner uses was counted right: nothing is left of it.
      assert.equal(
        (await ledger.declare(intentOf({ maxOpenPerOwner: 1, quotaBytes: 100, quotaFiles: 1 }))).outcome,
        'created',
      )
    }
  })

  on('an owner may hold so many files, empty ones among them', async ({ ledger, transaction }) => {
    const empty = { name: 'empty', size: 0, type: 'text/plain' }
    const within = () => intentOf({ quotaFiles: 2, file: empty })
    const first = within()
    assert.equal((await ledger.declare(first)).outcome, 'created')
    assert.equal((await ledger.declare(within())).outcome, 'created')
    assert.deepEqual(await ledger.declare(within()), { outcome: 'over-file-quota', usedFiles: 2 })
    assert.equal((await ledger.declare(first)).outcome, 'existing')
    assert.equal((await ledger.declare(intentOf({ quotaFiles: 2, owner: 'bob' }))).outcome, 'created')
    await ledger.cancel(first, problem('cancelled'))
    const third = within()
    assert.equal((await ledger.declare(third)).outcome, 'created')
    const lease = await take(ledger, third, 'setup', 'drive')
    await ledger.refer(
      lease,
      await get(ledger, third),
      reference({ offset: 0, tailBase: 0, point: 'verified' }),
      accept,
    )
    assert.deepEqual(await ledger.declare(within()), { outcome: 'over-file-quota', usedFiles: 2 })
    await transaction((tx) => ledger.remove(tx, third.id, third.owner))
    assert.equal((await ledger.declare(within())).outcome, 'created')
  })

  on('an owner may declare so often, on all nodes together', async ({ ledger, another }) => {
    const other = await another()
    const rate = { count: 4, perMs: 2_000 }
    const intents = Array.from({ length: 10 }, () => intentOf({ rate }))
    const outcomes = await Promise.all(intents.map((intent, n) => (n % 2 === 0 ? ledger : other).declare(intent)))
    assert.equal(outcomes.filter(({ outcome }) => outcome === 'created').length, 4)
    const refused = outcomes.flatMap((each) => (each.outcome === 'too-many-declared' ? [each.retryInMs] : []))
    assert.equal(refused.length, 6)
    for (const retryInMs of refused) assert.ok(retryInMs > 0 && retryInMs <= 500, String(retryInMs))
    // What was declared before is told again, and another owner has a rate of its own.
    const created = intents[outcomes.findIndex(({ outcome }) => outcome === 'created')] ?? assert.fail()
    assert.equal((await ledger.declare(created)).outcome, 'existing')
    assert.equal((await ledger.declare(intentOf({ rate, owner: 'bob' }))).outcome, 'created')
    assert.equal((await ledger.declare(intentOf({ rate: null }))).outcome, 'created')
    await later(Math.max(...refused) + 10)
    assert.equal((await other.declare(intentOf({ rate }))).outcome, 'created')
  })
}
