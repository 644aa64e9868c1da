import { drizzle } from 'drizzle-orm/node-postgres'
import { type Ledger, postgresLedger } from '@landfall/server'
import { Pool } from 'pg'
import { startPostgres } from '../ground/postgres.js'
import { keep, machineNow, many, median, type Say, verdict } from './report.js'

const ROUNDS = 7
const DUE = 10_000
/** The number of operations that the completer takes at once. */
const HANDS = 8
const PICKS_PER_ROUND = 100
/** So long that no lease ends, and nothing is due again, during the measurement. */
const LEASE_MS = 3_600_000
const LIMIT = 2

/** A ledger that is measured. */
interface Place {
  readonly name: string
  readonly finished: number
  readonly due: number
  readonly pool: Pool
  readonly ledger: Ledger<unknown>
  /** The last statement that contains these words, as it was sent. */
  statement(words: string): { readonly text: string; readonly values: unknown[] }
}

interface Measured {
  /** The part of the pick without leases and commit: what is due is selected and locked, and stays as it is. */
  readonly lookMs: number
  /** A pick of the completer. It takes the leases of eight operations that are due. */
  readonly pickMs: number
  /** The query for the time at which something is due next. */
  readonly nextMs: number
  /** The statement that completes operations that are referenced and owe nothing any more. */
  readonly completeMs: number
}

const FIGURES: readonly (keyof Measured)[] = ['lookMs', 'pickMs', 'nextMs', 'completeMs']

/**
 * `npm run bench -- --only due [--count 1000000]` measures the completer's statements in PostgreSQL. `--count`
 * operations are finished and 10,000 are due. They are compared with the same 10,000 without any finished ones, and
 * with empty tables. The measurement goes through the ledger itself, in turns. The plans are those of the statements
 * that the ledger sent.
 *
 * @returns false if a pick takes more than twice as long, or uses another index than that of what is due.
 */
export async function benchDue(count: number, say: Say): Promise<boolean> {
  const machine = machineNow()
  const finishedForOneDue = Math.round(count / DUE)
  const postgres = await startPostgres()
  const places: Place[] = []
  try {
    for (const [name, finished, due] of [
      ['full', finishedForOneDue * DUE, DUE],
      ['unfinished only', 0, DUE],
      ['empty', 0, 0],
    ] as const)
      places.push(await openPlace(await postgres.database(), { name, finished, due }))
    say(`filled: ${many(count)} finished and ${many(DUE)} due; the due ones alone; nothing`)

    const rounds: Record<string, Measured>[] = []
    for (let round = 0; round < ROUNDS; round += 1) {
      const measured: Record<string, Measured> = {}
      // The order changes from round to round.
      for (let n = 0; n < places.length; n += 1) {
        const place = places[(n + round) % places.length] as Place
        measured[place.name] = await measure(place)
      }
      rounds.push(measured)
    }
    const plans: Record<string, string> = {}
    for (const place of places) plans[place.name] = await planOf(place)

    const inAll = (name: string) => (figure: keyof Measured) => median(rounds.map((r) => r[name]?.[figure] ?? NaN))
    for (const { name } of places) {
      const of = inAll(name)
      say(
        `${name.padEnd(16)} ${FIGURES.map((figure) => `${figure} ${of(figure).toFixed(3)} ms`).join(', ')} (medians of ${ROUNDS} rounds of ${PICKS_PER_ROUND})`,
      )
    }
    const ratiosTo = (to: string) => {
      const ratio = (figure: keyof Measured): number =>
        median(rounds.map((r) => (r['full']?.[figure] ?? NaN) / (r[to]?.[figure] ?? NaN)))
      return { look: ratio('lookMs'), pick: ratio('pickMs'), next: ratio('nextMs'), complete: ratio('completeMs') }
    }
    const ratios = Object.fromEntries(['unfinished only', 'empty'].map((to) => [to, ratiosTo(to)]))
    for (const [to, of] of Object.entries(ratios))
      say(
        `full ÷ ${to}: ${Object.entries(of)
          .map(([figure, ratio]) => `${figure} ${ratio.toFixed(2)}`)
          .join(', ')}`,
      )
    say(`\nThe pick where ${many(count)} are finished:\n${plans['full'] ?? ''}`)
    await keep(say, { due: { machine, finished: count, due: DUE, rounds, ratios, plans } })

    return verdict(say, {
      'the pick takes longer': !((ratios['unfinished only']?.pick ?? NaN) <= LIMIT),
      // In an empty table the pick has nothing to lease, so it is compared without the leases.
      'the look takes longer than in an empty table': !((ratios['empty']?.look ?? NaN) <= LIMIT),
      'the index of what is due is not used': plans['full']?.includes('landfall_operations_due') !== true,
      'the table is read as a whole': plans['full']?.includes('Seq Scan on landfall_operations') === true,
    })
  } finally {
    await Promise.all(places.map(({ pool }) => pool.end()))
    await postgres.stop()
  }
}

async function openPlace(
  url: string,
  { name, finished, due }: Pick<Place, 'name' | 'finished' | 'due'>,
): Promise<Place> {
  const pool = new Pool({ connectionString: url, max: 1 })
  const sent: { text: string; values: unknown[] }[] = []
  const logger = { logQuery: (text: string, values: unknown[]) => void sent.push({ text, values }) }
  const ledger = postgresLedger(drizzle(pool, { logger }))
  await ledger.migrate()
  const now = Date.now()
  // Uploads are created without a pause, and the due ones are spread among them.
  await pool.query(
    `INSERT INTO landfall_operations (owner, id, kind, point, file_name, file_size, file_type, metadata, validated, facts,
       "offset", blob_key, received_at, created_at, updated_at, expires_at, due_at)
     SELECT 'owner-' || (n % 1000), md5('id' || n), 'file', CASE WHEN is_due THEN 'received' ELSE 'completed' END, 'photo.jpg',
       100000, 'image/jpeg', '{}', '{}', 'file', 100000, md5('key' || n), CAST($1 AS bigint), $1, $1, $1, CASE WHEN is_due THEN $1 + n END
     FROM (SELECT n, n % CAST($2 AS integer) = 0 AS is_due FROM generate_series(1, CAST($3 AS integer)) AS n) AS numbers`,
    // The times begin as long ago as there are operations, so that all of them are due.
    [now - 2 * (finished + due) - 1_000, due === 0 ? 1 : (finished + due) / due, finished + due],
  )
  // This skips the trigger that counts what owners hold. A thousand calls of it in one transaction would have to skip a
  // thousand old rows.
  await pool.query(`SET session_replication_role = replica`)
  await pool.query(
    `INSERT INTO landfall_references (owner, operation_id, blob_key, size, type, digest, digest_source, stored_at, data)
     SELECT owner, id, blob_key, file_size, file_type, 'sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:', 'server',
       updated_at, 'null' FROM landfall_operations WHERE point = 'completed'`,
  )
  await pool.query(`SET session_replication_role = DEFAULT`)
  await pool.query('VACUUM ANALYZE landfall_operations')
  const { rows } = await pool.query<{ point: string; n: string }>(
    `SELECT point, COUNT(*) AS n FROM landfall_operations GROUP BY point`,
  )
  const counts = Object.fromEntries(rows.map(({ point, n }) => [point, Number(n)]))
  if ((counts['completed'] ?? 0) !== finished || (counts['received'] ?? 0) !== due)
    throw new Error(`${name} is not filled as it should be: ${JSON.stringify(counts)}`)
  return {
    name,
    finished,
    due,
    pool,
    ledger,
    statement(words) {
      const found = sent.findLast(({ text }) => text.includes(words))
      if (found === undefined) throw new Error(`no statement with: ${words}`)
      return found
    },
  }
}

async function measure({ name, due, pool, ledger, statement }: Place): Promise<Measured> {
  // The first statements after another ledger's turn are slower, because that turn has filled the caches.
  await ledger.nextDueInMs([])
  const pickMs = await eachMs(async () => {
    const taken = await ledger.leaseDue({ holder: 'bench', leaseMs: LEASE_MS, limit: HANDS, inUse: [] })
    if (taken.length !== Math.min(due, HANDS)) throw new Error(`${name}: ${taken.length} were taken`)
  })
  // The arguments of the selection come first in the statement that takes the leases.
  const { text, values } = statement('WITH due AS')
  const look = /^WITH due AS MATERIALIZED \((SELECT .* SKIP LOCKED)\)/s.exec(text)?.[1]
  if (look === undefined) throw new Error(`no pick in: ${text}`)
  return {
    lookMs: await eachMs(
      () => pool.query(look, values.slice(0, 3)),
      () => pool.query('BEGIN'),
      () => pool.query('ROLLBACK'),
    ),
    pickMs,
    nextMs: await eachMs(() => ledger.nextDueInMs([])),
    completeMs: await eachMs(() => ledger.complete(500)),
  }
}

const nothing = async (): Promise<void> => {}

/** The median of many calls. `before` and `after` are not measured. */
async function eachMs(
  work: () => Promise<unknown>,
  before: () => Promise<unknown> = nothing,
  after: () => Promise<unknown> = nothing,
): Promise<number> {
  const tookMs: number[] = []
  for (let n = 0; n < PICKS_PER_ROUND; n += 1) {
    await before()
    const startMs = performance.now()
    await work()
    tookMs.push(performance.now() - startMs)
    await after()
  }
  return median(tookMs)
}

/** The plan of the pick as it was sent last. The statement is executed and then rolled back. */
async function planOf({ pool, statement }: Place): Promise<string> {
  const { text, values } = statement('WITH due AS')
  await pool.query('BEGIN')
  try {
    const { rows } = await pool.query<{ 'QUERY PLAN': string }>(`EXPLAIN (ANALYZE, BUFFERS) ${text}`, values)
    return rows.map((row) => row['QUERY PLAN']).join('\n')
  } finally {
    await pool.query('ROLLBACK')
  }
}
