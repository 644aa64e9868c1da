import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { TUS_CONTENT_TYPE, TUS_RESUMABLE } from '@landfall/shared'
import { Pool } from 'pg'
import { pseudoRandomBytes } from '../ground/files.js'
import { openGround } from '../ground/ground.js'
import { OWNER_HEADER } from '../ground/landfall.js'
import { ownHeaders } from '../clients/own-headers.js'
import { startProxy } from '../ground/proxy.js'
import { keep, loadNow, machineOf } from './kept.js'

const RUN_MS = 600_000
const LIMIT_CALLS = 1_000
const MIB = 1_048_576
/** One part is stored, and a piece of the next. */
const FILE_BYTES = 20 * MIB
const SENT_BYTES = 9 * MIB
const OF_ONE_OWNER = 1_000
/** How many owners ask for what they have open, spread over the time. */
const ASKING = 60

type Say = (text: string) => void

/**
 * `npm run bench -- --only idle [--count 100000]`: as many S3 uploads that stand open, each with a part and a piece in the
 * store as the server itself leaves them, while a node's completer runs for ten minutes and their owners ask for what they
 * have open. A proxy before the store counts the calls.
 *
 * @returns false where there are 1,000 or more, or one of them is for somebody who asks.
 */
export async function benchIdle(count: number, say: Say): Promise<boolean> {
  const loadBefore = loadNow()
  const ground = await openGround()
  const store = await startProxy({ targetPort: ground.gateway.port })
  const pool = new Pool({ connectionString: ground.databaseUrl, max: 2 })
  try {
    const node = await ground.startNode({ LANDFALL_S3_ENDPOINT: store.origin, LANDFALL_LOG_LEVEL: 'warn' })
    const origin = node.ready[1] ?? ''
    const owners = Math.ceil(count / OF_ONE_OWNER)
    const lastOwner = `owner-${owners - 1}`
    await leaveOpen(origin, lastOwner)
    await copyOpen(pool, count)
    say(`${count.toLocaleString('en')} uploads stand open; the completer runs for ${RUN_MS / 60_000} minutes`)

    store.forget()
    let listed = 0
    let listedMs = 0
    let callsMeanwhile = 0
    // Its own marks (`store.json`, `mark.json`) the node looks after by the clock, whoever asks.
    const callsForUploads = (): number => store.requests.filter(({ path }) => !isOfTheStore(path)).length
    for (let n = 0; n < ASKING; n += 1) {
      await sleep(RUN_MS / ASKING)
      const before = callsForUploads()
      const startMs = performance.now()
      listed += await listOpen(origin, `owner-${n % owners}`)
      listedMs += performance.now() - startMs
      // What the completer does for uploads beside it would count, too: no call at all is the proof.
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
      `?open: ${listed.toLocaleString('en')} operations listed in ${ASKING} times, ${(listedMs / ASKING).toFixed(0)} ms each, ` +
        `${callsMeanwhile} calls of the store meanwhile`,
    )
    const path = await keep({
      idle: {
        machine: machineOf(loadBefore),
        open: count,
        runMs: RUN_MS,
        calls,
        kinds,
        listed,
        callsMeanwhile,
        untouched,
      },
    })
    say(`Written to ${path}`)
    const wrong = [
      ...(calls < LIMIT_CALLS ? [] : [`${calls} calls`]),
      ...(callsMeanwhile === 0 ? [] : [`${callsMeanwhile} calls while ?open was answered`]),
      ...(listed === ASKING * OF_ONE_OWNER ? [] : [`${listed} were listed`]),
      ...(untouched === count ? [] : [`${untouched} stand as they stood`]),
    ]
    if (wrong.length > 0) say(`WRONG: ${wrong.join('; ')}`)
    return wrong.length === 0
  } finally {
    await pool.end()
    await ground.close()
    await store.close()
  }
}

const isOfTheStore = (path: string): boolean => path.split('?')[0]?.endsWith('.json') === true

const headersOf = (origin: string, owner: string) => ownHeaders(`${origin}/uploads`, { [OWNER_HEADER]: owner })

/** One upload as a client leaves it that went away in the middle. */
async function leaveOpen(origin: string, owner: string): Promise<void> {
  const id = randomUUID()
  const declared = await fetch(`${origin}/uploads/operations/${id}`, {
    method: 'PUT',
    headers: { ...(await headersOf(origin, owner)), 'Content-Type': 'application/json' },
    body: JSON.stringify({ file: { name: 'a.bin', size: FILE_BYTES, type: '' } }),
  })
  if (declared.status !== 201) throw new Error(`PUT was answered ${declared.status}: ${await declared.text()}`)
  const patched = await fetch(`${origin}/uploads/files/${id}`, {
    method: 'PATCH',
    headers: {
      ...(await headersOf(origin, owner)),
      'Tus-Resumable': TUS_RESUMABLE,
      'Upload-Offset': '0',
      'Content-Type': TUS_CONTENT_TYPE,
    },
    body: new Uint8Array(pseudoRandomBytes(SENT_BYTES, 'idle')),
  })
  if (patched.status !== 204) throw new Error(`PATCH was answered ${patched.status}: ${await patched.text()}`)
}

/** The same row for so many others. */
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

/** All pages of what an owner has open. */
async function listOpen(origin: string, owner: string): Promise<number> {
  let listed = 0
  for (let after = ''; ;) {
    const answer = await fetch(`${origin}/uploads/operations?open${after}`, { headers: { [OWNER_HEADER]: owner } })
    if (answer.status !== 200) throw new Error(`?open was answered ${answer.status}: ${await answer.text()}`)
    const page = (await answer.json()) as { operations: { id: string }[]; next?: string }
    listed += page.operations.length
    if (page.next === undefined) return listed
    after = `&after=${page.next}`
  }
}
