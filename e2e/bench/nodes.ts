import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { PutObjectCommand, S3Client } from '@aws-sdk/client-s3'
import { Pool } from 'pg'
import { pseudoRandomBytes, wireDigest } from '../ground/files.js'
import { type Ground, openGround } from '../ground/ground.js'
import { type Proxy, startProxy } from '../ground/proxy.js'
import { s3ConfigOf } from '../ground/s3.js'
import { startNode } from '../programs/nodes.js'
import { keep, machineNow, median, type Say } from './report.js'

const ROUNDS = 3
const NODES = [1, 2, 3] as const
const SIZE_BYTES = 4_096
const BYTES = pseudoRandomBytes(SIZE_BYTES, 'nodes')
const DIGEST = wireDigest(createHash('sha256').update(BYTES).digest('hex'))
const PUTS_AT_ONCE = 16
/** The delay in each direction. */
const FAR_MS = 40
/** All nodes notice at once that something is due. The default interval of 5 s would be measured too. */
const NODE = { LANDFALL_COMPLETER_INTERVAL_MS: '200', LANDFALL_LOG_LEVEL: 'warn' }
/**
 * Operations for each node before it is measured, because a process that has just started spends as much time on
 * compiling as on work.
 */
const WARM_UP = 400
const WITHIN_MS = 300_000

interface Run {
  readonly nodes: number
  readonly perSecond: number
  /** CPU time of all nodes for each operation. */
  readonly cpuMs: number
}

/**
 * `npm run bench -- --only nodes [--count 3000]` makes so many operations that are received, due and without a client.
 * The completers of one, two and three processes on one PostgreSQL and one object store drive them to their references,
 * in turns. This is measured once with the store on loopback, where everything shares this machine's cores. It is
 * measured again with an eighth of the operations and with each call of the store 80 ms away, where a node mostly
 * waits.
 *
 * @returns false if an operation does not have exactly one reference to the right bytes.
 */
export async function benchNodes(count: number, say: Say): Promise<boolean> {
  const machine = machineNow()
  const ground = await openGround()
  const far = await startProxy({ targetPort: ground.gateway.port })
  far.setLatency(FAR_MS)
  const pool = new Pool({ connectionString: ground.databaseUrl, max: 4 })
  try {
    // This start makes the tables.
    await (await startNode(ground, NODE)).kill()
    const series: Record<string, Run[]> = {}
    for (const [name, proxy, operations] of [
      ['near', null, count],
      ['far', far, Math.round(count / 8)],
    ] as const)
      for (let round = 0; round < ROUNDS; round += 1)
        for (let n = 0; n < NODES.length; n += 1) {
          const nodes = NODES[(n + round) % NODES.length] ?? 1
          const run = await drive({ ground, pool, proxy, owner: `${name}-${round}-${nodes}`, operations, nodes })
          ;(series[name] ??= []).push(run)
          say(
            `${name} ${round + 1}/${ROUNDS} ${nodes} nodes: ${run.perSecond.toFixed(0)}/s, CPU ${run.cpuMs.toFixed(2)} ms each`,
          )
        }
    const summary = Object.entries(series).flatMap(([name, runs]) => {
      const rate = (nodes: number): number => median(runs.filter((run) => run.nodes === nodes).map((r) => r.perSecond))
      return NODES.map((nodes) => ({ store: name, nodes, perSecond: rate(nodes), toOne: rate(nodes) / rate(1) }))
    })
    for (const { store, nodes, perSecond, toOne } of summary)
      say(`store ${store}, ${nodes} nodes: ${perSecond.toFixed(0)} operations/s, ${toOne.toFixed(2)} of one node`)
    say(`on ${machine.cpus} cores, which the nodes share with PostgreSQL and the store`)
    await keep(say, { nodes: { machine, operations: count, sizeBytes: SIZE_BYTES, summary, series } })
    return true
  } finally {
    await pool.end()
    await far.close()
    await ground.close()
  }
}

async function drive(of: {
  ground: Ground
  pool: Pool
  proxy: Proxy | null
  owner: string
  operations: number
  nodes: number
}): Promise<Run> {
  const { ground, pool, proxy, owner, operations } = of
  const warmUp = Math.round(Math.min(WARM_UP, operations / 4)) * of.nodes
  await fill(ground, pool, `${owner}-warm`, warmUp)
  await fill(ground, pool, owner, operations)
  const env = { ...NODE, ...(proxy === null ? {} : { LANDFALL_S3_ENDPOINT: proxy.origin }) }
  const nodes = await Promise.all(Array.from({ length: of.nodes }, () => startNode(ground, env)))
  const cpuMs = (): number => nodes.reduce((sum, node) => sum + node.usage().cpuMs, 0)
  await driven(pool, `${owner}-warm`, warmUp)
  const cpuBeforeMs = cpuMs()
  const tookMs = await driven(pool, owner, operations)
  const cpuUsedMs = cpuMs() - cpuBeforeMs
  await Promise.all(nodes.map((node) => node.kill()))
  return { nodes: of.nodes, perSecond: operations / (tookMs / 1_000), cpuMs: cpuUsedMs / operations }
}

/** Makes them due, and returns how long it took until each had its reference. */
async function driven(pool: Pool, owner: string, operations: number): Promise<number> {
  const { rows: begun } = await pool.query<{ at: string }>(
    `UPDATE landfall_operations SET due_at = CAST(EXTRACT(EPOCH FROM statement_timestamp()) * 1000 AS bigint) WHERE owner = $1
     RETURNING due_at AS at`,
    [owner],
  )
  for (const deadline = Date.now() + WITHIN_MS; ; await sleep(50)) {
    const { rows } = await pool.query(
      `SELECT 1 FROM landfall_operations WHERE owner = $1 AND point IN ('declared', 'received', 'sealed', 'verified') LIMIT 1`,
      [owner],
    )
    if (rows.length === 0) break
    if (Date.now() > deadline) throw new Error(`${owner}: not driven within ${WITHIN_MS} ms`)
  }
  const { rows } = await pool.query<{ n: string; until: string }>(
    `SELECT COUNT(*) AS n, MAX(r.stored_at) AS until FROM landfall_references r JOIN landfall_operations o
       ON o.owner = r.owner AND o.id = r.operation_id AND o.blob_key = r.blob_key AND o.point IN ('referenced', 'completed')
     WHERE r.owner = $1 AND r.size = $2 AND r.digest = $3`,
    [owner, SIZE_BYTES, DIGEST],
  )
  if (Number(rows[0]?.n) !== operations) throw new Error(`${owner}: ${rows[0]?.n} right references of ${operations}`)
  return Number(rows[0]?.until) - Number(begun[0]?.at)
}

/**
 * Operations that are received, as after a request whose server was killed before it continued. They are not due yet.
 */
async function fill(ground: Ground, pool: Pool, owner: string, operations: number): Promise<void> {
  const { rows } = await pool.query<{ key: string }>(
    `INSERT INTO landfall_operations (owner, id, kind, point, file_name, file_size, file_type, metadata, validated, facts,
       "offset", blob_key, received_at, created_at, updated_at, expires_at)
     SELECT $1, gen_random_uuid(), 'file', 'received', 'a.bin', $2, 'application/octet-stream', '{}', '{}', 'file',
       $2, REPLACE(CAST(gen_random_uuid() AS text), '-', ''), $3, $3, $3, $3
     FROM generate_series(1, CAST($4 AS integer)) RETURNING blob_key AS key`,
    [owner, SIZE_BYTES, Date.now(), operations],
  )
  const { bucket: Bucket } = ground.gateway
  const client = new S3Client(s3ConfigOf(ground.gateway))
  const put = async (): Promise<void> => {
    for (let row = rows.pop(); row !== undefined; row = rows.pop())
      await client.send(
        new PutObjectCommand({
          Bucket,
          Key: `${ground.prefix}blobs/${row.key}`,
          Body: BYTES,
          Metadata: { 'landfall-token': row.key },
        }),
      )
  }
  await Promise.all(Array.from({ length: PUTS_AT_ONCE }, put))
  client.destroy()
}
