import { openGround } from './ground.js'
import { type Postgres, startPostgres } from './postgres.js'
import { type ProcessOptions, type RunningProcess, startProcess } from './processes.js'
import { type Proxy, startProxy } from './proxy.js'
import { type Daemon, gatewayPlace, type GatewayStore, startGateway, stopGateway } from './s3.js'
import { openBucket } from '../truth/bucket.js'
import { type NodesReader, openNodesReader } from '../truth/nodes-reader.js'

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
  const ground = await openGround(store)
  const { postgres, gateway, databaseUrl, prefix, defer, close, killGateway, mendGateway } = ground
  try {
    const reader = openNodesReader(databaseUrl, openBucket(gateway, prefix))
    defer(reader.end)

    async function openNode(n: number): Promise<Node> {
      const database = await startProxy({ targetPort: postgres.port, protocol: 'opaque' })
      defer(database.close)
      const objects = await startProxy({ targetPort: gateway.port })
      defer(objects.close)
      const serving = await ground.serving(`node-${n}`, {
        LANDFALL_DATABASE_URL: databaseUrl.replace(`:${postgres.port}/`, `:${database.port}/`),
        LANDFALL_S3_ENDPOINT: objects.origin,
        ...env,
      })
      const server = await startProcess(program(serving, n))
      defer(() => server.kill('SIGKILL'))
      return { server, directory: serving.env?.['LANDFALL_DATA_DIR'] ?? '', database, store: objects }
    }
    const all = await Promise.all(Array.from({ length: count }, (_, n) => openNode(n)))
    return { all, postgres, databaseUrl, killGateway, mendGateway, reader, close }
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
