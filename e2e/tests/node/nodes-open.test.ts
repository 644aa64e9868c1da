import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { type ClientRequest, type IncomingMessage, request } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { Readable } from 'node:stream'
import { GetObjectCommand, S3Client } from '@aws-sdk/client-s3'
import { TUS_CONTENT_TYPE, TUS_RESUMABLE } from '@landfall/shared'
import { Pool } from 'pg'
import { afterAll, describe, expect, test } from 'vitest'
import { pseudoRandomBytes, wireDigest } from '../../ground/files.js'
import { type Ground, openGround } from '../../ground/ground.js'
import { OWNER_HEADER } from '../../programs/landfall.js'
import { ownHeaders } from '../../clients/wire.js'
import { startNode } from '../../programs/nodes.js'
import { DONE_POINTS } from '../../truth/stored.js'

// More uploads open than there are connections, and more bytes of them than memory for them.

const NODES = 3
const UPLOADS = 1_000
const CONNECTIONS = 10
const KIB = 1_024
const SIZE_BYTES = 400 * KIB
const SENT_BYTES = 300 * KIB
const SMALL_BYTES = 10 * KIB
/** Of another request meanwhile. */
const ANSWERED_WITHIN_MS = 5_000
const AT_ONCE = 32

const opened = await openGround().catch((error: Error) => error)
const missing = opened instanceof Error ? ` (${opened.message})` : ''
afterAll(async () => {
  if (!(opened instanceof Error)) await opened.close()
})

interface Upload {
  readonly id: string
  readonly owner: string
  readonly origin: string
  readonly bytes: () => Buffer
}

describe.skipIf(opened instanceof Error)(`three nodes on PostgreSQL and S3${missing}`, () => {
  test('1,000 uploads open at once, with ten connections each', async () => {
    const ground = opened as Ground
    const env = { LANDFALL_DATABASE_CONNECTIONS: String(CONNECTIONS), LANDFALL_LOG_LEVEL: 'warn' }
    const nodes = await Promise.all(Array.from({ length: NODES }, () => startNode(ground, env)))
    const uploadOf = (n: number, size = SIZE_BYTES): Upload => ({
      id: idOf(n),
      // An owner may have 1,000 open.
      owner: `owner-${n % 7}`,
      origin: nodes[n % NODES]?.ready[1] ?? '',
      bytes: () => pseudoRandomBytes(size, `open ${n}`),
    })
    const uploads = Array.from({ length: UPLOADS }, (_, n) => uploadOf(n))
    const pool = new Pool({ connectionString: ground.databaseUrl, max: 2 })
    const connections = watchConnections(pool)
    try {
      await atOnce(uploads, (upload) => declare(upload, SIZE_BYTES))
      const patches = await Promise.all(uploads.map(begin))
      await Promise.all(patches.map(({ sent }) => sent))

      // Others get their turn while all of them begin, too.
      await sendSmall(uploadOf(UPLOADS, SMALL_BYTES))
      await untilAllAreOpen(pool)
      const tookMs: number[] = []
      for (let n = UPLOADS + 1; tookMs.length < 3 * NODES; n += 1) {
        const fromMs = performance.now()
        await sendSmall(uploadOf(n, SMALL_BYTES))
        tookMs.push(performance.now() - fromMs)
      }
      expect(Math.max(...tookMs)).toBeLessThan(ANSWERED_WITHIN_MS)
      expect(patches.filter(({ isAnswered }) => isAnswered())).toHaveLength(0)

      const answers = await Promise.all(patches.map(({ finish }) => finish()))
      expect(new Set(answers)).toEqual(new Set([`204 ${SIZE_BYTES}`]))
      const most = connections.end()
      expect([...most.keys()].toSorted()).toEqual(nodes.map((_, n) => `node-${n}`))
      for (const count of most.values()) expect(count).toBeLessThanOrEqual(CONNECTIONS)
      await untilReferenced(pool)
      expect(await referencesOf(ground, pool)).toEqual(
        new Map(uploads.map(({ id, bytes }) => [id, { references: 1, ...digestsOf(bytes()) }])),
      )
      for (const node of nodes) expect(node.output()).not.toMatch(/"level":(50|60)/)
    } finally {
      connections.end()
      await pool.end()
    }
  }, 300_000)
})

const idOf = (n: number): string => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`
const digestsOf = (bytes: Buffer) => {
  const sha256 = createHash('sha256').update(bytes).digest('hex')
  return { told: wireDigest(sha256), stored: sha256 }
}
const headersOf = ({ origin, owner }: Upload) => ownHeaders(`${origin}/uploads`, { [OWNER_HEADER]: owner })
const patchHeaders = async (upload: Upload, length: number) => ({
  ...(await headersOf(upload)),
  'Tus-Resumable': TUS_RESUMABLE,
  'Upload-Offset': '0',
  'Content-Type': TUS_CONTENT_TYPE,
  'Content-Length': String(length),
})

async function declare(upload: Upload, size: number): Promise<void> {
  const answer = await fetch(`${upload.origin}/uploads/operations/${upload.id}`, {
    method: 'PUT',
    headers: { ...(await headersOf(upload)), 'Content-Type': 'application/json' },
    body: JSON.stringify({ file: { name: 'a.bin', size, type: '' } }),
  })
  if (answer.status !== 201) throw new Error(`PUT was answered ${answer.status}: ${await answer.text()}`)
}

/** A PATCH that stays open behind its first bytes. */
async function begin(upload: Upload) {
  let answer: string | null = null
  const patch: ClientRequest = request(`${upload.origin}/uploads/files/${upload.id}`, {
    method: 'PATCH',
    agent: false,
    headers: await patchHeaders(upload, SIZE_BYTES),
  })
  const answered = once(patch, 'response').then(([response]) => {
    const { statusCode, headers } = response as IncomingMessage
    ;(response as IncomingMessage).resume()
    answer = `${statusCode} ${String(headers['upload-offset'])}`
    return answer
  })
  answered.catch(() => {})
  const write = (bytes: Buffer): Promise<void> =>
    new Promise((resolve, reject) => {
      patch.once('error', reject)
      patch.write(bytes, (error) => (error === null || error === undefined ? resolve() : reject(error)))
    })
  return {
    sent: write(upload.bytes().subarray(0, SENT_BYTES)),
    isAnswered: () => answer !== null,
    finish: () => {
      patch.end(upload.bytes().subarray(SENT_BYTES))
      return answered
    },
  }
}

/** A whole new upload, to its reference. */
async function sendSmall(upload: Upload): Promise<void> {
  await declare(upload, SMALL_BYTES)
  const answer = await fetch(`${upload.origin}/uploads/files/${upload.id}`, {
    method: 'PATCH',
    headers: await patchHeaders(upload, SMALL_BYTES),
    body: new Uint8Array(upload.bytes()),
  })
  expect([answer.status, answer.headers.get('Upload-Offset')]).toEqual([204, String(SMALL_BYTES)])
  // A busy node acknowledges the bytes before there is a reference; a client follows the operation to it.
  let point = answer.headers.get('Landfall-Recovery-Point') ?? ''
  for (const deadline = Date.now() + ANSWERED_WITHIN_MS; !DONE_POINTS.has(point);) {
    if (Date.now() > deadline) throw new Error(`a small upload is still ${point}`)
    const asked = await fetch(`${upload.origin}/uploads/operations/${upload.id}`, { headers: await headersOf(upload) })
    const operation = (await asked.json()) as { recoveryPoint: string }
    point = operation.recoveryPoint
    await sleep(10)
  }
}

/** The most that each node had at once. */
function watchConnections(pool: Pool) {
  const most = new Map<string, number>()
  const over = new AbortController()
  const watching = (async () => {
    while (!over.signal.aborted) {
      const { rows } = await pool.query<{ name: string; n: string }>(
        `SELECT application_name AS name, COUNT(*) AS n FROM pg_stat_activity WHERE application_name LIKE 'node-%' GROUP BY 1`,
      )
      for (const { name, n } of rows) most.set(name, Math.max(most.get(name) ?? 0, Number(n)))
      await sleep(50)
    }
  })()
  watching.catch(() => {})
  return {
    end() {
      over.abort()
      return most
    },
  }
}

/** What has come of each stands in the ledger, while its request goes on. */
async function untilAllAreOpen(pool: Pool): Promise<void> {
  for (const deadline = Date.now() + 120_000; ; await sleep(200)) {
    const { rows } = await pool.query<{ n: string }>(
      `SELECT COUNT(*) AS n FROM landfall_operations WHERE point = 'declared' AND "offset" = $1 AND lease_purpose = 'receive'`,
      [SENT_BYTES],
    )
    if (Number(rows[0]?.n) === UPLOADS) return
    if (Date.now() > deadline) throw new Error(`only ${rows[0]?.n} stand half way`)
  }
}

async function untilReferenced(pool: Pool): Promise<void> {
  for (const deadline = Date.now() + 60_000; ; await sleep(200)) {
    const { rows } = await pool.query<{ n: string }>(
      `SELECT COUNT(*) AS n FROM landfall_operations WHERE point NOT IN ('referenced', 'completed')`,
    )
    if (Number(rows[0]?.n) === 0) return
    if (Date.now() > deadline) throw new Error(`${rows[0]?.n} have no reference`)
  }
}

/** What the database and the bucket say of each of the large ones. */
async function referencesOf(ground: Ground, pool: Pool) {
  const { rows } = await pool.query<{ id: string; n: string; key: string; told: string }>(
    `SELECT o.id, COUNT(*) AS n, MAX(r.blob_key) AS key, MAX(r.digest) AS told FROM landfall_operations o
       JOIN landfall_references r ON r.owner = o.owner AND r.operation_id = o.id WHERE o.file_size = $1 GROUP BY o.id`,
    [SIZE_BYTES],
  )
  const { endpoint, region, bucket: Bucket, accessKeyId, secretAccessKey } = ground.gateway
  const credentials = { accessKeyId, secretAccessKey }
  const client = new S3Client({ endpoint, region, forcePathStyle: true, credentials })
  const found = new Map<string, { references: number; told: string; stored: string }>()
  await atOnce(rows, async ({ id, n, key, told }) => {
    const { Body } = await client.send(new GetObjectCommand({ Bucket, Key: `${ground.prefix}blobs/${key}` }))
    if (!(Body instanceof Readable)) throw new TypeError('an object without a body')
    const hash = createHash('sha256')
    for await (const chunk of Body) hash.update(chunk as Buffer)
    found.set(id, { references: Number(n), told, stored: hash.digest('hex') })
  })
  client.destroy()
  return found
}

async function atOnce<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const rest = [...items]
  const lane = async (): Promise<void> => {
    for (let item = rest.pop(); item !== undefined; item = rest.pop()) await work(item)
  }
  await Promise.all(Array.from({ length: AT_ONCE }, lane))
}
