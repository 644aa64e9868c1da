import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  type CompletedPart,
  type GetObjectCommandOutput,
  type LifecycleRule,
  type ListObjectsV2CommandOutput,
  type Part,
  PutObjectCommand,
  type S3,
  UploadPartCommand,
} from '@aws-sdk/client-s3'
import { boundOf } from '../../lib/backoff.js'
import { deadline } from '../../lib/deadline.js'
import { UploadError } from '../../lib/errors.js'
import type { StoreRequest } from '../../ports/blob-store.js'
import type { Payload } from './blocks.js'
import { hasNoLifecycle, isFinal, isMissing, isTaken, outcomeOf, s3Fault } from './faults.js'

/** Settings of each object that is made from an upload. */
export interface ObjectSettings {
  readonly ServerSideEncryption?: 'AES256' | 'aws:kms' | 'aws:kms:dsse'
  readonly SSEKMSKeyId?: string
  readonly StorageClass?: string
}

export interface Found {
  readonly sizeBytes: number
  readonly token: string | null
  readonly modifiedAt: number
}

export interface Multipart {
  readonly name: string
  readonly uploadId: string
  readonly startedAt: number
}

/** The calls to the object store. A call is repeated where that helps, and faults are mapped to their codes. */
export interface S3Calls {
  /** With `once`, writes only if nothing exists under that name, and answers 'taken' otherwise. */
  put(
    name: string,
    payload: Payload,
    more?: { once?: true; token?: string; isBlob?: boolean; signal?: AbortSignal },
  ): Promise<{ outcome: 'put' | 'taken'; attempts: number }>
  head(name: string, signal?: AbortSignal): Promise<Found | null>
  /** Returns null if nothing is there. */
  get(name: string, range: string | null, signal?: AbortSignal): Promise<GetObjectCommandOutput | null>
  getBytes(name: string, signal?: AbortSignal): Promise<Uint8Array | null>
  /** Deletes the object. An absent object is no error. */
  delete(name: string): Promise<void>
  list(prefix: string, after: string | undefined): Promise<ListObjectsV2CommandOutput>
  createMultipart(name: string, token: string, signal: AbortSignal): Promise<string>
  /** Returns 'gone' if the upload does not exist (any more). */
  uploadPart(
    part: { name: string; uploadId: string; number: number; payload: Payload },
    signal: AbortSignal,
  ): Promise<{ etag: string; attempts: number } | 'gone'>
  /** Returns null if the upload does not exist (any more). */
  listParts(name: string, uploadId: string, limit?: number): Promise<Part[] | null>
  /** Throws what the SDK threw. The caller finds out what it means by examining the store. */
  complete(name: string, uploadId: string, parts: CompletedPart[]): Promise<void>
  /** Repeats the abort until no part is left, because a part that was in flight may arrive after it. */
  abort(name: string, uploadId: string): Promise<void>
  /** The rules by which the bucket removes objects by itself. */
  lifecycle(): Promise<LifecycleRule[]>
  listMultiparts(
    prefix: string,
    after: { name: string; uploadId: string } | null,
  ): Promise<{ page: Multipart[]; next: { name: string; uploadId: string } | null }>
}

const TOKEN = 'landfall-token'
const ATTEMPTS = 5
const BACKOFF = { firstMs: 100, mostMs: 2_000 }
const WRITES = new Set(['PutObject', 'CreateMultipartUpload', 'UploadPart'])
const never = new AbortController().signal

/** The body is made again for each attempt. */
const contentOf = ({ chunks, bytes }: Payload): { Body: Readable | Uint8Array; ContentLength: number } => ({
  Body: chunks.length > 1 ? Readable.from(chunks, { objectMode: false }) : (chunks[0] ?? new Uint8Array()),
  ContentLength: bytes,
})

/** The bytes are hashed already. The signature takes that digest, and the store refuses other bytes. */
function withDigest<C extends PutObjectCommand | UploadPartCommand>(command: C, { sha256 }: Payload): C {
  const stack = command.middlewareStack as PutObjectCommand['middlewareStack']
  stack.add(
    (next) => (input) => {
      const { headers } = input.request as { headers: Record<string, string> }
      // If the application has switched on checksums in trailers, the header is set already.
      headers[DIGEST_HEADER] ??= sha256.toString('hex')
      return next(input)
    },
    { step: 'build', priority: 'low' },
  )
  return command
}
const DIGEST_HEADER = 'x-amz-content-sha256'

export function createS3Calls(
  client: S3,
  {
    Bucket,
    object,
    timeoutMs,
    patienceMs,
    onRequest,
  }: {
    Bucket: string
    object: ObjectSettings
    timeoutMs: number
    patienceMs: number
    onRequest: (request: StoreRequest) => void
  },
): S3Calls {
  const once = async <T>(
    name: string,
    signal: AbortSignal,
    send: (abortSignal: AbortSignal) => Promise<T>,
  ): Promise<T> => {
    signal.throwIfAborted()
    const startMs = performance.now()
    const ended = (outcome: string): void => onRequest({ name, outcome, tookMs: performance.now() - startMs })
    try {
      // The limit also ends with `signal`. `AbortSignal.any` of both is not used: Node 20 keeps an entry for each on
      // `signal`, and `never` lives as long as the process.
      const answer = await deadline((limit) => send(limit.signal), timeoutMs, signal)
      ended('ok')
      return answer
    } catch (error) {
      ended(signal.aborted ? 'aborted' : outcomeOf(error))
      signal.throwIfAborted()
      throw error
    }
  }

  /** `expected` maps an error to an answer, if the error is no fault. */
  async function call<T, E = never>(
    name: string,
    signal: AbortSignal,
    send: (abortSignal: AbortSignal) => Promise<T>,
    expected: (error: unknown) => E | undefined | Promise<E | undefined> = () => undefined,
  ): Promise<T | E> {
    // A client's bytes wait for a store that cannot be reached. If they were refused, they would all be sent again. No
    // other call waits.
    const deadlineMs = performance.now() + (WRITES.has(name) && signal !== never ? patienceMs : 0)
    for (let failedBefore = 0; ; failedBefore++) {
      try {
        return await once(name, signal, send)
      } catch (error) {
        if (signal.aborted) throw signal.reason as Error
        const answer = await expected(error)
        if (answer !== undefined) return answer
        const isOver = failedBefore + 1 >= ATTEMPTS && performance.now() > deadlineMs
        if (isFinal(error) || isOver) throw s3Fault(error, name)
      }
      await sleep(Math.random() * boundOf(BACKOFF, failedBefore), undefined, { signal })
    }
  }
  const nullIfMissing = (error: unknown): null | undefined => (isMissing(error) ? null : undefined)

  const listParts: S3Calls['listParts'] = async (name, UploadId, limit) => {
    const parts: Part[] = []
    for (let PartNumberMarker: string | undefined; ;) {
      const request = { Bucket, Key: name, UploadId, PartNumberMarker, MaxParts: limit }
      const page = await call(
        'ListParts',
        never,
        (abortSignal) => client.listParts(request, { abortSignal }),
        nullIfMissing,
      )
      if (page === null) return null
      parts.push(...(page.Parts ?? []))
      if (page.IsTruncated !== true || limit !== undefined) return parts
      PartNumberMarker = page.NextPartNumberMarker
    }
  }

  /** If the store cannot answer now, the upload does not count as gone. */
  async function isGone(name: string, uploadId: string): Promise<boolean> {
    try {
      return (await listParts(name, uploadId, 1)) === null
    } catch {
      return false
    }
  }

  return {
    async put(name, payload, { once: onlyOnce, token, isBlob = false, signal = never } = {}) {
      let attempts = 0
      const outcome = await call<'put' | 'taken', 'taken'>(
        'PutObject',
        signal,
        async (abortSignal) => {
          attempts += 1
          const command = new PutObjectCommand({
            Bucket,
            Key: name,
            ...contentOf(payload),
            ...(onlyOnce ? { IfNoneMatch: '*' } : {}),
            ...(token === undefined ? {} : { Metadata: { [TOKEN]: token } }),
            ...(isBlob ? object : { ...object, StorageClass: undefined }),
          } as ConstructorParameters<typeof PutObjectCommand>[0])
          await client.send(withDigest(command, payload), { abortSignal })
          return 'put'
        },
        (error) => (onlyOnce && isTaken(error) ? 'taken' : undefined),
      )
      return { outcome, attempts }
    },

    head: (name, signal = never) =>
      call(
        'HeadObject',
        signal,
        async (abortSignal): Promise<Found> => {
          const { ContentLength, Metadata, LastModified } = await client.headObject(
            { Bucket, Key: name },
            { abortSignal },
          )
          return {
            sizeBytes: ContentLength ?? 0,
            token: Metadata?.[TOKEN] ?? null,
            modifiedAt: LastModified?.getTime() ?? 0,
          }
        },
        nullIfMissing,
      ),

    get: (name, range, signal = never) =>
      call(
        'GetObject',
        signal,
        // The time limit applies to the start of the answer. How long the body takes, and when it is given up, is up to
        // its reader.
        (abortSignal) =>
          client.getObject({ Bucket, Key: name, ...(range === null ? {} : { Range: range }) }, { abortSignal }),
        nullIfMissing,
      ),

    getBytes: (name, signal = never) =>
      call(
        'GetObject',
        signal,
        async (abortSignal) => {
          const { Body } = await client.getObject({ Bucket, Key: name }, { abortSignal })
          return (await Body?.transformToByteArray()) ?? new Uint8Array()
        },
        nullIfMissing,
      ),

    async delete(name) {
      await call(
        'DeleteObject',
        never,
        (abortSignal) => client.deleteObject({ Bucket, Key: name }, { abortSignal }),
        nullIfMissing,
      )
    },

    list: (Prefix, StartAfter) =>
      call('ListObjectsV2', never, (abortSignal) =>
        client.listObjectsV2({ Bucket, Prefix, ...(StartAfter === undefined ? {} : { StartAfter }) }, { abortSignal }),
      ),

    createMultipart: (name, token, signal) =>
      call('CreateMultipartUpload', signal, async (abortSignal) => {
        const { UploadId } = await client.createMultipartUpload(
          { Bucket, Key: name, Metadata: { [TOKEN]: token }, ...object } as Parameters<S3['createMultipartUpload']>[0],
          { abortSignal },
        )
        if (UploadId === undefined) throw new UploadError('storage-unavailable', 'the object store gave no upload id')
        return UploadId
      }),

    uploadPart({ name, uploadId, number, payload }, signal) {
      let attempts = 0
      return call<{ etag: string; attempts: number }, 'gone'>(
        'UploadPart',
        signal,
        async (abortSignal) => {
          attempts += 1
          const command = new UploadPartCommand({
            Bucket,
            Key: name,
            UploadId: uploadId,
            PartNumber: number,
            ...contentOf(payload),
          })
          const { ETag } = await client.send(withDigest(command, payload), { abortSignal })
          if (ETag === undefined) throw new Error('an UploadPart without an ETag')
          return { etag: ETag, attempts }
        },
        async (error) => {
          if (isMissing(error)) return 'gone'
          // For an upload that does not exist, Ceph answers early and closes the connection. Writing the rest of the
          // bytes then fails.
          return !isFinal(error) && (await isGone(name, uploadId)) ? 'gone' : undefined
        },
      )
    },

    listParts,

    complete: async (name, UploadId, Parts) => {
      await once('CompleteMultipartUpload', never, (abortSignal) =>
        client.completeMultipartUpload({ Bucket, Key: name, UploadId, MultipartUpload: { Parts } }, { abortSignal }),
      )
    },

    async abort(name, UploadId) {
      for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
        await call(
          'AbortMultipartUpload',
          never,
          (abortSignal) => client.abortMultipartUpload({ Bucket, Key: name, UploadId }, { abortSignal }),
          nullIfMissing,
        )
        if ((await listParts(name, UploadId, 1)) === null) return
        await sleep(boundOf(BACKOFF, attempt))
      }
      throw new UploadError('storage-unavailable', 'parts still arrive for an upload that is being removed')
    },

    lifecycle: () =>
      call(
        'GetBucketLifecycleConfiguration',
        never,
        async (abortSignal) =>
          (await client.getBucketLifecycleConfiguration({ Bucket }, { abortSignal })).Rules ?? ([] as LifecycleRule[]),
        (error) => (hasNoLifecycle(error) ? [] : undefined),
      ),

    async listMultiparts(Prefix, after) {
      const found = await call('ListMultipartUploads', never, (abortSignal) =>
        client.listMultipartUploads(
          { Bucket, Prefix, ...(after === null ? {} : { KeyMarker: after.name, UploadIdMarker: after.uploadId }) },
          { abortSignal },
        ),
      )
      const page = (found.Uploads ?? []).map(({ Key = '', UploadId = '', Initiated }) => ({
        name: Key,
        uploadId: UploadId,
        startedAt: Initiated?.getTime() ?? 0,
      }))
      const { IsTruncated, NextKeyMarker, NextUploadIdMarker } = found
      return {
        page,
        next:
          IsTruncated === true && NextKeyMarker !== undefined
            ? { name: NextKeyMarker, uploadId: NextUploadIdMarker ?? '' }
            : null,
      }
    },
  }
}
