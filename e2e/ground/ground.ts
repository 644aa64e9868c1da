import { randomUUID } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { temporaryDirectory } from './files.js'
import { landfallServe } from './landfall.js'
import { type Postgres, startPostgres } from './postgres.js'
import { type ProcessOptions, type RunningProcess, startProcess } from './processes.js'
import { type Daemon, type Gateway, gatewayPlace, type GatewayStore, startGateway, stopGateway } from './s3.js'

/** What several nodes stand on: one PostgreSQL and one bucket, both their own. */
export interface Ground {
  readonly postgres: Postgres
  readonly gateway: Gateway
  /** Of the nodes' ledger. */
  readonly databaseUrl: string
  /** Before the names of the nodes' objects. */
  readonly prefix: string
  /** One `landfall serve` more, as it would be started, in a directory of its own. */
  serving(name: string, env?: Readonly<Record<string, string>>): Promise<ProcessOptions>
  /**
   * Starts it; `ready[1]` is its origin. Its connections are called as it is, `node-<n>`, in `pg_stat_activity`.
   */
  startNode(env?: Readonly<Record<string, string>>): Promise<RunningProcess>
  /** `kill -9`. */
  killGateway(...daemons: readonly Daemon[]): void
  /** Starts what of it does not run; resolves when it takes objects again. */
  mendGateway(): Promise<void>
  /** Ended by `close`, before what was there earlier. */
  defer(end: () => Promise<unknown>): void
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
    let gateway = await startGateway(place)
    // Its daemons are nobody's children: who ends without `close` would leave them behind.
    const onExit = (): void => gateway.kill('rgw', 'osd', 'mon')
    process.on('exit', onExit)
    closing.push(async () => void process.off('exit', onExit))
    const databaseUrl = await postgres.database()
    const prefix = `${randomUUID()}/`
    let nodes = 0

    async function serving(name: string, env: Readonly<Record<string, string>> = {}): Promise<ProcessOptions> {
      const directory = join(home.path, name)
      await mkdir(directory)
      const options = landfallServe(directory, {
        LANDFALL_DATABASE_URL: databaseUrl,
        LANDFALL_S3_ENDPOINT: gateway.endpoint,
        LANDFALL_S3_REGION: gateway.region,
        LANDFALL_S3_BUCKET: gateway.bucket,
        LANDFALL_S3_ACCESS_KEY_ID: gateway.accessKeyId,
        LANDFALL_S3_SECRET_ACCESS_KEY: gateway.secretAccessKey,
        LANDFALL_S3_PREFIX: prefix,
        ...env,
      })
      return { ...options, name }
    }

    return {
      postgres,
      gateway,
      databaseUrl,
      prefix,
      serving,
      async startNode(env = {}) {
        const name = `node-${nodes++}`
        const named = { LANDFALL_DATABASE_URL: `${databaseUrl}&application_name=${name}` }
        const node = await startProcess(await serving(name, { NODE_ENV: 'production', ...named, ...env }))
        closing.push(() => node.kill('SIGKILL'))
        return node
      },
      killGateway: (...daemons) => gateway.kill(...daemons),
      async mendGateway() {
        gateway = await startGateway(place)
      },
      defer: (end) => void closing.push(end),
      close,
    }
  } catch (error) {
    await close()
    throw error
  }
}
