/** The ledger's tables as this version needs them: who makes them, who must not, and what is done about what was dropped. */
import { join } from 'node:path'
import { createClient } from '@libsql/client'
import { drizzle } from 'drizzle-orm/node-postgres'
import { Client, Pool } from 'pg'
import { afterAll, afterEach, describe, expect, test } from 'vitest'
import { fileBlobs } from '../src/blobs/file/file-blobs.js'
import { type Postgres, startPostgres } from '../../e2e/ground/postgres.js'
import { intentOf } from '../src/contract/ledger.js'
import { kind } from '../src/kinds/kind.js'
import { MIGRATIONS } from '../src/ledger/sqlite/migrations.js'
import { partsOf } from '../src/ledger/parts.js'
import { POSTGRES_MIGRATIONS } from '../src/ledger/postgres/migrations.js'
import { postgresLedger } from '../src/ledger/postgres/ledger.js'
import { sqliteLedger } from '../src/ledger/sqlite/ledger.js'
import type { Ledger } from '../src/ports/ledger.js'
import { createUploads } from '../src/uploads.js'
import { openDatabase, temporaryDirectory } from './fixtures.js'
import { later, silent } from './harness.js'
import { useProgram } from './program.js'

interface Ground {
  readonly ledger: Ledger<never>
  /** Statements past the ledger. */
  run(statement: string): Promise<readonly Record<string, unknown>[]>
  /** For `landfall`. */
  readonly env: Record<string, string>
}

let ends: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const end of ends.toReversed()) await end()
  ends = []
})
/** Started by the first test that needs it. */
let server: Promise<Postgres> | null = null
const postgres = (): Promise<Postgres> => (server ??= startPostgres())
afterAll(async () => (await server)?.stop())

async function onSqlite(): Promise<Ground> {
  const directory = await temporaryDirectory()
  ends.push(directory.remove)
  const path = join(directory.path, 'app.db')
  const { client, db } = await openDatabase(path)
  ends.push(async () => client.close())
  return {
    ledger: sqliteLedger(db) as unknown as Ledger<never>,
    run: async (statement) => (await client.execute(statement)).rows.map((row) => ({ ...row })),
    env: { LANDFALL_DATABASE_URL: `file:${path}` },
  }
}

async function onPostgres(): Promise<Ground> {
  const url = await (await postgres()).database()
  const pool = new Pool({ connectionString: url, max: 5 })
  const past = new Client({ connectionString: url })
  await past.connect()
  ends.push(
    () => pool.end(),
    () => past.end(),
  )
  return {
    ledger: postgresLedger(drizzle(pool)) as unknown as Ledger<never>,
    run: async (statement) => (await past.query<Record<string, unknown>>(statement)).rows,
    env: { LANDFALL_DATABASE_URL: url },
  }
}

async function uploadsOn({ ledger }: Ground, migrate: 'automatic' | 'off') {
  const directory = await temporaryDirectory()
  const uploads = createUploads({
    ledger,
    blobs: fileBlobs({ directory: join(directory.path, 'blobs') }),
    authenticate: () => 'ann',
    kinds: { file: kind({ onReference: async () => null }) },
    completer: 'manual',
    migrate,
    logger: silent,
  })
  ends.push(() => uploads.close({ withinMs: 100 }), directory.remove)
  return uploads
}

const program = useProgram()
const landfall = (...args: string[]) => program.start(args).exited

const GROUNDS = { sqlite: onSqlite, postgres: onPostgres }
const PARTS = { sqlite: partsOf(MIGRATIONS), postgres: partsOf(POSTGRES_MIGRATIONS) }
const VERSION = { sqlite: MIGRATIONS.length, postgres: POSTGRES_MIGRATIONS.length }

/** The statements that drop what a migration has made. */
function dropOf(statement: string): string {
  const [, unique, type = '', name = ''] =
    /^CREATE (?:OR REPLACE )?(UNIQUE )?(INDEX|TRIGGER|FUNCTION) (\w+)/.exec(statement) ?? []
  const table = / ON (\w+)/.exec(statement)?.[1] ?? ''
  if (type === 'FUNCTION') return `DROP FUNCTION ${name} CASCADE`
  return unique === undefined && type === 'TRIGGER' ? `DROP TRIGGER ${name} ON ${table}` : `DROP ${type} ${name}`
}

describe.each(['sqlite', 'postgres'] as const)('%s', (which) => {
  const { tables, others } = PARTS[which]
  const drop = (statement: string): string =>
    which === 'sqlite' ? dropOf(statement).replace(/ ON \w+$/, '') : dropOf(statement)
  const usage = `SELECT open_operations, reserved_bytes, stored_bytes, stored_references FROM landfall_usage WHERE owner = 'ann'`
  const numbers = (rows: readonly Record<string, unknown>[]) => rows.map((row) => Object.values(row).map(Number))

  test('its parts are read from the migrations: none is forgotten', () => {
    expect(tables).toEqual(expect.arrayContaining(['landfall_operations', 'landfall_references', 'landfall_effects']))
    const kinds = [...others.values()].map(({ kind: one }) => one)
    expect(kinds.filter((one) => one === 'TRIGGER').length).toBeGreaterThanOrEqual(which === 'sqlite' ? 7 : 3)
    expect(kinds.filter((one) => one === 'INDEX').length).toBeGreaterThan(5)
  })

  test.each([...others])(
    '%s, dropped by somebody: it is said, made again, and what it counts is counted anew',
    async (name, { statement, kind: type }) => {
      const ground = await GROUNDS[which]()
      const { ledger, run } = ground
      const { identity } = await ledger.migrate()
      await ledger.declare(intentOf())
      await run(drop(statement))
      // What nobody counts meanwhile.
      await ledger.declare(intentOf({ file: { name: 'b', size: 50, type: '' } }))
      await run(
        `INSERT INTO landfall_references (owner, operation_id, blob_key, size, type, digest, digest_source, stored_at, data)
           VALUES ('ann', 'c', 'c', 7, '', '', 'server', 0, 'null')`,
      )
      await expect(ledger.migrate('check')).rejects.toMatchObject({
        code: 'setup',
        message: expect.stringContaining(name),
      })
      const uploads = await uploadsOn(ground, 'automatic')
      const before = await uploads.operator.doctor().catch(() => [])
      expect(before.find(({ name: check }) => check === 'tables')).toMatchObject({ state: 'ok' })
      expect(await ledger.migrate('check')).toMatchObject({ identity })
      expect(numbers(await run(usage))).toEqual([[2, 150, 7, 1]])
      if (type !== 'TRIGGER') return
      await expect(run(`DELETE FROM landfall_operations`)).rejects.toThrow(/never deleted/)
      await expect(run(`UPDATE landfall_operations SET "offset" = -1`)).rejects.toThrow(/never falls/)
    },
    30_000,
  )

  test('dropped while a server runs: doctor says what is missing and what to do', async () => {
    const ground = await GROUNDS[which]()
    const uploads = await uploadsOn(ground, 'automatic')
    await uploads.ready()
    const [name, { statement }] = [...others].find(([, { kind: type }]) => type === 'TRIGGER') ?? [
      '',
      { statement: '' },
    ]
    await ground.run(drop(statement))
    const found = (await uploads.operator.doctor()).find((check) => check.name === 'tables')
    expect(found).toMatchObject({
      state: 'failed',
      found: expect.stringContaining(name),
      advice: expect.stringContaining('landfall migrate'),
    })
    await uploads.migrate()
    expect((await uploads.operator.doctor()).find((check) => check.name === 'tables')).toMatchObject({ state: 'ok' })
  }, 30_000)

  test('tables that were dropped are not made anew behind the back of the stored files, and it is said who may have done it', async () => {
    const { ledger, run } = await GROUNDS[which]()
    await ledger.migrate()
    await run(`DROP TABLE landfall_references${which === 'postgres' ? ' CASCADE' : ''}`)
    for (const how of ['apply', 'check'] as const)
      await expect(ledger.migrate(how)).rejects.toMatchObject({
        code: 'setup',
        message: expect.stringMatching(
          how === 'apply' ? /landfall_references[^]*drizzle-kit push[^]*tablesFilter/ : /landfall_references/,
        ),
      })
  })

  test("with migrate: 'off' the start changes nothing and says by number what is missing; uploads.migrate() makes it", async () => {
    const ground = await GROUNDS[which]()
    const uploads = await uploadsOn(ground, 'off')
    await expect(uploads.ready()).rejects.toMatchObject({
      code: 'setup',
      message: expect.stringMatching(
        new RegExp(`version 0 of ${VERSION[which]}.*landfall migrate.*uploads.migrate\\(\\)`),
      ),
    })
    await expect(ground.run('SELECT 1 FROM landfall_meta')).rejects.toThrow()
    await uploads.migrate()
    await uploads.ready()
    await ground.run(`UPDATE landfall_meta SET value = '${VERSION[which] - 1}' WHERE key = 'version'`)
    await expect(ground.ledger.migrate('check')).rejects.toThrow(
      new RegExp(`version ${VERSION[which] - 1}( of|, and this Landfall needs version) ${VERSION[which]}`),
    )
  })

  test('`landfall migrate` makes the tables for a server that must not', async () => {
    const { env } = await GROUNDS[which]()
    const data = { ...env, LANDFALL_DATA_DIR: join(program.directory, 'data') }
    await expect(program.serve({ ...data, LANDFALL_MIGRATE: 'off' })).rejects.toThrow(/version 0 of/)
    const flags = Object.entries(data).flatMap(([name, value]) => [
      `--${name.slice('LANDFALL_'.length).toLowerCase().replaceAll('_', '-')}`,
      value,
    ])
    expect(await landfall('migrate', ...flags)).toMatchObject({ code: 0, err: '' })
    expect(await landfall('migrate', ...flags)).toMatchObject({ code: 0, err: '' })
    const served = await program.serve({ ...data, LANDFALL_MIGRATE: 'off' })
    expect((await served.declare('0192f0c1-0000-7000-8000-000000000001', 10)).status).toBe(201)
  }, 60_000)
})

test('PostgreSQL: a user who may only read and write starts on tables that are in order, and is told where they are not', async () => {
  const { ledger, run, env } = await onPostgres()
  await ledger.migrate()
  const schema = String((await run('SELECT current_schema() AS name'))[0]?.['name'])
  const role = `limited_${schema}`
  await run(`CREATE ROLE ${role} LOGIN`)
  await run(`GRANT USAGE ON SCHEMA ${schema} TO ${role}`)
  await run(`GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA ${schema} TO ${role}`)
  const url = (env['LANDFALL_DATABASE_URL'] ?? '').replace('postgres@', `${role}@`)
  const pool = new Pool({ connectionString: url, max: 3 })
  ends.push(() => pool.end())
  const limited = { ledger: postgresLedger(drizzle(pool)) as unknown as Ledger<never>, run, env }
  const uploads = await uploadsOn(limited, 'automatic')
  await uploads.ready()
  expect((await limited.ledger.declare(intentOf())).outcome).toBe('created')
  await run('DROP INDEX landfall_operations_due')
  await expect(uploads.migrate()).rejects.toMatchObject({
    code: 'setup',
    message: expect.stringContaining('landfall migrate'),
  })
})

test('PostgreSQL: a trigger that is disabled is missing, and is enabled again', async () => {
  const { ledger, run } = await onPostgres()
  await ledger.migrate()
  await run('ALTER TABLE landfall_operations DISABLE TRIGGER USER')
  await ledger.declare(intentOf())
  await expect(ledger.migrate('check')).rejects.toThrow(/landfall_operation_guarded/)
  await ledger.migrate()
  expect(await run(`SELECT open_operations FROM landfall_usage`)).toEqual([{ open_operations: '1' }])
  await expect(run(`DELETE FROM landfall_operations`)).rejects.toThrow(/never deleted/)
})

test('SQLite: tables that are in order are only read, also while another process writes', async () => {
  const { ledger, env } = await onSqlite()
  await ledger.migrate()
  const other = createClient({ url: env['LANDFALL_DATABASE_URL'] ?? '' })
  const writing = await other.transaction('write')
  const migrated = ledger.migrate()
  expect(await Promise.race([migrated.then(() => 'at once'), later(1_000)])).toBe('at once')
  await writing.rollback()
  other.close()
})
