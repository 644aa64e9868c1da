import { createHash } from 'node:crypto'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import {
  AbortMultipartUploadCommand,
  GetObjectCommand,
  ListMultipartUploadsCommand,
  NoSuchKey,
  paginateListObjectsV2,
  S3Client,
} from '@aws-sdk/client-s3'
import { type Gateway, s3ConfigOf } from '../ground/s3.js'

/** The content of a bucket under a prefix, read from the gateway directly and not through a server or a proxy. */
export interface Bucket {
  /** The names of objects in this folder, without the prefix. */
  objects(folder: string): Promise<string[]>
  /** The names of unfinished multipart uploads, without the prefix. */
  multiparts(): Promise<string[]>
  /** The SHA-256 in lower-case hexadecimal; null if there is no such object. */
  digestOf(name: string): Promise<string | null>
  /** Aborts the unfinished multipart uploads with these names, as an operator or a lifecycle rule does. */
  abort(which: (name: string) => boolean): Promise<void>
  end(): void
}

export function openBucket(gateway: Gateway, prefix: string): Bucket {
  const { bucket: Bucket } = gateway
  const client = new S3Client({ ...s3ConfigOf(gateway), responseChecksumValidation: 'WHEN_REQUIRED' })
  async function unfinished(): Promise<{ name: string; UploadId: string | undefined }[]> {
    const found: { name: string; UploadId: string | undefined }[] = []
    let KeyMarker: string | undefined
    let UploadIdMarker: string | undefined
    do {
      const page = await client.send(
        new ListMultipartUploadsCommand({ Bucket, Prefix: prefix, KeyMarker, UploadIdMarker }),
      )
      for (const { Key = '', UploadId } of page.Uploads ?? []) found.push({ name: Key.slice(prefix.length), UploadId })
      KeyMarker = page.IsTruncated === true ? page.NextKeyMarker : undefined
      UploadIdMarker = page.NextUploadIdMarker
    } while (KeyMarker !== undefined)
    return found
  }

  return {
    async objects(folder) {
      const names: string[] = []
      for await (const { Contents = [] } of paginateListObjectsV2({ client }, { Bucket, Prefix: prefix + folder }))
        names.push(...Contents.map(({ Key = '' }) => Key.slice(prefix.length)))
      return names
    },
    multiparts: async () => (await unfinished()).map(({ name }) => name),
    async abort(which) {
      for (const { name, UploadId } of await unfinished())
        if (which(name)) await client.send(new AbortMultipartUploadCommand({ Bucket, Key: prefix + name, UploadId }))
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
