/** `drizzle-kit push`, the real program, on a database that has Landfall's tables, as its page for users says. */
import { execFile } from 'node:child_process'
import { createRequire } from 'node:module'
import { mkdir, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { createClient } from '@libsql/client'
import { drizzle } from 'drizzle-orm/libsql'
import { drizzle as drizzlePostgres } from 'drizzle-orm/node-postgres'
import { Pool } from 'pg'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { postgresLedger } from '../src/ledger/postgres/ledger.js'
import { serializedLibsql } from '../src/ledger/sqlite/client/serialized-libsql.js'
import { sqliteLedger } from '../src/ledger/sqlite/ledger.js'
import { type Postgres, startPostgres } from '../../e2e/ground/postgres.js'
import { temporaryDirectory } from './fixtures.js'

const require = createRequire(import.meta.url)
const KIT = join(dirname(require.resolve('drizzle-kit')), 'bin.cjs')
const MODULES = fileURLToPath(new URL('../../node_modules', import.meta.url))

let directory: Awaited<ReturnType<typeof temporaryDirectory>>
beforeEach(async () => {
  directory = await temporaryDirectory()
  await symlink(MODULES, join(directory.path, 'node_modules'))
})
afterEach(() => directory.remove())

/** What an application has: one table of its own, and Landfall's left out. */
async function push(dialect: 'sqlite' | 'postgresql', url: string, schema: string): Promise<string> {
  await mkdir(join(directory.path, 'app'), { recursive: true })
  await writeFile(join(directory.path, 'app/schema.mjs'), schema)
  const config = { dialect, schema: './app/schema.mjs', dbCredentials: { url }, tablesFilter: ['!landfall_*'] }
  await writeFile(join(directory.path, 'drizzle.config.mjs'), `export default ${JSON.stringify(config)}`)
  const { stdout, stderr } = await promisify(execFile)(
    process.execPath,
    [KIT, 'push', '--config', 'drizzle.config.mjs', '--verbose', '--force'],
    { cwd: directory.path, timeout: 60_000, env: { PATH: process.env['PATH'] } },
  )
  return stdout + stderr
}

const sqliteSchema = (...columns: string[]) => `
  import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
  export const photos = sqliteTable('photos', {
    id: integer('id').primaryKey(), ${columns.map((name) => `${name}: text('${name}')`).join(', ')} })`

test('SQLite: pushed with the filter, Landfall is left alone, and a second push wants nothing', async () => {
  const url = `file:${join(directory.path, 'app.db')}`
  const serialized = serializedLibsql(createClient({ url }))
  await sqliteLedger(drizzle(serialized)).migrate()
  serialized.close()
  const client = createClient({ url })
  const ours = async () =>
    (
      await client.execute(`SELECT type, name, sql FROM sqlite_schema WHERE tbl_name LIKE 'landfall%' ORDER BY name`)
    ).rows.map((row) => ({ ...row }))
  const before = await ours()
  expect(before.filter(({ type }) => type === 'trigger').length).toBeGreaterThan(5)

  expect(await push('sqlite', url, sqliteSchema('name'))).toContain('CREATE TABLE `photos`')
  expect(await push('sqlite', url, sqliteSchema('name'))).toContain('No changes detected')
  // A change of the application's own.
  expect(await push('sqlite', url, sqliteSchema('name', 'title'))).not.toContain('landfall_')
  expect(await push('sqlite', url, sqliteSchema('name', 'title'))).toContain('No changes detected')
  expect(await ours()).toEqual(before)
  client.close()
}, 120_000)

describe('PostgreSQL', () => {
  let server: Postgres
  beforeAll(async () => {
    server = await startPostgres()
  }, 60_000)
  afterAll(() => server.stop())

  test('pushed with the filter, Landfall is left alone, and a second push wants nothing', async () => {
    // The schema `public`: drizzle-kit looks nowhere else.
    const url = (await server.database()).replace(/\?.*$/, '')
    const pool = new Pool({ connectionString: url })
    await postgresLedger(drizzlePostgres(pool)).migrate()
    const ours = async () => {
      const { rows } = await pool.query<{ kind: string; name: string; definition: string }>(`
        SELECT 'trigger' AS kind, tgname::text AS name, pg_get_triggerdef(oid) AS definition FROM pg_trigger WHERE NOT tgisinternal
        UNION ALL SELECT 'index', indexname::text, indexdef FROM pg_indexes WHERE tablename LIKE 'landfall%'
        UNION ALL SELECT 'check', conname::text, pg_get_constraintdef(oid) FROM pg_constraint WHERE conname LIKE 'landfall%'
        ORDER BY 1, 2`)
      return rows
    }
    const before = await ours()
    const schema = `
      import { integer, pgTable, text } from 'drizzle-orm/pg-core'
      export const photos = pgTable('photos', { id: integer('id').primaryKey(), name: text('name') })`
    expect(await push('postgresql', url, schema)).toContain('CREATE TABLE "photos"')
    expect(await push('postgresql', url, schema)).toContain('No changes detected')
    expect(await ours()).toEqual(before)
    expect(before.map(({ kind }) => kind)).toEqual(expect.arrayContaining(['trigger', 'index', 'check']))
    await pool.end()
  }, 120_000)
})
