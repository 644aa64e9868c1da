import { createServer } from 'node:http'
import { S3 } from '@aws-sdk/client-s3'
import { Client } from 'pg'
import { temporaryDirectory } from '../ground/files.js'
import { repository } from '../ground/landfall.js'
import type { NodeAppSettings } from '../programs/node-app.js'
import { ARRIVALS } from '../programs/node-settings.js'
import { listen } from '../ground/ports.js'
import { type Postgres, startPostgres } from '../ground/postgres.js'
import { type RunningProcess, startProcess } from '../ground/processes.js'
import { type Proxy, startProxy } from '../ground/proxy.js'
import type { Gateway } from '../ground/s3.js'
import type { TusS3PeerSettings } from '../programs/tus-s3-peer.js'

export type SystemName = 'landfall' | 'peer'

/** One of the two that are put side by side: its processes, and the lines that can be broken. */
export interface System {
  readonly name: SystemName
  /** Where tus clients go, on a line that only looks. */
  readonly endpoint: string
  readonly front: Proxy
  /** To the object store. */
  readonly store: Proxy
  /** To PostgreSQL. */
  readonly database: Proxy
  /** `/uploads` of each node, past the line before them. */
  readonly nodes: readonly string[]
  query<Row extends object>(sql: string, values: readonly unknown[]): Promise<Row[]>
  output(): string
}

export interface Stage {
  readonly landfall: System
  readonly peer: System
  readonly postgres: Postgres
  readonly s3: S3
  readonly bucket: string
  /** Before the names of Landfall's objects. */
  readonly prefix: string
  /** Ids under which the effect of this operation was delivered. */
  effectsOf(operationId: string): ReadonlySet<string>
  close(): Promise<void>
}

const NODES = 3
export const PART_BYTES = 5 * 1024 * 1024
const CALL_TIMEOUT_MS = 3_000
const LEASE_MS = 4_000
const PREFIX = 'landfall/'

/** Three nodes of an application with Landfall, and the usual stack; each on its own lines to one object store. */
export async function openStage(gateway: Gateway): Promise<Stage> {
  const home = await temporaryDirectory('landfall-faults-')
  const postgres = await startPostgres()
  const { endpoint, region, bucket, accessKeyId, secretAccessKey } = gateway
  const s3 = new S3({ endpoint, region, forcePathStyle: true, credentials: { accessKeyId, secretAccessKey } })
  const receiver = await startReceiver()
  const closing: (() => Promise<unknown>)[] = []

  async function open(
    name: SystemName,
    count: number,
    path: string,
    start: (settings: TusS3PeerSettings) => { program: string; settings: object },
  ): Promise<System> {
    const url = await postgres.database()
    await query(url, ARRIVALS, [])
    const store = await startProxy({ targetPort: gateway.port })
    const database = await startProxy({ targetPort: postgres.port, protocol: 'opaque' })
    const { program, settings } = start({
      databaseUrl: url.replace(`:${postgres.port}/`, `:${database.port}/`),
      s3: { endpoint: store.origin, region, bucket, accessKeyId, secretAccessKey },
      callTimeoutMs: CALL_TIMEOUT_MS,
      partBytes: PART_BYTES,
    })
    const processes: RunningProcess[] = await Promise.all(
      Array.from({ length: count }, () =>
        startProcess({
          name: program,
          command: process.execPath,
          args: [`${repository}e2e/dist/programs/${program}.js`, JSON.stringify(settings)],
          env: { TMPDIR: home.path },
          ready: /http:\/\/127\.0\.0\.1:(\d+)/,
        }),
      ),
    )
    const ports = processes.map(({ ready }) => Number(ready[1]))
    const front = await startProxy({ targetPort: ports[0] ?? 0 })
    front.retarget(ports)
    closing.push(async () => {
      await Promise.all(processes.map((each) => each.kill('SIGKILL')))
      await Promise.all([front, store, database].map((proxy) => proxy.close()))
    })
    return {
      name,
      endpoint: `${front.origin}${path}`,
      front,
      store,
      database,
      nodes: ports.map((port) => `http://127.0.0.1:${port}/uploads`),
      query: (sql, values) => query(url, sql, values),
      output: () => processes.map((each) => each.output().slice(-4_000)).join('\n'),
    }
  }

  const [landfall, peer] = await Promise.all([
    open('landfall', NODES, '/uploads/files', (node) => {
      const settings = {
        ...node,
        prefix: PREFIX,
        receiver: receiver.url,
        leaseMs: LEASE_MS,
        completerIntervalMs: 500,
      } satisfies NodeAppSettings
      return { program: 'node-app', settings }
    }),
    open('peer', 1, '/files', (settings) => ({ program: 'tus-s3-peer', settings })),
  ])

  return {
    landfall,
    peer,
    postgres,
    s3,
    bucket,
    prefix: PREFIX,
    effectsOf: (id) => receiver.delivered.get(id) ?? new Set(),
    async close() {
      await Promise.all(closing.map((close) => close()))
      s3.destroy()
      await receiver.close()
      await postgres.stop()
      await home.remove()
    },
  }
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

/** Takes effects, and remembers under which ids they came. */
async function startReceiver() {
  const delivered = new Map<string, Set<string>>()
  const server = createServer((request, response) => {
    let text = ''
    request.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
    request.on('end', () => {
      const { operationId } = JSON.parse(text) as { operationId: string }
      const ids = delivered.get(operationId) ?? new Set()
      delivered.set(operationId, ids.add(String(request.headers['webhook-id'])))
      response.writeHead(204).end()
    })
  })
  const port = await listen(server)
  return {
    url: `http://127.0.0.1:${port}/`,
    delivered,
    async close() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
