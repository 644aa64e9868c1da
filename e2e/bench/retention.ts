import { randomBytes, randomUUID } from 'node:crypto'
import { mkdtemp, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createClient } from '@libsql/client'
import { type Ledger, postgresLedger, serializedLibsql, sqliteLedger } from '@landfall/server'
import { problem } from '@landfall/shared'
import { drizzle as drizzleLibsql } from 'drizzle-orm/libsql'
import { drizzle as drizzlePostgres } from 'drizzle-orm/node-postgres'
import { Pool } from 'pg'
import { startPostgres } from '../ground/postgres.js'
import { keep, machineNow, many, median, type Say, verdict } from './report.js'

/** How many bytes of the database a tombstone may take, with its share of indexes. */
const MOST_BYTES = 400
const AT_ONCE = 200
/** As many as the completer retires at once. */
const BATCH = 100
const OWNERS = 20
const LOOKS = 200
const DAY_MS = 24 * 60 * 60_000

/** A database that is measured. */
interface Place {
  readonly name: string
  readonly ledger: Ledger<unknown>
  /** The size of its tables and their indexes, after the database has given back free space. */
  bytes(): Promise<number>
  end(): Promise<void>
}

/**
 * `npm run bench -- --only retention [--count 100000]` declares and cancels so many operations and lets their retention
 * pass. It measures what is left of each, on SQLite and on PostgreSQL.
 *
 * @returns false if a tombstone takes more than 400 bytes, or if the search for what is due is slow while nothing is
 * due.
 */
export async function benchRetention(count: number, say: Say): Promise<boolean> {
  const machine = machineNow()
  const postgres = await startPostgres()
  const results: Record<string, Record<string, number>> = {}
  const wrong: Record<string, boolean> = {}
  try {
    for (const open of [openSqlite, async () => openPostgres(await postgres.database())]) {
      const place = await open()
      try {
        const measured = await measure(place, count)
        results[place.name] = measured
        const { emptyBytes, endedBytes, retiredBytes, retireMs, slowestBatchMs, lookMs } = measured
        const each = (bytes: number): string => `${((bytes - emptyBytes) / count).toFixed(0)} bytes`
        say(
          `${place.name}: ${many(count)} operations declared and cancelled: ${each(endedBytes)} each; retention passed: ${each(retiredBytes)} each ` +
            `(retired in ${(retireMs / 1000).toFixed(1)} s by batches of ${BATCH}, of which the slowest took ${slowestBatchMs.toFixed(0)} ms); ` +
            `the search while none of them is due: ${lookMs.toFixed(2)} ms`,
        )
        wrong[`${place.name}: a tombstone is too large`] = retiredBytes - emptyBytes > MOST_BYTES * count
        wrong[`${place.name}: the search for what is due takes long`] = lookMs > 20
      } finally {
        await place.end()
      }
    }
  } finally {
    await postgres.stop()
  }
  await keep(say, { retention: { machine, count, results } })
  return verdict(say, wrong)
}

async function measure({ ledger, bytes }: Place, count: number) {
  await ledger.migrate()
  const emptyBytes = await bytes()
  for (let done = 0; done < count; done += AT_ONCE)
    await Promise.all(
      Array.from({ length: Math.min(AT_ONCE, count - done) }, (_, n) => declareAndCancel(ledger, done + n)),
    )
  // Their bytes count as removed, because there are none.
  for (;;) {
    const due = await ledger.leaseDue({ holder: 'bench', leaseMs: 60_000, limit: AT_ONCE, inUse: [] })
    if (due.length === 0) break
    await Promise.all(
      due.map(({ lease, operation }) =>
        ledger.record(lease, operation, { cleanupDue: false, dueInMs: null, release: true }),
      ),
    )
  }
  const endedBytes = await bytes()
  const looksMs: number[] = []
  for (let n = 0; n < LOOKS; n += 1) {
    const startMs = performance.now()
    await ledger.retire({ finalMs: DAY_MS, effectsMs: DAY_MS }, BATCH)
    looksMs.push(performance.now() - startMs)
  }
  const startMs = performance.now()
  let [retired, slowestBatchMs] = [0, 0]
  for (;;) {
    const batchMs = performance.now()
    const { operations } = await ledger.retire({ finalMs: 0, effectsMs: 0 }, BATCH)
    slowestBatchMs = Math.max(slowestBatchMs, performance.now() - batchMs)
    if (operations === 0) break
    retired += operations
  }
  const retireMs = performance.now() - startMs
  if (retired !== count) throw new Error(`${retired} of ${count} were retired`)
  return { emptyBytes, endedBytes, retiredBytes: await bytes(), retireMs, slowestBatchMs, lookMs: median(looksMs) }
}

async function declareAndCancel(ledger: Ledger<unknown>, n: number): Promise<void> {
  const key = { owner: `owner-${n % OWNERS}`, id: uuidv7() }
  const metadata = { album: randomBytes(60).toString('hex') }
  const { outcome } = await ledger.declare({
    ...key,
    kind: 'photo',
    file: { name: `Summer holidays, picture ${n}.jpeg`, size: 1_000_000, type: 'image/jpeg' },
    metadata,
    validated: metadata,
    uploadMetadata: null,
    facts: randomBytes(32).toString('hex'),
    digest: null,
    blobKey: randomBytes(16).toString('hex'),
    expiresAfterMs: DAY_MS,
    maxOpenPerOwner: 100_000,
    quotaBytes: null,
    quotaFiles: null,
    rate: { count: 1_000_000, perMs: DAY_MS },
  })
  if (outcome !== 'created') throw new Error(`declared: ${outcome}`)
  if ((await ledger.cancel(key, problem('cancelled'))) === null) throw new Error('not cancelled')
}

/** Ids as clients make them, in the order of time. */
const uuidv7 = (): string => {
  const time = Date.now().toString(16).padStart(12, '0')
  return `${time.slice(0, 8)}-${time.slice(8)}-7${randomUUID().slice(15)}`
}

async function openSqlite(): Promise<Place> {
  const directory = await mkdtemp(join(tmpdir(), 'landfall-retention-'))
  const path = join(directory, 'app.db')
  const client = serializedLibsql(createClient({ url: `file:${path}` }))
  return {
    name: 'SQLite',
    ledger: sqliteLedger(drizzleLibsql(client)),
    async bytes() {
      await client.execute('VACUUM')
      await client.execute('PRAGMA wal_checkpoint(TRUNCATE)')
      return (await stat(path)).size
    },
    async end() {
      client.close()
      await rm(directory, { recursive: true, force: true })
    },
  }
}

async function openPostgres(url: string): Promise<Place> {
  const pool = new Pool({ connectionString: url, max: 10 })
  return {
    name: 'PostgreSQL',
    ledger: postgresLedger(drizzlePostgres(pool)),
    async bytes() {
      await pool.query('VACUUM (FULL, ANALYZE)')
      const { rows } = await pool.query<{ bytes: string }>(
        `SELECT SUM(pg_total_relation_size(oid)) AS bytes FROM pg_class WHERE relkind = 'r' AND relname LIKE 'landfall\\_%'`,
      )
      return Number(rows[0]?.bytes)
    },
    end: () => pool.end(),
  }
}
