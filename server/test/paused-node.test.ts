import { request as httpRequest } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { S3 } from '@aws-sdk/client-s3'
import { Client } from 'pg'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { type Postgres, startPostgres } from '../../e2e/ground/postgres.js'
import { type Proxy, type RecordedRequest, startProxy } from '../../e2e/ground/proxy.js'
import { content, digestOf, eventually, newId } from './harness.js'
import { type Node, nodesOn, operationAt, untilReferenced } from './nodes.js'
import { useProgram } from './program.js'
import { s3Server } from './s3.js'

// A node that stood still (SIGSTOP) in the middle of a write, and goes on while another one has taken over.

const { missing, config } = await s3Server()
const MIB = 1024 * 1024
const LEASE_MS = 2_000
const SIZE_BYTES = 20 * MIB

/** What node A is in the middle of: how much its client had sent it for that, and how much of it the call brings. */
const INSIDE = {
  'an UploadPart': {
    sentBytes: SIZE_BYTES,
    callBytes: 8 * MIB,
    is: ({ method, path }: RecordedRequest) => method === 'PUT' && /[?&]partNumber=1(&|$)/.test(path),
  },
  'the write of a tail': {
    sentBytes: 3 * MIB,
    callBytes: 3 * MIB,
    is: ({ method, path }: RecordedRequest) => method === 'PUT' && /\/tails\//.test(path),
  },
} as const
/** So little of its body is still under way when A is stopped that the kernel has it, and brings it without A. */
const UNDER_WAY_BYTES = 192 * 1024

const isCompletion = ({ method, path }: RecordedRequest): boolean =>
  method === 'POST' && /[?&]uploadId=/.test(path) && !/[?&]uploads/.test(path)

describe.skipIf(missing !== null)(
  `a node that stood still on PostgreSQL and S3${missing === null ? '' : ` (${missing})`}`,
  () => {
    const program = useProgram()
    let postgres: Postgres
    beforeAll(async () => {
      postgres = await startPostgres()
    }, 60_000)
    afterAll(() => postgres.stop())
    let proxies: Proxy[] = []
    afterEach(async () => {
      await Promise.all(proxies.map((proxy) => proxy.close()))
      proxies = []
    })

    /** Two nodes, each with a line of its own to the object store. */
    async function twoNodes() {
      const url = await postgres.database()
      const shared = nodesOn(url, config)
      const start = async (name: string) => {
        const line = await startProxy({ targetPort: Number(new URL(config.endpoint).port) })
        proxies.push(line)
        const node = await program.serve({
          ...shared,
          LANDFALL_S3_ENDPOINT: line.origin,
          LANDFALL_LEASE_MS: String(LEASE_MS),
          LANDFALL_METRICS_PATH: '/metrics',
          LANDFALL_DATA_DIR: `${program.directory}/${name}`,
        })
        return { node, line }
      }
      const [a, b] = await Promise.all([start('a'), start('b')])
      return { a, b, url, prefix: shared.LANDFALL_S3_PREFIX }
    }

    /** The operation's row and its references, but for what its holder prolongs. */
    async function rowsOf(url: string, id: string): Promise<object> {
      const client = new Client({ connectionString: url })
      await client.connect()
      const of = async (table: string, column: string): Promise<object[]> =>
        (await client.query<Record<string, unknown>>(`SELECT * FROM ${table} WHERE ${column} = $1`, [id])).rows.map(
          ({ lease_expires_at: _lease, due_at: _due, ...row }) => row,
        )
      const operations = await of('landfall_operations', 'id')
      const references = await of('landfall_references', 'operation_id')
      await client.end()
      return { operations, references }
    }

    /** How many writes were refused to this node because another one had taken over. */
    async function fencedAt(node: Node): Promise<number> {
      const text = await (await fetch(new URL('/metrics', node.address))).text()
      const sample = 'landfall_writes_fenced_total{by="holder"} '
      const line = text.split('\n').find((each) => each.startsWith(sample)) ?? ''
      return Number(line.slice(sample.length))
    }

    async function leftAt(prefix: string): Promise<{ blobs: number; tails: number; uploads: number }> {
      const { bucket, ...client } = config
      const s3 = new S3(client)
      const { Contents = [] } = await s3.listObjectsV2({ Bucket: bucket, Prefix: prefix })
      const { Uploads = [] } = await s3.listMultipartUploads({ Bucket: bucket, Prefix: prefix })
      s3.destroy()
      const under = (folder: string): number =>
        Contents.filter(({ Key = '' }) => Key.startsWith(prefix + folder)).length
      return { blobs: under('blobs/'), tails: under('tails/'), uploads: Uploads.length }
    }

    /** A client that sends this much, whatever it is answered. */
    async function sends(node: Node, id: string, bytes: Uint8Array): Promise<void> {
      const ownerTag = await node.tagOf('ann')
      const request = httpRequest(`${node.address}/files/${id}`, {
        method: 'PATCH',
        agent: false,
        headers: {
          'X-Owner': 'ann',
          'Landfall-Version': '1',
          'Landfall-Owner': ownerTag,
          'Tus-Resumable': '1.0.0',
          'Upload-Offset': '0',
          'Content-Type': 'application/offset+octet-stream',
          'Content-Length': String(bytes.length),
        },
      })
      request.on('error', () => {})
      request.on('response', (answer) => answer.resume())
      request.end(bytes)
    }

    /** As our client does: asks where the operation stands, and goes on from there; 423 while the other node has it. */
    async function send(node: Node, id: string, bytes: Uint8Array<ArrayBuffer>, upTo: number): Promise<void> {
      for (const deadline = Date.now() + 20_000; ; await sleep(100)) {
        const declared = await node.declare(id, bytes.length)
        const { offset = 0 } = (await declared.json()) as { offset?: number }
        if (offset >= upTo) return
        if (declared.status !== 423) await node.patch(id, offset, bytes.subarray(offset, upTo))
        if (Date.now() > deadline) throw new Error(`node B does not get further than ${offset}`)
      }
    }

    test.each([
      ['an UploadPart', 'before'],
      ['an UploadPart', 'during'],
      ['an UploadPart', 'after'],
      ['the write of a tail', 'before'],
      ['the write of a tail', 'during'],
      ['the write of a tail', 'after'],
    ] as const)(
      'inside %s; goes on %s completion by another: changes nothing, and counts it',
      async (inside, when) => {
        const { a, b, url, prefix } = await twoNodes()
        const [id, bytes] = [newId(), content(SIZE_BYTES)]
        await a.node.declare(id, bytes.length)
        const { sentBytes, callBytes, is } = INSIDE[inside]
        a.line.setRate({ up: 12 * MIB })
        await sends(a.node, id, bytes.subarray(0, sentBytes))
        const held = await a.line.waitFor((r) => is(r) && r.forwardedBodyBytes > callBytes - UNDER_WAY_BYTES)
        a.line.cut()
        a.node.child.kill('SIGSTOP')
        expect(held).toMatchObject({ complete: false, answered: false })

        const goesOn = async (): Promise<void> => {
          const before = await rowsOf(url, id)
          a.line.setRate(null)
          a.line.heal()
          // Stored before A knows; of an upload that is complete no part is any more.
          await a.line.waitFor((request) => request === held && request.status !== null)
          expect(held.status).toBe(inside === 'an UploadPart' && when === 'after' ? 404 : 200)
          a.node.child.kill('SIGCONT')
          await eventually(
            () => fencedAt(a.node),
            (fenced) => fenced > 0,
            15_000,
          )
          expect(await rowsOf(url, id)).toEqual(before)
        }
        switch (when) {
          case 'before':
            await send(b.node, id, bytes, SIZE_BYTES / 2)
            await goesOn()
            await send(b.node, id, bytes, SIZE_BYTES)
            break
          case 'during': {
            const delayed = b.line.arm({ kind: 'delay', ms: 3_000 }, { match: isCompletion })
            const sent = send(b.node, id, bytes, SIZE_BYTES)
            const meanwhile = async (): Promise<void> => {
              await b.line.waitFor((request) => delayed.matched.includes(request))
              await goesOn()
              expect(delayed.matched[0]).toMatchObject({ status: null })
            }
            await Promise.all([sent, meanwhile()])
            break
          }
          case 'after':
            await send(b.node, id, bytes, SIZE_BYTES)
            await eventually(
              () => operationAt(b.node, id),
              ({ recoveryPoint }) => recoveryPoint === 'completed',
              20_000,
            )
            await goesOn()
            break
        }
        await untilReferenced(b.node, id)
        for (const { node } of [a, b]) {
          const stored = await node.request('GET', `/files/${id}`)
          expect(digestOf(new Uint8Array(await stored.arrayBuffer()))).toBe(digestOf(bytes))
        }
        expect(await rowsOf(url, id)).toMatchObject({
          operations: [{ offset: String(SIZE_BYTES) }],
          references: [{ digest: digestOf(bytes) }],
        })
        // Nothing that A wrote is left behind.
        const left = await eventually(
          () => leftAt(prefix),
          ({ blobs, tails, uploads }) => blobs + tails + uploads === 1,
          10_000,
        )
        expect(left).toEqual({ blobs: 1, tails: 0, uploads: 0 })
      },
      90_000,
    )
  },
)
