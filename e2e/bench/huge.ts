import { createHash, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { Pool } from 'pg'
import { expectStatus, type Wire, wireTo } from '../clients/wire.js'
import { pseudoRandom, wireDigest } from '../ground/files.js'
import { type Ground, openGround } from '../ground/ground.js'
import { originOf, type RunningProcess } from '../ground/processes.js'
import { OWNER_HEADER } from '../programs/landfall.js'
import { startNode } from '../programs/nodes.js'
import { openBucket } from '../truth/bucket.js'
import { keep, machineNow, mebibytes, type Say, seconds, verdict } from './report.js'

const MIB = 1_048_576
const LIMIT_BYTES = 200 * MIB
const SAMPLE_MS = 50

/**
 * `npm run bench -- --only huge [--count 5120]` makes one upload of `--count` MiB in one request, through one node on
 * PostgreSQL and S3 (the gateway's production store, on the disk), up to its reference. The node's memory is measured
 * all the time.
 *
 * @returns false if the node takes more than 200 MiB above idle, or if what is stored is not what was sent.
 */
export async function benchHuge(count: number, say: Say): Promise<boolean> {
  const machine = machineNow()
  const ground = await openGround('bluestore')
  const pool = new Pool({ connectionString: ground.databaseUrl, max: 1 })
  try {
    const node = await startNode(ground, { LANDFALL_LOG_LEVEL: 'warn' })
    const memory = watchMemory(node)
    const wire = wireTo(`${originOf(node)}/uploads`, { [OWNER_HEADER]: 'bench' })
    const id = randomUUID()
    const sizeBytes = count * MIB
    await expectStatus(await wire.declare(id, sizeBytes), 201)
    const startMs = performance.now()
    const sent = await send(wire, id, sizeBytes)
    const acknowledgedMs = performance.now() - startMs
    const receivedPeakBytes = memory.peakBytes()
    const told = await untilReferenced(wire, id)
    const referencedMs = performance.now() - startMs
    const { idleBytes, peakBytes } = memory.end()
    const stored = await digestOfObject(ground, pool, id)
    say(
      `${count} MiB acknowledged after ${seconds(acknowledgedMs)} (${(count / (acknowledgedMs / 1000)).toFixed(0)} MiB/s), ` +
        `referenced after ${seconds(referencedMs)}`,
    )
    say(
      `memory of the node: idle ${mebibytes(idleBytes)}, at most ${mebibytes(receivedPeakBytes)} while it came, ` +
        `${mebibytes(peakBytes)} in all: ${mebibytes(peakBytes - idleBytes)} above idle`,
    )
    say(`SHA-256 of the source ${sent}, of the object ${stored}, told ${told}`)
    const figures = { sizeBytes, acknowledgedMs, referencedMs, idleBytes, receivedPeakBytes, peakBytes }
    await keep(say, { huge: { machine, ...figures, sent, stored } })
    return verdict(say, {
      [`${mebibytes(peakBytes - idleBytes)} above idle`]: peakBytes - idleBytes > LIMIT_BYTES,
      'what is stored is not what was sent': stored !== sent || told !== wireDigest(sent),
    })
  } finally {
    await pool.end()
    await ground.close()
  }
}

/** Measures the memory of a node. What it uses at the call counts as idle. */
function watchMemory(node: RunningProcess) {
  const idleBytes = node.usage().residentBytes
  let most = idleBytes
  const timer = setInterval(() => (most = Math.max(most, node.usage().residentBytes)), SAMPLE_MS)
  return {
    peakBytes: () => most,
    end() {
      clearInterval(timer)
      // There may have been more between two samples. The kernel's own peak shows it, for the whole life of the
      // process.
      return { idleBytes, peakBytes: Math.max(most, node.usage().peakResidentBytes) }
    },
  }
}

/** Sends all bytes in one request, and returns the SHA-256 of what was sent. */
async function send(wire: Wire, id: string, sizeBytes: number): Promise<string> {
  const hash = createHash('sha256')
  const patch = await wire.beginPatch(id, sizeBytes)
  const answered = once(patch, 'response') as Promise<[{ statusCode?: number; resume(): void }]>
  answered.catch(() => {})
  for (const block of pseudoRandom(sizeBytes, 'huge')) {
    hash.update(block)
    if (!patch.write(block)) await once(patch, 'drain')
  }
  patch.end()
  const [answer] = await answered
  answer.resume()
  if (answer.statusCode !== 204) throw new Error(`PATCH was answered ${answer.statusCode}`)
  return hash.digest('hex')
}

/** Waits for the reference, and returns its digest. */
async function untilReferenced(wire: Wire, id: string): Promise<string> {
  for (;;) {
    const { recoveryPoint, reference } = await wire.ask(id, 20)
    if (reference !== null && reference !== undefined) return reference.digest
    if (recoveryPoint === 'rejected') throw new Error('it was rejected')
  }
}

async function digestOfObject(ground: Ground, pool: Pool, id: string): Promise<string | null> {
  const { rows } = await pool.query<{ key: string }>(
    `SELECT blob_key AS key FROM landfall_references WHERE operation_id = $1`,
    [id],
  )
  if (rows.length !== 1) throw new Error(`${rows.length} references`)
  const bucket = openBucket(ground.gateway, ground.prefix)
  const digest = await bucket.digestOf(`blobs/${rows[0]?.key}`)
  bucket.end()
  return digest
}
