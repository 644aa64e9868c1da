import { v4 as uuidv4 } from 'uuid'
import { inject } from 'vitest'
import { type GatewayPlace, startGateway } from '../../e2e/ground/s3.js'
import { digestOf } from './harness.js'
import { createHolderName } from '../src/lib/holder-name.js'
import { s3Blobs, type S3BlobsOptions } from '../src/blobs/s3/s3-blobs.js'
import type { BlobStoreFixture } from '../src/contract/blob-store.js'

declare module 'vitest' {
  export interface ProvidedContext {
    s3Place: GatewayPlace
  }
}

export type S3Config = S3BlobsOptions['s3ClientConfig'] & {
  readonly endpoint: string
  readonly region: string
  readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string }
}

const NOWHERE = { endpoint: '', region: '', bucket: '', accessKeyId: '', secretAccessKey: '' }

/** A Ceph RADOS Gateway of this run's own, started by whoever asks first; or why there is none. */
export async function s3Server(): Promise<{ readonly missing: string | null; readonly config: S3Config }> {
  const started = await startGateway(inject('s3Place')).catch((error: Error) => error)
  const missing = started instanceof Error ? started.message : null
  const { bucket, endpoint, region, accessKeyId, secretAccessKey } = started instanceof Error ? NOWHERE : started
  return {
    missing,
    config: { bucket, endpoint, region, forcePathStyle: true, credentials: { accessKeyId, secretAccessKey } },
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

/** The digest of an unfinished upload's prefix, as `Prefix` defines it. */
export function chainOf(prefix: Uint8Array, partBytes: number): string {
  let link = ''
  for (let at = 0; at < prefix.length; at += partBytes)
    link = digestOf(Buffer.from(link + digestOf(prefix.subarray(at, at + partBytes))))
  return link
}
