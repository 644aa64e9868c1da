import { randomBytes } from 'node:crypto'
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { serveStatic } from '@hono/node-server/serve-static'
import { createUploads, fileBlobs, kind, reject, serializedLibsql, sqliteLedger, type SqliteTx } from '@landfall/server'
import { createClient } from '@libsql/client'
import { and, desc, eq, sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/libsql'
import { integer, sqliteTable, text, unique } from 'drizzle-orm/sqlite-core'
import { type Context, Hono } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import { deleteCookie, getSignedCookie, setSignedCookie } from 'hono/cookie'
import { secureHeaders } from 'hono/secure-headers'
import * as v from 'valibot'

/** The application's own table of the files that have arrived. Operation ids are unique per owner. */
const files = sqliteTable(
  'files',
  {
    id: integer('id').primaryKey({ autoIncrement: true }),
    owner: text('owner').notNull(),
    operationId: text('operation_id').notNull(),
    name: text('name').notNull(),
    size: integer('size').notNull(),
    type: text('type').notNull(),
    digest: text('digest').notNull(),
    arrivedAt: integer('arrived_at').notNull(),
  },
  (table) => [unique().on(table.owner, table.operationId)],
)
const schema = { files }
export type DemoTx = SqliteTx<typeof schema>

export interface DemoOptions {
  /** Database, blobs and the cookies' secret. */
  readonly directory: string
  /** The built page. */
  readonly page: string
  /** Work of an application before it stores its row. Tests make it slow, or make it fail. */
  readonly beforeReference?: (file: { name: string; operationId: string }) => Promise<void>
  /** The same, between the row and the commit. */
  readonly afterRow?: (file: { name: string }) => Promise<void>
  readonly completerIntervalMs?: number
}

export type DemoUploads = ReturnType<typeof createDemoUploads>

/** The demo application: a page, a list of files per visitor, and Landfall embedded in both. */
export async function createDemo(options: DemoOptions) {
  mkdirSync(options.directory, { recursive: true })
  const secret = cookieSecret(join(options.directory, 'cookie-secret'))
  const client = serializedLibsql(createClient({ url: `file:${join(options.directory, 'app.db')}` }))
  const db = drizzle(client, { schema })
  await db.run(sql`CREATE TABLE IF NOT EXISTS files (
    id INTEGER PRIMARY KEY AUTOINCREMENT, owner TEXT NOT NULL, operation_id TEXT NOT NULL, name TEXT NOT NULL,
    size INTEGER NOT NULL, type TEXT NOT NULL, digest TEXT NOT NULL, arrived_at INTEGER NOT NULL,
    UNIQUE (owner, operation_id))`)

  const visitor = async (c: Context): Promise<string | null> => (await getSignedCookie(c, secret, COOKIE)) || null
  const uploads = createDemoUploads(options, db, visitor)
  await uploads.ready()

  const app = new Hono()
  // Mounted before the page's own headers, because the answers with stored files bring stricter ones.
  app.route('/uploads', uploads.routes)
  app.use(
    secureHeaders({
      contentSecurityPolicy: { defaultSrc: ["'self'"], imgSrc: ["'self'", 'data:'], frameAncestors: ["'none'"] },
      strictTransportSecurity: false,
    }),
  )

  app.get('/api/session', async (c) => {
    const name = (await visitor(c)) ?? `guest-${randomBytes(3).toString('hex')}`
    await signIn(c, name, secret)
    return c.json({ name })
  })
  app.put('/api/session', bodyLimit({ maxSize: SESSION_BYTES }), async (c) => {
    const asked = v.safeParse(sessionSchema, await c.req.json().catch(() => null))
    if (!asked.success) return c.json({ error: 'a name of 1 to 40 letters, digits, dots or dashes' }, 400)
    await signIn(c, asked.output.name, secret)
    return c.json({ name: asked.output.name })
  })
  app.delete('/api/session', (c) => {
    deleteCookie(c, COOKIE)
    return c.body(null, 204)
  })

  app.get('/api/files', async (c) => {
    const owner = await visitor(c)
    if (owner === null) return c.json({ error: 'sign in first' }, 401)
    return c.json({ files: await db.select().from(files).where(eq(files.owner, owner)).orderBy(desc(files.id)) })
  })
  app.delete('/api/files/:id', async (c) => {
    const owner = await visitor(c)
    if (owner === null) return c.json({ error: 'sign in first' }, 401)
    // One transaction removes the row and the reference. The bytes are removed after the commit.
    const removed = await db.transaction(async (tx) => {
      const [row] = await tx
        .delete(files)
        .where(and(eq(files.owner, owner), eq(files.id, Number(c.req.param('id')))))
        .returning()
      return row !== undefined && (await uploads.remove(tx, row.operationId, owner))
    })
    return removed ? c.body(null, 204) : c.json({ error: 'no such file' }, 404)
  })

  app.use('/assets/*', async (c, next) => {
    await next()
    c.header('Cache-Control', 'public, max-age=31536000, immutable')
  })
  app.use(serveStatic({ root: options.page }))

  return {
    /** The application's own database, for programs that extend the demo. */
    db,
    fetch: app.fetch,
    async close() {
      await uploads.close()
      client.close()
    },
  }
}

/** The text that every virus scanner reports as a virus, to try out a rejection. @see https://www.eicar.org/ */
const TEST_VIRUS = String.raw`X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*`

function createDemoUploads(
  options: DemoOptions,
  db: ReturnType<typeof drizzle<typeof schema>>,
  visitor: (c: Context) => Promise<string | null>,
) {
  return createUploads({
    ledger: sqliteLedger(db),
    blobs: fileBlobs({ directory: join(options.directory, 'blobs') }),
    authenticate: visitor,
    ...(options.completerIntervalMs === undefined ? {} : { completerIntervalMs: options.completerIntervalMs }),
    kinds: {
      file: kind({
        prepare: {
          scan: async ({ blob }) => {
            const head = await new Response(await blob.read({ end: TEST_VIRUS.length })).text()
            return head.startsWith(TEST_VIRUS) ? reject('infected', 'The scanner found a virus in this file.') : null
          },
        },
        onReference: async (tx: DemoTx, { operation, blob }) => {
          const { name } = operation.file
          await options.beforeReference?.({ name, operationId: operation.id })
          const [row] = await tx
            .insert(files)
            .values({
              owner: operation.owner,
              operationId: operation.id,
              name,
              size: blob.size,
              type: blob.type,
              digest: blob.digest,
              arrivedAt: Date.now(),
            })
            .returning({ id: files.id })
          await options.afterRow?.({ name })
          return { fileId: row?.id ?? 0 }
        },
      }),
    },
  })
}

const COOKIE = 'visitor'
const YEAR_S = 365 * 24 * 60 * 60
/** Forty letters of four bytes each, and the JSON around them. */
const SESSION_BYTES = 1_024
const sessionSchema = v.object({ name: v.pipe(v.string(), v.trim(), v.regex(/^[\p{L}\p{N}.-]{1,40}$/u)) })

const signIn = (c: Context, name: string, secret: string): Promise<void> =>
  setSignedCookie(c, COOKIE, name, secret, { httpOnly: true, sameSite: 'Lax', path: '/', maxAge: YEAR_S })

/** Made once and kept, so that a visitor keeps its name after a restart. */
function cookieSecret(path: string): string {
  if (!existsSync(path)) {
    writeFileSync(path, randomBytes(32).toString('base64url'), { mode: 0o600 })
    chmodSync(path, 0o600)
  }
  return readFileSync(path, 'utf8')
}
