import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createClient } from '@libsql/client'
import { sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/libsql'
import { sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { createHolderName } from '../src/lib/holder-name.js'
import { fileBlobs } from '../src/blobs/file/file-blobs.js'
import type { BlobStoreFixture } from '../src/contract/blob-store.js'
import type { LedgerFixture } from '../src/contract/ledger.js'
import { serializedLibsql } from '../src/ledger/sqlite/client/serialized-libsql.js'
import { sqliteLedger, type SqliteTx } from '../src/ledger/sqlite/ledger.js'

export const photos = sqliteTable('photos', { name: text('name').notNull() })
export const schema = { photos }
export type Tx = SqliteTx<typeof schema>

export async function temporaryDirectory(): Promise<{ path: string; remove(): Promise<void> }> {
  const path = await mkdtemp(join(tmpdir(), 'landfall-test-'))
  return { path, remove: () => rm(path, { recursive: true, force: true }) }
}

/** A database file of the application, with a table of its own. */
export async function openDatabase(path: string) {
  const client = serializedLibsql(createClient({ url: `file:${path}` }))
  const db = drizzle(client, { schema })
  await db.run(sql`CREATE TABLE IF NOT EXISTS photos (name TEXT NOT NULL)`)
  return { client, db }
}

export async function sqliteFixture(): Promise<LedgerFixture<Tx>> {
  const directory = await temporaryDirectory()
  const path = join(directory.path, 'app.db')
  const { client, db } = await openDatabase(path)
  const others: { close(): void }[] = []
  return {
    ledger: sqliteLedger(db),
    async another() {
      const other = await openDatabase(path)
      others.push(other.client)
      return sqliteLedger(other.db)
    },
    async write(tx, name) {
      await tx.insert(photos).values({ name })
    },
    written: async () => (await db.select().from(photos)).map(({ name }) => name),
    transaction: (body) => db.transaction(body),
    async dispose() {
      for (const other of [client, ...others]) other.close()
      await directory.remove()
    },
  }
}

export async function fileFixture(): Promise<BlobStoreFixture> {
  const directory = await temporaryDirectory()
  let store = fileBlobs({ directory: directory.path })
  await store.open('ledger-1', 'new')
  return {
    get store() {
      return store
    },
    holder: createHolderName(),
    async reopen(identity = 'ledger-1') {
      await store.close()
      store = fileBlobs({ directory: directory.path })
      await store.open(identity, 'known')
      return store
    },
    async dispose() {
      await store.close()
      await directory.remove()
    },
  }
}
