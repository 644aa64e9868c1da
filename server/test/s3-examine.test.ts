import { type LifecycleRule, S3 } from '@aws-sdk/client-s3'
import { v4 as uuidv4 } from 'uuid'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type S3Blobs, s3Blobs } from '../src/blobs/s3/s3-blobs.js'
import { kind } from '../src/kinds/kind.js'
import { openMetrics } from '../src/metrics.js'
import type { StoreCheck, StoreRequest } from '../src/ports/blob-store.js'
import { content, newId, startServer } from './harness.js'
import { s3Server } from './s3.js'
import { answer, Wire } from './s3-wire.js'

const { missing, config } = await s3Server()
const DAY_MS = 24 * 60 * 60_000

describe.skipIf(missing !== null)(`the check of the object store${missing === null ? '' : ` (${missing})`}`, () => {
  const bare = new S3(config)
  let prefix: string
  let wire: Wire
  let store: S3Blobs
  beforeEach(async () => {
    prefix = `${uuidv4()}/`
    wire = new Wire()
    store = s3Blobs({ s3ClientConfig: { ...config, requestHandler: wire as never }, prefix })
    await store.open('ledger-1', 'new')
  })
  afterEach(() => store.close())

  const names = async (): Promise<number> => {
    const { Contents = [] } = await bare.listObjectsV2({ Bucket: config.bucket, Prefix: prefix })
    const { Uploads = [] } = await bare.listMultipartUploads({ Bucket: config.bucket, Prefix: prefix })
    return Contents.length + Uploads.length
  }
  const examined = async (name: StoreCheck['name']): Promise<StoreCheck | undefined> =>
    (await store.examine?.({ expiresAfterMs: 7 * DAY_MS }))?.find((check) => check.name === name)
  const rules = (...Rules: LifecycleRule[]) =>
    bare.putBucketLifecycleConfiguration({ Bucket: config.bucket, LifecycleConfiguration: { Rules } })

  test('tries out what the service can do, and leaves nothing behind', async () => {
    const before = await names()
    expect(await examined('abilities')).toMatchObject({ state: 'ok', advice: null })
    expect(await names()).toBe(before)
  })

  test('names each ability that is missing', async () => {
    let puts = 0
    wire.interfere = async (call, through) => {
      // Answers as if it had overwritten the object.
      if (call === 'PUT other' && (puts += 1) === 2)
        return { response: { statusCode: 200, headers: {}, body: new Uint8Array() } }
      const answered = await through()
      if (call === 'HEAD other') delete answered.response.headers['x-amz-meta-landfall-token']
      return answered
    }
    expect(await examined('abilities')).toEqual({
      name: 'abilities',
      state: 'failed',
      found:
        'the object store does not refuse to overwrite an object (If-None-Match); it does not keep the metadata of an upload',
      advice: 'Use a service, or a version of it, that does.',
    })
  })

  test('fails if the service is unavailable', async () => {
    wire.interfere = async () => answer(403, 'AccessDenied')
    expect(await examined('abilities')).toMatchObject({
      state: 'failed',
      found: expect.stringContaining('refuses PutObject'),
    })
    expect(await examined('lifecycle')).toMatchObject({
      state: 'failed',
      advice: expect.stringContaining('s3:GetLifecycleConfiguration'),
    })
  })

  test('finds lifecycle rules that remove references or running uploads, and ignores others', async () => {
    const Status = 'Enabled' as const
    await bare.deleteBucketLifecycle({ Bucket: config.bucket })
    expect(await examined('lifecycle')).toMatchObject({
      state: 'warning',
      found: 'no rule of the bucket removes anything',
      advice: expect.stringContaining('"DaysAfterInitiation":14'),
    })
    await rules({ ID: 'elsewhere', Status, Filter: { Prefix: 'elsewhere/' }, Expiration: { Days: 1 } })
    expect(await examined('lifecycle')).toMatchObject({ found: 'no rule of the bucket removes anything' })
    await rules({ ID: 'old', Status, Filter: { Prefix: '' }, Expiration: { Days: 30 } })
    expect(await examined('lifecycle')).toMatchObject({ state: 'failed', found: expect.stringContaining('rule old') })
    const ending = (DaysAfterInitiation: number): LifecycleRule => ({
      ID: 'net',
      Status,
      Filter: { Prefix: `${prefix}blobs/` },
      AbortIncompleteMultipartUpload: { DaysAfterInitiation },
    })
    await rules(ending(2))
    expect(await examined('lifecycle')).toMatchObject({ state: 'warning', found: expect.stringContaining('2 days') })
    await rules(ending(14))
    expect(await examined('lifecycle')).toMatchObject({ state: 'ok', found: expect.stringContaining('14 days') })
    await bare.deleteBucketLifecycle({ Bucket: config.bucket })
  })

  test('reports each request with its outcome', async () => {
    const seen: StoreRequest[] = []
    store.observe?.((request) => seen.push(request))
    let failures = 2
    wire.interfere = async (call, through) =>
      call === 'PUT other' && failures-- > 0 ? answer(503, 'SlowDown') : through()
    await store.probe()
    expect(seen.map(({ name, outcome }) => `${name} ${outcome}`)).toEqual([
      'PutObject SlowDown',
      'PutObject SlowDown',
      'PutObject ok',
      'GetObject ok',
      'DeleteObject ok',
    ])
    for (const { tookMs } of seen) expect(tookMs).toBeGreaterThan(0)
  })

  test('is part of doctor and of the metrics of a server', async () => {
    const metrics = openMetrics()
    const server = await startServer(
      { file: kind({ onReference: async () => null }) },
      { metrics, blobsOf: () => s3Blobs({ s3ClientConfig: config, prefix: `${uuidv4()}/` }) },
    )
    try {
      const id = newId()
      await server.declare(id, { size: 10 })
      await server.patch(id, 0, content(10))
      const checks = await server.uploads.operator.doctor()
      expect(checks.map(({ name }) => name)).toEqual(
        expect.arrayContaining(['store', 'identity', 'space', 'abilities', 'lifecycle']),
      )
      const { text } = await metrics.expose()
      expect(text).toMatch(/^landfall_store_requests_total\{request="PutObject",outcome="ok"\} [1-9]/m)
      expect(text).toMatch(/^landfall_store_request_seconds_count\{request="GetObject"\} [1-9]/m)
    } finally {
      await server.close()
    }
  })
})
