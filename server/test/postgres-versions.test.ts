/** Versions N and N+1 of the server against one database: migrations only add, under a lock. */
import { sql } from 'drizzle-orm'
import { drizzle, type NodePgDatabase } from 'drizzle-orm/node-postgres'
import { pgTable, text } from 'drizzle-orm/pg-core'
import { Pool } from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Postgres, startPostgres } from '../../e2e/ground/postgres.js'
import { ledgerContract, type LedgerFixture } from '../src/contract/ledger.js'
import { POSTGRES_MIGRATIONS } from '../src/ledger/postgres/migrations.js'
import { runOn } from '../src/ledger/query.js'
import { POSTGRES_TABLES } from '../src/ledger/postgres/tables.js'
import { queriesOn } from '../src/ledger/postgres/query.js'
import { postgresLedger, type PostgresTx } from '../src/ledger/postgres/ledger.js'
import { later } from './harness.js'

const photos = pgTable('photos', { name: text('name').notNull() })
const schema = { photos }
type Database = NodePgDatabase<typeof schema>

/** What the next version may do: columns, tables and indexes that this one knows nothing of. */
const NEXT = [
  `ALTER TABLE landfall_operations ADD COLUMN shelf text`,
  `ALTER TABLE landfall_operations ADD COLUMN weight integer NOT NULL DEFAULT 1`,
  `ALTER TABLE landfall_references ADD COLUMN shelf text NOT NULL DEFAULT ''`,
  `ALTER TABLE landfall_effects ADD COLUMN weight integer NOT NULL DEFAULT 1`,
  `CREATE TABLE landfall_shelves (name text PRIMARY KEY, owner text NOT NULL)`,
  `CREATE INDEX landfall_operations_shelf ON landfall_operations (shelf) WHERE shelf IS NOT NULL`,
]
const NEXT_VERSION = String(POSTGRES_MIGRATIONS.length + 1)

let server: Postgres
beforeAll(async () => {
  server = await startPostgres()
}, 60_000)
afterAll(() => server.stop())

async function toNext(db: Pick<NodePgDatabase, 'execute'>): Promise<void> {
  for (const statement of NEXT) await db.execute(statement)
  await db.execute(sql`UPDATE landfall_meta SET value = ${NEXT_VERSION} WHERE key = 'version'`)
}

const versionOf = async (db: Pick<NodePgDatabase, 'execute'>): Promise<unknown> =>
  (await db.execute(sql`SELECT value FROM landfall_meta WHERE key = 'version'`)).rows[0]?.['value']

async function fixture(): Promise<LedgerFixture<PostgresTx<Database>>> {
  const url = await server.database()
  const pools: Pool[] = []
  const open = (): Database => {
    const pool = new Pool({ connectionString: url, max: 10 })
    pools.push(pool)
    return drizzle(pool, { schema })
  }
  const db = open()
  await db.execute(sql`CREATE TABLE photos (name text NOT NULL)`)
  await postgresLedger(db).migrate()
  await toNext(db)
  return {
    ledger: postgresLedger(db),
    another: async () => postgresLedger(open()),
    async write(tx, name) {
      await tx.insert(photos).values({ name })
    },
    written: async () => (await db.select().from(photos)).map(({ name }) => name),
    transaction: (body) => db.transaction((tx) => body(tx)),
    async dispose() {
      expect(await versionOf(db)).toBe(NEXT_VERSION)
      await Promise.all(pools.map((pool) => pool.end()))
    },
  }
}

describe('ledger contract: PostgreSQL that the next version has migrated', () => ledgerContract(test, fixture))

test('nodes that start at once migrate once', async () => {
  for (let round = 0; round < 5; round += 1) {
    const url = await server.database()
    const sent: string[] = []
    const pools = Array.from({ length: 6 }, () => new Pool({ connectionString: url, max: 2 }))
    try {
      const opened = await Promise.all(
        pools.map((pool) =>
          postgresLedger(drizzle(pool, { logger: { logQuery: (query) => void sent.push(query) } })).migrate(),
        ),
      )
      expect(new Set(opened.map(({ identity }) => identity)).size).toBe(1)
      for (const made of ['TABLE IF NOT EXISTS landfall_operations', 'OR REPLACE TRIGGER landfall_operation_guarded'])
        expect([made, sent.filter((query) => query.includes(`CREATE ${made}`)).length]).toEqual([made, 1])
      for (const pool of pools) expect(await versionOf(drizzle(pool))).toBe(String(POSTGRES_MIGRATIONS.length))
    } finally {
      await Promise.all(pools.map((pool) => pool.end()))
    }
  }
})

test('a node that starts while the next version migrates waits for it, and leaves its version alone', async () => {
  const pool = new Pool({ connectionString: await server.database(), max: 4 })
  const db = drizzle(pool)
  try {
    let isOver = false
    let starting: Promise<unknown> = Promise.resolve()
    const { identity } = await db.transaction(async (next) => {
      const migrated = await runOn(queriesOn(next), POSTGRES_TABLES.migrate())
      await toNext(next)
      starting = postgresLedger(db)
        .migrate()
        .finally(() => (isOver = true))
      await later(300)
      expect(isOver).toBe(false)
      return migrated
    })
    expect(await starting).toEqual({ identity, store: 'new' })
    expect(await versionOf(db)).toBe(NEXT_VERSION)
  } finally {
    await pool.end()
  }
})
