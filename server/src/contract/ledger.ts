import assert from 'node:assert/strict'
import { effectsContract } from './ledger/effects.js'
import { intentOf, type LedgerFixture, type On } from './ledger/fixture.js'
import { inventoryContract } from './ledger/inventory.js'
import { leasesContract } from './ledger/leases.js'
import { marksContract } from './ledger/marks.js'
import { operationsContract } from './ledger/operations.js'
import { referencesContract } from './ledger/references.js'
import { retentionContract } from './ledger/retention.js'
import { type RegisterTest, withFixture } from './suite.js'

export { intentOf, type LedgerFixture } from './ledger/fixture.js'

/** What every ledger must do. It registers its cases with `test`, and each case gets its own fixture. */
export function ledgerContract<Tx>(test: RegisterTest, create: () => Promise<LedgerFixture<Tx>>): void {
  const on: On<Tx> = (name, body) =>
    test(name, () =>
      withFixture(create, async (fixture) => {
        await fixture.ledger.migrate()
        await body(fixture)
      }),
    )

  test('two processes that start at once migrate the database once, and its identity stays the same', () =>
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

  test('the key of the owner tags is made once, even if several processes ask for it at once, and stays the same', () =>
    withFixture(create, async ({ ledger, another }) => {
      const other = await another()
      // A server that knows of no owner tags leaves the database like this: migrated and used, but without a key.
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

  operationsContract(on)
  leasesContract(on)
  referencesContract(on)
  effectsContract(on)
  inventoryContract(on)
  marksContract(on)
  retentionContract(on)
}
