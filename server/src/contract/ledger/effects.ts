import assert from 'node:assert/strict'
import { REMOVAL } from '../../ports/ledger/effects.js'
import {
  declared,
  DELIVERED,
  DIGEST,
  get,
  owed,
  owing,
  pick,
  reference,
  referenced,
  take,
  TAKING,
  type On,
} from './fixture.js'

/** What every ledger must do about effects: owe them with the reference, and deliver them at least once. */
export function effectsContract<Tx>(on: On<Tx>): void {
  on('an effect is taken again until it is delivered', async ({ ledger, transaction }) => {
    const operation = await referenced(ledger)
    await transaction((tx) => ledger.remove(tx, operation.id, operation.owner))
    const [first] = await ledger.takeEffects(REMOVAL, { ...TAKING, leaseMs: 0 })
    const [second] = await ledger.takeEffects(REMOVAL, TAKING)
    assert.ok(first !== undefined && second !== undefined)
    assert.equal(second.effectId, first.effectId)
    assert.equal(second.attempts, 2)
    assert.deepEqual(await ledger.takeEffects(REMOVAL, TAKING), [])
    // If another holder has taken over the attempt, a failure of the first holder changes nothing.
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

  on('an effect that was taken but not tried has had no attempt', async ({ ledger, transaction }) => {
    const operation = await referenced(ledger)
    await transaction((tx) => ledger.remove(tx, operation.id, operation.owner))
    const [first] = await ledger.takeEffects(REMOVAL, TAKING)
    assert.ok(first !== undefined)
    await ledger.settleEffect(first, { outcome: 'untried', retryInMs: 60_000 })
    assert.deepEqual(await ledger.takeEffects(REMOVAL, TAKING), [])
    const [waiting] = await ledger.effectsOf(operation)
    assert.ok(waiting !== undefined && waiting.dueAt !== null)
    assert.deepEqual(pick(waiting, ['attempts', 'lastError']), { attempts: 0, lastError: null })
    // If another holder has taken over the attempt, the first holder's result changes nothing.
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

  on('a reference owes the effects of its kind, and the last delivery completes the operation', async ({ ledger }) => {
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

  on('a reference that is rolled back owes no effects', async ({ ledger }) => {
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

  on('an effect that was given up stays visible, and a retry makes it due again', async ({ ledger }) => {
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

  on('the effects of a disabled target are marked as disabled until one of them is retried', async ({ ledger }) => {
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

  on('the effects that a dead holder had taken can be taken again at once', async ({ ledger }) => {
    await owing(ledger, ['first'])
    const target = { kind: 'photo', name: 'first' }
    assert.equal((await ledger.takeEffects(target, { ...TAKING, holder: 'n1' })).length, 1)
    await ledger.forgetOtherHolders('n1')
    assert.deepEqual(await ledger.takeEffects(target, TAKING), [])
    await ledger.forgetOtherHolders('n2')
    assert.equal((await ledger.takeEffects(target, TAKING)).length, 1)
  })
}
