import { execFile } from 'node:child_process'
import { rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { v4 as uuidv4 } from 'uuid'
import { inject } from 'vitest'
import { createHolderName } from '../src/boot.js'
import { s3Blobs, type S3BlobsOptions } from '../src/blobs/s3.js'
import type { BlobStoreFixture } from '../src/contract/blob-store.js'

declare module 'vitest' {
  export interface ProvidedContext {
    s3Place: { directory: string; port: number }
  }
}

const SCRIPT = fileURLToPath(new URL('../../e2e/scripts/s3-up', import.meta.url))
/** Once per machine it installs the packages. */
const START_MS = 300_000

export const s3Place = async (): Promise<{ directory: string; port: number }> => ({
  directory: join(tmpdir(), `landfall-s3-${uuidv4()}`),
  port: await freePort(),
})

/** The script takes the port behind it, too, and some of the next forty. */
async function freePort(): Promise<number> {
  for (;;) {
    const port = 20_000 + 64 * Math.floor(Math.random() * 190)
    if ((await isFree(port)) && (await isFree(port + 1))) return port
  }
}

const isFree = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  })

const run = (parameters: string[]): Promise<{ failure: string | null; output: string }> =>
  new Promise((resolve) => {
    execFile(SCRIPT, parameters, { timeout: START_MS }, (error, stdout, stderr) =>
      resolve({
        failure: error === null ? null : (stderr.trim().split('\n').at(-1) ?? error.message),
        output: stdout,
      }),
    )
  })

export async function stopS3(directory: string): Promise<void> {
  await run(['stop', directory])
  await rm(directory, { recursive: true, force: true })
}

export type S3Config = S3BlobsOptions['s3ClientConfig']

/** A Ceph RADOS Gateway of this run's own, started by whoever asks first; or why there is none. */
export async function s3Server(): Promise<
  { readonly missing: null; readonly config: S3Config } | { readonly missing: string; readonly config: S3Config }
> {
  const { directory, port } = inject('s3Place')
  const { failure, output } = await run(['start', directory, String(port)])
  const said = (name: string): string => new RegExp(`^${name}=(.*)$`, 'm').exec(output)?.[1] ?? ''
  return {
    missing: failure,
    config: {
      bucket: said('S3_BUCKET'),
      endpoint: said('S3_ENDPOINT'),
      region: said('S3_REGION'),
      forcePathStyle: true,
      credentials: { accessKeyId: said('S3_ACCESS_KEY_ID'), secretAccessKey: said('S3_SECRET_ACCESS_KEY') },
    },
  }
}

/** A store under a prefix of its own. */
export async function s3Fixture(config: S3Config, more: Partial<S3BlobsOptions> = {}): Promise<BlobStoreFixture> {
  const prefix = `${uuidv4()}/`
  const create = () => s3Blobs({ s3ClientConfig: config, prefix, ...more })
  let store = create()
  await store.open('ledger-1', 'new')
  return {
    get store() {
      return store
    },
    holder: createHolderName(),
    async reopen(identity = 'ledger-1') {
      await store.close()
      store = create()
      await store.open(identity, 'known')
      return store
    },
    dispose: () => store.close(),
  }
}
