/**
 * An application that embeds Landfall, for what `landfall serve` has none of: a row of its own in the reference's
 * transaction, a step before it, an own function as an effect, and a way to take the reference back. A program of its
 * own with the same data as `landfall serve`: `node swept-app.js '{"directory":"…"}'`. Prints its address when ready.
 */
import { createServer } from 'node:http'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { getRequestListener } from '@hono/node-server'
import {
  createUploads,
  fileBlobs,
  guardServer,
  kind,
  nodeServerOptions,
  serializedLibsql,
  sqliteLedger,
  type SqliteTx,
} from '@landfall/server'
import { createClient } from '@libsql/client'
import { eq, sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/libsql'
import { sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { Hono } from 'hono'
import * as v from 'valibot'
import { OWNER_HEADER } from '../ground/landfall.js'
import { listen } from '../ground/ports.js'

const settingsSchema = v.object({
  directory: v.string(),
  /** Where the effect goes. */
  receiver: v.pipe(v.string(), v.url()),
  leaseMs: v.number(),
  completerIntervalMs: v.number(),
})
export type SweptAppSettings = v.InferInput<typeof settingsSchema>

/** One row for each file that has arrived and was not taken back. */
const arrivals = sqliteTable('arrivals', { operationId: text('operation_id').notNull() })
const schema = { arrivals }

const settings = v.parse(settingsSchema, JSON.parse(process.argv[2] ?? '{}'))
const client = serializedLibsql(createClient({ url: `file:${join(settings.directory, 'landfall.db')}` }))
const db = drizzle(client, { schema })
await db.run(sql`CREATE TABLE IF NOT EXISTS arrivals (operation_id TEXT NOT NULL)`)

const uploads = createUploads({
  ledger: sqliteLedger(db),
  blobs: fileBlobs({ directory: join(settings.directory, 'blobs') }),
  authenticate: (c) => c.req.header(OWNER_HEADER) ?? null,
  completerIntervalMs: settings.completerIntervalMs,
  leaseMs: settings.leaseMs,
  kinds: {
    file: kind({
      prepare: {
        // Long enough for the lease to be prolonged: by itself that comes by chance, on a busy machine.
        async measure({ blob, signal }) {
          await sleep(settings.leaseMs / 2, null, { signal })
          return { bytes: blob.size }
        },
      },
      async onReference(tx: SqliteTx<typeof schema>, { operation }) {
        await tx.insert(arrivals).values({ operationId: operation.id })
        return { arrived: true }
      },
      effects: {
        webhook: async ({ effectId, operation, signal }) => {
          const answer = await fetch(settings.receiver, {
            method: 'POST',
            headers: { 'webhook-id': effectId },
            body: JSON.stringify({ data: { operation: { id: operation.id } } }),
            signal,
          })
          if (!answer.ok) throw new Error(`the receiver answered ${answer.status}`)
        },
      },
    }),
  },
})
await uploads.ready()

const app = new Hono()
  .delete('/uploads/arrivals/:id', async (c) => {
    const id = c.req.param('id')
    const removed = await db.transaction(async (tx) => {
      await tx.delete(arrivals).where(eq(arrivals.operationId, id))
      return uploads.remove(tx, id, c.req.header(OWNER_HEADER))
    })
    return c.body(null, removed ? 204 : 404)
  })
  .route('/uploads', uploads.routes)

const listener = getRequestListener(app.fetch)
const server = guardServer(createServer(nodeServerOptions(), (request, response) => void listener(request, response)))
const port = await listen(server)
process.stdout.write(`listening on http://127.0.0.1:${port}\n`)
