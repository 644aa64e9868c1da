import { S3 } from '@aws-sdk/client-s3'
import { sql } from 'drizzle-orm'
import { v4 as uuidv4 } from 'uuid'
import { describe, expect, test } from 'vitest'
import { s3Blobs } from '../src/blobs/s3/s3-blobs.js'
import { kind } from '../src/kinds/kind.js'
import { photos, type Tx } from './fixtures.js'
import { content, digestOf, startServer } from './harness.js'
import { chainOf, s3Server } from './s3.js'
import { startProxy } from '../../e2e/ground/proxy.js'

const { missing, config } = await s3Server()
const MiB = 1024 * 1024

async function serverOnS3({
  endpoint = config.endpoint,
  ...more
}: { signedUrlSeconds?: number; endpoint?: string } = {}) {
  const prefix = `${uuidv4()}/`
  const server = await startServer(
    {
      file: kind({
        onReference: async (tx: Tx, { operation }) => {
          await tx.insert(photos).values({ name: operation.file.name })
          return null
        },
      }),
    },
    { ...more, blobsOf: () => s3Blobs({ s3ClientConfig: { ...config, endpoint }, prefix, partSize: 5 * MiB }) },
  )
  const bare = new S3(config)
  return {
    ...server,
    server,
    prefix,
    names: async () => {
      const { Contents = [] } = await bare.listObjectsV2({ Bucket: config.bucket, Prefix: prefix })
      const { Uploads = [] } = await bare.listMultipartUploads({ Bucket: config.bucket, Prefix: prefix })
      return [...Contents, ...Uploads]
        .map(({ Key = '' }) => Key.replace(prefix, ''))
        .filter((name) => !name.endsWith('.json'))
    },
  }
}

describe.skipIf(missing !== null)(`the server on S3${missing === null ? '' : ` (${missing})`}`, () => {
  test('an upload in several requests and processes ends as one reference', async () => {
    const { server, names } = await serverOnS3()
    try {
      const id = uuidv4()
      const bytes = content(12 * MiB + 345)
      await server.declare(id, { size: bytes.length })
      for (const [from, to] of [
        [0, 7 * MiB],
        [7 * MiB, 7 * MiB + 10],
      ] as const) {
        const { status } = await server.patch(id, from, bytes.subarray(from, to))
        expect(status).toBe(204)
        expect(await server.get(id)).toMatchObject({ offset: to, recoveryPoint: 'declared' })
        await server.restart()
      }
      const proof = await server.request('GET', `/operations/${id}/prefix`)
      const { partBytes, ...proven } = (await proof.json()) as { partBytes: number }
      expect(proven).toEqual({
        offset: 7 * MiB + 10,
        digest: chainOf(bytes.subarray(0, 7 * MiB + 10), partBytes),
      })
      await server.patch(id, 7 * MiB + 10, bytes.subarray(7 * MiB + 10))
      const operation = await server.get(id, '?wait=10')
      expect(operation).toMatchObject({ offset: bytes.length, reference: { digest: digestOf(bytes) } })
      expect(await server.photos()).toEqual(['a.bin'])
      const file = await server.request('GET', `/files/${id}`, { headers: { Range: 'bytes=5242870-5242890' } })
      expect(Buffer.from(await file.arrayBuffer()).equals(bytes.subarray(5_242_870, 5_242_891))).toBe(true)
      expect((await names()).length).toBe(1)
      // What the way to it needed is gone from its row.
      const [row] = await server.db.all<{ blob_state: string }>(sql`SELECT blob_state FROM landfall_operations`)
      expect(JSON.parse(row?.blob_state ?? '')).toMatchObject({ uploadId: null, parts: { last: [] }, tail: [] })
      expect(row?.blob_state.length).toBeLessThan(300)
    } finally {
      await server.close()
    }
  })

  test('where it is asked for, a download is sent on to the object store', async () => {
    const { server } = await serverOnS3({ signedUrlSeconds: 60 })
    try {
      const id = uuidv4()
      const bytes = content(1_000)
      await server.declare(id, { size: 1_000, name: 'a "b".txt', type: 'text/plain' })
      await server.patch(id, 0, bytes)
      await server.get(id, '?wait=10')
      const sent = await server.request('GET', `/files/${id}`)
      expect(sent.status).toBe(302)
      const file = await fetch(sent.headers.get('Location') ?? '')
      expect(file.headers.get('Content-Disposition')).toBe('attachment; filename="a \\"b\\".txt"')
      expect(Buffer.from(await file.arrayBuffer()).equals(bytes)).toBe(true)
      expect((await server.request('HEAD', `/files/${id}`)).status).toBe(200)
    } finally {
      await server.close()
    }
  })

  test('small and empty files', async () => {
    const { server, names } = await serverOnS3()
    try {
      for (const size of [0, 1, 100_000]) {
        const id = uuidv4()
        const bytes = content(size)
        await server.declare(id, { size })
        if (size > 0) await server.patch(id, 0, bytes)
        expect(await server.get(id, '?wait=10')).toMatchObject({ reference: { digest: digestOf(bytes) } })
      }
      expect((await names()).length).toBe(3)
    } finally {
      await server.close()
    }
  })

  test('an upload that stands open costs no call of the store, nor does asking for what is open', async () => {
    const store = await startProxy({ targetPort: Number(new URL(config.endpoint).port) })
    const { server } = await serverOnS3({ endpoint: store.origin })
    try {
      const ids = [uuidv4(), uuidv4(), uuidv4()]
      const [silent = '', small = '', large = ''] = ids
      await server.declare(silent, { size: 12 * MiB })
      await server.declare(small, { size: 1_000 })
      await server.patch(small, 0, content(500))
      await server.declare(large, { size: 12 * MiB })
      await server.patch(large, 0, content(6 * MiB))
      expect(store.requests.length).toBeGreaterThan(3)
      store.forget()
      for (let pass = 0; pass < 3; pass += 1) expect((await server.uploads.runOnce({ maxMs: 5_000 })).driven).toBe(0)
      const listed = await server.request('GET', '/operations?open')
      expect(await listed.json()).toMatchObject({ operations: [{ id: silent }, { id: small }, { id: large }] })
      expect(store.requests.map(({ method, path }) => `${method} ${path}`)).toEqual([])
    } finally {
      await server.close()
      await store.close()
    }
  })

  test('what lies beside a stored blob is found by reconcile, and goes; the blob stays', async () => {
    const { server, names, prefix } = await serverOnS3()
    try {
      const id = uuidv4()
      const bytes = content(6 * MiB)
      await server.declare(id, { size: bytes.length })
      await server.patch(id, 0, bytes)
      expect(await server.get(id, '?wait=10')).toMatchObject({ reference: { digest: digestOf(bytes) } })
      const [name = ''] = await names()
      // As a node leaves them that stood still, came back after another one had finished, and died.
      const bare = new S3(config)
      await bare.createMultipartUpload({ Bucket: config.bucket, Key: prefix + name })
      await bare.putObject({
        Bucket: config.bucket,
        Key: `${prefix}tails/${name.slice('blobs/'.length)}/late`,
        Body: 'x',
      })
      expect((await names()).length).toBe(3)
      expect(await server.uploads.operator.reconcile()).toMatchObject({ difference: 1, found: { 'upload-remains': 1 } })
      const applied = await server.uploads.operator.reconcile({ apply: true, force: true })
      expect(applied).toMatchObject({ difference: 0, found: { 'upload-remains': 1 }, done: { deleted: 1 } })
      expect(await names()).toEqual([name])
      expect(await server.uploads.operator.reconcile()).toMatchObject({ difference: 0, found: { 'upload-remains': 0 } })
    } finally {
      await server.close()
    }
  })

  test('a cancelled upload leaves nothing, and reconcile finds no difference', async () => {
    const { server, names } = await serverOnS3()
    try {
      const id = uuidv4()
      await server.declare(id, { size: 12 * MiB })
      await server.patch(id, 0, content(6 * MiB))
      const kept = uuidv4()
      await server.declare(kept, { size: 8 * MiB })
      await server.patch(kept, 0, content(5 * MiB + 3))
      expect((await server.uploads.operator.reconcile()).difference).toBe(0)
      await server.request('DELETE', `/operations/${id}`)
      await server.uploads.runOnce({ maxMs: 5_000 })
      expect((await names()).length).toBe(2)
      expect((await server.uploads.operator.reconcile()).difference).toBe(0)
    } finally {
      await server.close()
    }
  })
})
