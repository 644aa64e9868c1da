import { randomUUID } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { temporaryDirectory } from './files.js'
import { landfallServe } from './landfall.js'
import { type Postgres, startPostgres } from './postgres.js'
import { type RunningProcess, startProcess } from './processes.js'
import { type Gateway, gatewayPlace, type GatewayStore, startGateway, stopGateway } from './s3.js'

/** What several nodes stand on: one PostgreSQL and one bucket, both their own. */
export interface Ground {
  readonly postgres: Postgres
  readonly gateway: Gateway
  /** Of the nodes' ledger; connections of node n are called `node-<n>` in `pg_stat_activity`. */
  readonly databaseUrl: string
  /** Before the names of the nodes' objects. */
  readonly prefix: string
  /** One `landfall serve` more; `ready[1]` is its origin. */
  startNode(env?: Readonly<Record<string, string>>): Promise<RunningProcess>
  close(): Promise<void>
}

/** @throws when PostgreSQL or the gateway cannot be started: the reason for tests to be skipped */
export async function openGround(store: GatewayStore = 'memstore'): Promise<Ground> {
  const closing: (() => Promise<unknown>)[] = []
  const close = async (): Promise<void> => {
    for (const end of closing.splice(0).toReversed()) await end()
  }
  try {
    const home = await temporaryDirectory('landfall-ground-')
    closing.push(home.remove)
    const postgres = await startPostgres()
    closing.push(postgres.stop)
    const place = await gatewayPlace(store)
    closing.push(() => stopGateway(place))
    const gateway = await startGateway(place)
    const databaseUrl = await postgres.database()
    const prefix = `${randomUUID()}/`
    let nodes = 0
    return {
      postgres,
      gateway,
      databaseUrl,
      prefix,
      async startNode(env = {}) {
        const name = `node-${nodes++}`
        const directory = join(home.path, name)
        await mkdir(directory)
        const node = await startProcess({
          ...landfallServe(directory, {
            NODE_ENV: 'production',
            LANDFALL_DATABASE_URL: `${databaseUrl}&application_name=${name}`,
            LANDFALL_S3_ENDPOINT: gateway.endpoint,
            LANDFALL_S3_REGION: gateway.region,
            LANDFALL_S3_BUCKET: gateway.bucket,
            LANDFALL_S3_ACCESS_KEY_ID: gateway.accessKeyId,
            LANDFALL_S3_SECRET_ACCESS_KEY: gateway.secretAccessKey,
            LANDFALL_S3_PREFIX: prefix,
            ...env,
          }),
          name,
        })
        closing.push(() => node.kill('SIGKILL'))
        return node
      },
      close,
    }
  } catch (error) {
    await close()
    throw error
  }
}
