import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { Client } from 'pg'
import type { Ground } from '../ground/ground.js'
import { nodeServer, originOf, portOf, startProcess } from '../ground/processes.js'
import { type Proxy, startProxy } from '../ground/proxy.js'
import { compiled } from '../ground/repository.js'
import { ARRIVALS } from '../programs/application-storage.js'
import type { ApplicationSettings } from '../programs/application.js'
import { type Lines, openLines } from '../programs/nodes.js'
import { startReceiver } from '../programs/receiver.js'
import { type Bucket, openBucket } from '../truth/bucket.js'

/** One of the two systems that are compared, with its processes and the lines that can be broken. */
export interface System extends Lines {
  readonly name: 'landfall' | 'peer'
  /** The URL for tus clients. Its line records requests and breaks nothing. */
  readonly endpoint: string
  readonly front: Proxy
  /** The `/uploads` URL of each node, which does not use the line in front of the nodes. */
  readonly nodes: readonly string[]
  query<Row extends object>(sql: string, values: readonly unknown[]): Promise<Row[]>
}

export interface Stage {
  readonly landfall: System
  readonly peer: System
  readonly ground: Ground
  /** The whole bucket. Landfall's objects have the ground's prefix, and those of the peer have none. */
  readonly bucket: Bucket
  /** The ids under which the effect of this operation was delivered. */
  effectsOf(operationId: string): ReadonlySet<string>
}

const NODES = 3
export const PART_BYTES = 5 * 1024 * 1024
const CALL_TIMEOUT_MS = 3_000

/**
 * Starts three nodes of an application with Landfall, and the usual stack, each with its own lines. Closing the ground
 * closes them.
 */
export async function openStage(ground: Ground): Promise<Stage> {
  const bucket = openBucket(ground.gateway, '')
  ground.defer(async () => bucket.end())
  const receiver = await startReceiver()
  ground.defer(receiver.close)

  async function open(
    name: System['name'],
    { count, path, program, args }: { count: number; path: string; program: string; args: readonly string[] },
  ): Promise<System> {
    const url = await ground.postgres.database()
    await query(url, ARRIVALS, [])
    const lines = await openLines(ground, url)
    const temporary = join(ground.directory, name)
    await mkdir(temporary)
    const env = {
      ...ground.env,
      ...lines.env,
      TMPDIR: temporary,
      PEER_PART_BYTES: String(PART_BYTES),
      PEER_CALL_TIMEOUT_MS: String(CALL_TIMEOUT_MS),
    }
    const start = () => startProcess(nodeServer(compiled(`programs/${program}`), args, env))
    const processes = await Promise.all(Array.from({ length: count }, start))
    ground.defer(() => Promise.all(processes.map((each) => each.kill('SIGKILL'))))
    const front = await startProxy({ targetPort: 0 })
    front.retarget(processes.map(portOf))
    ground.defer(front.close)
    return {
      ...lines,
      name,
      endpoint: `${front.origin}${path}`,
      front,
      nodes: processes.map((each) => `${originOf(each)}/uploads`),
      query: (sql, values) => query(url, sql, values),
    }
  }

  const settings: ApplicationSettings = {
    prefix: ground.prefix,
    partBytes: PART_BYTES,
    callTimeoutMs: CALL_TIMEOUT_MS,
    receivers: { webhook: receiver.url },
    leaseMs: 4_000,
    completerIntervalMs: 500,
    keepAlive: false,
  }
  const [landfall, peer] = await Promise.all([
    open('landfall', {
      count: NODES,
      path: '/uploads/files',
      program: 'application',
      args: [JSON.stringify(settings)],
    }),
    open('peer', { count: 1, path: '/files', program: 'tus-peer', args: ['tus-s3', join(ground.directory, 'peer')] }),
  ])
  return { landfall, peer, ground, bucket, effectsOf: (id) => receiver.received.get(id) ?? new Set() }
}

async function query<Row extends object>(url: string, sql: string, values: readonly unknown[]): Promise<Row[]> {
  const client = new Client({ connectionString: url })
  client.on('error', () => {})
  try {
    await client.connect()
    return (await client.query<Row>(sql, [...values])).rows
  } finally {
    await client.end()
  }
}
