import { randomUUID } from 'node:crypto'
import { temporaryDirectory } from './files.js'
import { type Postgres, startPostgres } from './postgres.js'
import { type Gateway, gatewayEnv, gatewayPlace, type GatewayStore, startGateway, stopGateway } from './s3.js'

/** What several nodes share: one PostgreSQL and one bucket, which nothing else uses. */
export interface Ground {
  readonly postgres: Postgres
  /** The gateway that runs now. Each `mendGateway` replaces it. */
  readonly gateway: Gateway
  /** The database of the nodes' ledger. */
  readonly databaseUrl: string
  /** The prefix of the names of the nodes' objects. */
  readonly prefix: string
  /** A temporary folder for everything that nodes keep on the disk. */
  readonly directory: string
  /** The settings with which a node finds the database and the bucket. */
  readonly env: Readonly<Record<string, string>>
  /** Starts those daemons of the gateway that do not run. Resolves when the gateway accepts objects again. */
  mendGateway(): Promise<void>
  /** Registers a function that `close` calls. Functions that were registered later are called first. */
  defer(end: () => Promise<unknown>): void
  close(): Promise<void>
}

/** @throws when PostgreSQL or the gateway cannot be started. Tests are then skipped with this reason. */
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
    // The gateway's daemons are not children of this process and would outlive it.
    const onExit = (): void => gateway.kill('rgw', 'osd', 'mon')
    process.on('exit', onExit)
    closing.push(async () => void process.off('exit', onExit))
    const databaseUrl = await postgres.database()
    const prefix = `${randomUUID()}/`
    return {
      postgres,
      get gateway() {
        return gateway
      },
      databaseUrl,
      prefix,
      directory: home.path,
      env: { LANDFALL_DATABASE_URL: databaseUrl, LANDFALL_S3_PREFIX: prefix, ...gatewayEnv(gateway) },
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

/** The reason why this machine cannot provide a ground; null if it can. */
export const groundMissing = (): Promise<string | null> =>
  openGround()
    .then((ground) => ground.close())
    .then(
      () => null,
      (error: unknown) => (error instanceof Error ? error.message : String(error)),
    )
