import { execFile } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { repository } from './repository.js'
import { isFree } from './ports.js'

/**
 * `memstore` keeps objects in memory and starts in 2 s. `bluestore` is the production store and starts in 10 s; its
 * daemons may be killed.
 */
export type GatewayStore = 'memstore' | 'bluestore'

/** Where a gateway keeps its data, and where it listens. */
export interface GatewayPlace {
  readonly directory: string
  readonly port: number
  /** Default `memstore`. */
  readonly store?: GatewayStore
}

export type Daemon = 'mon' | 'osd' | 'rgw'

/** A Ceph RADOS Gateway on loopback. */
export interface Gateway {
  readonly port: number
  readonly endpoint: string
  readonly region: string
  readonly bucket: string
  readonly accessKeyId: string
  readonly secretAccessKey: string
  /**
   * Kills daemons as `kill -9` does. With bluestore nothing is lost, and `startGateway` in the same place starts the
   * daemons that do not run.
   */
  kill(...daemons: readonly Daemon[]): void
}

const SCRIPT = join(repository, 'e2e/scripts/s3-up')
/** The first start on a machine installs the packages. */
const START_MS = 300_000
const DAEMONS: readonly Daemon[] = ['mon', 'osd', 'rgw']

export const gatewayPlace = async (store: GatewayStore = 'memstore'): Promise<GatewayPlace> => ({
  directory: join(tmpdir(), `landfall-s3-${randomUUID()}`),
  port: await freePorts(),
  store,
})

/** The script also uses the next port, and some of the forty ports after it. */
async function freePorts(): Promise<number> {
  for (;;) {
    const port = 20_000 + 64 * Math.floor(Math.random() * 190)
    if ((await isFree(port)) && (await isFree(port + 1))) return port
  }
}

/**
 * Starts the gateway, or those of its daemons that do not run. If all of them run, it only returns the gateway.
 *
 * @throws when it cannot be started. Tests are then skipped with this reason.
 */
export async function startGateway({ directory, port, store = 'memstore' }: GatewayPlace): Promise<Gateway> {
  const output = await run(['start', directory, String(port)], { S3_UP_STORE: store })
  const said = (name: string): string => new RegExp(`^${name}="?(.*?)"?$`, 'm').exec(output)?.[1] ?? ''
  const pids = said('S3_PIDS').split(' ').map(Number)
  return {
    port,
    endpoint: said('S3_ENDPOINT'),
    region: said('S3_REGION'),
    bucket: said('S3_BUCKET'),
    accessKeyId: said('S3_ACCESS_KEY_ID'),
    secretAccessKey: said('S3_SECRET_ACCESS_KEY'),
    kill(...daemons) {
      for (const daemon of daemons) {
        const pid = pids[DAEMONS.indexOf(daemon)]
        if (pid !== undefined && pid > 0) process.kill(pid, 'SIGKILL')
      }
    },
  }
}

/** The settings with which a server finds the gateway's bucket. */
export const gatewayEnv = (gateway: Gateway): Readonly<Record<string, string>> => ({
  LANDFALL_S3_ENDPOINT: gateway.endpoint,
  LANDFALL_S3_REGION: gateway.region,
  LANDFALL_S3_BUCKET: gateway.bucket,
  LANDFALL_S3_ACCESS_KEY_ID: gateway.accessKeyId,
  LANDFALL_S3_SECRET_ACCESS_KEY: gateway.secretAccessKey,
})

/** Options for an AWS SDK client that talks to the gateway directly, and not through a server or a proxy. */
export const s3ConfigOf = ({ endpoint, region, accessKeyId, secretAccessKey }: Gateway) => ({
  endpoint,
  region,
  forcePathStyle: true,
  credentials: { accessKeyId, secretAccessKey },
})

/** Ends the gateway and removes all its data. */
export async function stopGateway({ directory }: GatewayPlace): Promise<void> {
  await run(['stop', directory], {})
  await rm(directory, { recursive: true, force: true })
}

const run = (parameters: string[], env: Readonly<Record<string, string>>): Promise<string> =>
  new Promise((resolve, reject) => {
    execFile(SCRIPT, parameters, { timeout: START_MS, env: { ...process.env, ...env } }, (error, stdout, stderr) =>
      error === null ? resolve(stdout) : reject(new Error(stderr.trim().split('\n').at(-1) ?? error.message)),
    )
  })
export function s3CallOf(method: string, path: string): string {
  const { searchParams: query } = new URL(path, 'http://store')
  const isOfUpload = query.has('uploadId')
  switch (method) {
    case 'HEAD':
      return 'HeadObject'
    case 'PUT':
      return isOfUpload ? 'UploadPart' : 'PutObject'
    case 'POST':
      return isOfUpload ? 'CompleteMultipartUpload' : 'CreateMultipartUpload'
    case 'DELETE':
      return isOfUpload ? 'AbortMultipartUpload' : 'DeleteObject'
    default:
      if (isOfUpload) return 'ListParts'
      if (query.has('uploads')) return 'ListMultipartUploads'
      return query.has('list-type') ? 'ListObjectsV2' : 'GetObject'
  }
}

/** The folder behind the prefix that contains the object, or whose objects are listed: `/bucket/prefix/folder/…`. */
export function s3FolderOf(path: string): string {
  const { pathname, searchParams: query } = new URL(path, 'http://store')
  return decodeURIComponent(query.get('prefix') ?? pathname.split('/').slice(2).join('/')).split('/')[1] ?? ''
}
