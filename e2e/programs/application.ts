/**
 * An application that embeds Landfall, as a separate program that can be killed: `node application.js
 * '{"directory":"…","prepareMs":20000}'`. In the reference's transaction it writes a row of its own. Its hooks can be
 * slow, fail or refuse, and its effects go to receivers. It prints its address when it is ready.
 *
 * With `directory` it runs on SQLite and files, with the same data as `landfall serve`. Without it, the program is one
 * of several processes on the PostgreSQL and the object store that `LANDFALL_DATABASE_URL` and `LANDFALL_S3_*` name.
 */
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { extname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { getRequestListener } from '@hono/node-server'
import { createUploads, guardServer, nodeServerOptions, reject, standardWebhook } from '@landfall/server'
import { Hono } from 'hono'
import * as v from 'valibot'
import type { Storage } from './application-storage.js'
import { serveProgram } from './serve.js'

const settingsSchema = v.object({
  directory: v.optional(v.string()),
  /**
   * Only without a directory: the prefix of the names of all objects, the size of their parts, and the time limit of
   * one call.
   */
  prefix: v.optional(v.string(), ''),
  partBytes: v.optional(v.number()),
  callTimeoutMs: v.optional(v.number()),
  /**
   * The header that names the owner. By default all requests have the same owner, so that stock clients need no header.
   */
  ownerHeader: v.optional(v.string()),
  /** The folder of a built page, served at `/`. */
  page: v.optional(v.string()),
  /** How many milliseconds the `prepare` step before the reference takes. 0 means that there is no such step. */
  prepareMs: v.optional(v.number(), 0),
  /** How often `onReference` throws for each operation before it succeeds. */
  throws: v.optional(v.number(), 0),
  /** The code with which `onReference` refuses. */
  reject: v.optional(v.string()),
  /** The URL of the receiver of each effect, by the name of the effect. */
  receivers: v.optional(v.record(v.string(), v.string()), {}),
  /** True: effects are delivered by Standard Webhooks. False: a function of the application delivers them. */
  signed: v.optional(v.boolean(), false),
  leaseMs: v.optional(v.number()),
  completerIntervalMs: v.optional(v.number()),
  /** False: each request needs a new connection, so that it may reach another process. */
  keepAlive: v.optional(v.boolean(), true),
})
export type ApplicationSettings = v.InferInput<typeof settingsSchema>

const settings = v.parse(settingsSchema, JSON.parse(process.argv[2] ?? '{}'))
const SECRET = `whsec_${Buffer.from('of the benchmark, 24 bytes').toString('base64')}`

const { leaseMs, completerIntervalMs, ownerHeader, directory } = settings
const thrown = new Map<string, number>()

/** The body is the same as that of a webhook of `landfall serve`. */
const deliverTo =
  (url: string) =>
  async ({ effectId, operation, signal }: { effectId: string; operation: { id: string }; signal: AbortSignal }) => {
    const body = JSON.stringify({ data: { operation: { id: operation.id } } })
    const answer = await fetch(url, { method: 'POST', headers: { 'webhook-id': effectId }, body, signal })
    if (!answer.ok) throw new Error(`the receiver answered ${answer.status}`)
  }

async function run<Tx>({ ledger, blobs, arrive, takeBack }: Storage<Tx>): Promise<void> {
  const uploads = createUploads({
    ledger,
    blobs,
    authenticate: (c) => (ownerHeader === undefined ? 'user' : (c.req.header(ownerHeader) ?? null)),
    ...(leaseMs === undefined ? {} : { leaseMs }),
    ...(completerIntervalMs === undefined ? {} : { completerIntervalMs }),
    kinds: (kind) => ({
      file: kind({
        ...(settings.prepareMs > 0 && {
          prepare: {
            async scan({ blob, signal }) {
              await sleep(settings.prepareMs, null, { signal })
              return { bytes: blob.size }
            },
          },
        }),
        async onReference(tx, { operation }) {
          await arrive(tx, operation.id, operation.file.name)
          const before = thrown.get(operation.id) ?? 0
          thrown.set(operation.id, before + 1)
          if (before < settings.throws) throw new Error(`onReference fails, ${before + 1} of ${settings.throws}`)
          return settings.reject === undefined ? { arrived: true } : reject(settings.reject)
        },
        effects: Object.fromEntries(
          Object.entries(settings.receivers).map(([name, url]) => [
            name,
            settings.signed ? standardWebhook({ url, secret: SECRET, allowPrivateAddresses: true }) : deliverTo(url),
          ]),
        ),
      }),
    }),
  })
  await uploads.ready()

  const app = new Hono()
    .delete('/uploads/arrivals/:id', async (c) => {
      const id = c.req.param('id')
      const removed = await takeBack(id, (tx) => uploads.remove(tx, id, c.req.header(ownerHeader ?? '')))
      return c.body(null, removed ? 204 : 404)
    })
    .route('/uploads', uploads.routes)
    .get('/*', async (c) => {
      const name = c.req.path === '/' ? 'index.html' : c.req.path
      if (settings.page === undefined || name.includes('..')) return c.notFound()
      const bytes = await readFile(join(settings.page, name)).catch(() => null)
      if (bytes === null) return c.notFound()
      return c.body(new Uint8Array(bytes), 200, { 'Content-Type': TYPES[extname(name)] ?? 'application/octet-stream' })
    })
  const listener = getRequestListener(app.fetch)
  const server = createServer(nodeServerOptions(), (request, response) => {
    if (!settings.keepAlive) response.shouldKeepAlive = false
    void listener(request, response)
  })
  await serveProgram(guardServer(server), () => uploads.close({ withinMs: 1_000 }))
}

const TYPES: Readonly<Record<string, string>> = { '.html': 'text/html', '.js': 'text/javascript' }

// The program loads only the modules that it uses, because a sweep starts it thousands of times.
const storage = await import('./application-storage.js')
await (directory === undefined ? run(await storage.sharedStorage(settings)) : run(await storage.ownStorage(directory)))
