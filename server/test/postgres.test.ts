import { drizzle as drizzleNode, type NodePgDatabase } from 'drizzle-orm/node-postgres'
import { pgTable, text } from 'drizzle-orm/pg-core'
import { drizzle as drizzleJs, type PostgresJsDatabase } from 'drizzle-orm/postgres-js'
import { sql } from 'drizzle-orm'
import pg from 'pg'
import postgres from 'postgres'
import { afterAll, beforeAll, describe, test } from 'vitest'
import { ledgerContract, type LedgerFixture } from '../src/contract/ledger.js'
import { postgresLedger, type PostgresTx } from '../src/ledger/postgres.js'
import { type Postgres, startPostgres } from './postgres.js'

const photos = pgTable('photos', { name: text('name').notNull() })
const schema = { photos }
type NodeDatabase = NodePgDatabase<typeof schema>
type JsDatabase = PostgresJsDatabase<typeof schema>

let server: Postgres
beforeAll(async () => {
  server = await startPostgres()
}, 60_000)
afterAll(() => server.stop())

async function fixtureOf<Database extends NodeDatabase | JsDatabase>(
  open: (url: string) => { db: Database; end(): Promise<void> },
): Promise<LedgerFixture<PostgresTx<Database>>> {
  const url = await server.database()
  const opened = open(url)
  const all = [opened]
  await opened.db.execute(sql`CREATE TABLE photos (name text NOT NULL)`)
  return {
    ledger: postgresLedger(opened.db),
    another: async () => {
      const other = open(url)
      all.push(other)
      return postgresLedger(other.db)
    },
    async write(tx, name) {
      await tx.insert(photos).values({ name })
    },
    written: async () => (await opened.db.select().from(photos)).map(({ name }) => name),
    transaction: (body) => opened.db.transaction((tx) => body(tx as PostgresTx<Database>)),
    async dispose() {
      await Promise.all(all.map(({ end }) => end()))
    },
  }
}

describe('ledger contract: PostgreSQL by node-postgres', () =>
  ledgerContract(test, () =>
    fixtureOf((url) => {
      const pool = new pg.Pool({ connectionString: url, max: 10 })
      return { db: drizzleNode(pool, { schema }) as NodeDatabase, end: () => pool.end() }
    }),
  ))

describe('ledger contract: PostgreSQL by postgres.js', () =>
  ledgerContract(test, () =>
    fixtureOf((url) => {
      const client = postgres(url, { max: 10, onnotice: () => {} })
      return { db: drizzleJs(client, { schema }) as JsDatabase, end: () => client.end() }
    }),
  ))
