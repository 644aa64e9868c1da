/**
 * The servers that Landfall is compared with, as a separate program: `node tus-peer.js VARIANT DIRECTORY`.
 *
 * - `tus`: plain @tus/server and @tus/file-store. `onUploadFinish` inserts one row (Drizzle, @libsql/client, WAL,
 *   synchronous=FULL), which is how the stack is usually put together. It never syncs a file.
 * - `tus-sync`: the same, but the file is synced before the row is inserted. So it is as durable as Landfall's
 *   reference.
 * - `lying`: the same as `tus`, but a row is never inserted. The harness must notice it.
 * - `pipe`: `request.pipe(file)`, answered when the file is written. This is the least that a server can do.
 * - `tus-s3`: plain @tus/server and the unmodified @tus/s3-store. With `LANDFALL_DATABASE_URL` the row goes into
 *   PostgreSQL, the object is named after the file, and calls have a time limit (`PEER_CALL_TIMEOUT_MS`).
 * - `raw-s3`: sends the request's body through the AWS SDK's own multipart upload, with four parts at a time and no
 *   row.
 *
 * `LANDFALL_S3_*` names the object store. The program prints its address when it is ready.
 */
import { randomUUID } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { mkdir, open } from 'node:fs/promises'
import { createServer, type IncomingMessage, type RequestListener } from 'node:http'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { createClient } from '@libsql/client'
import { FileStore } from '@tus/file-store'
import { type DataStore, Server, type ServerOptions, type Upload } from '@tus/server'
import { drizzle } from 'drizzle-orm/libsql'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { s3FromEnv, serveProgram } from './serve.js'

type Insert = (upload: Upload) => Promise<unknown>

const DATABASE_URL = process.env['LANDFALL_DATABASE_URL']
const PART_BYTES = Number(process.env['PEER_PART_BYTES'] ?? 8 * 1024 * 1024)

const files = sqliteTable('files', {
  id: text('id').primaryKey(),
  name: text('name').notNull(),
  type: text('type').notNull(),
  size: integer('size').notNull(),
  storedAt: integer('stored_at', { mode: 'timestamp_ms' }).notNull(),
})

async function intoSqlite(directory: string): Promise<Insert> {
  const client = createClient({ url: `file:${join(directory, 'peer.db')}` })
  await client.execute('PRAGMA journal_mode = WAL')
  await client.execute('PRAGMA synchronous = FULL')
  await client.execute(`CREATE TABLE IF NOT EXISTS files
    (id TEXT PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL, size INTEGER NOT NULL, stored_at INTEGER NOT NULL)`)
  const db = drizzle(client)
  let last: Promise<unknown> = Promise.resolve()
  return ({ id, size, metadata }) => {
    const { filename: name, filetype: type } = metadata ?? {}
    const row = { id, name: name ?? '', type: type ?? '', size: size ?? 0, storedAt: new Date() }
    const write = (): Promise<unknown> => db.insert(files).values(row).run()
    // It writes one row at a time, because concurrent writes fail at once with "database is locked".
    return (last = last.then(write, write))
  }
}

async function intoPostgres(url: string): Promise<Insert> {
  const { Pool } = await import('pg')
  const pool = new Pool({ connectionString: url, max: 10, connectionTimeoutMillis: 5_000 })
  pool.on('error', () => {})
  return ({ id, metadata }) =>
    pool.query('INSERT INTO arrivals (operation_id, name) VALUES ($1, $2)', [id, metadata?.['filename'] ?? ''])
}

async function syncFile(path: string): Promise<void> {
  const file = await open(path, 'r+')
  try {
    await file.datasync()
  } finally {
    await file.close()
  }
}

async function s3Store(): Promise<DataStore> {
  const { S3Store } = await import('@tus/s3-store')
  return new S3Store({
    partSize: PART_BYTES,
    s3ClientConfig: {
      ...s3FromEnv(),
      // Ceph knows no other checksums, and answers 411 to streams that have one.
      requestChecksumCalculation: 'WHEN_REQUIRED',
      ...(DATABASE_URL !== undefined && {
        responseChecksumValidation: 'WHEN_REQUIRED',
        // Without this limit the server would wait without end for a call that is never answered.
        requestHandler: {
          requestTimeout: Number(process.env['PEER_CALL_TIMEOUT_MS']),
          throwOnRequestTimeout: true,
        },
      }),
    },
  })
}

function tusListener(datastore: DataStore, finish: Insert, options: Partial<ServerOptions> = {}): RequestListener {
  const server = new Server({
    path: '/files',
    datastore,
    async onUploadFinish(_request, upload) {
      await finish(upload)
      return {}
    },
    ...options,
  })
  return (request, response) => void server.handle(request, response)
}

/** Answers when the body is stored. It has no protocol and no row. */
const bodyListener =
  (store: (body: IncomingMessage) => Promise<unknown>): RequestListener =>
  (request, response) =>
    void store(request).then(
      () => response.writeHead(204).end(),
      () => response.writeHead(500).end(),
    )

async function rawS3Listener(): Promise<RequestListener> {
  const { S3 } = await import('@aws-sdk/client-s3')
  const { Upload: MultipartUpload } = await import('@aws-sdk/lib-storage')
  const { bucket: Bucket, ...config } = s3FromEnv()
  const client = new S3({ ...config, requestChecksumCalculation: 'WHEN_REQUIRED' })
  return bodyListener((Body) => {
    const params = { Bucket, Key: randomUUID(), Body }
    return new MultipartUpload({ client, params, partSize: PART_BYTES, queueSize: 4 }).done()
  })
}

async function listenerOf(variant: string, directory: string): Promise<RequestListener> {
  const uploads = join(directory, 'uploads')
  await mkdir(uploads, { recursive: true })
  const store = new FileStore({ directory: uploads })
  switch (variant) {
    case 'pipe':
      return bodyListener((body) => pipeline(body, createWriteStream(join(uploads, randomUUID()))))
    case 'raw-s3':
      return rawS3Listener()
    case 'tus-s3': {
      if (DATABASE_URL === undefined) return tusListener(await s3Store(), await intoSqlite(directory))
      const listener = tusListener(await s3Store(), await intoPostgres(DATABASE_URL), {
        namingFunction: (_request, metadata) => `${metadata?.['filename'] ?? ''}-${randomUUID()}`,
      })
      return (request, response) => {
        response.shouldKeepAlive = false
        listener(request, response)
      }
    }
    case 'lying':
      await intoSqlite(directory)
      return tusListener(store, async () => {})
    case 'tus':
      return tusListener(store, await intoSqlite(directory))
    case 'tus-sync': {
      const insert = await intoSqlite(directory)
      return tusListener(store, async (upload) => {
        await syncFile(join(uploads, upload.id))
        await insert(upload)
      })
    }
    default:
      throw new Error('usage: tus-peer tus|tus-sync|lying|pipe|tus-s3|raw-s3 DIRECTORY')
  }
}

const [variant = '', directory = '.'] = process.argv.slice(2)
await serveProgram(createServer(await listenerOf(variant, directory)))
