import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { Pool } from 'pg'
import { expectStatus, wireTo } from '../clients/wire.js'
import { pseudoRandomBytes } from '../ground/files.js'
import { openGround } from '../ground/ground.js'
import { originOf } from '../ground/processes.js'
import { startProxy } from '../ground/proxy.js'
import { OWNER_HEADER } from '../programs/landfall.js'
import { startNode } from '../programs/nodes.js'
import { keep, machineNow, many, type Say, verdict } from './report.js'

const RUN_MS = 600_000
const LIMIT_CALLS = 1_000
const MIB = 1_048_576
/** One part is stored, and a piece of the next part. */
const FILE_BYTES = 20 * MIB
const SENT_BYTES = 9 * MIB
const OF_ONE_OWNER = 1_000
/** How many owners ask for their open operations, spread over the time. */
const ASKING = 60

/**
 * `npm run bench -- --only idle [--count 100000]` makes so many open S3 uploads, each with a part and a piece in the
 * store as the server itself leaves them. A node's completer then runs for ten minutes, while owners ask for their open
 * operations. A proxy in front of the store counts the calls.
 *
 * @returns false if there are 1,000 calls or more, or if one of them was made to answer an owner.
 */
export async function benchIdle(count: number, say: Say): Promise<boolean> {
  const machine = machineNow()
  const ground = await openGround()
  const store = await startProxy({ targetPort: ground.gateway.port })
  const pool = new Pool({ connectionString: ground.databaseUrl, max: 2 })
  try {
    const node = await startNode(ground, { LANDFALL_S3_ENDPOINT: store.origin, LANDFALL_LOG_LEVEL: 'warn' })
    const origin = originOf(node)
    const owners = Math.ceil(count / OF_ONE_OWNER)
    const lastOwner = `owner-${owners - 1}`
    await leaveOpen(origin, lastOwner)
    await copyOpen(pool, count)
    say(`${many(count)} uploads are open. The completer runs for ${RUN_MS / 60_000} minutes`)

    store.forget()
    let listed = 0
    let listedMs = 0
    let callsMeanwhile = 0
    // The node reads its own marks (`store.json`, `mark.json`) at fixed times, and not because an owner asks.
    const callsForUploads = (): number => store.requests.filter(({ path }) => !isOfTheStore(path)).length
    for (let n = 0; n < ASKING; n += 1) {
      await sleep(RUN_MS / ASKING)
      const before = callsForUploads()
      const startMs = performance.now()
      listed += await listOpen(origin, `owner-${n % owners}`)
      listedMs += performance.now() - startMs
      // A call that the completer makes for uploads would count too. The result is valid because there is none.
      callsMeanwhile += callsForUploads() - before
    }
    const kinds: Record<string, number> = {}
    for (const { method, path } of store.requests) {
      const name = path.split('?')[0]?.split('/').at(-1) ?? ''
      const kind = `${method} ${name.endsWith('.json') ? name : path.includes('/blobs/') ? 'a blob' : 'other'}`
      kinds[kind] = (kinds[kind] ?? 0) + 1
    }
    const calls = store.requests.length
    const { rows } = await pool.query<{ n: string }>(
      `SELECT COUNT(*) AS n FROM landfall_operations WHERE point = 'declared' AND "offset" = $1 AND lease_token = (
         SELECT MIN(lease_token) FROM landfall_operations)`,
      [SENT_BYTES],
    )
    const untouched = Number(rows[0]?.n)
    say(`${calls} calls of the store in ${RUN_MS / 60_000} minutes: ${JSON.stringify(kinds)}`)
    say(
      `?open: ${many(listed)} operations listed in ${ASKING} times, ${(listedMs / ASKING).toFixed(0)} ms each, ` +
        `${callsMeanwhile} calls of the store in that time`,
    )
    const figures = { open: count, runMs: RUN_MS, calls, kinds, listed, callsMeanwhile, untouched }
    await keep(say, { idle: { machine, ...figures } })
    return verdict(say, {
      [`${calls} calls`]: calls >= LIMIT_CALLS,
      [`${callsMeanwhile} calls while ?open was answered`]: callsMeanwhile > 0,
      [`${listed} were listed`]: listed !== ASKING * OF_ONE_OWNER,
      [`${untouched} are as they were`]: untouched !== count,
    })
  } finally {
    await pool.end()
    await ground.close()
    await store.close()
  }
}

const isOfTheStore = (path: string): boolean => path.split('?')[0]?.endsWith('.json') === true

/** One upload in the state in which a client leaves it that goes away in the middle. */
async function leaveOpen(origin: string, owner: string): Promise<void> {
  const id = randomUUID()
  const wire = wireTo(`${origin}/uploads`, { [OWNER_HEADER]: owner })
  await expectStatus(await wire.declare(id, FILE_BYTES), 201)
  await expectStatus(await wire.send(id, 0, pseudoRandomBytes(SENT_BYTES, 'idle')), 204)
}

/** Copies the row of that upload for so many others. */
async function copyOpen(pool: Pool, count: number): Promise<void> {
  const { rows } = await pool.query<{ name: string }>(
    `SELECT column_name AS name FROM information_schema.columns
     WHERE table_schema = current_schema() AND table_name = 'landfall_operations' ORDER BY ordinal_position`,
  )
  const own: Readonly<Record<string, string>> = {
    owner: `'owner-' || ((n - 1) / ${OF_ONE_OWNER})`,
    id: `CAST(gen_random_uuid() AS text)`,
    blob_key: `REPLACE(CAST(gen_random_uuid() AS text), '-', '')`,
  }
  const names = rows.map(({ name }) => `"${name}"`)
  const values = rows.map(({ name }) => own[name] ?? `o."${name}"`)
  await pool.query(
    `INSERT INTO landfall_operations (${names.join(', ')}) SELECT ${values.join(', ')}
     FROM landfall_operations o CROSS JOIN generate_series(1, CAST($1 AS integer)) AS n`,
    [count - 1],
  )
  await pool.query('VACUUM ANALYZE landfall_operations')
  const found = await pool.query<{ n: string; due: string }>(
    `SELECT COUNT(*) AS n, COUNT(due_at) AS due FROM landfall_operations WHERE blob_state LIKE '%uploadId%' AND point = 'declared'`,
  )
  if (Number(found.rows[0]?.n) !== count || Number(found.rows[0]?.due) !== count)
    throw new Error(`not as the store leaves them: ${JSON.stringify(found.rows[0])}`)
}

/** Requests all pages of an owner's open operations. */
async function listOpen(origin: string, owner: string): Promise<number> {
  let listed = 0
  for (let after = ''; ;) {
    const asked = await fetch(`${origin}/uploads/operations?open${after}`, { headers: { [OWNER_HEADER]: owner } })
    const page = (await (await expectStatus(asked, 200)).json()) as { operations: { id: string }[]; next?: string }
    listed += page.operations.length
    if (page.next === undefined) return listed
    after = `&after=${page.next}`
  }
}
