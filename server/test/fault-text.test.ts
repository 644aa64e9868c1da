/** What logs and rows say of faults: enough to find them, and nothing of what was given to statements. */
import { Writable } from 'node:stream'
import { LibsqlError } from '@libsql/core/api'
import { sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/node-postgres'
import { Hono } from 'hono'
import { Client, Pool } from 'pg'
import { pino } from 'pino'
import { afterAll, describe, expect, test } from 'vitest'
import { s3Fault } from '../src/blobs/s3/faults.js'
import { faultMessage, loggable, UploadError } from '../src/lib/errors.js'
import { type Postgres, startPostgres } from '../../e2e/ground/postgres.js'
import { intentOf } from '../src/contract/ledger.js'
import { fileBlobs } from '../src/blobs/file/file-blobs.js'
import { kind } from '../src/kinds/kind.js'
import { postgresLedger } from '../src/ledger/postgres/ledger.js'
import { sqliteLedger } from '../src/ledger/sqlite/ledger.js'
import type { Ledger } from '../src/ports/ledger.js'
import { createUploads } from '../src/uploads.js'
import { openDatabase, temporaryDirectory } from './fixtures.js'
import { content, newId } from './harness.js'

/** Words that stand nowhere but in what the application and its users give. */
const SECRETS = ['ann-of-the-owners', 'my-diagnosis.pdf', 'patient-4711', 'row-of-the-hook', 'unfit-number']
const [OWNER = '', NAME = '', PATIENT = '', ROW = '', UNFIT = ''] = SECRETS

/** Logs as pino writes them, with its own serialisers: what an application would have. */
function recording() {
  const lines: string[] = []
  const log = pino(
    { level: 'debug' },
    new Writable({ write: (chunk: Buffer, _e, done) => done(void lines.push(String(chunk))) }),
  )
  return { log, lines }
}

interface Ground {
  readonly ledger: Ledger<never>
  /** Runs a statement past the ledger. */
  run(statement: string): Promise<unknown>
  /** Within a hook: by the application's own Drizzle. */
  insert(tx: never, values: { name: string; number: string }): Promise<unknown>
  rows(): Promise<string>
  end(): Promise<void>
}

const TABLES = ['landfall_operations', 'landfall_effects']

async function onSqlite(): Promise<Ground> {
  const directory = await temporaryDirectory()
  const { client, db } = await openDatabase(`${directory.path}/app.db`)
  await client.execute(`CREATE TABLE hooked (name TEXT PRIMARY KEY, number TEXT CHECK (number <> '${UNFIT}'))`)
  return {
    ledger: sqliteLedger(db) as unknown as Ledger<never>,
    run: (statement) => client.execute(statement),
    insert: (tx, { name, number }) =>
      (tx as unknown as typeof db).run(sql`INSERT INTO hooked (name, number) VALUES (${name}, ${number})`),
    rows: async () =>
      JSON.stringify(
        await Promise.all(TABLES.map(async (table) => (await client.execute(`SELECT last_error FROM ${table}`)).rows)),
      ),
    async end() {
      client.close()
      await directory.remove()
    },
  }
}

async function onPostgres(): Promise<Ground> {
  const url = await (await postgres()).database()
  const pool = new Pool({ connectionString: url, max: 5 })
  const db = drizzle(pool)
  const past = new Client({ connectionString: url })
  await past.connect()
  await past.query(`CREATE TABLE hooked (name text PRIMARY KEY, number integer)`)
  return {
    ledger: postgresLedger(db) as unknown as Ledger<never>,
    run: (statement) => past.query(statement),
    insert: (tx, { name, number }) =>
      (tx as unknown as typeof db).execute(
        sql`INSERT INTO hooked (name, number) VALUES (${name}, CAST(CAST(${number} AS text) AS integer))`,
      ),
    rows: async () =>
      JSON.stringify(
        await Promise.all(TABLES.map(async (table) => (await past.query(`SELECT last_error FROM ${table}`)).rows)),
      ),
    async end() {
      await past.end()
      await pool.end()
    },
  }
}

/** Started by the first test that needs it. */
let server: Promise<Postgres> | null = null
const postgres = (): Promise<Postgres> => (server ??= startPostgres())
afterAll(async () => (await server)?.stop())

describe.each(['sqlite', 'postgres'] as const)('%s', (which) => {
  test('faults of statements are told by name, code and constraint, and never with what was given to them', async () => {
    const ground = which === 'sqlite' ? await onSqlite() : await onPostgres()
    const directory = await temporaryDirectory()
    const { log, lines } = recording()
    let given = { name: ROW, number: '1' }
    const uploads = createUploads({
      ledger: ground.ledger,
      blobs: fileBlobs({ directory: directory.path }),
      authenticate: () => OWNER,
      kinds: {
        file: kind({
          onReference: async (tx: never) => {
            await ground.insert(tx, given)
            return null
          },
          effects: {
            tell: async () => {
              await ground.run(`SELECT * FROM nowhere`)
            },
          },
        }),
      },
      completer: 'manual',
      logger: log,
      maxAttempts: 1,
    })
    await uploads.ready()
    const app = new Hono().route('/uploads', uploads.routes)
    const own = { 'Landfall-Version': '1', 'Landfall-Owner': await uploads.ownerTag(OWNER) }
    const request = (
      method: string,
      path: string,
      body: string | Uint8Array<ArrayBuffer>,
      headers: Record<string, string> = {},
    ) => app.request(`http://host.test/uploads${path}`, { method, body, headers: { ...own, ...headers } })
    const upload = async (): Promise<string> => {
      const id = newId()
      await request(
        'PUT',
        `/operations/${id}`,
        JSON.stringify({ file: { name: NAME, size: 5, type: '' }, metadata: { patient: PATIENT } }),
      )
      const response = await request('PATCH', `/files/${id}`, content(5), {
        'Tus-Resumable': '1.0.0',
        'Upload-Offset': '0',
        'Content-Type': 'application/offset+octet-stream',
      })
      return String(response.status)
    }
    // The first one is stored, and its effect fails; then twice the same row, and a number that is none.
    await upload()
    await uploads.runOnce({ maxMs: 2_000 })
    await upload()
    given = { name: `${ROW}-2`, number: UNFIT }
    await upload()
    // A statement of the ledger's own, with owner, name and metadata.
    await ground.run(
      which === 'sqlite'
        ? `CREATE TRIGGER broken BEFORE INSERT ON landfall_operations BEGIN SELECT RAISE(ABORT, 'broken on purpose'); END`
        : `ALTER TABLE landfall_operations ADD CONSTRAINT broken CHECK (created_at < 0) NOT VALID`,
    )
    expect(await upload()).toBe('404')
    const [said, rows] = [lines.join(''), await ground.rows()]
    for (const secret of SECRETS) {
      expect(said, secret).not.toContain(secret)
      expect(rows, secret).not.toContain(secret)
    }
    expect(said).toContain('a request failed')
    expect(said).toMatch(which === 'sqlite' ? /broken on purpose/ : /23514, broken/)
    expect(said).toMatch(
      which === 'sqlite' ? /no such table: nowhere/ : /relation \\?"nowhere\\?" does not exist \(42P01\)/,
    )
    expect(rows).toMatch(
      which === 'sqlite' ? /UNIQUE constraint failed: hooked.name/ : /duplicate key .* \(23505, hooked_pkey\)/,
    )
    expect(rows).toMatch(
      which === 'sqlite'
        ? /CHECK constraint failed/
        : /invalid input syntax for type integer: \\?"…\\?\\?" \(22P02\)|22P02/,
    )
    // Where it was thrown stays.
    expect(said).toMatch(/\\n\s+at /)
    await uploads.close()
    await ground.end()
    await directory.remove()
  }, 60_000)
})

test('errors of the object store and of receivers are told without what was sent', () => {
  const store = Object.assign(new Error('Access Denied'), {
    name: 'AccessDenied',
    $metadata: { httpStatusCode: 403 },
    $response: { headers: { authorization: PATIENT }, body: NAME },
  })
  const receiver = Object.assign(new Error('getaddrinfo ENOTFOUND receiver.example'), {
    code: 'ENOTFOUND',
    hostname: 'receiver.example',
    config: { headers: { authorization: PATIENT } },
  })
  const { log, lines } = recording()
  for (const error of [
    s3Fault(store, 'PutObject'),
    store,
    new UploadError('storage-unavailable', 'x', { cause: store }),
    receiver,
  ]) {
    log.error({ err: loggable(error) }, 'failed')
    expect(faultMessage(error)).toMatch(/Access Denied|ENOTFOUND/)
  }
  for (const secret of SECRETS) expect(lines.join('')).not.toContain(secret)
  expect(faultMessage(store)).toBe('AccessDenied: Access Denied')
  expect(loggable(receiver)).toMatchObject({ code: 'ENOTFOUND', message: 'getaddrinfo ENOTFOUND receiver.example' })
})

test('what is no error, a chain that ends in itself and one that is very long are told all the same', () => {
  const circle = new Error('round')
  circle.cause = circle
  expect(faultMessage(circle)).toContain('round')
  expect(faultMessage('a word')).toBe('a word')
  expect(faultMessage({ password: PATIENT })).toBe('something other than an Error was thrown')
  expect(loggable({ password: PATIENT }).message).not.toContain(PATIENT)
  expect(faultMessage(new Error('x'.repeat(5_000))).length).toBe(1_000)
})

test("what a hook's own surroundings fail with is its own fault on SQLite, too", async () => {
  const ground = await onSqlite()
  const { ledger } = ground
  await ledger.migrate()
  const intent = intentOf()
  await ledger.declare(intent)
  const taken = await ledger.lease(intent, { holder: 'n1', leaseMs: 60_000, purpose: 'drive' })
  if (taken.outcome !== 'granted') throw new Error(taken.outcome)
  const other = Object.assign(new Error('database is locked'), { code: 'SQLITE_BUSY', rawCode: 5 })
  for (const thrown of [
    new LibsqlError('another database is locked', 'SQLITE_BUSY', 'SQLITE_BUSY', 5),
    new Error('the search index', { cause: new LibsqlError('disk I/O error', 'SQLITE_IOERR', 'SQLITE_IOERR', 10) }),
    other,
  ]) {
    const referred = ledger.refer(
      taken.lease,
      taken.operation,
      {
        changes: { offset: 100, tailBase: 0, point: 'verified' },
        content: { digest: 'sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:', type: 'image/png' },
        digestSource: 'server',
        timeLimitMs: 1_000,
        effects: [],
      },
      () => Promise.reject(thrown),
    )
    await expect(referred).rejects.toBe(thrown)
  }
  await ground.end()
})
