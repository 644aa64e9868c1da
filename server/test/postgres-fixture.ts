import { sql } from 'drizzle-orm'
import type { NodePgDatabase } from 'drizzle-orm/node-postgres'
import { pgTable, text } from 'drizzle-orm/pg-core'
import type { PostgresJsDatabase } from 'drizzle-orm/postgres-js'
import type { LedgerFixture } from '../src/contract/ledger.js'
import { postgresLedger, type PostgresTx } from '../src/ledger/postgres/ledger.js'

/** A table of the application. */
export const photos = pgTable('photos', { name: text('name').notNull() })
export const schema = { photos }
export type NodeDatabase = NodePgDatabase<typeof schema>
export type JsDatabase = PostgresJsDatabase<typeof schema>

/** A ledger in an empty schema of a server. `prepare` may change the schema first. */
export async function postgresFixture<Database extends NodeDatabase | JsDatabase>(
  server: { database(): Promise<string> },
  open: (url: string) => { db: Database; end(): Promise<void> },
  prepare: (db: Database) => Promise<void> = async () => {},
): Promise<LedgerFixture<PostgresTx<Database>>> {
  const url = await server.database()
  const first = open(url)
  const all = [first]
  await first.db.execute(sql`CREATE TABLE photos (name text NOT NULL)`)
  await prepare(first.db)
  return {
    ledger: postgresLedger(first.db),
    another: async () => {
      const other = open(url)
      all.push(other)
      return postgresLedger(other.db)
    },
    async write(tx, name) {
      await tx.insert(photos).values({ name })
    },
    written: async () => (await first.db.select().from(photos)).map(({ name }) => name),
    transaction: (body) => first.db.transaction((tx) => body(tx as PostgresTx<Database>)),
    async dispose() {
      await Promise.all(all.map(({ end }) => end()))
    },
  }
}
