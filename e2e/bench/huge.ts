import { createHash, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { request } from 'node:http'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { GetObjectCommand, S3Client } from '@aws-sdk/client-s3'
import { TUS_CONTENT_TYPE, TUS_RESUMABLE } from '@landfall/shared'
import { Pool } from 'pg'
import { pseudoRandom, wireDigest } from '../ground/files.js'
import { type Ground, openGround } from '../ground/ground.js'
import { OWNER_HEADER } from '../ground/landfall.js'
import { ownHeaders } from '../clients/own-headers.js'
import type { RunningProcess } from '../ground/processes.js'
import { keep, loadNow, machineOf } from './kept.js'

const MIB = 1_048_576
const LIMIT_BYTES = 200 * MIB
const SAMPLE_MS = 50
const own = (node: RunningProcess) => ownHeaders(`${node.ready[1]}/uploads`, { [OWNER_HEADER]: 'bench' })

type Say = (text: string) => void

/**
 * `npm run bench -- --only huge [--count 5120]`: one upload of so many MiB in one request through one node on PostgreSQL
 * and S3 (the gateway's production store, on the disk), to its reference. The node's memory is looked at all the while.
 *
 * @returns false where it takes more than 200 MiB above idle, or what is stored is not what was sent.
 */
export async function benchHuge(count: number, say: Say): Promise<boolean> {
  const loadBefore = loadNow()
  const ground = await openGround('bluestore')
  const pool = new Pool({ connectionString: ground.databaseUrl, max: 1 })
  try {
    const node = await ground.startNode({ LANDFALL_LOG_LEVEL: 'warn' })
    const memory = watchMemory(node)
    const id = randomUUID()
    const sizeBytes = count * MIB
    await declare(node, id, sizeBytes)
    const startMs = performance.now()
    const sent = await send(node, id, sizeBytes)
    const acknowledgedMs = performance.now() - startMs
    const receivedPeakBytes = memory.peakBytes()
    const told = await untilReferenced(node, id)
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
    say(`Written to ${await keep({ huge: { machine: machineOf(loadBefore), ...figures, sent, stored } })}`)
    const wrong = [
      ...(peakBytes - idleBytes <= LIMIT_BYTES ? [] : [`${mebibytes(peakBytes - idleBytes)} above idle`]),
      ...(stored === sent && told === wireDigest(sent) ? [] : ['what is stored is not what was sent']),
    ]
    if (wrong.length > 0) say(`WRONG: ${wrong.join('; ')}`)
    return wrong.length === 0
  } finally {
    await pool.end()
    await ground.close()
  }
}

/** What it has now is idle. */
function watchMemory(node: RunningProcess) {
  const idleBytes = node.usage().residentBytes
  let most = idleBytes
  const timer = setInterval(() => (most = Math.max(most, node.usage().residentBytes)), SAMPLE_MS)
  return {
    peakBytes: () => most,
    end() {
      clearInterval(timer)
      // Between two looks there may have been more: the kernel's own mark says so, of all its life.
      return { idleBytes, peakBytes: Math.max(most, node.usage().peakResidentBytes) }
    },
  }
}

async function declare(node: RunningProcess, id: string, sizeBytes: number): Promise<void> {
  const answer = await fetch(`${node.ready[1]}/uploads/operations/${id}`, {
    method: 'PUT',
    headers: { ...(await own(node)), 'Content-Type': 'application/json' },
    body: JSON.stringify({ file: { name: 'huge.bin', size: sizeBytes, type: 'application/octet-stream' } }),
  })
  if (answer.status !== 201) throw new Error(`PUT was answered ${answer.status}: ${await answer.text()}`)
}

/** In one request; answers the SHA-256 of what went out. */
async function send(node: RunningProcess, id: string, sizeBytes: number): Promise<string> {
  const hash = createHash('sha256')
  const patch = request(`${node.ready[1]}/uploads/files/${id}`, {
    method: 'PATCH',
    headers: {
      ...(await own(node)),
      'Tus-Resumable': TUS_RESUMABLE,
      'Upload-Offset': '0',
      'Content-Type': TUS_CONTENT_TYPE,
      'Content-Length': String(sizeBytes),
    },
  })
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

/** Answers the digest of the reference. */
async function untilReferenced(node: RunningProcess, id: string): Promise<string> {
  for (;;) {
    const answer = await fetch(`${node.ready[1]}/uploads/operations/${id}?wait=20`, { headers: await own(node) })
    const { recoveryPoint, reference } = (await answer.json()) as {
      recoveryPoint: string
      reference: { digest: string } | null
    }
    if (reference !== null) return reference.digest
    if (recoveryPoint === 'rejected') throw new Error('it was rejected')
  }
}

async function digestOfObject(ground: Ground, pool: Pool, id: string): Promise<string> {
  const { rows } = await pool.query<{ key: string }>(
    `SELECT blob_key AS key FROM landfall_references WHERE operation_id = $1`,
    [id],
  )
  if (rows.length !== 1) throw new Error(`${rows.length} references`)
  const { endpoint, region, bucket: Bucket, accessKeyId, secretAccessKey } = ground.gateway
  const credentials = { accessKeyId, secretAccessKey }
  const client = new S3Client({ endpoint, region, forcePathStyle: true, credentials })
  const { Body } = await client.send(new GetObjectCommand({ Bucket, Key: `${ground.prefix}blobs/${rows[0]?.key}` }))
  if (!(Body instanceof Readable)) throw new TypeError('an object without a body')
  const hash = createHash('sha256')
  await pipeline(Body, hash)
  client.destroy()
  return hash.digest('hex')
}

const mebibytes = (bytes: number): string => `${(bytes / MIB).toFixed(0)} MiB`
const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`
