import { join } from 'node:path'
import type { RequestListener } from 'node:http'
import { type Client, createClient } from '@libsql/client'
import { type DataStore, Server } from '@tus/server'
import { drizzle } from 'drizzle-orm/libsql'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'

const files = sqliteTable('files', {
  id: text('id').primaryKey(),
  name: text('name').notNull(),
  type: text('type').notNull(),
  size: integer('size').notNull(),
  storedAt: integer('stored_at', { mode: 'timestamp_ms' }).notNull(),
})

async function openDatabase(directory: string): Promise<Client> {
  const client = createClient({ url: `file:${join(directory, 'peer.db')}` })
  await client.execute('PRAGMA journal_mode = WAL')
  await client.execute('PRAGMA synchronous = FULL')
  await client.execute(`CREATE TABLE IF NOT EXISTS files
    (id TEXT PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL, size INTEGER NOT NULL, stored_at INTEGER NOT NULL)`)
  return client
}

/** One write at a time: concurrent ones fail at once with "database is locked". */
function createMutex() {
  let last: Promise<unknown> = Promise.resolve()
  return <T>(write: () => Promise<T>): Promise<T> => {
    const next = last.then(write, write)
    last = next
    return next
  }
}

/**
 * How the usual stack is put together: plain @tus/server on a store of its family, and a hook that inserts one row
 * (Drizzle, @libsql/client, WAL, synchronous=FULL) into a database in `directory`.
 */
export async function tusStack(
  datastore: DataStore,
  directory: string,
  beforeRow: (id: string) => Promise<void> = async () => {},
): Promise<RequestListener> {
  const db = drizzle(await openDatabase(directory))
  const oneAtATime = createMutex()
  const server = new Server({
    path: '/files',
    datastore,
    async onUploadFinish(_request, { id, size, metadata }) {
      await beforeRow(id)
      const row = {
        id,
        name: metadata?.['filename'] ?? '',
        type: metadata?.['filetype'] ?? '',
        size: size ?? 0,
        storedAt: new Date(),
      }
      await oneAtATime(() => db.insert(files).values(row).run())
      return {}
    },
  })
  return (request, response) => void server.handle(request, response)
}
