import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { createClient } from '@libsql/client'
import { drizzle } from 'drizzle-orm/libsql'
import { UploadError } from './errors.js'
import { postgresLedger } from './ledger/postgres.js'
import { serializedLibsql } from './ledger/serialized-libsql.js'
import { sqliteLedger } from './ledger/sqlite.js'
import type { Ledger } from './ports.js'
import type { Settings } from './settings.js'

// What the settings name: for `landfall serve`, and for commands while no server runs.

export interface OpenDatabase {
  readonly ledger: Ledger<unknown>
  close(): Promise<void>
}

/** So long a new connection may take; then the database is away. */
const CONNECT_MS = 5_000

export async function openDatabase(settings: Settings): Promise<OpenDatabase> {
  const url = databaseUrl(settings)
  if (!isPostgres(url)) {
    const client = serializedLibsql(createClient({ url }))
    return { ledger: sqliteLedger(drizzle(client)), close: async () => client.close() }
  }
  // Only who uses it loads it.
  const [{ Pool }, { drizzle: drizzlePostgres }] = await Promise.all([
    import('pg'),
    import('drizzle-orm/node-postgres'),
  ])
  const pool = new Pool({
    connectionString: url,
    max: settings.LANDFALL_DATABASE_CONNECTIONS,
    connectionTimeoutMillis: CONNECT_MS,
    keepAlive: true,
    application_name: 'landfall',
  })
  return { ledger: postgresLedger(drizzlePostgres(pool)), close: () => pool.end() }
}

/**
 * Whether a server has ever run on it: a command that looks must not make a ledger where somebody mistyped a name.
 *
 * @throws UploadError `setup` when it cannot be read
 */
export async function hasLedger(settings: Settings): Promise<boolean> {
  const url = databaseUrl(settings)
  try {
    return isPostgres(url) ? await hasPostgresLedger(url) : await hasSqliteLedger(url)
  } catch (error) {
    throw new UploadError('setup', 'LANDFALL_DATA_DIR, LANDFALL_DATABASE_URL: the database cannot be read', {
      cause: error,
    })
  }
}

async function hasSqliteLedger(url: string): Promise<boolean> {
  if (!existsSync(url.startsWith('file://') ? fileURLToPath(url) : url.slice('file:'.length))) return false
  const client = createClient({ url })
  try {
    const { rows } = await client.execute(`SELECT 1 FROM sqlite_schema WHERE name = 'landfall_meta'`)
    return rows.length > 0
  } finally {
    client.close()
  }
}

async function hasPostgresLedger(url: string): Promise<boolean> {
  const { Client } = await import('pg')
  const client = new Client({ connectionString: url, connectionTimeoutMillis: CONNECT_MS })
  try {
    await client.connect()
    const { rows } = await client.query<{ found: string | null }>(`SELECT to_regclass('landfall_meta') AS found`)
    return typeof rows[0]?.found === 'string'
  } finally {
    await client.end()
  }
}

const isPostgres = (url: string): boolean => url.startsWith('postgres')

/** The one that is named, else in the data directory. */
const databaseUrl = (settings: Settings): string =>
  settings.LANDFALL_DATABASE_URL ?? pathToFileURL(resolve(settings.LANDFALL_DATA_DIR, 'landfall.db')).href
