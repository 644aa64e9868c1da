import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { fileBlobs } from '../blobs/file/file-blobs.js'
import { postgresLedger } from '../ledger/postgres/ledger.js'
import { serializedLibsql } from '../ledger/sqlite/client/serialized-libsql.js'
import { sqliteLedger } from '../ledger/sqlite/ledger.js'
import { UploadError } from '../lib/errors.js'
import { makePrivateNow } from '../lib/private-modes.js'
import type { BlobStore } from '../ports/blob-store.js'
import type { Ledger } from '../ports/ledger.js'
import type * as S3Module from '../s3.js'
import type { Settings } from './settings.js'

// Opens what the settings name: for `landfall serve`, and for commands while no server runs.

export interface OpenDatabase {
  readonly ledger: Ledger<unknown>
  close(): Promise<void>
}

/** A new connection may take this long. After that the database counts as unavailable. */
const CONNECT_MS = 5_000
/**
 * The connection that prolongs leases is used every ten seconds. Under heavy load, opening a new one takes longest, so
 * it is kept.
 */
const IDLE_MS = 60_000
const KEEP_ALIVE_MS = 10_000

export async function openDatabase(settings: Settings): Promise<OpenDatabase> {
  const url = databaseUrl(settings)
  if (!isPostgres(url)) {
    const { createClient } = await libsqlPackage()
    const path = pathOf(url)
    for (const file of [path, `${path}-wal`, `${path}-shm`]) makePrivateNow(file)
    const { drizzle } = await import('drizzle-orm/libsql')
    const client = serializedLibsql(createClient({ url }))
    return { ledger: sqliteLedger(drizzle(client)), close: async () => client.close() }
  }
  const { Pool } = await pgPackage()
  const { drizzle: drizzlePostgres } = await import('drizzle-orm/node-postgres')
  const pool = new Pool({
    connectionString: url,
    max: settings.LANDFALL_DATABASE_CONNECTIONS,
    connectionTimeoutMillis: CONNECT_MS,
    idleTimeoutMillis: IDLE_MS,
    // For idle connections. A connection that runs a statement ends by the ledger's own time limit, which also asks the
    // database to stop. A `statement_timeout` at the start of a connection would be refused by PgBouncer.
    keepAlive: true,
    keepAliveInitialDelayMillis: KEEP_ALIVE_MS,
    application_name: 'landfall',
  })
  return { ledger: postgresLedger(drizzlePostgres(pool)), close: () => pool.end() }
}

/** The bucket that is named, otherwise a directory in the data directory. */
export async function openBlobs(settings: Settings): Promise<BlobStore> {
  const { LANDFALL_S3_BUCKET: bucket, LANDFALL_S3_ENDPOINT: endpoint } = settings
  if (bucket === undefined)
    return fileBlobs({
      directory: join(settings.LANDFALL_DATA_DIR, 'blobs'),
      ...(settings.LANDFALL_RESERVE_BYTES === undefined ? {} : { reserveBytes: settings.LANDFALL_RESERVE_BYTES }),
    })
  const { LANDFALL_S3_ACCESS_KEY_ID: accessKeyId, LANDFALL_S3_SECRET_ACCESS_KEY: secretAccessKey } = settings
  const { s3Blobs } = await s3Package()
  return s3Blobs({
    s3ClientConfig: {
      bucket,
      region: settings.LANDFALL_S3_REGION,
      // A server under a custom endpoint is addressed by path, because its name has no subdomains.
      ...(endpoint === undefined ? {} : { endpoint, forcePathStyle: true }),
      // Otherwise the AWS SDK looks for credentials itself.
      ...(accessKeyId === undefined || secretAccessKey === undefined
        ? {}
        : { credentials: { accessKeyId, secretAccessKey } }),
    },
    prefix: settings.LANDFALL_S3_PREFIX,
  })
}

// The drivers are optional peers of this package. Each is imported when the settings ask for it, so that an installation
// with SQLite needs no driver of PostgreSQL, and the reverse.

const libsqlPackage = () =>
  driver(() => import('@libsql/client'), 'The database is SQLite, and its driver is not installed', '@libsql/client')

const pgPackage = () =>
  driver(() => import('pg'), 'LANDFALL_DATABASE_URL names PostgreSQL, and its driver is not installed', 'pg')

const s3Package = (): Promise<typeof S3Module> =>
  driver(
    () => import('../s3.js'),
    'LANDFALL_S3_BUCKET names a bucket, and the packages for S3 are not installed',
    '@tus/s3-store @aws-sdk/client-s3',
  )

/** @throws UploadError `setup` that says which packages to install, when they cannot be found */
async function driver<T>(load: () => Promise<T>, reason: string, packages: string): Promise<T> {
  try {
    return await load()
  } catch (error) {
    if ((error as { code?: unknown }).code !== 'ERR_MODULE_NOT_FOUND') throw error
    throw new UploadError('setup', `${reason}. Run: npm install ${packages}`, { cause: error })
  }
}

/**
 * Whether a server has ever run on it: a command that only reads must not create a ledger because of a mistyped name.
 *
 * @throws UploadError `setup` when it cannot be read
 */
export async function hasLedger(settings: Settings): Promise<boolean> {
  const url = databaseUrl(settings)
  try {
    return isPostgres(url) ? await hasPostgresLedger(url) : await hasSqliteLedger(url)
  } catch (error) {
    if (error instanceof UploadError) throw error
    throw new UploadError('setup', 'LANDFALL_DATA_DIR, LANDFALL_DATABASE_URL: the database cannot be read', {
      cause: error,
    })
  }
}

async function hasSqliteLedger(url: string): Promise<boolean> {
  if (!existsSync(pathOf(url))) return false
  const { createClient } = await libsqlPackage()
  const client = createClient({ url })
  try {
    const { rows } = await client.execute(`SELECT 1 FROM sqlite_schema WHERE name = 'landfall_meta'`)
    return rows.length > 0
  } finally {
    client.close()
  }
}

async function hasPostgresLedger(url: string): Promise<boolean> {
  const { Client } = await pgPackage()
  const client = new Client({ connectionString: url, connectionTimeoutMillis: CONNECT_MS, query_timeout: CONNECT_MS })
  try {
    await client.connect()
    const { rows } = await client.query<{ found: string | null }>(`SELECT to_regclass('landfall_meta') AS found`)
    return typeof rows[0]?.found === 'string'
  } finally {
    await client.end()
  }
}

const pathOf = (url: string): string => (url.startsWith('file://') ? fileURLToPath(url) : url.slice('file:'.length))

const isPostgres = (url: string): boolean => url.startsWith('postgres')

/** The database that is named, otherwise the one in the data directory. */
const databaseUrl = (settings: Settings): string =>
  settings.LANDFALL_DATABASE_URL ?? pathToFileURL(resolve(settings.LANDFALL_DATA_DIR, 'landfall.db')).href
