import { createHash, randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { TUS_CONTENT_TYPE, TUS_RESUMABLE } from '@landfall/shared'
import { afterAll, describe, expect, test } from 'vitest'
import { pseudoRandomBytes } from '../../ground/files.js'
import { OWNER_HEADER } from '../../programs/landfall.js'
import { type Ground, openGround } from '../../ground/ground.js'
import { openNodes } from '../../programs/nodes.js'
import { openNodesReader } from '../../truth/nodes-reader.js'
import { ownHeaders } from '../../clients/wire.js'
import { startProxy } from '../../ground/proxy.js'
import { DONE_POINTS } from '../../truth/stored.js'

// The host of the database vanishes without a word, and the database is back at another address behind the same name.

const NODES = 3
const CLIENTS = 12
const SIZE_BYTES = 60_000
const LOAD_MS = { before: 3_000, after: 15_000 }
const BACK_MS = 10_000
/** Of a request: two calls of the ledger at most that wait for the database in vain, ten seconds each at most. */
const ANSWERED_MS = 20_000
/** A probe that is not answered sooner takes the node out for that alone. */
const PROBED_MS = 2_000

const opened = await openGround().catch((error: Error) => error)
const missing = opened instanceof Error ? ` (${opened.message})` : ''
afterAll(async () => {
  if (!(opened instanceof Error)) await opened.close()
})

interface Asked {
  readonly node: number
  readonly status: number
  readonly atMs: number
  readonly tookMs: number
}

describe.skipIf(opened instanceof Error)(`three nodes whose database goes silent${missing}`, () => {
  test('each call ends in time, the nodes are back within ten seconds, and nothing is lost', async () => {
    const ground = opened as Ground
    const nodes = await openNodes(ground, {
      count: NODES,
      env: { LANDFALL_LEASE_MS: '5000', LANDFALL_COMPLETER_INTERVAL_MS: '500', LANDFALL_LOG_LEVEL: 'warn' },
    })
    const reader = openNodesReader(ground)
    ground.defer(reader.end)
    const origins = nodes.all.map(({ server }) => server.ready[1] ?? '')
    const own = await ownHeaders(`${origins[0] ?? ''}/uploads`, { [OWNER_HEADER]: 'ann' })
    const asked: Asked[] = []
    const probed: Asked[] = []
    const over = new AbortController()
    const files: { id: string; sha256: string }[] = []

    async function ask(to: Asked[], node: number, path: string, init: RequestInit = {}): Promise<number> {
      const atMs = performance.now()
      const status = await fetch(`${origins[node] ?? ''}${path}`, {
        ...init,
        headers: { ...own, ...(init.headers as Record<string, string>) },
        signal: AbortSignal.timeout(60_000),
      }).then(
        async (answer) => (await answer.arrayBuffer(), answer.status),
        () => 0,
      )
      to.push({ node, status, atMs, tookMs: performance.now() - atMs })
      return status
    }
    /** As a client does it: anything but the wanted answer is asked for again, of whichever node is next. */
    async function until(wanted: (status: number) => boolean, call: (node: number) => Promise<number>): Promise<void> {
      for (let node = Math.floor(Math.random() * NODES); !wanted(await call(node)); node = (node + 1) % NODES)
        await sleep(250)
    }
    async function client(): Promise<void> {
      while (!over.signal.aborted) {
        const id = randomUUID()
        const bytes = Uint8Array.from(pseudoRandomBytes(SIZE_BYTES, id))
        const facts = JSON.stringify({ file: { name: 'a.bin', size: SIZE_BYTES, type: '' } })
        const declare = (node: number): Promise<number> =>
          ask(asked, node, `/uploads/operations/${id}`, { method: 'PUT', body: facts })
        await until((status) => status === 200 || status === 201, declare)
        files.push({ id, sha256: createHash('sha256').update(bytes).digest('hex') })
        await until(
          // Already there, or driven on without us.
          (status) => status === 204 || status === 409 || status === 410,
          (node) =>
            ask(asked, node, `/uploads/files/${id}`, {
              method: 'PATCH',
              body: bytes,
              headers: { 'Tus-Resumable': TUS_RESUMABLE, 'Upload-Offset': '0', 'Content-Type': TUS_CONTENT_TYPE },
            }),
        )
        await until((status) => status === 200, declare)
      }
    }
    async function probe(node: number): Promise<void> {
      while (!over.signal.aborted) {
        await ask(probed, node, '/health/ready')
        await sleep(250)
      }
    }

    const running = Promise.all([...Array.from({ length: CLIENTS }, client), ...origins.map((_, node) => probe(node))])
    await sleep(LOAD_MS.before)
    // On a busy machine the nodes take their time to begin.
    while (files.length < 2 * CLIENTS) await sleep(100)
    const elsewhere = await startProxy({ targetPort: ground.postgres.port, protocol: 'opaque' })
    const silentAtMs = performance.now()
    let stranded = 0
    for (const { database } of nodes.all) {
      database.retarget(elsewhere.port)
      stranded += database.strandConnections()
    }
    await sleep(LOAD_MS.after)
    over.abort()
    await running

    const tookMs = (all: readonly Asked[]): number => Math.round(Math.max(...all.map((each) => each.tookMs)))
    /** When the last answer of a node that says that it cannot was given. */
    const backMs = origins.map((_, node) =>
      Math.round(
        Math.max(
          0,
          ...[...asked, ...probed]
            .filter((each) => each.node === node && (each.status >= 500 || each.status === 0))
            .map(({ atMs, tookMs: took }) => atMs + took - silentAtMs),
        ),
      ),
    )
    process.stdout.write(
      `silent database: ${stranded} connections stranded, ${files.length} files, ${asked.length} requests; the longest took ` +
        `${tookMs(asked)} ms, the longest probe ${tookMs(probed)} ms; the nodes were back after ${backMs.join(', ')} ms\n`,
    )
    expect(stranded).toBeGreaterThan(NODES)
    // It was met at all.
    expect([...asked, ...probed].filter(({ status }) => status === 503).length).toBeGreaterThan(0)
    expect(tookMs(asked)).toBeLessThan(ANSWERED_MS)
    expect(tookMs(probed)).toBeLessThan(PROBED_MS)
    expect(Math.max(...backMs)).toBeLessThan(BACK_MS)
    expect(asked.filter(({ status }) => status === 0)).toEqual([])

    for (const deadline = Date.now() + 60_000; ; await sleep(500)) {
      const { operations } = await reader.readLedger()
      if (operations.every(({ point }) => DONE_POINTS.has(point)) || Date.now() > deadline) break
    }
    const stored = await reader.read()
    expect(stored.operations.filter(({ point }) => !DONE_POINTS.has(point))).toEqual([])
    expect(stored.references.map(({ id }) => id).toSorted()).toEqual(files.map(({ id }) => id).toSorted())
    for (const { id, sha256 } of files) {
      const { blobKey = '' } = stored.references.find((reference) => reference.id === id) ?? {}
      expect(await stored.blobs.get(blobKey)?.digest()).toBe(sha256)
    }
    await elsewhere.close()
  }, 240_000)
})
