import type { GetObjectCommandInput, S3, S3ClientConfig } from '@aws-sdk/client-s3'
import { type Options as S3StoreOptions, S3Store } from '@tus/s3-store'
import pLimit from 'p-limit'
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
import { createKeyQueue } from '../key-queue.js'
import { appendToS3 } from './append.js'
import { createBlocks } from './blocks.js'
import { createBudget } from './budget.js'
import { createS3Calls, type ObjectSettings } from './calls.js'
import { probe } from './probe.js'
import { bucketIdentity } from './identity.js'
import { createExamine } from './examine.js'
import { createS3Inventory } from './inventory.js'
import { checkObjectName, createNames } from './names.js'
import { noted, readNotes, sealedState } from './notes.js'
import { createReading } from './read.js'
import { createLook, createSeal } from './seal.js'
import { createTails } from './tails.js'
import { createStop } from '../take-bytes.js'

/** The options of @tus/s3-store's `S3Store`, and more. Those of its tags, its cache and its expiry have no meaning here. */
export interface S3BlobsOptions extends Omit<S3StoreOptions, 'useTags' | 'cache' | 'expirationPeriodInMilliseconds'> {
  /** Before the names of all objects. Each environment has one of its own. Default '': the whole bucket. */
  prefix?: string
  /**
   * The name of a blob's object, behind the prefix and `blobs/`: must end with the key and be in the order of the keys.
   * Default: the key.
   */
  objectName?: (key: string) => string
  serverSideEncryption?: ObjectSettings['ServerSideEncryption']
  /** Of AWS KMS, with `serverSideEncryption: 'aws:kms'`. */
  kmsKeyId?: string
  storageClass?: string
  /**
   * Memory for bytes that are not stored yet, of all uploads together. In bytes, default 96 MiB. Beyond it, sources
   * wait, and the bytes of clients that send nothing are stored as they are.
   */
  memoryBytes?: number
  /** A long request is acknowledged at least this often. In bytes, default 16 MiB. */
  checkpointBytes?: number
  /** … and at least this often in time. In milliseconds, default 2,000. */
  checkpointMs?: number
  /**
   * How long bytes wait, with their source unread, for an object store that is away, before their request is refused.
   * In milliseconds, default 5,000.
   */
  patienceMs?: number
  /**
   * How long one call may take before it is tried again, and how long nothing may come of a body that is read. In
   * milliseconds, default 60,000.
   */
  callTimeoutMs?: number
}

export interface S3Blobs extends BlobStore {
  /**
   * A URL by which anybody can read the blob for a while, straight from the object store. Needs the package
   * `@aws-sdk/s3-request-presigner`.
   */
  presign(key: string, options: PresignOptions): Promise<string>
}

/** Of one part and of all parts together, as AWS has it. */
const PART_BYTES = { least: 5 * 1024 * 1024, most: 5 * 1024 ** 3 }
const MOST_PARTS = 10_000

const OPTIONS = {
  // What else is in it is the AWS SDK's to judge.
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
 * Blobs as objects of an S3 bucket, for any number of processes.
 *
 * Takes the options of @tus/s3-store's `S3Store`, its client and its part sizes, and writes otherwise: each part has its
 * place, only a prefix without a gap is acknowledged, what counts stands in the ledger, and an upload is complete when
 * its object is there. Bytes go up from memory, which is bounded for all uploads together; there are no temporary files.
 *
 * @throws UploadError `setup`: an option that cannot work.
 */
export function s3Blobs(given: S3BlobsOptions): S3Blobs {
  const { checkpointBytes, checkpointMs, ...checked } = readOptions('s3Blobs', OPTIONS, given)
  const { prefix, objectName, memoryBytes, callTimeoutMs, patienceMs } = checked
  // Of those that are left to @tus/s3-store each has its default there, which `undefined` would take away.
  const options = Object.fromEntries(
    Object.entries(given).filter(([, value]) => value !== undefined),
  ) as unknown as S3BlobsOptions
  checkObjectName(objectName)
  const store = new S3StoreParts({
    ...options,
    s3ClientConfig: {
      // Older servers know no other checksums; what is sent is signed, and so checked, all the same.
      requestChecksumCalculation: 'WHEN_REQUIRED',
      responseChecksumValidation: 'WHEN_REQUIRED',
      // With it, the SDK opens a connection of its own for each part.
      expectContinueHeader: false,
      // It would warn on the console of each fault; those are thrown, with their code.
      logger: QUIET,
      requestHandler: { connectionTimeout: 5_000, httpAgent: { maxSockets: 256 }, httpsAgent: { maxSockets: 256 } },
      ...options.s3ClientConfig,
      // Its retries would multiply ours.
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
  const look = createLook({ calls, names, identity })
  const tails = createTails(calls, names)
  const reading = createReading({ calls, names, look, tails, timeoutMs: callTimeoutMs })
  const seal = createSeal({ calls, names, identity, look, tails })
  const blocks = createBlocks(memoryBytes)
  const queue = createKeyQueue()
  const appendDeps = {
    calls,
    names,
    look,
    tails,
    budget: createBudget(memoryBytes),
    blocks,
    sending: pLimit(checked.maxConcurrentPartUploads),
    partBytesOf: (sizeBytes: number) => store.partBytesOf(sizeBytes),
    checkpoint: { bytes: checkpointBytes, ms: checkpointMs },
  }
  /** Put as one by this process a moment ago: the seal has nothing to ask. */
  const put = new Map<string, number>()
  let isOpen = false

  const examine = createExamine({ calls, names })
  const inventory = createS3Inventory({ calls, names, remove })

  async function remove(key: string): Promise<void> {
    put.delete(key)
    // The uploads first: one that is completed at this moment makes an object still.
    await removeUnfinished(key)
    await calls.delete(names.blob(key))
  }

  async function removeUnfinished(key: string): Promise<void> {
    await tails.abortAll(key)
    await tails.removeAll(key)
  }

  /** Every call: only on an open store, one after the other for a key, faults by their code. */
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
          // Without notes it never had more than this one request, and there is nothing to complete or to clean up.
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
        if ((await look.atObject(blob, notes)) === 'whole') return { outcome: 'kept', offset: blob.size }
        const upTo = notes === null ? 0 : noted(notes, blob.size)
        const isThere = notes === null || notes.uploadId === null || (await isListed(blob, notes.uploadId))
        // Nothing counts but what is noted, and that is there whoever wrote it.
        if (upTo >= offset && isThere) return { outcome: 'kept', offset }
        if ((await look.afterMissing(blob, notes)) === 'whole') return { outcome: 'kept', offset: blob.size }
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

/** Between the last byte and the seal; the oldest goes, and is looked for. */
const MAX_KEPT = 1_000

function keepNewest(map: Map<string, number>, key: string, sizeBytes: number): void {
  if (map.size >= MAX_KEPT) map.delete(map.keys().next().value ?? '')
  map.set(key, sizeBytes)
}
