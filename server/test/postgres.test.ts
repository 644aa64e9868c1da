import { drizzle as drizzleNode } from 'drizzle-orm/node-postgres'
import { drizzle as drizzleJs } from 'drizzle-orm/postgres-js'
import { sql } from 'drizzle-orm'
import { Pool } from 'pg'
import postgres from 'postgres'
import { generateDrizzleJson, generateMigration } from 'drizzle-kit/api'
import { problem } from '@landfall/shared'
import { v7 as uuidv7 } from 'uuid'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { intentOf, ledgerContract } from '../src/contract/ledger.js'
import { type Args, numbered } from '../src/ledger/query.js'
import { POSTGRES } from '../src/ledger/postgres/dialect.js'
import { completable, dueOperations, NEXT_DUE } from '../src/ledger/statements/due.js'
import { POSTGRES_MIGRATIONS } from '../src/ledger/postgres/migrations.js'
import * as tables from '../src/ledger/postgres/schema.js'
import { postgresLedger } from '../src/ledger/postgres/ledger.js'
import { later } from './harness.js'
import { type JsDatabase, type NodeDatabase, photos, postgresFixture, schema } from './postgres-fixture.js'
import { type Postgres, startPostgres } from '../../e2e/ground/postgres.js'

let server: Postgres
beforeAll(async () => {
  server = await startPostgres()
}, 60_000)
afterAll(() => server.stop())

describe('ledger contract: PostgreSQL by node-postgres', () =>
  ledgerContract(test, () =>
    postgresFixture(server, (url) => {
      const pool = new Pool({ connectionString: url, max: 10 })
      return { db: drizzleNode(pool, { schema }), end: () => pool.end() }
    }),
  ))

describe('ledger contract: PostgreSQL by postgres.js', () =>
  ledgerContract(test, () =>
    postgresFixture(server, (url) => {
      const client = postgres(url, { max: 10, onnotice: () => {} })
      return { db: drizzleJs(client, { schema }), end: () => client.end() }
    }),
  ))

let ends: (() => Promise<void>)[] = []
afterEach(async () => {
  await Promise.all(ends.map((end) => end()))
  ends = []
})

function poolOn(url: string, max = 10): Pool {
  const pool = new Pool({ connectionString: url, max, connectionTimeoutMillis: 5_000 })
  // Its last connections may still be closing when the server is stopped.
  pool.on('error', () => {})
  ends.push(() => pool.end())
  return pool
}
const DRIVERS = {
  'node-postgres': (url: string) => drizzleNode(poolOn(url), { schema }) as NodeDatabase,
  'postgres.js': (url: string) => {
    const client = postgres(url, { max: 10, onnotice: () => {} })
    ends.push(() => client.end({ timeout: 1 }))
    return drizzleJs(client, { schema }) as JsDatabase
  },
}
const CONTENT = { digest: 'sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:', type: 'image/png' }
const referring = (changes: { timeLimitMs?: number; effects?: readonly string[] } = {}) => ({
  changes: { offset: 100, tailBase: 0, point: 'verified' as const },
  content: CONTENT,
  digestSource: 'server' as const,
  timeLimitMs: changes.timeLimitMs ?? 5_000,
  effects: (changes.effects ?? []).map((name) => ({
    effectId: uuidv7(),
    name,
    type: 'function' as const,
    payload: () => null,
  })),
})

async function opened(driver: keyof typeof DRIVERS) {
  const url = await server.database()
  const db: NodeDatabase | JsDatabase = DRIVERS[driver](url)
  await db.execute(sql`CREATE TABLE photos (name text NOT NULL)`)
  const ledger = postgresLedger(db)
  await ledger.migrate()
  const driven = async () => {
    const intent = intentOf()
    await ledger.declare(intent)
    const taken = await ledger.lease(intent, { holder: 'n1', leaseMs: 30_000, purpose: 'drive' })
    if (taken.outcome !== 'granted') throw new Error(taken.outcome)
    return taken
  }
  return { url, db, ledger, driven, written: async () => (await db.select().from(photos)).map(({ name }) => name) }
}

describe.each(['node-postgres', 'postgres.js'] as const)('PostgreSQL by %s', (driver) => {
  test('what a hook writes after its end is refused, and reaches nobody', async () => {
    const { ledger, driven, written } = await opened(driver)
    const late: unknown[] = []
    let over = Promise.resolve()
    for (const ending of ['too late', 'thrown', 'answered'] as const) {
      const { lease, operation } = await driven()
      let ended = (): void => {}
      const end = new Promise<void>((resolve) => (ended = resolve))
      const referred = ledger.refer(lease, operation, referring({ timeLimitMs: 200 }), async (tx) => {
        await tx.insert(photos).values({ name: `${ending}, in time` })
        const prepared = tx.insert(photos).values({ name: `${ending}, prepared in time` })
        const tryLate = async (): Promise<void> => {
          await end
          late.push(
            await prepared.catch((error: unknown) => error),
            await tx
              .insert(photos)
              .values({ name: ending })
              .catch((error: unknown) => error),
            await tx
              .transaction(async (inner) => void (await inner.insert(photos).values({ name: ending })))
              .catch((error: unknown) => error),
          )
        }
        over = tryLate()
        if (ending === 'thrown') throw new Error('the application fails')
        if (ending === 'too late') await later(400)
        return { outcome: 'accepted', data: null }
      })
      const outcome = await referred.then(
        (answer) => answer.outcome,
        () => 'failed',
      )
      ended()
      await over
      expect(outcome).toBe(ending === 'answered' ? 'referenced' : 'failed')
    }
    expect(late).toHaveLength(9)
    for (const error of late) expect(error).toBeInstanceOf(Error)
    expect(await written()).toEqual(['answered, in time'])
  })

  test('declared at once on three nodes, an owner has no more open than the limit says', async () => {
    const { url, ledger } = await opened(driver)
    const nodes = [ledger, ...[1, 2].map(() => postgresLedger(DRIVERS[driver](url) as NodeDatabase))]
    const intents = Array.from({ length: 60 }, () => intentOf({ maxOpenPerOwner: 10 }))
    const declared = await Promise.all(
      intents.map(async (intent, n) => (await nodes[n % nodes.length]?.declare(intent))?.outcome),
    )
    expect(declared.filter((outcome) => outcome === 'created')).toHaveLength(10)
    expect(declared.filter((outcome) => outcome === 'too-many-open')).toHaveLength(50)
    const first = intents[declared.indexOf('created')] ?? intentOf()
    await ledger.cancel(first, problem('cancelled'))
    const afterwards = await Promise.all(
      intents.slice(0, 6).map(() => ledger.declare(intentOf({ maxOpenPerOwner: 10 }))),
    )
    expect(afterwards.filter(({ outcome }) => outcome === 'created')).toHaveLength(1)
  })

  test('hooks that hang leave connections for everything else', async () => {
    const { ledger, driven } = await opened(driver)
    const taken = await Promise.all(Array.from({ length: 30 }, driven))
    let release = (): void => {}
    const hanging = new Promise<void>((resolve) => (release = resolve))
    const referred = taken.map(({ lease, operation }) =>
      ledger.refer(lease, operation, referring({ timeLimitMs: 60_000 }), async () => {
        await hanging
        return { outcome: 'accepted', data: null }
      }),
    )
    await later(200)
    const leases = taken.map(({ lease }) => lease)
    expect(await ledger.renew(leases, 30_000)).toEqual(leases)
    expect((await ledger.declare(intentOf())).outcome).toBe('created')
    release()
    expect(new Set((await Promise.all(referred)).map(({ outcome }) => outcome))).toEqual(new Set(['referenced']))
  })

  test('a crowd that waits for the database lets leases be prolonged, and says that it lives', async () => {
    const { url, ledger, driven } = await opened(driver)
    const { lease } = await driven()
    const blocker = await poolOn(url).connect()
    await blocker.query('BEGIN')
    await blocker.query('LOCK TABLE landfall_usage IN ACCESS EXCLUSIVE MODE')
    const crowd = Promise.all(Array.from({ length: 40 }, () => ledger.declare(intentOf())))
    await later(200)
    const kept = Promise.all([ledger.renew([lease], 30_000), ledger.heartbeat(), ledger.pulse()])
    const [renewed] = (await Promise.race([kept, later(3_000)])) ?? []
    await blocker.query('COMMIT')
    blocker.release()
    expect(renewed).toEqual([lease])
    expect(new Set((await crowd).map(({ outcome }) => outcome))).toEqual(new Set(['created']))
  })

  test('the last two effects, delivered at once on two nodes, complete their operation', async () => {
    const { url, ledger, driven } = await opened(driver)
    const other = postgresLedger(DRIVERS[driver](url) as NodeDatabase)
    for (let n = 0; n < 20; n += 1) {
      const { lease, operation } = await driven()
      await ledger.refer(lease, operation, referring({ effects: ['a', 'b'] }), async () => ({
        outcome: 'accepted',
        data: null,
      }))
      const taking = { holder: 'n1', leaseMs: 30_000, limit: 1 }
      const [[a], [b]] = await Promise.all([
        ledger.takeEffects({ kind: 'photo', name: 'a' }, taking),
        other.takeEffects({ kind: 'photo', name: 'b' }, taking),
      ])
      if (a === undefined || b === undefined) throw new Error('both are due')
      await Promise.all([
        ledger.settleEffect(a, { outcome: 'delivered' }),
        other.settleEffect(b, { outcome: 'delivered' }),
      ])
      expect((await ledger.find(lease))?.point).toBe('completed')
    }
  })
})

// Not with postgres.js: 3.4.9 throws where nobody can catch it when it is about to write to a connection that has just
// died ("Cannot read properties of null (reading 'write')"); the process ends, and goes on where it was.
test('a database that was away is a fault that passes, and no operation is given up for it', async () => {
  const { ledger, driven, written } = await opened('node-postgres')
  const { lease, operation } = await driven()
  await ledger.find(lease)
  const restarted = server.restart('immediate')
  const away: unknown[] = []
  for (const deadline = Date.now() + 20_000; Date.now() < deadline; await later(10)) {
    const found = await ledger.find(lease).catch((error: unknown) => error)
    if (!(found instanceof Error)) {
      if (away.length > 0) break
    } else away.push((found as { code?: unknown }).code ?? found)
  }
  await restarted
  expect(new Set(away)).toEqual(new Set(['ledger-unavailable']))
  let second = Promise.resolve()
  const during = ledger.refer(lease, operation, referring({ timeLimitMs: 30_000 }), async (tx) => {
    await tx.insert(photos).values({ name: 'lost' })
    await (second = server.restart('immediate'))
    return { outcome: 'accepted', data: null }
  })
  await expect(during).rejects.toMatchObject({ code: 'ledger-unavailable' })
  await second
  // Connections that died meanwhile may still be handed out once.
  const outcomes = new Set<string>()
  for (let n = 0; n < 20 && !outcomes.has('referenced'); n += 1)
    outcomes.add(
      await ledger
        .refer(lease, operation, referring(), async (tx) => {
          await tx.insert(photos).values({ name: 'kept' })
          return { outcome: 'accepted', data: null }
        })
        .then(
          ({ outcome }) => outcome,
          (error: unknown) => String((error as { code?: unknown }).code),
        ),
    )
  expect([...outcomes].filter((outcome) => outcome !== 'ledger-unavailable')).toEqual(['referenced'])
  expect(await written()).toEqual(['kept'])
}, 60_000)

test('a connection from before the ledger that dies while a hook has it is a fault, and no end of the process', async () => {
  const url = await server.database()
  const db = drizzleNode(poolOn(url, 1), { schema })
  await db.execute(sql`CREATE TABLE photos (name text NOT NULL)`)
  const ledger = postgresLedger(db)
  await ledger.migrate()
  const intent = intentOf()
  await ledger.declare(intent)
  const taken = await ledger.lease(intent, { holder: 'n1', leaseMs: 30_000, purpose: 'drive' })
  if (taken.outcome !== 'granted') throw new Error(taken.outcome)
  const outcome = ledger.refer(taken.lease, taken.operation, referring(), async (tx) => {
    const { rows } = await tx.execute<{ pid: number }>(sql`SELECT pg_backend_pid() AS pid`)
    const other = poolOn(url, 1)
    await other.query('SELECT pg_terminate_backend($1)', [rows[0]?.pid])
    await later(300)
    return { outcome: 'accepted', data: null }
  })
  await expect(outcome).rejects.toMatchObject({ code: 'ledger-unavailable' })
  expect((await ledger.find(intent))?.point).toBe('declared')
})

test('drizzle-kit makes the same tables as the migrations', async () => {
  const columnsOf = async (statements: readonly string[]) => {
    const pool = poolOn(await server.database())
    for (const statement of statements) await pool.query(statement)
    const columns = await pool.query(
      `SELECT table_name, column_name, data_type, collation_name, is_nullable, column_default FROM information_schema.columns
       WHERE table_schema = current_schema() ORDER BY table_name, column_name`,
    )
    const indexes = await pool.query(
      `SELECT indexname, REPLACE(indexdef, current_schema() || '.', '') AS definition FROM pg_indexes WHERE schemaname = current_schema() ORDER BY indexname`,
    )
    const constraints = await pool.query(
      `SELECT conname, pg_get_constraintdef(oid) AS definition FROM pg_constraint WHERE contype = 'c' AND connamespace = CAST(current_schema() AS regnamespace) ORDER BY conname`,
    )
    return [columns.rows, indexes.rows, constraints.rows]
  }
  const generated = await generateMigration(generateDrizzleJson({}), generateDrizzleJson(tables))
  const meta = `CREATE TABLE landfall_meta (key text PRIMARY KEY, value text NOT NULL)`
  expect(await columnsOf(generated)).toEqual(await columnsOf([meta, ...POSTGRES_MIGRATIONS.flat()]))
})

test("the completer's pick and the sweep for what is completed go by their indexes", async () => {
  const { url, ledger } = await opened('node-postgres')
  const pool = poolOn(url)
  await pool.query(
    `INSERT INTO landfall_operations (owner, id, kind, point, file_name, file_size, file_type, metadata, validated, facts,
       "offset", blob_key, created_at, updated_at, expires_at)
     SELECT 'ann', 'done-' || n, 'photo', 'completed', 'a', 1, '', '{}', '{}', '', 1, 'key-' || n, 0, 0, 0
     FROM generate_series(1, 20000) AS n`,
  )
  await ledger.declare(intentOf())
  await pool.query('ANALYZE landfall_operations')
  const plans: string[] = []
  pool.on('connect', () => {})
  const plan = async (statement: string, args: Args): Promise<void> => {
    const { sql: text, values } = numbered(statement, [args])
    const { rows } = await pool.query<{ 'QUERY PLAN': string }>(`EXPLAIN ${text.replaceAll('?', '$')}`, values)
    plans.push(rows.map((row) => row['QUERY PLAN']).join('\n'))
  }
  await plan(dueOperations(POSTGRES), { holder: 'n1', in_use: '[]', limit: 100 })
  await plan(completable(POSTGRES), { limit: 100 })
  await plan(NEXT_DUE, {})
  expect(plans[0]).toContain('landfall_operations_due')
  expect(plans[1]).toContain('landfall_operations_incomplete')
  expect(plans[2]).toContain('landfall_operations_due')
  for (const each of plans) expect(each).not.toContain('Seq Scan on landfall_operations')
})
