import { randomUUID } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { temporaryDirectory } from '../files.js'
import { landfallServe } from '../landfall.js'
import { type Postgres, startPostgres } from '../postgres.js'
import { type ProcessOptions, type RunningProcess, startProcess } from '../processes.js'
import { type Proxy, startProxy } from '../proxy.js'
import { type Daemon, gatewayPlace, type GatewayStore, startGateway, stopGateway } from '../s3.js'
import { openBucket } from './bucket.js'
import { type NodesReader, openNodesReader } from './reader.js'

/** One `landfall serve` of several, with lines of its own to what they share. */
export interface Node {
  readonly server: RunningProcess
  readonly directory: string
  /** Before PostgreSQL. */
  readonly database: Proxy
  /** Before the object store. */
  readonly store: Proxy
}

/** Several nodes on one PostgreSQL and one bucket, all their own. */
export interface Nodes {
  readonly all: readonly Node[]
  readonly postgres: Postgres
  /** Of the database that they share, past their lines. */
  readonly databaseUrl: string
  /** `kill -9`. */
  killGateway(...daemons: readonly Daemon[]): void
  /** Starts what of it does not run; resolves when it takes objects again. */
  mendGateway(): Promise<void>
  readonly reader: NodesReader
  close(): Promise<void>
}

export interface NodesOptions {
  readonly count: number
  readonly store: GatewayStore
  /** Added to each node's environment. */
  readonly env: Readonly<Record<string, string>>
  /** How a node is started, made of how it would be. */
  readonly program?: (options: ProcessOptions, node: number) => ProcessOptions
}

/** @throws when PostgreSQL or the gateway cannot be started: the reason for tests to be skipped */
export async function openNodes({ count, store, env, program = (options) => options }: NodesOptions): Promise<Nodes> {
  const closing: (() => Promise<unknown>)[] = []
  const close = async (): Promise<void> => {
    for (const end of closing.splice(0).toReversed()) await end()
  }
  try {
    const home = await temporaryDirectory('landfall-nodes-')
    closing.push(home.remove)
    const postgres = await startPostgres()
    closing.push(postgres.stop)
    const place = await gatewayPlace(store)
    closing.push(() => stopGateway(place))
    let gateway = await startGateway(place)
    // Its daemons are nobody's children: who ends without `close` would leave them behind.
    const onExit = (): void => gateway.kill('rgw', 'osd', 'mon')
    process.on('exit', onExit)
    closing.push(async () => void process.off('exit', onExit))
    const url = await postgres.database()
    const prefix = `${randomUUID()}/`
    const reader = openNodesReader(url, openBucket(gateway, prefix))
    closing.push(reader.end)

    async function openNode(n: number): Promise<Node> {
      const directory = join(home.path, `node-${n}`)
      await mkdir(directory)
      const database = await startProxy({ targetPort: postgres.port, protocol: 'opaque' })
      closing.push(database.close)
      const objects = await startProxy({ targetPort: place.port })
      closing.push(objects.close)
      const serving = landfallServe(directory, {
        LANDFALL_DATABASE_URL: url.replace(`:${postgres.port}/`, `:${database.port}/`),
        LANDFALL_S3_ENDPOINT: objects.origin,
        LANDFALL_S3_REGION: gateway.region,
        LANDFALL_S3_BUCKET: gateway.bucket,
        LANDFALL_S3_ACCESS_KEY_ID: gateway.accessKeyId,
        LANDFALL_S3_SECRET_ACCESS_KEY: gateway.secretAccessKey,
        LANDFALL_S3_PREFIX: prefix,
        ...env,
      })
      const server = await startProcess(program({ ...serving, name: `node ${n}` }, n))
      closing.push(() => server.kill('SIGKILL'))
      return { server, directory, database, store: objects }
    }
    const all = await Promise.all(Array.from({ length: count }, (_, n) => openNode(n)))
    return {
      all,
      postgres,
      databaseUrl: url,
      killGateway: (...daemons) => gateway.kill(...daemons),
      async mendGateway() {
        gateway = await startGateway(place)
      },
      reader,
      close,
    }
  } catch (error) {
    await close()
    throw error
  }
}

/** Why there can be no nodes on this machine; null: there can. */
export async function nodesMissing(): Promise<string | null> {
  try {
    await (await startPostgres()).stop()
    const place = await gatewayPlace()
    try {
      await startGateway(place)
    } finally {
      await stopGateway(place)
    }
    return null
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}
