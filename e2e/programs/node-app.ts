/**
 * An application that embeds Landfall on PostgreSQL and S3, to be run as several processes: `node node-app.js
 * '{"databaseUrl":"…","s3":{…},…}'`. A row of its own in the reference's transaction, and one effect. Prints one line
 * with its address when ready.
 */
import { createServer } from 'node:http'
import { getRequestListener } from '@hono/node-server'
import { createUploads, guardServer, nodeServerOptions, postgresLedger } from '@landfall/server'
import { s3Blobs } from '@landfall/server/s3'
import { drizzle } from 'drizzle-orm/node-postgres'
import { pgTable, text } from 'drizzle-orm/pg-core'
import { Hono } from 'hono'
import { Pool } from 'pg'
import * as v from 'valibot'
import { nodeSettings } from './node-settings.js'
import { listen } from '../ground/ports.js'

const appSettings = v.object({
  ...nodeSettings.entries,
  /** Before the names of all objects. */
  prefix: v.string(),
  /** Where the effect goes. */
  receiver: v.pipe(v.string(), v.url()),
  leaseMs: v.number(),
  completerIntervalMs: v.number(),
})
export type NodeAppSettings = v.InferInput<typeof appSettings>

/** Whoever asks: one user, so that stock clients need no header. */
export const OWNER = 'user'

const arrivals = pgTable('arrivals', { operationId: text('operation_id').notNull(), name: text('name').notNull() })
const schema = { arrivals }

const settings = v.parse(appSettings, JSON.parse(process.argv[2] ?? '{}'))
const { bucket, endpoint, region, accessKeyId, secretAccessKey } = settings.s3
const pool = new Pool({ connectionString: settings.databaseUrl, max: 10, connectionTimeoutMillis: 5_000 })

const uploads = createUploads({
  ledger: postgresLedger(drizzle(pool, { schema })),
  blobs: s3Blobs({
    s3ClientConfig: { bucket, endpoint, region, forcePathStyle: true, credentials: { accessKeyId, secretAccessKey } },
    prefix: settings.prefix,
    partSize: settings.partBytes,
    callTimeoutMs: settings.callTimeoutMs,
  }),
  authenticate: () => OWNER,
  leaseMs: settings.leaseMs,
  completerIntervalMs: settings.completerIntervalMs,
  kinds: (kind) => ({
    file: kind({
      async onReference(tx, { operation }) {
        await tx.insert(arrivals).values({ operationId: operation.id, name: operation.file.name })
        return { arrived: true }
      },
      effects: {
        webhook: async ({ effectId, operation, signal }) => {
          const answer = await fetch(settings.receiver, {
            method: 'POST',
            headers: { 'webhook-id': effectId },
            body: JSON.stringify({ operationId: operation.id }),
            signal,
          })
          if (!answer.ok) throw new Error(`the receiver answered ${answer.status}`)
        },
      },
    }),
  }),
})
await uploads.ready()

const listener = getRequestListener(new Hono().route('/uploads', uploads.routes).fetch)
const server = guardServer(
  createServer(nodeServerOptions(), (request, response) => {
    // Each request may come to another node.
    response.shouldKeepAlive = false
    void listener(request, response)
  }),
)
const port = await listen(server)
process.on('SIGTERM', () => {
  server.close()
  void uploads.close().finally(() => process.exit(0))
})
process.stdout.write(`listening on http://127.0.0.1:${port}\n`)
