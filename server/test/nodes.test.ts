import { request as httpRequest } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Postgres, startPostgres } from '../../e2e/ground/postgres.js'
import { content, digestOf, eventually, newId } from './harness.js'
import { type Node, nodesOn, operationAt, untilReferenced } from './nodes.js'
import { useProgram } from './program.js'
import { s3Server } from './s3.js'

// Several `landfall serve` on one PostgreSQL and one bucket: any request may come to any of them.

const { missing, config } = await s3Server()
const MIB = 1024 * 1024

describe.skipIf(missing !== null)(
  `several nodes on PostgreSQL and S3${missing === null ? '' : ` (${missing})`}`,
  () => {
    const program = useProgram()
    let postgres: Postgres
    beforeAll(async () => {
      postgres = await startPostgres()
    }, 60_000)
    afterAll(() => postgres.stop())

    async function startNodes(count: number, env: Record<string, string> = {}) {
      const url = await postgres.database()
      const shared = { ...nodesOn(url, config), ...env }
      const nodes = await Promise.all(
        Array.from({ length: count }, (_, n) =>
          program.serve({ ...shared, LANDFALL_DATA_DIR: `${program.directory}/node-${n}` }),
        ),
      )
      return nodes as [Node, Node, ...Node[]]
    }
    /** A client that has sent so much and says nothing more, on a connection that stays. */
    async function halfOpen(
      node: Node,
      id: string,
      { offset, length, bytes }: { offset: number; length: number; bytes: Uint8Array },
    ): Promise<{ end(): void }> {
      const ownerTag = await node.tagOf('ann')
      const request = httpRequest(`${node.address}/files/${id}`, {
        method: 'PATCH',
        agent: false,
        headers: {
          'X-Owner': 'ann',
          'Landfall-Version': '1',
          'Landfall-Owner': ownerTag,
          'Tus-Resumable': '1.0.0',
          'Upload-Offset': String(offset),
          'Content-Type': 'application/offset+octet-stream',
          'Content-Length': String(length),
        },
      })
      request.on('error', () => {})
      request.write(bytes)
      return { end: () => void request.destroy() }
    }

    test('an upload goes from node to node, and arrives once', async () => {
      const nodes = await startNodes(3)
      const id = newId()
      const bytes = content(20 * MIB)
      expect((await nodes[0].declare(id, bytes.length)).status).toBe(201)
      for (let at = 0, n = 1; at < bytes.length; at += 4 * MIB, n += 1) {
        const answer = await nodes[n % 3]?.patch(id, at, bytes.subarray(at, at + 4 * MIB))
        expect(answer?.status).toBe(204)
        expect(Number(answer?.headers.get('Upload-Offset'))).toBe(Math.min(bytes.length, at + 4 * MIB))
      }
      for (const node of nodes) {
        await untilReferenced(node, id)
        const stored = await node.request('GET', `/files/${id}`)
        expect(digestOf(new Uint8Array(await stored.arrayBuffer()))).toBe(digestOf(bytes))
      }
    }, 120_000)

    test('a half-open connection to one node lets go within two seconds when another is asked', async () => {
      const [a, b] = await startNodes(2)
      const id = newId()
      const bytes = content(3 * MIB)
      await a.declare(id, bytes.length)
      const slow = await halfOpen(a, id, { offset: 0, length: bytes.length, bytes: bytes.subarray(0, MIB) })
      await sleep(1_000)
      const fromMs = performance.now()
      const head = await b.request('HEAD', `/files/${id}`, { headers: { 'Tus-Resumable': '1.0.0' } })
      expect(performance.now() - fromMs).toBeLessThan(2_000)
      expect(head.headers.get('Upload-Offset')).toBe(String(MIB))
      const answer = await b.patch(id, MIB, bytes.subarray(MIB))
      expect(answer.status).toBe(204)
      await untilReferenced(b, id)
      slow.end()
    }, 60_000)

    test('a node that is killed in the middle of a request is followed by another within its lease, and no byte is asked for before', async () => {
      // Longer than a declaration waits.
      const leaseMs = 9_000
      const [a, b] = await startNodes(2, { LANDFALL_LEASE_MS: String(leaseMs) })
      const id = newId()
      const bytes = content(12 * MIB)
      await a.declare(id, bytes.length)
      expect((await a.patch(id, 0, bytes.subarray(0, 9 * MIB))).status).toBe(204)
      const slow = await halfOpen(a, id, { offset: 9 * MIB, length: 3 * MIB, bytes: bytes.subarray(9 * MIB, 10 * MIB) })
      await sleep(300)
      a.child.kill('SIGKILL')
      await a.exited
      const fromMs = performance.now()
      const early = await b.declare(id, bytes.length)
      expect(early.status).toBe(423)
      expect(early.headers.get('Retry-After')).toBe('1')
      const { status, body } = await eventually(
        async () => {
          const declared = await b.declare(id, bytes.length)
          return { status: declared.status, body: (await declared.json()) as { offset: number } }
        },
        (declared) => declared.status !== 423,
        20_000,
      )
      expect(status).toBe(200)
      expect(body.offset).toBeGreaterThanOrEqual(9 * MIB)
      expect((await b.patch(id, body.offset, bytes.subarray(body.offset))).status).toBe(204)
      await untilReferenced(b, id)
      expect(performance.now() - fromMs).toBeLessThan(leaseMs + 5_000)
      slow.end()
      const stored = await b.request('GET', `/files/${id}`)
      expect(digestOf(new Uint8Array(await stored.arrayBuffer()))).toBe(digestOf(bytes))
    }, 60_000)

    test('who waits at one node hears of what another one has done', async () => {
      const [a, b] = await startNodes(2)
      const id = newId()
      await a.declare(id, 5)
      const waiting = b.request('GET', `/operations/${id}?wait=20`)
      await sleep(500)
      const fromMs = performance.now()
      await a.patch(id, 0, content(5))
      const { recoveryPoint } = (await (await waiting).json()) as { recoveryPoint: string }
      expect(['received', 'sealed', 'verified', 'referenced', 'completed', 'declared']).toContain(recoveryPoint)
      expect(performance.now() - fromMs).toBeLessThan(3_000)
      expect((await operationAt(b, id)).recoveryPoint).toMatch(/referenced|completed/)
    }, 60_000)
  },
)
