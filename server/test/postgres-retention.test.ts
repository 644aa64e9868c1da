/** Retention and the right to erasure on PostgreSQL: what the contract of a ledger cannot see. */
import { problem } from '@landfall/shared'
import { drizzle } from 'drizzle-orm/node-postgres'
import { Pool } from 'pg'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { type Postgres, startPostgres } from '../../e2e/ground/postgres.js'
import { intentOf } from '../src/contract/ledger.js'
import { POSTGRES_MIGRATIONS } from '../src/ledger/postgres/migrations.js'
import { postgresLedger } from '../src/ledger/postgres/ledger.js'
import { later } from './harness.js'

let server: Postgres
beforeAll(async () => {
  server = await startPostgres()
}, 60_000)
afterAll(() => server.stop())
let pools: Pool[] = []
afterEach(async () => {
  await Promise.all(pools.map((pool) => pool.end()))
  pools = []
})

const CONTENT = { digest: 'sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:', type: 'image/png' }
const LEASE = { holder: 'n1', leaseMs: 30_000 }

function openOn(url: string) {
  const pool = new Pool({ connectionString: url, max: 8 })
  pool.on('error', () => {})
  pools.push(pool)
  const sent: { text: string; values: unknown[] }[] = []
  const db = drizzle(pool, { logger: { logQuery: (text, values) => void sent.push({ text, values }) } })
  return { pool, db, ledger: postgresLedger(db), sent }
}
async function open() {
  const url = await server.database()
  const opened = openOn(url)
  await opened.ledger.migrate()
  return { url, ...opened }
}

async function referenced(ledger: ReturnType<typeof openOn>['ledger'], changes: Parameters<typeof intentOf>[0] = {}) {
  const intent = intentOf(changes)
  await ledger.declare(intent)
  const taken = await ledger.lease(intent, { ...LEASE, purpose: 'drive' })
  if (taken.outcome !== 'granted') throw new Error(taken.outcome)
  const referring = {
    changes: { offset: intent.file.size, tailBase: 0, point: 'verified' as const, prepared: { saw: intent.file.name } },
    content: CONTENT,
    digestSource: 'server' as const,
    timeLimitMs: 5_000,
    effects: [
      {
        effectId: `effect of ${intent.id}`,
        name: 'notify',
        type: 'function' as const,
        payload: () => ({ name: intent.file.name }),
      },
    ],
  }
  await ledger.refer(taken.lease, taken.operation, referring, async () => ({
    outcome: 'accepted',
    data: { title: intent.file.name },
  }))
  return intent
}

/** The text of each row of Landfall's. */
async function dumped(pool: Pool): Promise<string> {
  const { rows: tables } = await pool.query<{ name: string }>(
    `SELECT relname AS name FROM pg_class WHERE relkind = 'r' AND relname LIKE 'landfall\\_%'`,
  )
  const rows = await Promise.all(
    tables.map(({ name }) => pool.query<{ row: string }>(`SELECT CAST(t AS text) AS row FROM ${name} t`)),
  )
  return rows.flatMap((result) => result.rows.map(({ row }) => row)).join('\n')
}

test('nothing of a forgotten owner is left in any table', async () => {
  const SECRET = 'Zaphod-Beeblebrox'
  const owner = `owner ${SECRET}`
  const { pool, db, ledger } = await open()
  const of = (name: string) => ({
    owner,
    file: { name: `${name} ${SECRET}`, size: 5, type: 'image/png' },
    metadata: { note: SECRET },
    validated: { note: SECRET },
    uploadMetadata: `filename ${Buffer.from(SECRET).toString('base64')},note ${SECRET}`,
  })
  const stored = await referenced(ledger, of('stored'))
  const removed = await referenced(ledger, of('removed'))
  await db.transaction((tx) => ledger.remove(tx, removed.id, owner))
  const [delivered] = await ledger.takeEffects({ kind: 'photo', name: 'notify' }, { ...LEASE, limit: 1 })
  await ledger.settleEffect(delivered ?? { effectId: '', attempts: 0 }, { outcome: 'delivered' })
  const open1 = intentOf(of('open'))
  await ledger.declare(open1)
  const rejected = intentOf(of('rejected'))
  await ledger.declare(rejected)
  const taken = await ledger.lease(rejected, { ...LEASE, purpose: 'drive' })
  if (taken.outcome === 'granted')
    await ledger.record(taken.lease, taken.operation, {
      point: 'rejected',
      problem: problem('rejected', { code: 'no', detail: `not ${SECRET}` }),
      lastError: SECRET,
      cleanupDue: true,
      dueInMs: 0,
      release: true,
    })
  const bystander = await referenced(ledger, { owner: 'bob', file: { name: 'of bob', size: 5, type: '' } })
  const before = await dumped(pool)
  for (const what of [SECRET, owner, Buffer.from(SECRET).toString('base64')]) expect(before).toContain(what)

  expect(await db.transaction((tx) => ledger.forgetOwner(tx, owner))).toEqual({
    operations: 4,
    openOperations: 1,
    references: 1,
    bytes: 5,
  })
  const after = await dumped(pool)
  for (const what of [SECRET, Buffer.from(SECRET).toString('base64')]) expect(after).not.toContain(what)
  expect(after).toContain('of bob')
  expect((await ledger.find(bystander))?.reference?.size).toBe(5)
  for (const [key, point] of [
    [stored, 'completed'],
    [removed, 'completed'],
    [open1, 'cancelled'],
    [rejected, 'rejected'],
  ] as const)
    expect(await ledger.tombstone(key)).toBe(point)
})

test('to forget an owner with very much may take longer than a call for which a client waits', async () => {
  const { pool, ledger } = await open()
  await ledger.declare(intentOf({ owner: 'ann' }))
  await pool.query(
    `CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(6); RETURN NULL; END $$`,
  )
  await pool.query(
    `CREATE TRIGGER slow AFTER UPDATE OF forgotten_at ON landfall_operations FOR EACH STATEMENT EXECUTE FUNCTION slow()`,
  )
  expect(await ledger.forgetOwner(null, 'ann')).toMatchObject({ operations: 1 })
  expect(await ledger.holdings('ann')).toMatchObject({ operations: 0 })
}, 30_000)

test('an owner is forgotten while its references are removed, without a deadlock', async () => {
  const { url, db, ledger } = await open()
  const other = openOn(url)
  for (let round = 0; round < 10; round += 1) {
    const intents = await Promise.all(Array.from({ length: 4 }, () => referenced(ledger)))
    await Promise.all([
      db.transaction((tx) => ledger.forgetOwner(tx, 'ann')),
      ...intents.map(({ id }) => other.db.transaction((tx) => other.ledger.remove(tx, id, 'ann'))),
      other.ledger.retire({ finalMs: 0, effectsMs: 0 }, 10),
      other.ledger.forgetOwner(null, 'ann'),
    ])
    expect(await ledger.holdings('ann')).toEqual({ operations: 0, openOperations: 0, references: 0, bytes: 0 })
    for (const intent of intents) expect(await ledger.tombstone(intent)).toBe('completed')
  }
})

test('an owner is forgotten while one of its effects is being settled, without a deadlock', async () => {
  const { pool, db, ledger } = await open()
  const { id } = await referenced(ledger, { owner: 'ann' })
  const [taken] = await ledger.takeEffects({ kind: 'photo', name: 'notify' }, { ...LEASE, limit: 1 })
  // As with very many operations: longer than PostgreSQL waits before it looks for a deadlock.
  await pool.query(
    `CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(2.5); RETURN NULL; END $$`,
  )
  await pool.query(
    `CREATE TRIGGER slow AFTER UPDATE OF forgotten_at ON landfall_operations FOR EACH STATEMENT EXECUTE FUNCTION slow()`,
  )
  const forgetting = db.transaction((tx) => ledger.forgetOwner(tx, 'ann'))
  await later(500)
  const settling = ledger.settleEffect(taken ?? { effectId: '', attempts: 0 }, { outcome: 'delivered' })
  expect(await forgetting).toMatchObject({ operations: 1, references: 1 })
  await settling
  expect(await ledger.effectsOf({ owner: 'ann', id })).toEqual([])
  expect(await dumped(pool)).not.toContain('ann')
}, 30_000)

test('while an owner is forgotten, the leases of others are prolonged', async () => {
  const { db, ledger } = await open()
  const lease = async (owner: string) => {
    const intent = intentOf({ owner })
    await ledger.declare(intent)
    const taken = await ledger.lease(intent, { ...LEASE, purpose: 'receive' })
    if (taken.outcome !== 'granted') throw new Error(taken.outcome)
    return taken.lease
  }
  const [anns, bobs] = [await lease('ann'), await lease('bob')]
  const before = (await ledger.find(bobs))?.dueAt ?? 0
  await db.transaction(async (tx) => {
    await ledger.forgetOwner(tx, 'ann')
    // Nobody knows yet whether that will be committed.
    expect(await ledger.renew([anns, bobs], 60_000)).toEqual([anns, bobs])
    expect((await ledger.find(bobs))?.dueAt).toBeGreaterThan(before + 20_000)
  })
  expect(await ledger.renew([anns, bobs], 60_000)).toEqual([bobs])
}, 30_000)

test('of nodes that start at once, one makes the key of the tombstones', async () => {
  const url = await server.database()
  const nodes = Array.from({ length: 5 }, () => openOn(url))
  await Promise.all(nodes.map(({ ledger }) => ledger.migrate()))
  const keyNow = async (): Promise<unknown> =>
    (await nodes[0]?.pool.query(`SELECT value FROM landfall_meta WHERE key = 'tombstone_key'`))?.rows
  const key = await keyNow()
  expect(key).toEqual([{ value: expect.stringMatching(/^[0-9a-f]{64}$/) as unknown }])
  // Where an older version has migrated again, or a backup is without it, it is made when it is needed.
  await nodes[0]?.pool.query(`DELETE FROM landfall_meta WHERE key = 'tombstone_key'`)
  const intent = intentOf()
  await Promise.all(nodes.map(({ ledger }) => ledger.declare(intent)))
  expect(await keyNow()).toHaveLength(1)
})

describe('against every writer', () => {
  const insert = (pool: Pool, id: string, hash: string | null) =>
    pool.query(
      `INSERT INTO landfall_operations (owner, id, kind, point, file_name, file_size, file_type, metadata, validated, facts,
         blob_key, created_at, updated_at, expires_at, owner_hash)
       VALUES ('ann', $1, 'file', 'cancelled', 'a', 1, '', '{}', '{}', '', 'key of ' || $1, 1, 1, 1, $2)
       ON CONFLICT (owner, id) DO NOTHING`,
      [id, hash],
    )

  test('no operation goes without its tombstone, and no tombstone goes', async () => {
    const { pool } = await open()
    await insert(pool, 'one', 'hash')
    const noTombstone = 'never deleted without its tombstone'
    await expect(pool.query(`DELETE FROM landfall_operations`)).rejects.toThrow(noTombstone)
    await pool.query(`INSERT INTO landfall_tombstones VALUES ('one', 'of another', 'cancelled')`)
    await expect(pool.query(`DELETE FROM landfall_operations`)).rejects.toThrow(noTombstone)
    await pool.query(`INSERT INTO landfall_tombstones VALUES ('one', 'hash', 'cancelled')`)
    await pool.query(`DELETE FROM landfall_operations`)
    expect((await pool.query(`SELECT 1 FROM landfall_operations`)).rows).toEqual([])
    await expect(pool.query(`DELETE FROM landfall_tombstones`)).rejects.toThrow('a tombstone stays')
    await expect(pool.query(`UPDATE landfall_tombstones SET id = 'two'`)).rejects.toThrow('a tombstone stays')
  })

  test('a version that knows no tombstones cannot use an id again', async () => {
    const { pool } = await open()
    await pool.query(`INSERT INTO landfall_tombstones VALUES ('one', 'hash', 'cancelled')`)
    await expect(insert(pool, 'one', null)).rejects.toThrow('an id is never used again')
    await expect(insert(pool, 'one', 'hash')).rejects.toThrow('an id is never used again')
    await insert(pool, 'one', 'of another')
    await insert(pool, 'two', null)
  })
})

test('what an older version has made is counted, retired and forgotten', async () => {
  const url = await server.database()
  const { pool, ledger } = openOn(url)
  await pool.query(`CREATE TABLE landfall_meta (key text PRIMARY KEY, value text NOT NULL)`)
  for (const statement of POSTGRES_MIGRATIONS.slice(0, 1).flat()) await pool.query(statement)
  await pool.query(`INSERT INTO landfall_meta VALUES ('version', '1')`)
  const insert = (id: string, owner: string, point: string): Promise<unknown> =>
    pool.query(
      `INSERT INTO landfall_operations (owner, id, kind, point, file_name, file_size, file_type, metadata, validated, facts, "offset",
         blob_key, created_at, updated_at, expires_at)
       VALUES ($1, $2, 'file', $3, 'a', 1, '', '{}', '{}', '', 1, $4, 1, 1, 1)`,
      [owner, id, point, `${owner} ${id}`],
    )
  await insert('1', 'ann', 'cancelled')
  await insert('2', 'ann', 'completed')
  await insert('3', 'bob', 'cancelled')
  await pool.query(
    `INSERT INTO landfall_references (owner, operation_id, blob_key, size, type, digest, digest_source, stored_at, data)
     VALUES ('ann', '2', 'ann 2', 1, '', '', 'server', 1, 'null')`,
  )
  await ledger.migrate()
  const within = { quotaFiles: 1 }
  expect(await ledger.declare(intentOf(within))).toEqual({ outcome: 'over-file-quota', usedFiles: 1 })
  expect(await ledger.retire({ finalMs: 1_000, effectsMs: 1_000 }, 10)).toEqual({ operations: 2, effects: 0 })
  expect(await ledger.tombstone({ owner: 'ann', id: '1' })).toBe('cancelled')
  expect(await ledger.tombstone({ owner: 'bob', id: '3' })).toBe('cancelled')
  await ledger.forgetOwner(null, 'ann')
  expect(await ledger.tombstone({ owner: 'ann', id: '2' })).toBe('completed')
  expect((await ledger.declare(intentOf(within))).outcome).toBe('created')
})

test('an upgrade that has to wait for somebody keeps nobody else waiting for long', async () => {
  const { pool, ledger } = openOn(await server.database())
  for (const statement of POSTGRES_MIGRATIONS[0] ?? []) await pool.query(statement)
  await pool.query(`CREATE TABLE landfall_meta (key text PRIMARY KEY, value text NOT NULL)`)
  await pool.query(`INSERT INTO landfall_meta (key, value) VALUES ('version', '1'), ('identity', 'this')`)
  // As a dump does for hours.
  const reader = await pool.connect()
  await reader.query('BEGIN')
  await reader.query('SELECT 1 FROM landfall_operations')
  const upgrading = ledger.migrate()
  upgrading.catch(() => {})
  await later(500)
  const fromMs = performance.now()
  await pool.query('SELECT 1 FROM landfall_operations')
  expect(performance.now() - fromMs).toBeLessThan(4_000)
  await reader.query('ROLLBACK')
  reader.release()
  expect(await upgrading).toMatchObject({ identity: 'this' })
}, 30_000)

test('what is due is found by an index, among many that are not', async () => {
  const { pool, ledger, sent } = await open()
  await pool.query(`SET session_replication_role = replica`)
  await pool.query(
    `INSERT INTO landfall_operations (owner, id, kind, point, file_name, file_size, file_type, metadata, validated, facts, "offset",
       blob_key, created_at, updated_at, expires_at)
     SELECT 'owner-' || (n % 100), md5('id' || n), 'file', 'completed', 'a', 1, '', '{}', '{}', '', 1, md5('key' || n), 1, 1, 1
     FROM generate_series(1, 20000) AS n`,
  )
  await pool.query(
    `INSERT INTO landfall_effects (effect_id, owner, operation_id, name, type, payload, created_at, delivered_at)
     SELECT md5('effect' || n), 'owner-' || (n % 100), md5('id' || n), 'notify', 'function', '{}', 1, 8000000000000 FROM generate_series(1, 20000) AS n`,
  )
  await pool.query(`VACUUM ANALYZE`)
  expect(await ledger.retire({ finalMs: 1_000, effectsMs: 1_000 }, 100)).toEqual({ operations: 0, effects: 0 })
  const planOf = async (words: string): Promise<string> => {
    const { text, values } = sent.findLast((each) => each.text.includes(words)) ?? { text: words, values: [] }
    const { rows } = await pool.query<{ 'QUERY PLAN': string }>(`EXPLAIN ${text}`, values)
    return rows.map((row) => row['QUERY PLAN']).join('\n')
  }
  for (const [words, index] of [
    ['o.updated_at <= ', 'landfall_operations_ended'],
    ['o.forgotten_at IS NOT NULL', 'landfall_operations_forgotten'],
    ['delivered_at <= ', 'landfall_effects_delivered'],
  ] as const) {
    const plan = await planOf(words)
    expect(plan).toContain(index)
    expect(plan).not.toMatch(/Seq Scan on landfall_(operations|effects)\b(?! e\b)/)
  }
})
