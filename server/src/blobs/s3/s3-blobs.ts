import type { GetObjectCommandInput, S3, S3ClientConfig } from '@aws-sdk/client-s3'
import { type Options as S3StoreOptions, S3Store } from '@tus/s3-store'
import pLimit from 'p-limit'
import { createKeyQueue } from '../key-queue.js'
import { createStop } from '../read-chunks.js'
import { UploadError } from '../../lib/errors.js'
import {
  aFunction,
  milliseconds,
  nonEmptyText,
  optional,
  readOptions,
  rule,
  text,
  wholeNumber,
} from '../../lib/options.js'
import type { BlobRef, BlobStore, PresignOptions, StoreRequest } from '../../ports/blob-store.js'
import { appendToS3 } from './append.js'
import { createBlocks } from './blocks.js'
import { createBudget } from './budget.js'
import { createS3Calls, type ObjectSettings } from './calls.js'
import { createExamine } from './examine.js'
import { bucketIdentity } from './identity.js'
import { createS3Inventory } from './inventory.js'
import { checkObjectName, createNames } from './names.js'
import { noted, readNotes, sealedState } from './notes.js'
import { probe } from './probe.js'
import { createReading } from './read.js'
import { createExamination, createSeal } from './seal.js'
import { createTails } from './tails.js'

/**
 * The options of `S3Store` from @tus/s3-store, and more. The options for its tags, its cache and its expiry have no
 * effect here and are left out.
 */
export interface S3BlobsOptions extends Omit<S3StoreOptions, 'useTags' | 'cache' | 'expirationPeriodInMilliseconds'> {
  /** Comes first in the names of all objects. Each environment has its own prefix. Default '': the whole bucket. */
  prefix?: string
  /**
   * The name of a blob's object, after the prefix and `blobs/`. It must end with the key, and names must be in the
   * order of their keys. Default: the key.
   */
  objectName?: (key: string) => string
  serverSideEncryption?: ObjectSettings['ServerSideEncryption']
  /** The key of AWS KMS, with `serverSideEncryption: 'aws:kms'`. */
  kmsKeyId?: string
  storageClass?: string
  /**
   * Memory for bytes that are not stored yet, of all uploads together. In bytes, default 96 MiB. When it is used up,
   * sources wait, and the bytes of clients that send nothing are stored as they are.
   */
  memoryBytes?: number
  /** A long request is acknowledged after at most this many bytes. Default 16 MiB. */
  checkpointBytes?: number
  /** A long request is also acknowledged after at most this time. In milliseconds, default 2,000. */
  checkpointMs?: number
  /**
   * How long a request's bytes wait, with their source unread, for an object store that cannot be reached, before the
   * request is refused. In milliseconds, default 5,000.
   */
  patienceMs?: number
  /**
   * How long one call may take before it is tried again, and how long a body that is read may bring nothing. In
   * milliseconds, default 60,000.
   */
  callTimeoutMs?: number
}

export interface S3Blobs extends BlobStore {
  /**
   * Makes a URL by which anybody can read the blob for a while, directly from the object store. Needs the package
   * `@aws-sdk/s3-request-presigner`.
   */
  presign(key: string, options: PresignOptions): Promise<string>
}

/** The limits of one part, and of the number of parts, as AWS sets them. */
const PART_BYTES = { least: 5 * 1024 * 1024, most: 5 * 1024 ** 3 }
const MOST_PARTS = 10_000

/** By name: what each option may be, and its default. */
export const OPTIONS = {
  // The AWS SDK checks the rest of it.
  s3ClientConfig: rule<S3BlobsOptions['s3ClientConfig']>('an object with the name of a bucket', hasBucket),
  partSize: optional(wholeNumber(PART_BYTES.least, PART_BYTES.most)),
  minPartSize: optional(wholeNumber(PART_BYTES.least, PART_BYTES.most)),
  maxMultipartParts: optional(wholeNumber(1, MOST_PARTS)),
  maxConcurrentPartUploads: optional(wholeNumber(1), 60),
  prefix: optional(text, ''),
  objectName: optional(aFunction<(key: string) => string>(), () => (key: string) => key),
  serverSideEncryption: optional(nonEmptyText),
  kmsKeyId: optional(nonEmptyText),
  storageClass: optional(nonEmptyText),
  memoryBytes: optional(wholeNumber(1024 * 1024), 96 * 1024 * 1024),
  checkpointBytes: optional(wholeNumber(1), 16 * 1024 * 1024),
  checkpointMs: optional(milliseconds(1), 2_000),
  patienceMs: optional(milliseconds(0), 5_000),
  callTimeoutMs: optional(milliseconds(1), 60_000),
}

function hasBucket(value: unknown): boolean {
  const { bucket } = (value ?? {}) as { bucket?: unknown }
  return typeof bucket === 'string' && bucket !== ''
}

const QUIET: NonNullable<S3ClientConfig['logger']> = { debug() {}, info() {}, warn() {}, error() {} }

/** The client and the rule for the size of parts are those of @tus/s3-store. */
class S3StoreParts extends S3Store {
  readonly s3: S3
  readonly bucketName: string
  constructor(options: S3StoreOptions) {
    super(options)
    this.s3 = this.client
    this.bucketName = this.bucket
  }
  partBytesOf(sizeBytes: number): number {
    return this.calcOptimalPartSize(sizeBytes)
  }
}

/**
 * Stores blobs as objects of an S3 bucket, for any number of processes.
 *
 * It takes the options of `S3Store` from @tus/s3-store, its client and its part sizes, and writes in another way. Each
 * part has its place, and only a prefix without a gap is acknowledged. The ledger says what counts, and an upload is
 * complete when its object exists. Bytes are sent from memory, which is limited for all uploads together. There are no
 * temporary files.
 *
 * @throws UploadError `setup` for an option that cannot work.
 */
export function s3Blobs(given: S3BlobsOptions): S3Blobs {
  const { checkpointBytes, checkpointMs, ...checked } = readOptions('s3Blobs', OPTIONS, given)
  const { prefix, objectName, memoryBytes, callTimeoutMs, patienceMs } = checked
  // Options that are left to @tus/s3-store have their defaults there. A value of `undefined` would remove the default.
  const options = Object.fromEntries(
    Object.entries(given).filter(([, value]) => value !== undefined),
  ) as unknown as S3BlobsOptions
  checkObjectName(objectName)
  const store = new S3StoreParts({
    ...options,
    s3ClientConfig: {
      // Older servers know no other checksums. What is sent is signed, and so it is checked anyway.
      requestChecksumCalculation: 'WHEN_REQUIRED',
      responseChecksumValidation: 'WHEN_REQUIRED',
      // With it, the SDK opens a separate connection for each part.
      expectContinueHeader: false,
      // The SDK would warn on the console about each fault. Faults are thrown with their code.
      logger: QUIET,
      requestHandler: { connectionTimeout: 5_000, httpAgent: { maxSockets: 256 }, httpsAgent: { maxSockets: 256 } },
      ...options.s3ClientConfig,
      // The SDK's retries would multiply ours.
      maxAttempts: 1,
    },
  })
  const object: ObjectSettings = {
    ...(options.serverSideEncryption === undefined ? {} : { ServerSideEncryption: options.serverSideEncryption }),
    ...(options.kmsKeyId === undefined ? {} : { SSEKMSKeyId: options.kmsKeyId }),
    ...(options.storageClass === undefined ? {} : { StorageClass: options.storageClass }),
  }
  const names = createNames(prefix, objectName)
  let onRequest = (_request: StoreRequest): void => {}
  const calls = createS3Calls(store.s3, {
    Bucket: store.bucketName,
    object,
    timeoutMs: callTimeoutMs,
    patienceMs,
    onRequest: (request) => onRequest(request),
  })
  const identity = bucketIdentity(calls, names)
  const examination = createExamination({ calls, names, identity })
  const tails = createTails(calls, names)
  const reading = createReading({ calls, names, examination, tails, timeoutMs: callTimeoutMs })
  const seal = createSeal({ calls, names, identity, examination, tails })
  const blocks = createBlocks(memoryBytes)
  const queue = createKeyQueue()
  const appendDeps = {
    calls,
    names,
    examination,
    tails,
    budget: createBudget(memoryBytes),
    blocks,
    sending: pLimit(checked.maxConcurrentPartUploads),
    partBytesOf: (sizeBytes: number) => store.partBytesOf(sizeBytes),
    checkpoint: { bytes: checkpointBytes, ms: checkpointMs },
  }
  /** Blobs that this process stored with one PutObject a moment ago. The seal need not ask the store about them. */
  const put = new Map<string, number>()
  let isOpen = false

  const examine = createExamine({ calls, names })
  const inventory = createS3Inventory({ calls, names, remove })

  async function remove(key: string): Promise<void> {
    put.delete(key)
    // Remove the uploads first: one that is completed at this moment still makes an object.
    await removeUnfinished(key)
    await calls.delete(names.blob(key))
  }

  async function removeUnfinished(key: string): Promise<void> {
    await tails.abortAll(key)
    await tails.removeAll(key)
  }

  /**
   * Wraps every call: it requires an open store, runs one call at a time for each key, and maps faults to their codes.
   */
  const guarded = <T>(key: string, work: () => Promise<T>, interrupt?: () => void): Promise<T> =>
    opened(() => queue.run(key, work, interrupt))

  async function opened<T>(work: () => Promise<T>): Promise<T> {
    if (!isOpen) throw new UploadError('storage-unavailable', 'the store of blobs is not open')
    return work()
  }

  return {
    exclusive: false,

    async open(ledger, state) {
      await identity.open(ledger, state)
      isOpen = true
    },

    append(blob, request) {
      const stop = createStop()
      const { signal } = request
      signal.addEventListener('abort', stop.ask, { once: true })
      if (signal.aborted) stop.ask()
      return guarded(
        blob.key,
        async () => {
          const appended = await appendToS3(appendDeps, blob, request, stop)
          // Without notes it had only this one request, and there is nothing to complete or to clean up.
          const isPut = appended.outcome === 'kept' && appended.offset === blob.size && appended.state === undefined
          if (isPut && blob.state === null) keepNewest(put, blob.key, blob.size)
          return appended
        },
        stop.ask,
      ).finally(() => signal.removeEventListener('abort', stop.ask))
    },

    recover: (blob, { offset }) =>
      guarded(blob.key, async () => {
        const notes = readNotes(blob.state)
        if ((await examination.atObject(blob, notes)) === 'whole') return { outcome: 'kept', offset: blob.size }
        const upTo = notes === null ? 0 : noted(notes, blob.size)
        const isThere = notes === null || notes.uploadId === null || (await isListed(blob, notes.uploadId))
        // Only what is noted counts, and it is there, no matter which node wrote it.
        if (upTo >= offset && isThere) return { outcome: 'kept', offset }
        if ((await examination.afterMissing(blob, notes)) === 'whole') return { outcome: 'kept', offset: blob.size }
        return { outcome: 'lost' }
      }),

    seal: (blob) =>
      guarded(blob.key, async () => (put.get(blob.key) === blob.size && blob.size > 0 ? 'sealed' : seal(blob))),
    sealedState,
    inspect: (blob, signal) => guarded(blob.key, () => reading.inspect(blob, signal)),
    digestOf: (blob, length, signal) => guarded(blob.key, () => reading.digestOf(blob, length, signal)),
    read: (key, range) => opened(() => reading.read(key, range)),

    remove: (key) => {
      queue.interrupt(key)
      return guarded(key, () => remove(key))
    },

    list: inventory.list,
    sizeOf: (key) => guarded(key, () => inventory.sizeOf(key)),
    uploadRemains: {
      found: (key) => guarded(key, () => inventory.hasUploadRemains(key)),
      remove: (key) => guarded(key, () => removeUnfinished(key)),
    },
    quarantine: {
      list: inventory.quarantine.list,
      add: (key, nowAt) => guarded(key, () => inventory.quarantine.add(key, nowAt)),
      takeBack: (key) => guarded(key, () => inventory.quarantine.takeBack(key)),
      remove: (key) => guarded(key, () => inventory.quarantine.remove(key)),
    },

    probe: () => opened(() => probe(calls, names)),
    examine: (settings) => opened(() => examine(settings)),
    observe: (listener) => void (onRequest = listener),
    readMark: () => identity.readMark(),
    writeMark: (mark) => identity.writeMark(mark),

    presign: (key, { expiresInSeconds, contentType, contentDisposition }) =>
      opened(async () => {
        const [{ getSignedUrl }, { GetObjectCommand }] = await Promise.all([
          import('@aws-sdk/s3-request-presigner'),
          import('@aws-sdk/client-s3'),
        ])
        const input: GetObjectCommandInput = { Bucket: store.bucketName, Key: names.blob(key) }
        if (contentType !== undefined) input.ResponseContentType = contentType
        if (contentDisposition !== undefined) input.ResponseContentDisposition = contentDisposition
        return getSignedUrl(store.s3, new GetObjectCommand(input), { expiresIn: expiresInSeconds })
      }),

    async close() {
      await queue.closeAll()
      isOpen = false
      blocks.close()
      store.s3.destroy()
    },
  }

  async function isListed(blob: BlobRef, uploadId: string): Promise<boolean> {
    return (await calls.listParts(names.blob(blob.key), uploadId, 1)) !== null
  }
}

/**
 * How many blobs are remembered between their last byte and their seal. For one that was dropped, the seal asks the
 * store.
 */
const MAX_KEPT = 1_000

function keepNewest(map: Map<string, number>, key: string, sizeBytes: number): void {
  if (map.size >= MAX_KEPT) map.delete(map.keys().next().value ?? '')
  map.set(key, sizeBytes)
}
