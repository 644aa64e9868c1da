import { createHash } from 'node:crypto'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import {
  GetObjectCommand,
  ListMultipartUploadsCommand,
  NoSuchKey,
  paginateListObjectsV2,
  S3Client,
} from '@aws-sdk/client-s3'
import type { Gateway } from '../ground/s3.js'

/** What lies in a bucket under a prefix, asked of the gateway itself, past all servers and proxies. */
export interface Bucket {
  /** Names behind the prefix. */
  objects(folder: string): Promise<string[]>
  /** Of unfinished uploads, behind the prefix. */
  multiparts(): Promise<string[]>
  /** SHA-256 in lower-case hexadecimal; null: there is no such object. */
  digestOf(name: string): Promise<string | null>
  end(): void
}

export function openBucket(gateway: Gateway, prefix: string): Bucket {
  const { bucket: Bucket, endpoint, region, accessKeyId, secretAccessKey } = gateway
  const client = new S3Client({
    endpoint,
    region,
    forcePathStyle: true,
    credentials: { accessKeyId, secretAccessKey },
    responseChecksumValidation: 'WHEN_REQUIRED',
  })
  return {
    async objects(folder) {
      const names: string[] = []
      for await (const { Contents = [] } of paginateListObjectsV2({ client }, { Bucket, Prefix: prefix + folder }))
        names.push(...Contents.map(({ Key = '' }) => Key.slice(prefix.length)))
      return names
    },
    async multiparts() {
      const names: string[] = []
      let KeyMarker: string | undefined
      let UploadIdMarker: string | undefined
      do {
        const page = await client.send(
          new ListMultipartUploadsCommand({ Bucket, Prefix: prefix, KeyMarker, UploadIdMarker }),
        )
        names.push(...(page.Uploads ?? []).map(({ Key = '' }) => Key.slice(prefix.length)))
        KeyMarker = page.IsTruncated === true ? page.NextKeyMarker : undefined
        UploadIdMarker = page.NextUploadIdMarker
      } while (KeyMarker !== undefined)
      return names
    },
    async digestOf(name) {
      try {
        const { Body } = await client.send(new GetObjectCommand({ Bucket, Key: prefix + name }))
        if (!(Body instanceof Readable)) throw new TypeError('an object without a body')
        const hash = createHash('sha256')
        await pipeline(Body, hash)
        return hash.digest('hex')
      } catch (error) {
        if (error instanceof NoSuchKey) return null
        throw error
      }
    },
    end: () => client.destroy(),
  }
}
