/**
 * An application that embeds Landfall, with hooks that can be slow, fail or refuse, as a program of its own that can be
 * killed: `node scenario-app.js '{"directory":"…","prepareMs":20000}'`. Prints one line with its address when ready.
 */
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { extname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { getRequestListener } from '@hono/node-server'
import {
  createUploads,
  fileBlobs,
  guardServer,
  nodeServerOptions,
  reject,
  serializedLibsql,
  sqliteLedger,
} from '@landfall/server'
import { createClient } from '@libsql/client'
import { drizzle } from 'drizzle-orm/libsql'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { Hono } from 'hono'
import * as v from 'valibot'
import { listen } from '../ground/ports.js'

const settingsSchema = v.object({
  /** Database `app.db` and the blobs; kept over a restart. */
  directory: v.string(),
  /** A built page, served at `/`. */
  page: v.optional(v.string()),
  /** How long the step before the reference takes. */
  prepareMs: v.optional(v.number(), 0),
  /** How often `onReference` throws for each operation before it works. */
  throws: v.optional(v.number(), 0),
  /** The code with which `onReference` refuses. */
  reject: v.optional(v.string()),
})
export type ScenarioSettings = v.InferInput<typeof settingsSchema>

/** Whoever asks: one user, so that stock clients need no header. */
export const SCENARIO_OWNER = 'user'

/** What the application itself writes, in the reference's transaction. */
const arrivals = sqliteTable('arrivals', {
  id: integer('id').primaryKey(),
  operationId: text('operation_id').notNull(),
  size: integer('size').notNull(),
})

const settings = v.parse(settingsSchema, JSON.parse(process.argv[2] ?? '{}'))
const client = serializedLibsql(createClient({ url: `file:${join(settings.directory, 'app.db')}` }))
await client.execute(
  'CREATE TABLE IF NOT EXISTS arrivals (id INTEGER PRIMARY KEY, operation_id TEXT NOT NULL, size INTEGER NOT NULL)',
)
const thrown = new Map<string, number>()

const uploads = createUploads({
  ledger: sqliteLedger(drizzle(client)),
  blobs: fileBlobs({ directory: join(settings.directory, 'blobs') }),
  authenticate: () => SCENARIO_OWNER,
  kinds: (kind) => ({
    file: kind({
      ...(settings.prepareMs > 0 && {
        prepare: {
          async scan({ signal }) {
            await sleep(settings.prepareMs, null, { signal })
          },
        },
      }),
      async onReference(tx, { operation, blob }) {
        await tx.insert(arrivals).values({ operationId: operation.id, size: blob.size })
        const before = thrown.get(operation.id) ?? 0
        thrown.set(operation.id, before + 1)
        if (before < settings.throws) throw new Error(`onReference fails, ${before + 1} of ${settings.throws}`)
        return settings.reject === undefined ? { arrived: true } : reject(settings.reject)
      },
    }),
  }),
})
await uploads.ready()

const TYPES: Readonly<Record<string, string>> = { '.html': 'text/html', '.js': 'text/javascript' }
const app = new Hono().route('/uploads', uploads.routes).get('/*', async (c) => {
  const name = c.req.path === '/' ? 'index.html' : c.req.path
  if (settings.page === undefined || name.includes('..')) return c.notFound()
  const bytes = await readFile(join(settings.page, name)).catch(() => null)
  if (bytes === null) return c.notFound()
  return c.body(new Uint8Array(bytes), 200, { 'Content-Type': TYPES[extname(name)] ?? 'application/octet-stream' })
})

const listener = getRequestListener(app.fetch)
const server = guardServer(createServer(nodeServerOptions(), (request, response) => void listener(request, response)))
const port = await listen(server)
process.on('SIGTERM', () => {
  server.close()
  void uploads.close().finally(() => process.exit(0))
})
process.stdout.write(`listening on http://127.0.0.1:${port}\n`)
