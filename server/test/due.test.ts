/** The search for due work uses a reader. The single writer is used only if there is something to write. */
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { intentOf } from '../src/contract/ledger.js'
import { MIGRATIONS } from '../src/ledger/sqlite/migrations.js'
import { type Args, numbered } from '../src/ledger/query.js'
import { SQLITE } from '../src/ledger/sqlite/dialect.js'
import { completable, dueEffects, dueOperations, NEXT_DUE } from '../src/ledger/statements/due.js'
import { backlogWords } from '../src/ledger/statements/inventory.js'
import { sqliteLedger } from '../src/ledger/sqlite/ledger.js'
import { openConnection } from '../src/ledger/sqlite/client/connection.js'
import { photos, openDatabase, temporaryDirectory } from './fixtures.js'
import { later } from './harness.js'

let directory: Awaited<ReturnType<typeof temporaryDirectory>>
let database: Awaited<ReturnType<typeof openDatabase>>
beforeEach(async () => {
  directory = await temporaryDirectory()
  database = await openDatabase(join(directory.path, 'app.db'))
})
afterEach(async () => {
  database.client.close()
  await directory.remove()
})

const TARGET = { kind: 'photo', name: 'notify' }
const TAKING = { holder: 'n1', leaseMs: 30_000, limit: 10 }

test('a search that finds nothing due does not wait for the writer, and one that finds something does', async () => {
  const ledger = sqliteLedger(database.db)
  await ledger.migrate()
  const looks = () => [
    ledger.leaseDue({ ...TAKING, inUse: [] }),
    ledger.takeEffects(TARGET, TAKING),
    ledger.complete(10),
  ]
  await database.db.transaction(async (tx) => {
    await tx.insert(photos).values({ name: 'keeps the writer' })
    expect(await Promise.all(looks())).toEqual([[], [], 0])
  })
  await ledger.declare(intentOf({ file: { name: 'empty', size: 0, type: 'text/plain' } }))
  let found: Promise<unknown[]> | undefined
  await database.db.transaction(async (tx) => {
    await tx.insert(photos).values({ name: 'keeps the writer' })
    found = ledger.leaseDue({ ...TAKING, inUse: [] })
    expect(await Promise.race([found, later(50)])).toBeUndefined()
  })
  expect(await found).toHaveLength(1)
})

test('each search uses an index', () => {
  const connection = openConnection(join(directory.path, 'plan.db'))
  for (const statement of MIGRATIONS.flat()) connection.exec(statement)
  const plan = (text: string, args: Args) => {
    const { sql, values } = numbered(text, [args])
    return connection.all(`EXPLAIN QUERY PLAN ${sql}`, values).map(({ detail }) => detail)
  }
  expect(plan(dueOperations(SQLITE), { holder: 'n1', in_use: '[]', limit: 1 })[0]).toBe(
    'SEARCH o USING INDEX landfall_operations_due (due_at>? AND due_at<?)',
  )
  expect(plan(dueEffects(SQLITE), { kind: 'photo', name: 'notify', limit: 1 })).toEqual([
    'SEARCH e USING INDEX landfall_effects_target (kind=? AND name=? AND due_at>? AND due_at<?)',
  ])
  expect(plan(completable(SQLITE), { limit: 1 })[0]).toBe('SCAN o USING INDEX landfall_operations_incomplete')
  expect(plan(NEXT_DUE, {})[0]).toMatch(/^S\w+ o USING INDEX landfall_operations_due/)
  connection.close()
})

test('metrics count unfinished operations, and never read finished ones', () => {
  const connection = openConnection(join(directory.path, 'plan.db'))
  for (const statement of MIGRATIONS.flat()) connection.exec(statement)
  const tables = Object.values(backlogWords(SQLITE)).flatMap((sql) =>
    connection
      .all(`EXPLAIN QUERY PLAN ${sql}`)
      .map(({ detail }) => String(detail))
      .filter((detail) => /landfall_|\bo\b/.test(detail)),
  )
  expect(tables).toEqual([
    'SCAN landfall_operations USING INDEX landfall_operations_open',
    'SCAN landfall_operations USING COVERING INDEX landfall_operations_incomplete',
    'SCAN landfall_effects USING INDEX landfall_effects_target',
    'SEARCH landfall_effects USING INDEX landfall_effects_given_up (given_up_at>?)',
    'SEARCH o USING INDEX sqlite_autoindex_landfall_operations_1 (owner=? AND id=?)',
    'SCAN landfall_effects USING COVERING INDEX landfall_effects_target',
    'SEARCH landfall_effects USING COVERING INDEX landfall_effects_given_up (given_up_at>?)',
  ])
  connection.close()
})
