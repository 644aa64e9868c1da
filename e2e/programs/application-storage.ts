import { join } from 'node:path'
import {
  type BlobStore,
  fileBlobs,
  type Ledger,
  postgresLedger,
  serializedLibsql,
  sqliteLedger,
} from '@landfall/server'
import { eq, sql } from 'drizzle-orm'
import { pgTable, text as pgText } from 'drizzle-orm/pg-core'
import { sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { s3FromEnv } from './serve.js'

/** Where an application keeps its data, and the rows that it writes itself, one for each file that has arrived. */
export interface Storage<Tx> {
  readonly ledger: Ledger<Tx>
  readonly blobs: BlobStore
  arrive(tx: Tx, operationId: string, name: string): Promise<unknown>
  /** Deletes the row. In the same transaction it calls `remove`, which deletes the reference. */
  takeBack(operationId: string, remove: (tx: Tx) => Promise<boolean>): Promise<boolean>
}

/** The table for both dialects. On PostgreSQL the test that starts the processes makes it. */
export const ARRIVALS = 'CREATE TABLE IF NOT EXISTS arrivals (operation_id TEXT NOT NULL, name TEXT NOT NULL)'

export async function ownStorage(directory: string) {
  const { createClient } = await import('@libsql/client')
  const { drizzle } = await import('drizzle-orm/libsql')
  const arrivals = sqliteTable('arrivals', {
    operationId: text('operation_id').notNull(),
    name: text('name').notNull(),
  })
  const client = serializedLibsql(createClient({ url: `file:${join(directory, 'landfall.db')}` }))
  const db = drizzle(client, { schema: { arrivals } })
  await db.run(sql.raw(ARRIVALS))
  const ledger = sqliteLedger(db)
  type Tx = typeof ledger extends Ledger<infer T> ? T : never
  return {
    ledger,
    blobs: fileBlobs({ directory: join(directory, 'blobs') }),
    arrive: (tx, operationId, name) => tx.insert(arrivals).values({ operationId, name }),
    takeBack: (operationId, remove) =>
      db.transaction(async (tx) => {
        await tx.delete(arrivals).where(eq(arrivals.operationId, operationId))
        return remove(tx)
      }),
  } satisfies Storage<Tx>
}

export async function sharedStorage(settings: {
  prefix: string
  partBytes?: number | undefined
  callTimeoutMs?: number | undefined
}) {
  const { drizzle } = await import('drizzle-orm/node-postgres')
  const { s3Blobs } = await import('@landfall/server/s3')
  const { Pool } = await import('pg')
  const arrivals = pgTable('arrivals', {
    operationId: pgText('operation_id').notNull(),
    name: pgText('name').notNull(),
  })
  const connectionString = process.env['LANDFALL_DATABASE_URL']
  const pool = new Pool({ connectionString, max: 10, connectionTimeoutMillis: 5_000 })
  const db = drizzle(pool, { schema: { arrivals } })
  const ledger = postgresLedger(db)
  type Tx = typeof ledger extends Ledger<infer T> ? T : never
  return {
    ledger,
    blobs: s3Blobs({
      s3ClientConfig: s3FromEnv(),
      prefix: settings.prefix,
      ...(settings.partBytes === undefined ? {} : { partSize: settings.partBytes }),
      ...(settings.callTimeoutMs === undefined ? {} : { callTimeoutMs: settings.callTimeoutMs }),
    }),
    arrive: (tx, operationId, name) => tx.insert(arrivals).values({ operationId, name }),
    takeBack: (operationId, remove) =>
      db.transaction(async (tx) => {
        await tx.delete(arrivals).where(eq(arrivals.operationId, operationId))
        return remove(tx)
      }),
  } satisfies Storage<Tx>
}
