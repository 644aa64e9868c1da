import assert from 'node:assert/strict'
import { problem } from '@landfall/shared'
import { v4 as uuidv4, v7 as uuidv7 } from 'uuid'
import type { Changes, Lease } from '../ports/ledger/leases.js'
import type { Intent } from '../ports/ledger/operations.js'
import type { Ledger } from '../ports/ledger.js'
import type { OperationKey, OperationRecord } from '../ports/operation.js'
import { type OwedEffect, REMOVAL } from '../ports/ledger/effects.js'
import { retentionContract } from './retention.js'
import { type RegisterTest, withFixture } from './suite.js'

/** A ledger on a fresh database, and a table of the application's own beside it. */
export interface LedgerFixture<Tx> {
  readonly ledger: Ledger<Tx>
  /** Another one on the same database, as another process would have it. */
  another(): Promise<Ledger<Tx>>
  /** Writes a row of the application's through its transaction. */
  write(tx: Tx, text: string): Promise<void>
  /** The application's rows that are committed. */
  written(): Promise<string[]>
  /** Runs `body` in a transaction of the application's own. */
  transaction<T>(body: (tx: Tx) => Promise<T>): Promise<T>
  dispose(): Promise<void>
}

export const intentOf = (changes: Partial<Intent> = {}): Intent => ({
  owner: 'ann',
  id: uuidv7(),
  kind: 'photo',
  file: { name: 'a.png', size: 100, type: 'image/png' },
  metadata: { album: '1' },
  validated: { album: '1' },
  uploadMetadata: null,
  facts: 'facts',
  digest: null,
  blobKey: uuidv7().replaceAll('-', ''),
  expiresAfterMs: 60_000,
  maxOpenPerOwner: 100,
  quotaBytes: null,
  quotaFiles: null,
  rate: null,
  ...changes,
})

const LEASE_MS = 30_000
const TAKING = { holder: 'n1', leaseMs: LEASE_MS, limit: 10 }
/** Of a process that has just begun. */
const LOOK = { passedMs: 0, disturbed: false, leaseMs: LEASE_MS, effectLeaseMs: LEASE_MS, longestPauses: null }
const DELIVERED = { outcome: 'delivered' } as const
const DIGEST = 'sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:' as const
const OTHER_DIGEST = 'sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:' as const
const CONTENT = { digest: DIGEST, type: 'image/png' }

/** What every ledger must do. Registers its cases with `test`; each gets a fixture of its own. */
export function ledgerContract<Tx>(test: RegisterTest, create: () => Promise<LedgerFixture<Tx>>): void {
  const on = (name: string, body: (fixture: LedgerFixture<Tx>) => Promise<void>): void =>
    test(name, () =>
      withFixture(create, async (fixture) => {
        await fixture.ledger.migrate()
        await body(fixture)
      }),
    )

  test('migrates once, also when two processes start at once, and keeps its identity', () =>
    withFixture(create, async ({ ledger, another }) => {
      const other = await another()
      const [first, second] = await Promise.all([ledger.migrate(), other.migrate()])
      assert.equal(first.identity, second.identity)
      assert.deepEqual(await ledger.migrate(), first)
      assert.deepEqual(await ledger.migrate('check'), first)
      assert.equal(first.store, 'new')
      await ledger.rememberStore()
      await other.rememberStore()
      assert.deepEqual(await other.migrate(), { ...first, store: 'known' })
    }))

  test('the key of the owner tags is made once by whoever asks first, several at once, and stays', () =>
    withFixture(create, async ({ ledger, another }) => {
      const other = await another()
      // As a server leaves a database that knows of no owner tags: migrated and used, without a key.
      await ledger.migrate()
      await ledger.rememberStore()
      await ledger.declare(intentOf())
      const keys = await Promise.all(Array.from({ length: 10 }, (_, n) => (n % 2 === 0 ? ledger : other).ownerKey()))
      assert.equal(new Set(keys).size, 1)
      // 32 random bytes, as text.
      assert.match(keys[0] ?? '', /^[\w-]{43}$/)
      await other.migrate()
      assert.equal(await other.ownerKey(), keys[0])
    }))

  on('declares with all intents, and finds it', async ({ ledger }) => {
    const intent = intentOf({
      file: { name: 'ä.png', size: 7, type: 'image/png', lastModified: 5 },
      digest: 'pending',
      uploadMetadata: 'a Yg==',
    })
    assert.equal((await ledger.declare(intent)).outcome, 'created')
    const found = await get(ledger, intent)
    assert.deepEqual(
      {
        ...pick(found, [
          'owner',
          'id',
          'kind',
          'point',
          'file',
          'metadata',
          'validated',
          'uploadMetadata',
          'offset',
          'digest',
          'digestPending',
          'blobKey',
          'stalled',
        ]),
      },
      {
        owner: 'ann',
        id: intent.id,
        kind: 'photo',
        point: 'declared',
        file: intent.file,
        metadata: { album: '1' },
        validated: { album: '1' },
        uploadMetadata: 'a Yg==',
        offset: 0,
        digest: null,
        digestPending: true,
        blobKey: intent.blobKey,
        stalled: false,
      },
    )
    assert.ok(Math.abs(found.createdAt - Date.now()) < 60_000)
    assert.equal(found.expiresAt - found.createdAt, 60_000)
  })

  on('the same id with the same facts is the same operation, with others a mismatch', async ({ ledger }) => {
    const intent = intentOf()
    await ledger.declare(intent)
    const again = await ledger.declare({ ...intent, blobKey: uuidv7().replaceAll('-', '') })
    assert.equal(again.outcome, 'existing')
    assert.equal((await get(ledger, intent)).blobKey, intent.blobKey)
    assert.equal((await ledger.declare({ ...intent, facts: 'others' })).outcome, 'mismatch')
  })

  on('declared at once several times, one is created', async ({ ledger, another }) => {
    const other = await another()
    const intent = intentOf()
    const outcomes = await Promise.all(
      Array.from({ length: 10 }, (_, n) =>
        (n % 2 === 0 ? ledger : other).declare({ ...intent, blobKey: uuidv7().replaceAll('-', '') }),
      ),
    )
    assert.equal(outcomes.filter(({ outcome }) => outcome === 'created').length, 1)
    assert.equal(outcomes.filter(({ outcome }) => outcome === 'existing').length, 9)
  })

  on('owners do not see each other, and may use the same id', async ({ ledger }) => {
    const intent = intentOf()
    await ledger.declare(intent)
    const key = { owner: 'bob', id: intent.id }
    assert.equal(await ledger.find(key), null)
    assert.deepEqual(await ledger.findMany('bob', [intent.id]), [])
    assert.equal(await ledger.cancel(key, problem('cancelled')), null)
    assert.equal((await ledger.lease(key, request('n1', 'receive'))).outcome, 'closed')
    assert.equal((await ledger.declare(intentOf({ ...key, facts: 'others' }))).outcome, 'created')
    assert.equal((await get(ledger, intent)).point, 'declared')
  })

  on('limits the open operations of an owner', async ({ ledger }) => {
    const first = intentOf({ maxOpenPerOwner: 2 })
    await ledger.declare(first)
    await ledger.declare(intentOf({ maxOpenPerOwner: 2 }))
    assert.equal((await ledger.declare(intentOf({ maxOpenPerOwner: 2 }))).outcome, 'too-many-open')
    assert.equal((await ledger.declare(intentOf({ maxOpenPerOwner: 2, owner: 'bob' }))).outcome, 'created')
    await ledger.cancel(first, problem('cancelled'))
    assert.equal((await ledger.declare(intentOf({ maxOpenPerOwner: 2 }))).outcome, 'created')
  })

  on(
    'reserves what an owner may hold, settles it with the reference, and gives it back',
    async ({ ledger, transaction }) => {
      const within = (changes: Partial<Intent> = {}): Intent => intentOf({ quotaBytes: 250, ...changes })
      const first = within()
      const second = within()
      assert.equal((await ledger.declare(first)).outcome, 'created')
      assert.equal((await ledger.declare(second)).outcome, 'created')
      assert.deepEqual(await ledger.declare(within()), { outcome: 'over-quota', usedBytes: 200 })
      assert.equal((await ledger.declare(first)).outcome, 'existing')
      assert.equal((await ledger.declare(within({ owner: 'bob' }))).outcome, 'created')
      // A smaller file, one by one up to the last byte.
      assert.equal((await ledger.declare(within({ file: { name: 'b', size: 50, type: '' } }))).outcome, 'created')
      assert.equal((await ledger.declare(within({ file: { name: 'c', size: 0, type: '' } }))).outcome, 'created')
      assert.equal((await ledger.declare(within({ file: { name: 'd', size: 1, type: '' } }))).outcome, 'over-quota')
      await ledger.cancel(second, problem('cancelled'))
      assert.equal((await ledger.declare(within())).outcome, 'created')
      // What is referenced counts as what was reserved for it, until it is removed.
      const lease = await take(ledger, first, 'setup', 'drive')
      await ledger.refer(
        lease,
        await get(ledger, first),
        reference({ offset: 100, tailBase: 0, point: 'verified' }),
        accept,
      )
      assert.deepEqual(await ledger.declare(within()), { outcome: 'over-quota', usedBytes: 250 })
      await assert.rejects(
        transaction(async (tx) => {
          await ledger.remove(tx, first.id, first.owner)
          throw new Error('the application fails')
        }),
      )
      assert.deepEqual(await ledger.declare(within()), { outcome: 'over-quota', usedBytes: 250 })
      await transaction((tx) => ledger.remove(tx, first.id, first.owner))
      assert.equal((await ledger.declare(within())).outcome, 'created')
    },
  )

  on('lists open operations in pages, oldest first', async ({ ledger }) => {
    const intents = Array.from({ length: 5 }, () => intentOf())
    for (const intent of intents) await ledger.declare(intent)
    await ledger.cancel(intents[1] ?? intentOf(), problem('cancelled'))
    const ids = intents.filter((_, n) => n !== 1).map(({ id }) => id)
    const first = await ledger.listOpen('ann', { after: null, limit: 3 })
    const second = await ledger.listOpen('ann', { after: first.at(-1)?.id ?? null, limit: 3 })
    assert.deepEqual(
      [...first, ...second].map(({ id }) => id),
      ids,
    )
  })

  on('a lease keeps others away, and its token grows', async ({ ledger }) => {
    const { key } = await declared(ledger)
    const first = await take(ledger, key, 'n1')
    assert.equal((await ledger.lease(key, request('n2', 'receive'))).outcome, 'held')
    assert.equal((await ledger.lease(key, request('n2', 'drive'))).outcome, 'held')
    await ledger.record(first, await get(ledger, key), { release: true })
    const second = await take(ledger, key, 'n2')
    assert.ok(second.token > first.token)
    assert.equal((await get(ledger, key)).uncleanHolder, null)
  })

  on('who lost the lease changes nothing any more', async ({ ledger }) => {
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

  on('who receives is told that others ask, until it lets go', async ({ ledger, another }) => {
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
    // Nobody is in one's own way; and who drives is never asked.
    assert.equal(await ledger.ask(key, { holder: 'n1', urgency: 'at-once' }), false)
    const driving = await ledger.record(lease, await get(ledger, key), { purpose: 'drive' })
    assert.equal(await other.ask(key, { holder: 'n2', urgency: 'at-once' }), false)
    await ledger.record(lease, driving ?? assert.fail(), { release: true })
    await take(ledger, key, 'n2')
    assert.deepEqual(await ledger.askedOf('n2'), [])
    // One that is dead is waited for no longer than its lease.
    const gone = await declared(ledger)
    await take(ledger, gone.key, 'n1', 'receive', 0)
    await new Promise((resolve) => setTimeout(resolve, 20))
    assert.equal(await other.ask(gone.key, { holder: 'n2', urgency: 'at-once' }), false)
  })

  on('tells what has changed, whoever has changed it', async ({ ledger, another }) => {
    const other = await another()
    const { key } = await declared(ledger)
    const unknown = { owner: key.owner, id: uuidv4() }
    const [before, none] = await ledger.versions([key, unknown])
    assert.equal(none, null)
    assert.equal(typeof before, 'string')
    assert.deepEqual(await other.versions([unknown, key]), [null, before])
    const lease = await take(other, key, 'n2')
    await other.record(lease, await get(other, key), { offset: 5 })
    const [after] = await ledger.versions([key])
    assert.notEqual(after, before)
    assert.deepEqual(await ledger.versions([]), [])
  })

  on('a lease to receive is only for what lacks bytes', async ({ ledger }) => {
    const { key } = await declared(ledger)
    const lease = await take(ledger, key, 'n1')
    await ledger.record(lease, await get(ledger, key), { offset: 100, tailBase: 0, release: true })
    assert.equal((await ledger.lease(key, request('n1', 'receive'))).outcome, 'closed')
    assert.equal((await ledger.lease(key, request('n1', 'drive'))).outcome, 'granted')
  })

  on('records by compare-and-set of point and digest', async ({ ledger }) => {
    const { key } = await declared(ledger, { digest: 'pending' })
    const lease = await take(ledger, key, 'n1')
    const before = await get(ledger, key)
    assert.equal(await ledger.record(lease, { ...before, point: 'received' }, { attempts: 3 }), null)
    assert.equal(await ledger.setDigest(key, DIGEST), 'set')
    assert.equal(await ledger.record(lease, before, { attempts: 3 }), null)
    assert.equal((await ledger.record(lease, await get(ledger, key), { attempts: 3 }))?.attempts, 3)
  })

  on('an acknowledged offset never falls, and no point moves back', async ({ ledger }) => {
    const { key } = await declared(ledger)
    const lease = await take(ledger, key, 'n1')
    const before = await ledger.record(lease, await get(ledger, key), { offset: 60 })
    assert.ok(before !== null)
    await assert.rejects(ledger.record(lease, before, { offset: 59 }))
    await assert.rejects(ledger.record(lease, before, { offset: 101 }))
    await assert.rejects(ledger.record(lease, before, { point: 'received' }), 'received lacks bytes')
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

  on('commits what the hook wrote with the reference', async ({ ledger, write, written }) => {
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

  on('commits a reference without a hook, once, and not with a lease that was lost', async ({ ledger }) => {
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
    'rolls the hook back when it rejects, throws, takes too long, or the lease was lost',
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
        // The other node takes over before our first write, which on SQLite keeps the only writer.
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

  on('one reference, however many drive at once', async ({ ledger, write, written }) => {
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

  on('a hook that writes nothing is enough for a reference', async ({ ledger }) => {
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

  on('a digest that arrives while the hook runs is not passed by', async ({ ledger }) => {
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

  on('a digest is set once', async ({ ledger }) => {
    const { key } = await declared(ledger, { digest: 'pending' })
    assert.equal(await ledger.setDigest(key, DIGEST), 'set')
    assert.equal(await ledger.setDigest(key, DIGEST), 'set')
    assert.equal(await ledger.setDigest(key, OTHER_DIGEST), 'conflict')
    assert.deepEqual(pick(await get(ledger, key), ['digest', 'digestPending']), {
      digest: DIGEST,
      digestPending: false,
    })
    assert.equal(await ledger.setDigest({ owner: 'ann', id: uuidv4() }, DIGEST), 'closed')
  })

  on('a digest after verification is compared with what was found', async ({ ledger }) => {
    const { key } = await declared(ledger, { digest: 'pending' })
    const lease = await take(ledger, key, 'n1', 'drive')
    await ledger.record(lease, await get(ledger, key), {
      offset: 100,
      tailBase: 0,
      point: 'verified',
      content: CONTENT,
      release: true,
    })
    assert.equal(await ledger.setDigest(key, OTHER_DIGEST), 'conflict')
    assert.equal(await ledger.setDigest(key, DIGEST), 'set')
  })

  on('cancel needs no lease, takes it away, and is final', async ({ ledger }) => {
    const { key } = await declared(ledger)
    const lease = await take(ledger, key, 'n1')
    const cancelled = await ledger.cancel(key, problem('cancelled'))
    assert.ok(cancelled !== null)
    assert.deepEqual(pick(cancelled, ['point', 'cleanupDue', 'leaseHolder']), {
      point: 'cancelled',
      cleanupDue: true,
      leaseHolder: null,
    })
    assert.equal(cancelled.problem?.code, 'cancelled')
    assert.equal(await ledger.record(lease, cancelled, { offset: 50 }), null)
    assert.equal(await ledger.cancel(key, problem('cancelled')), null)
    assert.equal((await ledger.declare(intentOf({ ...key }))).outcome, 'existing')
  })

  on('leases what is due, oldest first, and nothing else', async ({ ledger }) => {
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

  on('finds what a dead node left, after its lease', async ({ ledger }) => {
    const { key } = await declared(ledger)
    await take(ledger, key, 'n1', 'receive', 30)
    assert.deepEqual(await ledger.leaseDue({ holder: 'n2', leaseMs: LEASE_MS, limit: 10, inUse: [] }), [])
    await new Promise((resolve) => setTimeout(resolve, 60))
    const [found] = await ledger.leaseDue({ holder: 'n2', leaseMs: LEASE_MS, limit: 10, inUse: [] })
    assert.equal(found?.operation.uncleanHolder, 'n1')
    // One's own lease in use is never due: whoever asks is alive, and it is the clock that has jumped.
    const own = await declared(ledger)
    await take(ledger, own.key, 'n2', 'receive', 0)
    await new Promise((resolve) => setTimeout(resolve, 20))
    const ofOwn = { holder: 'n2', leaseMs: LEASE_MS, limit: 10 }
    assert.deepEqual(await ledger.leaseDue({ ...ofOwn, inUse: [key, own.key] }), [])
    // One that could not be given back is: nobody prolongs it.
    const [orphan] = await ledger.leaseDue({ ...ofOwn, inUse: [key] })
    assert.equal(orphan?.operation.id, own.key.id)
  })

  on('forgets the leases of all others', async ({ ledger }) => {
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

  on('a stall waits for an operator', async ({ ledger }) => {
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

  on('completes what owes nothing any more', async ({ ledger, transaction }) => {
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
    'takes a reference back with the transaction of the application, and owes the bytes',
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

  on('does not guess whose file is meant', async ({ ledger, transaction }) => {
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

  on('an effect comes again until it was delivered', async ({ ledger, transaction }) => {
    const operation = await referenced(ledger)
    await transaction((tx) => ledger.remove(tx, operation.id, operation.owner))
    const [first] = await ledger.takeEffects(REMOVAL, { ...TAKING, leaseMs: 0 })
    const [second] = await ledger.takeEffects(REMOVAL, TAKING)
    assert.ok(first !== undefined && second !== undefined)
    assert.equal(second.effectId, first.effectId)
    assert.equal(second.attempts, 2)
    assert.deepEqual(await ledger.takeEffects(REMOVAL, TAKING), [])
    // Of an attempt that somebody else has taken over, a failure says nothing.
    await ledger.settleEffect(first, { outcome: 'again', error: 'late', retryInMs: 0 })
    assert.deepEqual(await ledger.takeEffects(REMOVAL, TAKING), [])
    await ledger.settleEffect(second, { outcome: 'again', error: 'away', retryInMs: 0 })
    const [third] = await ledger.takeEffects(REMOVAL, TAKING)
    assert.ok(third !== undefined)
    await ledger.settleEffect(first, DELIVERED)
    await ledger.settleEffect(third, { outcome: 'again', error: 'late', retryInMs: 0 })
    await ledger.settleEffect(third, { outcome: 'given-up', error: 'late' })
    assert.deepEqual(await ledger.takeEffects(REMOVAL, TAKING), [])
    const [standing] = await ledger.effectsOf(operation)
    assert.deepEqual(standing && pick(standing, ['effectId', 'dueAt', 'givenUpAt', 'lastError']), {
      effectId: first.effectId,
      dueAt: null,
      givenUpAt: null,
      lastError: null,
    })
    assert.ok(standing?.deliveredAt !== null)
  })

  on('an effect that was taken and not tried has had no attempt', async ({ ledger, transaction }) => {
    const operation = await referenced(ledger)
    await transaction((tx) => ledger.remove(tx, operation.id, operation.owner))
    const [first] = await ledger.takeEffects(REMOVAL, TAKING)
    assert.ok(first !== undefined)
    await ledger.settleEffect(first, { outcome: 'untried', retryInMs: 60_000 })
    assert.deepEqual(await ledger.takeEffects(REMOVAL, TAKING), [])
    const [waiting] = await ledger.effectsOf(operation)
    assert.ok(waiting !== undefined && waiting.dueAt !== null)
    assert.deepEqual(pick(waiting, ['attempts', 'lastError']), { attempts: 0, lastError: null })
    // Of an attempt that somebody else has taken over, it says nothing.
    const other = await referenced(ledger)
    await transaction((tx) => ledger.remove(tx, other.id, other.owner))
    const [late] = await ledger.takeEffects(REMOVAL, { ...TAKING, leaseMs: 0 })
    const [taken] = await ledger.takeEffects(REMOVAL, TAKING)
    assert.ok(late !== undefined && taken !== undefined)
    await ledger.settleEffect(late, { outcome: 'untried', retryInMs: 0 })
    assert.deepEqual(await ledger.takeEffects(REMOVAL, TAKING), [])
    await ledger.settleEffect(taken, { outcome: 'untried', retryInMs: 0 })
    const [again] = await ledger.takeEffects(REMOVAL, TAKING)
    assert.equal(again?.attempts, taken.attempts)
  })

  on('owes with the reference what its kind declares, and completes with the last of it', async ({ ledger }) => {
    const operation = await owing(ledger, ['first', 'second'])
    assert.equal((await get(ledger, operation)).point, 'referenced')
    assert.equal(await ledger.complete(10), 0)
    assert.equal(await ledger.nextDueInMs([{ kind: 'photo', name: 'first' }]), 0)
    assert.equal(await ledger.nextDueInMs([{ kind: 'photo', name: 'another' }]), null)
    assert.deepEqual(await ledger.takeEffects({ kind: 'video', name: 'first' }, TAKING), [])
    const [first] = await ledger.takeEffects({ kind: 'photo', name: 'first' }, TAKING)
    const [second] = await ledger.takeEffects({ kind: 'photo', name: 'second' }, TAKING)
    assert.ok(first !== undefined && second !== undefined)
    assert.deepEqual(pick(first, ['kind', 'name', 'type', 'payload', 'attempts', 'disabled']), {
      kind: 'photo',
      name: 'first',
      type: 'function',
      payload: { digest: DIGEST },
      attempts: 1,
      disabled: false,
    })
    await ledger.settleEffect(second, DELIVERED)
    assert.equal((await get(ledger, operation)).point, 'referenced')
    await ledger.settleEffect(first, DELIVERED)
    assert.equal((await get(ledger, operation)).point, 'completed')
  })

  on('owes nothing where the reference is rolled back', async ({ ledger }) => {
    const { key } = await declared(ledger)
    const lease = await take(ledger, key, 'n1')
    const intent = { ...reference({ offset: 100, point: 'verified' }), effects: [owed('first')] }
    await assert.rejects(
      ledger.refer(lease, await get(ledger, key), intent, async () => {
        throw new Error('the hook fails')
      }),
    )
    assert.deepEqual(await ledger.effectsOf(key), [])
  })

  on('what was given up stays visible, and comes again when it is asked for', async ({ ledger }) => {
    const operation = await owing(ledger, ['first', 'second'])
    const target = { kind: 'photo', name: 'first' }
    const [effect] = await ledger.takeEffects(target, TAKING)
    assert.ok(effect !== undefined)
    await ledger.settleEffect(effect, { outcome: 'given-up', error: 'the receiver answered 500' })
    const standing = (await ledger.effectsOf(operation)).find(({ name }) => name === 'first')
    assert.equal(standing?.lastError, 'the receiver answered 500')
    assert.ok(standing.givenUpAt !== null && standing.dueAt === null)
    assert.equal(await ledger.nextDueInMs([target]), null)
    assert.equal(await ledger.retry(operation), true)
    assert.equal(await ledger.retry(operation), false)
    const [again] = await ledger.takeEffects(target, TAKING)
    assert.deepEqual(again && pick(again, ['effectId', 'attempts']), { effectId: effect.effectId, attempts: 1 })
  })

  on('a target that is disabled says so, until one of its effects is asked for again', async ({ ledger }) => {
    const gone = await owing(ledger, ['first'])
    const target = { kind: 'photo', name: 'first' }
    const [effect] = await ledger.takeEffects(target, TAKING)
    assert.ok(effect !== undefined)
    await ledger.settleEffect(effect, { outcome: 'given-up', error: 'the receiver answered 410', disable: true })
    await owing(ledger, ['first', 'second'])
    assert.equal((await ledger.takeEffects(target, TAKING))[0]?.disabled, true)
    assert.equal((await ledger.takeEffects({ kind: 'photo', name: 'second' }, TAKING))[0]?.disabled, false)
    assert.equal(await ledger.retry(gone), true)
    assert.equal((await ledger.takeEffects(target, TAKING))[0]?.disabled, false)
  })

  on('effects of a holder that is dead are free at once', async ({ ledger }) => {
    await owing(ledger, ['first'])
    const target = { kind: 'photo', name: 'first' }
    assert.equal((await ledger.takeEffects(target, { ...TAKING, holder: 'n1' })).length, 1)
    await ledger.forgetOtherHolders('n1')
    assert.deepEqual(await ledger.takeEffects(target, TAKING), [])
    await ledger.forgetOtherHolders('n2')
    assert.equal((await ledger.takeEffects(target, TAKING)).length, 1)
  })

  on(
    'pages through what the operations claim of the store, in the order of the keys',
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

  on('lists operations for an operator, the newest first', async ({ ledger }) => {
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

  on('its mark only grows, and remembers that it was restored', async ({ ledger }) => {
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

  on('tells of its health', async ({ ledger }) => {
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

  on('tells when a completer was last alive, whichever process asks', async ({ ledger, another }) => {
    const before = await ledger.pulse()
    assert.equal(before.heartbeatAt, null)
    assert.ok(Math.abs(before.nowAt - Date.now()) < 60_000)
    await ledger.heartbeat()
    const { nowAt, heartbeatAt } = await (await another()).pulse()
    assert.ok(heartbeatAt !== null && heartbeatAt >= before.nowAt && heartbeatAt <= nowAt)
  })

  on('counts what is unfinished, and says how old it is', async ({ ledger }) => {
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
    // What is finished costs nothing more: the one that owed nothing.
    assert.equal(await ledger.complete(10), 1)
    assert.equal((await ledger.backlog()).points.referenced, 2)
  })

  on('a clock that nobody has set is no reason for anything', async ({ ledger, another }) => {
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

  on('a clock that was set ahead: what waits for a client ends as much later', async ({ ledger }) => {
    const DAYS_MS = 8 * 24 * 60 * 60_000
    await ledger.settleClock(LOOK)
    const { key } = await declared(ledger)
    const before = await get(ledger, key)
    // So much less time has passed than the ledger's clock says.
    const { steppedMs } = await ledger.settleClock({ ...LOOK, passedMs: -DAYS_MS })
    assert.ok(Math.abs(steppedMs - DAYS_MS) < 10_000)
    assert.ok((await ledger.attendedMs(before.createdAt - DAYS_MS)) < 10_000)
    const { expiresAt, dueAt } = await get(ledger, key)
    assert.equal(expiresAt, before.expiresAt + steppedMs)
    assert.equal(dueAt, (before.dueAt ?? 0) + steppedMs)
  })

  on('a clock that was set back: leases end and pauses are over, what waits for a client stays', async ({ ledger }) => {
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
  })

  on('a stalled operation whose driver died is due for nobody, and keeps nobody awake', async ({ ledger }) => {
    const stalled = await dueIn(ledger, 0, { offset: 100, stalled: true })
    await take(ledger, stalled, 'dead', 'drive')
    await ledger.forgetOtherHolders('n1')
    assert.deepEqual(await ledger.leaseDue({ ...TAKING, inUse: [] }), [])
    assert.equal(await ledger.nextDueInMs([]), null)
    assert.equal(await ledger.retry(stalled), true)
    assert.equal(await ledger.nextDueInMs([]), 0)
  })

  on('what is due later than any pause could have put it is due', async ({ ledger }) => {
    const paused = await dueIn(ledger, 60 * 60_000, { offset: 100, attempts: 1 })
    await ledger.settleClock({ ...LOOK, longestPauses: { operationMs: 30 * 60_000, effectMs: 30 * 60_000 } })
    assert.deepEqual(
      (await ledger.leaseDue({ ...TAKING, inUse: [] })).map(({ operation: { id } }) => id),
      [paused.id],
    )
  })

  on('says when the next is due', async ({ ledger }) => {
    assert.equal(await ledger.nextDueInMs([]), null)
    await dueIn(ledger, 5_000)
    const inMs = (await ledger.nextDueInMs([])) ?? 0
    assert.ok(inMs > 3_000 && inMs <= 5_000, String(inMs))
    await dueIn(ledger, -5_000)
    assert.equal(await ledger.nextDueInMs([]), 0)
  })

  on('is due at a moment that its row names, however late that is recorded', async ({ ledger }) => {
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

  on('tells of changes after they are committed', async ({ ledger }) => {
    const seen: string[] = []
    const off = ledger.onChange((operation) => seen.push(`${operation.point}:${operation.offset}`))
    const { key } = await declared(ledger)
    const lease = await take(ledger, key, 'n1')
    await ledger.record(lease, await get(ledger, key), { offset: 5 })
    await ledger.cancel(key, problem('cancelled'))
    off()
    await declared(ledger)
    assert.deepEqual(seen, ['declared:0', 'declared:5', 'cancelled:5'])
  })

  retentionContract(on, { accept, declared, get, intentOf, owing, reference, referenced, take })
}

export const accept = async (): Promise<{ outcome: 'accepted'; data: null }> => ({ outcome: 'accepted', data: null })
export const reference = (changes: Changes) => ({
  changes,
  content: CONTENT,
  digestSource: 'server' as const,
  timeLimitMs: 5_000,
  effects: [],
})
const request = (holder: string, purpose: 'receive' | 'drive', leaseMs = LEASE_MS) => ({ holder, purpose, leaseMs })

function pick<T extends object, K extends keyof T>(from: T, keys: readonly K[]): Pick<T, K> {
  return Object.fromEntries(keys.map((key) => [key, from[key]])) as Pick<T, K>
}

export async function get(ledger: Ledger<unknown>, { owner, id }: OperationKey): Promise<OperationRecord> {
  return (await ledger.find({ owner, id })) ?? assert.fail('no such operation')
}

export async function declared(ledger: Ledger<unknown>, changes: Partial<Intent> = {}): Promise<{ key: OperationKey }> {
  const intent = intentOf(changes)
  const { outcome } = await ledger.declare(intent)
  assert.equal(outcome, 'created')
  return { key: { owner: intent.owner, id: intent.id } }
}

export async function take(
  ledger: Ledger<unknown>,
  key: OperationKey,
  holder: string,
  purpose: 'receive' | 'drive' = 'receive',
  leaseMs = LEASE_MS,
): Promise<Lease> {
  const taken = await ledger.lease(key, request(holder, purpose, leaseMs))
  if (taken.outcome !== 'granted') return assert.fail(`the lease was ${taken.outcome}`)
  return taken.lease
}

async function dueIn(ledger: Ledger<unknown>, ms: number, changes: Changes = {}): Promise<OperationKey> {
  const { key } = await declared(ledger)
  const lease = await take(ledger, key, 'setup')
  await ledger.record(lease, await get(ledger, key), { ...changes, dueInMs: ms, release: true })
  return key
}

export async function referenced(ledger: Ledger<unknown>, changes: Partial<Intent> = {}): Promise<OperationRecord> {
  const { key } = await declared(ledger, changes)
  const lease = await take(ledger, key, 'setup', 'drive')
  await ledger.refer(lease, await get(ledger, key), reference({ offset: 100, tailBase: 0, point: 'verified' }), accept)
  return get(ledger, key)
}

const owed = (name: string): OwedEffect => ({
  effectId: uuidv7(),
  name,
  type: 'function',
  payload: ({ digest }) => ({ digest }),
})

/** A new reference that owes these effects. */
export async function owing(ledger: Ledger<unknown>, names: readonly string[]): Promise<OperationRecord> {
  const { key } = await declared(ledger)
  const lease = await take(ledger, key, 'setup', 'drive')
  const intent = { ...reference({ offset: 100, tailBase: 0, point: 'verified' }), effects: names.map(owed) }
  await ledger.refer(lease, await get(ledger, key), intent, accept)
  return get(ledger, key)
}
