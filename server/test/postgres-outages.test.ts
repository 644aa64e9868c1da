import { sql } from 'drizzle-orm'
import { drizzle as drizzleNode } from 'drizzle-orm/node-postgres'
import { drizzle as drizzleJs } from 'drizzle-orm/postgres-js'
import { Client, Pool } from 'pg'
import postgres from 'postgres'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { type Postgres, startPostgres } from '../../e2e/ground/postgres.js'
import { freePort } from '../../e2e/ground/ports.js'
import { type Proxy, startProxy } from '../../e2e/ground/proxy.js'
import { intentOf } from '../src/contract/ledger.js'
import { faultCode } from '../src/lib/errors.js'
import { connectionsOf } from '../src/ledger/postgres/connections.js'
import { queriesOn } from '../src/ledger/postgres/query.js'
import { postgresLedger } from '../src/ledger/postgres/ledger.js'
import type { HookOutcome, ReferenceIntent } from '../src/ports/ledger/references.js'
import { later } from './harness.js'
import { type JsDatabase, type NodeDatabase, photos, schema } from './postgres-fixture.js'

// A PostgreSQL whose connections go silent without a word, and which is back behind the same name.

/** Twenty seconds for its turn, five for the answer, and something for a machine that is busy. */
const CALL_MS = 27_000
const BACK_MS = 10_000

let server: Postgres
let ends: (() => Promise<unknown>)[] = []
beforeAll(async () => {
  server = await startPostgres()
}, 60_000)
afterAll(() => server.stop())
afterEach(async () => {
  for (const end of ends.toReversed()) await end()
  ends = []
})

const DRIVERS = {
  'node-postgres': (url: string): NodeDatabase => {
    const pool = new Pool({ connectionString: url, max: 10, connectionTimeoutMillis: 5_000 })
    ends.push(() => pool.end())
    return drizzleNode(pool, { schema })
  },
  'postgres.js': (url: string, prepare: boolean): JsDatabase => {
    const client = postgres(url, { max: 10, prepare, onnotice: () => {} })
    ends.push(() => client.end({ timeout: 1 }))
    return drizzleJs(client, { schema })
  },
}

async function opened(driver: keyof typeof DRIVERS, { prepare = true } = {}) {
  const line = await startProxy({ targetPort: server.port, protocol: 'opaque' })
  ends.push(line.close)
  const url = await server.database()
  const db: NodeDatabase | JsDatabase = DRIVERS[driver](url.replace(`:${server.port}/`, `:${line.port}/`), prepare)
  await db.execute(sql`CREATE TABLE photos (name text NOT NULL)`)
  const ledger = postgresLedger(db)
  await ledger.migrate()
  const driven = async () => {
    const intent = intentOf()
    await ledger.declare(intent)
    const taken = await ledger.lease(intent, { holder: 'n1', leaseMs: 60_000, purpose: 'drive' })
    if (taken.outcome !== 'granted') throw new Error(taken.outcome)
    return taken
  }
  const past = async <T extends object>(statement: string): Promise<T[]> => {
    const client = new Client({ connectionString: url })
    await client.connect()
    try {
      return (await client.query<T>(statement)).rows
    } finally {
      await client.end()
    }
  }
  return { line, url, db, ledger, driven, past }
}

const referring = (timeLimitMs = 2_000): ReferenceIntent => ({
  changes: { offset: 100, tailBase: 0, point: 'verified' },
  content: { digest: 'sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:', type: 'image/png' },
  digestSource: 'server',
  timeLimitMs,
  effects: [],
})
const accepted: HookOutcome = { outcome: 'accepted', data: null }

/** What a call came to, and how long it took. */
async function timed(call: Promise<unknown>): Promise<{ ms: number; code: string | null }> {
  const fromMs = performance.now()
  const code = await call.then(
    () => null,
    (error: unknown) => faultCode(error) ?? String(error),
  )
  return { ms: performance.now() - fromMs, code }
}

describe.each(['node-postgres', 'postgres.js'] as const)('%s', (driver) => {
  test('connections that go silent under load: each call ends in time, and the next ones get new connections', async () => {
    const { line, ledger, driven } = await opened(driver)
    const { lease } = await driven()
    const calls: (() => Promise<unknown>)[] = [
      () => ledger.declare(intentOf({ maxOpenPerOwner: 1e6, quotaBytes: null })),
      () => ledger.find(lease),
      () => ledger.listOpen('ann', { after: null, limit: 10 }),
      () => ledger.renew([lease], 30_000),
      () => ledger.heartbeat(),
      () => ledger.pulse(),
      () => ledger.leaseDue({ holder: 'n1', leaseMs: 1_000, limit: 1, inUse: [] }),
      () => ledger.nextDueInMs([]),
      () => ledger.advanceMark({ mark: 1, restored: null }),
      () => ledger.migrate(),
    ]
    const results: { ms: number; code: string | null; endedAtMs: number }[] = []
    const over = new AbortController()
    const load = calls
      .flatMap((call) => [call, call])
      .map(async (call) => {
        while (!over.signal.aborted) results.push({ ...(await timed(call())), endedAtMs: performance.now() })
      })
    await later(500)
    expect(results.every(({ code }) => code === null)).toBe(true)
    const strandedAtMs = performance.now()
    expect(line.strandConnections()).toBeGreaterThan(5)
    await later(BACK_MS + 1_000)
    over.abort()
    await Promise.all(load)
    expect(Math.max(...results.map(({ ms }) => ms))).toBeLessThan(CALL_MS)
    expect(new Set(results.map(({ code }) => code))).toEqual(new Set([null, 'ledger-unavailable']))
    const failed = results.filter(({ code }) => code !== null)
    expect(Math.max(...failed.map(({ endedAtMs }) => endedAtMs - strandedAtMs))).toBeLessThan(BACK_MS)
  }, 60_000)

  test('connections that go silent while they lie idle cost one call its time, and not each the next one', async () => {
    const { line, ledger } = await opened(driver)
    await Promise.all(Array.from({ length: 9 }, () => ledger.find(intentOf())))
    line.strandConnections()
    const fromMs = performance.now()
    const outcomes: (string | null)[] = []
    while (performance.now() - fromMs < BACK_MS) outcomes.push((await timed(ledger.find(intentOf()))).code)
    expect(outcomes[0]).toBe('ledger-unavailable')
    expect(outcomes.slice(1).every((code) => code === null)).toBe(true)
  }, 60_000)

  test.each(['before BEGIN', 'within the hook', 'at COMMIT'] as const)(
    'a transaction whose connection goes silent %s ends in time, and what became of it is read on another one',
    async (when) => {
      // A statement that was prepared before does not show its text.
      const { line, ledger, driven, past } = await opened(driver, { prepare: when !== 'at COMMIT' })
      const { lease, operation } = await driven()
      if (when === 'before BEGIN') line.strandConnections()
      const lost = when === 'at COMMIT' ? line.intercept((bytes) => silenceAt(bytes, line)) : null
      const referred = await timed(
        ledger.refer(lease, operation, referring(), async (tx) => {
          await tx.insert(photos).values({ name: 'a' })
          if (when === 'within the hook') {
            line.strandConnections()
            await tx.insert(photos).values({ name: 'b' })
          }
          return accepted
        }),
      )
      lost?.release()
      expect(referred.code).toBe('ledger-unavailable')
      expect(referred.ms).toBeLessThan(CALL_MS + 2_000)
      const found = await ledger.find(lease)
      const [row] = await past<{ n: string }>('SELECT COUNT(*) AS n FROM photos')
      // The COMMIT that reached the server was done; all else was not.
      expect([found?.point, Number(row?.n)]).toEqual(when === 'at COMMIT' ? ['referenced', 1] : ['declared', 0])
      if (when !== 'at COMMIT')
        expect((await ledger.refer(lease, operation, referring(), async () => accepted)).outcome).toBe('referenced')
    },
    60_000,
  )

  test('calls that a lock keeps waiting end in time, and the server is asked not to do them later', async () => {
    const { url, ledger, past } = await opened(driver)
    const blocker = new Client({ connectionString: url })
    await blocker.connect()
    await blocker.query('BEGIN')
    await blocker.query('LOCK TABLE landfall_usage IN ACCESS EXCLUSIVE MODE')
    const declared = await Promise.all(Array.from({ length: 40 }, () => timed(ledger.declare(intentOf()))))
    await later(500)
    const [waiting] = await past<{ n: string }>(`SELECT COUNT(*) AS n FROM pg_locks WHERE NOT granted`)
    await blocker.query('COMMIT')
    await blocker.end()
    expect(new Set(declared.map(({ code }) => code))).toEqual(new Set(['ledger-unavailable']))
    expect(Math.max(...declared.map(({ ms }) => ms))).toBeLessThan(CALL_MS)
    expect(Number(waiting?.n)).toBe(0)
    expect((await ledger.declare(intentOf())).outcome).toBe('created')
    expect(await ledger.listOpen('ann', { after: null, limit: 100 })).toHaveLength(1)
  }, 60_000)

  test('a COMMIT that waits for a synchronous standby is left to it: nobody sees the reference before the standby has it', async () => {
    const { url, ledger, driven, past } = await opened(driver)
    const { lease, operation } = await driven()
    await past(`ALTER SYSTEM SET synchronous_standby_names = 'nobody'`)
    ends.push(() => unsynchronized(url))
    await past('SELECT pg_reload_conf()')
    await expect.poll(() => past('SHOW synchronous_standby_names')).toEqual([{ synchronous_standby_names: 'nobody' }])
    const referred = await timed(
      ledger.refer(lease, operation, referring(500), async (tx) => {
        await tx.insert(photos).values({ name: 'a' })
        return accepted
      }),
    )
    expect(referred.code).toBe('ledger-unavailable')
    // Longer than the statement_timeout of its transaction, too.
    for (const untilMs = performance.now() + 7_000; performance.now() < untilMs; await later(100))
      expect((await ledger.find(lease))?.point).toBe('declared')
    expect(await past('SELECT name FROM photos')).toEqual([])
    await unsynchronized(url)
    await expect.poll(async () => (await ledger.find(lease))?.point).toBe('referenced')
    expect(await past('SELECT operation_id FROM landfall_references')).toEqual([{ operation_id: lease.id }])
    expect(await past('SELECT name FROM photos')).toEqual([{ name: 'a' }])
  }, 60_000)

  test('a call that may take long is not cut short because another one is late: an owner is forgotten behind a lock', async () => {
    const { url, ledger, driven } = await opened(driver)
    const { lease } = await driven()
    const blocker = new Client({ connectionString: url })
    await blocker.connect()
    ends.push(() => blocker.end())
    await blocker.query('BEGIN')
    await blocker.query('LOCK TABLE landfall_usage IN ACCESS EXCLUSIVE MODE')
    const forgotten = timed(ledger.forgetOwner(null, lease.owner))
    await later(500)
    const declared = await timed(ledger.declare(intentOf()))
    expect(declared.code).toBe('ledger-unavailable')
    await later(2_000)
    await blocker.query('COMMIT')
    expect((await forgotten).code).toBe(null)
    expect(await ledger.find(lease)).toBe(null)
  }, 60_000)

  test('a connection that was just made, and one that answers statement after statement, are not suspect', async () => {
    const { db } = await opened(driver)
    const connections = connectionsOf(db, { statement: () => {}, transaction: () => {} })
    connections.distrust(performance.now())
    const [silent, answers] = [await connections.get(), await connections.get()]
    expect([silent.isSuspect(), answers.isSuspect()]).toEqual([false, false])
    await later(10)
    const askedAtMs = performance.now()
    await queriesOn(answers.session, answers.heard).ask({ wants: 'row', sql: 'SELECT 1', args: [] })
    connections.distrust(askedAtMs)
    expect([silent.isSuspect(), answers.isSuspect()]).toEqual([true, false])
    for (const connection of [silent, answers]) connection.release()
  })

  test("a hook's statement that takes too long is the hook's fault, also where only the server could end it", async () => {
    const { ledger, driven } = await opened(driver)
    const { lease, operation } = await driven()
    const referred = await timed(
      ledger.refer(lease, operation, referring(500), async (tx) => {
        await tx.execute(sql`SELECT pg_sleep(30)`)
        return accepted
      }),
    )
    expect(referred.code).toBe('hook-timeout')
    expect(referred.ms).toBeLessThan(4_000)
    expect((await ledger.refer(lease, operation, referring(), async () => accepted)).outcome).toBe('referenced')
  }, 60_000)

  test("what a hook's own surroundings fail with is its own fault; what its transaction's connection says is not", async () => {
    const { line, ledger, driven, past } = await opened(driver)
    const { lease, operation } = await driven()
    const refused = async (): Promise<never> => {
      throw Object.assign(new Error('connect ECONNREFUSED 127.0.0.1:25'), { code: 'ECONNREFUSED' })
    }
    const other = new Client({ connectionString: `postgres://postgres@127.0.0.1:${server.port}/none` })
    other.on('error', () => {})
    const own: readonly (() => Promise<unknown>)[] = [
      refused,
      async () => Promise.reject(Object.assign(new Error('no such template'), { code: 'ENOENT' })),
      async () => Promise.reject(new Error('Connection terminated unexpectedly')),
      // Another database of the application's: its connection was ended there.
      async () => Promise.reject(Object.assign(new Error('terminating connection'), { code: '57P01' })),
      async () => Promise.reject(new Error('the mail', { cause: await refused().catch((error: unknown) => error) })),
    ]
    for (const fail of own) {
      const referred = await timed(
        ledger.refer(lease, operation, referring(), async (tx) => {
          await tx.insert(photos).values({ name: 'a' })
          await fail()
          return accepted
        }),
      )
      expect(referred.code).not.toBe('ledger-unavailable')
    }
    const died = await timed(
      ledger.refer(lease, operation, referring(), async (tx) => {
        await tx.insert(photos).values({ name: 'a' })
        line.resetConnections()
        await tx.insert(photos).values({ name: 'b' })
        return accepted
      }),
    )
    expect(died.code).toBe('ledger-unavailable')
    expect(await past('SELECT name FROM photos')).toEqual([])
  }, 60_000)

  test('a write past `tx` within a hook is refused, a read is not', async () => {
    const { db, ledger, driven, past } = await opened(driver)
    const { lease, operation } = await driven()
    const refused: unknown[] = []
    const referred = await ledger.refer(lease, operation, referring(), async (tx) => {
      await tx.insert(photos).values({ name: 'in' })
      for (const write of [
        () => db.insert(photos).values({ name: 'past' }),
        () => db.execute(sql`WITH gone AS (DELETE FROM photos RETURNING name) SELECT * FROM gone`),
        () => db.transaction(async (own) => void (await own.insert(photos).values({ name: 'own' }))),
      ])
        refused.push(await Promise.resolve(write()).catch(faultCodeOf))
      await db.select().from(photos)
      return accepted
    })
    expect(referred.outcome).toBe('referenced')
    expect(refused).toEqual(['write-past-tx', 'write-past-tx', 'write-past-tx'])
    await db.insert(photos).values({ name: 'after' })
    await db.transaction(async (tx) => void (await tx.insert(photos).values({ name: 'after, too' })))
    expect(await past('SELECT name FROM photos')).toEqual([{ name: 'in' }, { name: 'after' }, { name: 'after, too' }])
  })
})

test('postgres.js with an address that this machine has no way to: each call fails at once, and the process goes on', async () => {
  const uncaught: unknown[] = []
  const listener = (error: unknown): void => void uncaught.push(error)
  process.on('uncaughtException', listener)
  ends.push(async () => void process.off('uncaughtException', listener))
  const client = postgres({ host: '255.255.255.255', port: 5432, user: 'postgres', max: 10 })
  ends.push(() => client.end({ timeout: 1 }))
  const ledger = postgresLedger(drizzleJs(client, { schema }))
  const found = await Promise.all(Array.from({ length: 3 }, () => timed(ledger.find(intentOf()))))
  await later(100)
  expect(uncaught).toEqual([])
  expect(found.map(({ code }) => code)).toEqual(Array.from({ length: 3 }, () => 'ledger-unavailable'))
  expect(Math.max(...found.map(({ ms }) => ms))).toBeLessThan(2_000)
})

describe('postgres.js with several hosts', () => {
  async function clientOf(ports: number[], attrs: 'read-write' | null = null) {
    const schemaName = /search_path=(\w+)/.exec(decodeURIComponent(await server.database()))?.[1] ?? ''
    const client = postgres({
      ...({ host: ports.map(() => '127.0.0.1'), port: ports } as object),
      user: 'postgres',
      database: 'postgres',
      max: 10,
      connection: { search_path: schemaName },
      onnotice: () => {},
      ...(attrs !== null && { target_session_attrs: attrs }),
    })
    ends.push(() => client.end({ timeout: 1 }))
    return postgresLedger(drizzleJs(client, { schema }))
  }
  /** At once, so that each has a connection of its own, then one after the other. */
  async function calls(ledger: Awaited<ReturnType<typeof clientOf>>) {
    const all = await Promise.all(Array.from({ length: 10 }, () => timed(ledger.find(intentOf()))))
    for (let n = 0; n < 10; n += 1) all.push(await timed(ledger.find(intentOf())))
    return { codes: new Set(all.map(({ code }) => code)), mostMs: Math.max(...all.map(({ ms }) => ms)) }
  }

  test('of which the first refuses connections: each call goes to the next one', async () => {
    const ledger = await clientOf([await freePort(), server.port])
    await ledger.migrate()
    const { codes, mostMs } = await calls(ledger)
    expect(codes).toEqual(new Set([null]))
    expect(mostMs).toBeLessThan(2_000)
  })

  test('that all refuse connections: each call fails at once', async () => {
    const { codes, mostMs } = await calls(await clientOf([await freePort(), await freePort()]))
    expect(codes).toEqual(new Set(['ledger-unavailable']))
    expect(mostMs).toBeLessThan(2_000)
  })

  test('of which the first may only be read, where target_session_attrs asks for one to write to: the second is taken', async () => {
    const readOnly = await startPostgres()
    ends.push(() => readOnly.stop())
    const operator = new Client({ connectionString: await readOnly.database() })
    await operator.connect()
    await operator.query('ALTER SYSTEM SET default_transaction_read_only = on')
    await operator.query('SELECT pg_reload_conf()')
    await operator.end()
    const ledger = await clientOf([readOnly.port, server.port], 'read-write')
    await ledger.migrate()
    const { codes, mostMs } = await calls(ledger)
    expect(codes).toEqual(new Set([null]))
    expect(mostMs).toBeLessThan(2_000)
  }, 60_000)
})

test('postgres.js with a user that the server does not know: each call says so, and new connections are tried', async () => {
  const client = postgres({ host: '127.0.0.1', port: server.port, user: 'nobody', database: 'postgres', max: 10 })
  ends.push(() => client.end({ timeout: 1 }))
  const ledger = postgresLedger(drizzleJs(client, { schema }))
  for (let n = 0; n < 4; n += 1) {
    const error = await ledger.find(intentOf()).catch((found: unknown) => found)
    expect(String((error as Error).cause)).toContain('role "nobody" does not exist')
    await later(n * 20)
  }
})

/** No COMMIT waits for a standby any more. */
async function unsynchronized(url: string): Promise<void> {
  const client = new Client({ connectionString: url })
  await client.connect()
  await client.query('ALTER SYSTEM RESET synchronous_standby_names')
  await client.query('SELECT pg_reload_conf()')
  await client.end()
}

const faultCodeOf = (error: unknown): unknown => faultCode(error) ?? error

/** The server gets the COMMIT and does it; of its answer nobody hears. */
function silenceAt(bytes: Buffer, line: Proxy): ReturnType<Parameters<Proxy['intercept']>[0]> {
  if (!/\bcommit\b/i.test(bytes.toString('latin1'))) return null
  // When the answer comes: by then it is done.
  return {
    at: 'answer',
    strike: () => {
      setImmediate(() => line.strandConnections())
      return 'silence'
    },
  }
}

test('what is not a pool, or not a Drizzle that is known, is refused at once', async () => {
  const client = new Client({ connectionString: await server.database() })
  expect(() => postgresLedger(drizzleNode(client, { schema }))).toThrow(/needs a Drizzle database on a Pool/)
  const pool = new Pool()
  ends.push(() => pool.end())
  const strange = drizzleNode(pool, { schema })
  Object.assign(strange, { session: { run: () => {} } })
  expect(() => postgresLedger(strange)).toThrow(/does not know this version of drizzle-orm/)
})
