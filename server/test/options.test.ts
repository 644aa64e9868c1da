/** Options that cannot work are refused where they are given, by name, with what they may be and what they are. */
import { createServer } from 'node:http'
import { createClient } from '@libsql/client'
import { afterEach, describe, expect, test } from 'vitest'
import { fileBlobs } from '../src/blobs/file/file-blobs.js'
import { s3Blobs } from '../src/blobs/s3/s3-blobs.js'
import { UploadError } from '../src/lib/errors.js'
import { kind } from '../src/kinds/kind.js'
import { serializedLibsql } from '../src/ledger/sqlite/client/serialized-libsql.js'
import { openMetrics } from '../src/metrics.js'
import { guardServer, serveUploads } from '../src/http/node-server.js'
import { createUploads } from '../src/uploads.js'
import { standardWebhook } from '../src/effects/webhook.js'
import { newId, startServer, type TestServer } from './harness.js'

let server: TestServer | undefined
afterEach(async () => {
  await server?.close()
  server = undefined
})

type Options = Record<string, unknown>
const file = kind({ onReference: async () => null })
const ledger = { migrate() {}, declare() {}, refer() {}, onChange() {} }
const blobs = { open() {}, append() {}, seal() {}, read() {} }
const secret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'

// A user without TypeScript, and one whose numbers come from a file, can give anything.
const makers: Record<string, (options: Options) => unknown> = {
  createUploads: (options) =>
    createUploads({ ledger, blobs, authenticate: () => 'ann', kinds: { file }, ...options } as never),
  kind: (options) => kind({ onReference: async () => null, ...options }),
  fileBlobs: (options) => fileBlobs({ directory: 'x', ...options }),
  s3Blobs: (options) => s3Blobs({ s3ClientConfig: { bucket: 'b', region: 'r' }, ...options }),
  standardWebhook: (options) => standardWebhook({ url: 'https://example.org/', secret, ...options }),
  serializedLibsql: (options) => serializedLibsql(createClient({ url: ':memory:' }), options),
  openMetrics: (options) => openMetrics(options),
  guardServer: (options) =>
    guardServer(
      createServer(() => {}),
      options,
    ),
}

function refusalOf(maker: string, options: Options): UploadError {
  try {
    makers[maker]?.(options)
  } catch (error) {
    if (error instanceof UploadError) return error
    throw error
  }
  throw new Error('nothing was refused')
}

test.each<[string, Options, string]>([
  ['createUploads', { leaseMs: 0 }, 'leaseMs must be a whole number from 100 to 2147483647, not 0'],
  ['createUploads', { leaseMs: Number.NaN }, 'leaseMs must be a whole number from 100 to 2147483647, not NaN'],
  ['createUploads', { leaseMs: 1.5e3 + 0.5 }, 'leaseMs must be a whole number from 100 to 2147483647, not 1500.5'],
  ['createUploads', { leaseMs: '30000' }, 'leaseMs must be a whole number from 100 to 2147483647, not a string'],
  ['createUploads', { leaseMs: null }, 'leaseMs must be a whole number from 100 to 2147483647, not null'],
  ['createUploads', { expiresAfterMs: -5 }, 'expiresAfterMs must be a whole number from 1 to 3153600000000, not -5'],
  ['createUploads', { expiresAfterMs: Infinity }, 'expiresAfterMs must be a whole number'],
  ['createUploads', { maxAttempts: 0 }, 'maxAttempts must be a whole number from 1'],
  ['createUploads', { completerIntervalMs: 0 }, 'completerIntervalMs must be'],
  ['createUploads', { completer: 'auto' }, "completer must be 'automatic' or 'manual', not a string"],
  ['createUploads', { digestGraceMs: -1 }, 'digestGraceMs must be'],
  ['createUploads', { signedUrlSeconds: 9_999_999 }, 'signedUrlSeconds must be a whole number from 1 to 604800'],
  ['createUploads', { signedUrlSeconds: 60 }, 'signedUrlSeconds needs a blob store that signs addresses'],
  ['createUploads', { limits: { maxSizeBytes: -1 } }, 'limits.maxSizeBytes must be a whole number from 0'],
  ['createUploads', { limits: { maxSizeBytes: null } }, 'limits.maxSizeBytes must be'],
  ['createUploads', { limits: { quotaBytes: 5 } }, 'limits.quotaBytes must be a function, not 5'],
  ['createUploads', { limits: 5 }, 'limits must be an object with options, not 5'],
  [
    'createUploads',
    { limits: { maxSizeByte: 5 } },
    'limits.maxSizeByte: there is no such option; did you mean maxSizeBytes?',
  ],
  ['createUploads', { effects: { backoff: { firstMs: 0 } } }, 'effects.backoff.firstMs must be'],
  ['createUploads', { effects: { maxAttempts: Number.NaN } }, 'effects.maxAttempts must be'],
  ['createUploads', { allowedOrigins: 'https://a.test' }, 'allowedOrigins must be a list of origins'],
  ['createUploads', { allowedOrigins: ['https://a.test/'] }, 'allowedOrigins must be a list of origins'],
  ['createUploads', { inlineTypes: ['.png'] }, 'inlineTypes must be a list of media types such as image/png'],
  ['createUploads', { authenticate: 'ann' }, 'authenticate must be a function, not a string'],
  ['createUploads', { authenticate: undefined }, 'authenticate must be a function, not undefined'],
  ['createUploads', { ledger: {} }, 'ledger must be a ledger: sqliteLedger(db) or postgresLedger(db), not an object'],
  ['createUploads', { blobs: 'data/blobs' }, 'blobs must be a blob store'],
  ['createUploads', { logger: {} }, 'logger must be a logger such as pino'],
  ['createUploads', { kinds: null }, 'kinds must be an object of kinds'],
  [
    'createUploads',
    { kinds: { file: { onReference() {} } } },
    'kinds must be an object of kinds, each made with kind(',
  ],
  ['createUploads', { leaseMS: 5 }, 'leaseMS: there is no such option; did you mean leaseMs?'],
  ['createUploads', { retries: 5 }, 'retries: there is no such option'],
  ['kind', { accept: 'image/*' }, 'accept must be a list of media types'],
  ['kind', { accept: ['png'] }, 'accept must be a list of media types'],
  ['kind', { maxSizeBytes: '5 MB' }, 'maxSizeBytes must be a whole number from 0'],
  ['kind', { prepareTimeoutMs: Number.NaN }, 'prepareTimeoutMs must be'],
  ['kind', { onReferenceTimeoutMs: 0 }, 'onReferenceTimeoutMs must be'],
  ['kind', { prepare: { scan: 'clamav' } }, 'prepare must be an object of functions'],
  ['kind', { effects: { notify: 'https://example.org/' } }, 'effects must be an object of functions and receivers'],
  ['kind', { metadata: { albumId: 'string' } }, 'metadata must be a Standard Schema'],
  ['kind', { onReference: undefined }, 'onReference must be a function, not undefined'],
  ['kind', { authorise: () => false }, 'authorise: there is no such option; did you mean authorize?'],
  ['fileBlobs', { directory: '' }, 'directory must be a text that is not empty'],
  ['fileBlobs', { checkpointBytes: 0 }, 'checkpointBytes must be'],
  ['fileBlobs', { checkpointMs: Number.NaN }, 'checkpointMs must be'],
  ['fileBlobs', { patienceMs: -1 }, 'patienceMs must be'],
  ['s3Blobs', { s3ClientConfig: { region: 'r' } }, 's3ClientConfig must be an object with the name of a bucket'],
  ['s3Blobs', { partSize: 1024 }, 'partSize must be a whole number from 5242880 to 5368709120, not 1024'],
  ['s3Blobs', { maxConcurrentPartUploads: 0 }, 'maxConcurrentPartUploads must be'],
  ['s3Blobs', { memoryBytes: -1 }, 'memoryBytes must be'],
  ['s3Blobs', { callTimeoutMs: 0 }, 'callTimeoutMs must be'],
  ['s3Blobs', { useTags: true }, 'useTags: there is no such option'],
  ['standardWebhook', { timeLimitMs: 0 }, 'timeLimitMs must be a whole number from 1 to 600000, not 0'],
  ['standardWebhook', { allowPrivateAddresses: 'no' }, 'allowPrivateAddresses must be true or false, not a string'],
  ['standardWebhook', { secret: [5] }, 'secret must be a text, or a list of texts'],
  ['serializedLibsql', { busyTimeoutMs: -1 }, 'busyTimeoutMs must be'],
  ['serializedLibsql', { idleLimitMs: Number.NaN }, 'idleLimitMs must be'],
  ['openMetrics', { process: 'yes' }, 'process must be true or false'],
  ['guardServer', { idleMs: 0 }, 'idleMs must be a whole number from 1 to 2147483647, not 0'],
  ['guardServer', { bodyMs: '300000' }, 'bodyMs must be a whole number from 1 to 2147483647, not a string'],
  ['guardServer', { idleMS: 5 }, 'idleMS: there is no such option; did you mean idleMs?'],
  ['guardServer', { port: 3000 }, 'port: there is no such option'],
])('%s refuses %j', (maker, options, message) => {
  const refusal = refusalOf(maker, options)
  expect(refusal).toMatchObject({ name: 'UploadError', code: 'setup' })
  expect(refusal.message).toContain(`${maker}: ${message}`)
})

test.each<[Options, string]>([
  [{ fetch: undefined }, 'fetch must be a function, not undefined'],
  [{ port: 65_536 }, 'port must be a whole number from 0 to 65535, not 65536'],
  [{ port: '3000' }, 'port must be a whole number from 0 to 65535, not a string'],
  [{ hostname: '' }, 'hostname must be a text that is not empty, not a string'],
  [{ host: '0.0.0.0' }, 'host: there is no such option'],
  [{ idleMs: -1 }, 'idleMs must be a whole number from 1'],
  [{ bodyMs: Number.NaN }, 'bodyMs must be a whole number from 1'],
])('serveUploads refuses %j, and listens to nothing', async (options, message) => {
  const serving = serveUploads({ fetch: () => new Response(), port: 0, ...options })
  await expect(serving).rejects.toMatchObject({
    name: 'UploadError',
    code: 'setup',
    message: expect.stringContaining(`serveUploads: ${message}`) as unknown,
  })
})

test('serveUploads takes undefined for the default', async () => {
  const undefinedOptions: object = { hostname: undefined, idleMs: undefined, bodyMs: undefined }
  const listening = await serveUploads({ fetch: () => new Response(), port: 0, ...undefinedOptions })
  try {
    expect(listening.address()).toMatchObject({ address: '127.0.0.1' })
  } finally {
    listening.close()
  }
})

test('all that is wrong is said at once, and no text is repeated, which might be a secret', () => {
  const { message } = refusalOf('standardWebhook', { secret: { key: 'hidden' }, timeLimitMs: 'hidden', typ: 'hidden' })
  expect(message.split('\n').map((line) => line.split(' ', 2)[1])).toEqual(['secret', 'timeLimitMs', 'typ:'])
  expect(message).not.toContain('hidden')
})

describe('undefined is the default', () => {
  test.each(Object.keys(makers))('of %s', (maker) => {
    const names = {
      createUploads: ['limits', 'effects', 'leaseMs', 'allowedOrigins', 'inlineTypes', 'logger', 'metrics', 'clock'],
      kind: ['accept', 'metadata', 'prepare', 'effects', 'maxSizeBytes', 'prepareTimeoutMs'],
      fileBlobs: ['checkpointBytes', 'checkpointMs', 'patienceMs'],
      s3Blobs: ['prefix', 'objectName', 'memoryBytes', 'partSize', 'maxMultipartParts', 'maxConcurrentPartUploads'],
      standardWebhook: ['type', 'timeLimitMs', 'allowPrivateAddresses'],
      serializedLibsql: ['busyTimeoutMs', 'idleLimitMs'],
      openMetrics: ['process'],
      guardServer: ['idleMs', 'bodyMs'],
    }[maker]
    expect(() => makers[maker]?.(Object.fromEntries((names ?? []).map((name) => [name, undefined])))).not.toThrow()
  })

  test('of a limit too, which stays', async () => {
    const undefinedLimits = { maxSizeBytes: undefined, maxMetadataBytes: undefined, maxOpenPerOwner: 1 } as never
    server = await startServer({ file }, { limits: undefinedLimits })
    expect(await server.declare(newId(), { size: 1024 ** 4 + 1 })).toMatchObject({ status: 413 })
    expect(await server.declare(newId(), { size: 1024 ** 4 }, { metadata: { a: 'x'.repeat(17_000) } })).toMatchObject({
      status: expect.toSatisfy((status: number) => status >= 400 && status < 500),
    })
    expect(await server.declare(newId(), { size: 1024 ** 4 })).toMatchObject({ status: 201 })
    expect(await server.declare(newId(), { size: 1 })).toMatchObject({ status: 429 })
  })
})
