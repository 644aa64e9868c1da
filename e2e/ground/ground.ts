import { randomUUID } from 'node:crypto'
import { temporaryDirectory } from './files.js'
import { type Postgres, startPostgres } from './postgres.js'
import { type Gateway, gatewayEnv, gatewayPlace, type GatewayStore, startGateway, stopGateway } from './s3.js'

/** What several nodes share: one PostgreSQL and one bucket, both of their own. */
export interface Ground {
  readonly postgres: Postgres
  /** In its present life: another one after each `mendGateway`. */
  readonly gateway: Gateway
  /** Of the nodes' ledger. */
  readonly databaseUrl: string
  /** Before the names of the nodes' objects. */
  readonly prefix: string
  /** A temporary folder for whatever nodes have on the disk. */
  readonly directory: string
  /** The settings by which a node finds the database and the bucket. */
  readonly env: Readonly<Record<string, string>>
  /** Starts the daemons of the gateway that do not run; resolves when it takes objects again. */
  mendGateway(): Promise<void>
  /** Called by `close`, before what was deferred earlier. */
  defer(end: () => Promise<unknown>): void
  close(): Promise<void>
}

/** @throws when PostgreSQL or the gateway cannot be started, which is the reason for tests to be skipped */
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
    // The gateway's daemons are no children of this process, and would outlive it.
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

/** Why there can be no ground on this machine; null: there can. */
export const groundMissing = (): Promise<string | null> =>
  openGround()
    .then((ground) => ground.close())
    .then(
      () => null,
      (error: unknown) => (error instanceof Error ? error.message : String(error)),
    )
