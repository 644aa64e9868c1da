import assert from 'node:assert/strict'
import { problem } from '@landfall/shared'
import { v4 as uuidv4, v7 as uuidv7 } from 'uuid'
import type { Intent } from '../../ports/ledger/operations.js'
import {
  accept,
  CONTENT,
  declared,
  DIGEST,
  get,
  intentOf,
  later,
  OTHER_DIGEST,
  pick,
  reference,
  request,
  take,
  type On,
} from './fixture.js'

/** What every ledger must do about operations: declare, find, cancel, and keep within the limits of an owner. */
export function operationsContract<Tx>(on: On<Tx>): void {
  on('a declared operation is found again with everything that was declared', async ({ ledger }) => {
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

  on(
    'a second declaration with the same facts finds the same operation, and with other facts it is a mismatch',
    async ({ ledger }) => {
      const intent = intentOf()
      await ledger.declare(intent)
      const again = await ledger.declare({ ...intent, blobKey: uuidv7().replaceAll('-', '') })
      assert.equal(again.outcome, 'existing')
      assert.equal((await get(ledger, intent)).blobKey, intent.blobKey)
      assert.equal((await ledger.declare({ ...intent, facts: 'others' })).outcome, 'mismatch')
    },
  )

  on('when one operation is declared several times at once, exactly one is created', async ({ ledger, another }) => {
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

  on('owners do not see the operations of others, and two owners may use the same id', async ({ ledger }) => {
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

  on('the number of open operations of an owner is limited', async ({ ledger }) => {
    const first = intentOf({ maxOpenPerOwner: 2 })
    await ledger.declare(first)
    await ledger.declare(intentOf({ maxOpenPerOwner: 2 }))
    assert.equal((await ledger.declare(intentOf({ maxOpenPerOwner: 2 }))).outcome, 'too-many-open')
    assert.equal((await ledger.declare(intentOf({ maxOpenPerOwner: 2, owner: 'bob' }))).outcome, 'created')
    await ledger.cancel(first, problem('cancelled'))
    assert.equal((await ledger.declare(intentOf({ maxOpenPerOwner: 2 }))).outcome, 'created')
  })

  on(
    'a declaration reserves bytes of the quota, a reference keeps them, and a cancellation or removal gives them back',
    async ({ ledger, transaction }) => {
      const within = (changes: Partial<Intent> = {}): Intent => intentOf({ quotaBytes: 250, ...changes })
      const first = within()
      const second = within()
      assert.equal((await ledger.declare(first)).outcome, 'created')
      assert.equal((await ledger.declare(second)).outcome, 'created')
      assert.deepEqual(await ledger.declare(within()), { outcome: 'over-quota', usedBytes: 200 })
      assert.equal((await ledger.declare(first)).outcome, 'existing')
      assert.equal((await ledger.declare(within({ owner: 'bob' }))).outcome, 'created')
      // A smaller file still fits, up to the last byte.
      assert.equal((await ledger.declare(within({ file: { name: 'b', size: 50, type: '' } }))).outcome, 'created')
      assert.equal((await ledger.declare(within({ file: { name: 'c', size: 0, type: '' } }))).outcome, 'created')
      assert.equal((await ledger.declare(within({ file: { name: 'd', size: 1, type: '' } }))).outcome, 'over-quota')
      await ledger.cancel(second, problem('cancelled'))
      assert.equal((await ledger.declare(within())).outcome, 'created')
      // A reference counts as many bytes as were reserved for it, until it is removed.
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

  on('open operations are listed in pages, the oldest first', async ({ ledger }) => {
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

  on(
    'the version of an operation changes with the operation, whichever process changed it',
    async ({ ledger, another }) => {
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
    },
  )

  on('a digest can be set only once', async ({ ledger }) => {
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

  on('a digest that arrives after verification is compared with the computed digest', async ({ ledger }) => {
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

  on('a cancellation needs no lease, takes the lease away, and is final', async ({ ledger }) => {
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

  on('a change is reported after it is committed', async ({ ledger }) => {
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

  on('the number of files of an owner is limited, and empty files count', async ({ ledger, transaction }) => {
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

  on('the rate at which an owner declares is limited on all nodes together', async ({ ledger, another }) => {
    const other = await another()
    const rate = { count: 4, perMs: 2_000 }
    const intents = Array.from({ length: 10 }, () => intentOf({ rate }))
    const outcomes = await Promise.all(intents.map((intent, n) => (n % 2 === 0 ? ledger : other).declare(intent)))
    assert.equal(outcomes.filter(({ outcome }) => outcome === 'created').length, 4)
    const refused = outcomes.flatMap((each) => (each.outcome === 'too-many-declared' ? [each.retryInMs] : []))
    assert.equal(refused.length, 6)
    for (const retryInMs of refused) assert.ok(retryInMs > 0 && retryInMs <= 500, String(retryInMs))
    // A repeated declaration is answered as before, and another owner has its own rate.
    const created = intents[outcomes.findIndex(({ outcome }) => outcome === 'created')] ?? assert.fail()
    assert.equal((await ledger.declare(created)).outcome, 'existing')
    assert.equal((await ledger.declare(intentOf({ rate, owner: 'bob' }))).outcome, 'created')
    assert.equal((await ledger.declare(intentOf({ rate: null }))).outcome, 'created')
    await later(Math.max(...refused) + 10)
    assert.equal((await other.declare(intentOf({ rate }))).outcome, 'created')
  })
}
