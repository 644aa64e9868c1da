import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { createClient } from '@libsql/client'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { Measurement, Series } from '../../bench/measure.js'
import { median } from '../../bench/report.js'
import { runLoad } from '../../clients/run-load.js'
import { markdown, medianRatio, summarise } from '../../bench/table.js'
import { pseudoRandomBytes, temporaryDirectory } from '../../ground/files.js'
import { startLandfall } from '../../programs/landfall.js'
import { portOf, type RunningProcess, startProcess } from '../../ground/processes.js'
import { startProxy } from '../../ground/proxy.js'

// Both are started as they are in the benchmark: compiled, as processes of their own.
const PEER = join(import.meta.dirname, '../../dist/programs/tus-peer.js')

let directory: Awaited<ReturnType<typeof temporaryDirectory>>
let peer: RunningProcess | null = null
beforeEach(async () => {
  directory = await temporaryDirectory()
})
afterEach(async () => {
  await peer?.kill()
  await directory.remove()
})

/** Loaded into the peer: says on standard error when a file has been synced. */
const TELL_SYNCS = `--import=data:text/javascript,${encodeURIComponent(`
  import { open } from 'node:fs/promises'
  const file = await open(process.execPath)
  const prototype = Object.getPrototypeOf(file)
  await file.close()
  const { datasync } = prototype
  prototype.datasync = async function () { await datasync.call(this); process.stderr.write('synced\\n') }
`)}`

async function startPeer(variant: string, env: Record<string, string> = {}): Promise<string> {
  const args = [PEER, variant, directory.path]
  peer = await startProcess({ command: process.execPath, args, env, ready: /(http:\S+)/ })
  return peer.ready[1] ?? ''
}

const load = (speak: 'tus' | 'landfall' | 'put', origin: string, count: number, size: number, parallel: number) =>
  runLoad({ speak, origin, count, size, parallel })

async function rows(): Promise<{ id: string; size: number; name: string }[]> {
  const client = createClient({ url: `file:${join(directory.path, 'peer.db')}` })
  const { rows: found } = await client.execute('SELECT id, size, name FROM files')
  client.close()
  return found.map(({ id, size, name }) => {
    if (typeof id !== 'string' || typeof name !== 'string') throw new Error('not a row of the peer')
    return { id, size: Number(size), name }
  })
}

describe.each(['tus', 'tus-sync'])('the peer %s', (variant) => {
  test('stores every upload whole, with one row each', async () => {
    const report = await load('tus', await startPeer(variant), 40, 10_240, 8)
    expect(report).toMatchObject({ uploads: 40, sizeBytes: 10_240, requests: 80 })
    const stored = await rows()
    expect(stored).toHaveLength(40)
    const expected = pseudoRandomBytes(10_240, 'load')
    for (const { id, size, name } of stored) {
      expect({ size, name }).toEqual({ size: 10_240, name: 'file.bin' })
      expect((await readFile(join(directory.path, 'uploads', id))).equals(expected)).toBe(true)
    }
  })

  test('takes an upload that is larger than the block it is made of', async () => {
    await load('tus', await startPeer(variant), 1, 5_000_000, 1)
    const [row] = await rows()
    expect(row?.size).toBe(5_000_000)
    expect((await stat(join(directory.path, 'uploads', row?.id ?? ''))).size).toBe(5_000_000)
  })
})

test('the peer tus-sync syncs each file before it answers, the peer tus none', async () => {
  const syncs = (): number => (peer?.output() ?? '').split('synced\n').length - 1
  await load('tus', await startPeer('tus', { NODE_OPTIONS: TELL_SYNCS }), 3, 1000, 1)
  expect(syncs()).toBe(0)
  await peer?.kill()
  await load('tus', await startPeer('tus-sync', { NODE_OPTIONS: TELL_SYNCS }), 3, 1000, 1)
  expect(syncs()).toBe(3)
})

test('the bare pipe stores every body', async () => {
  await load('put', await startPeer('pipe'), 20, 10_240, 4)
  const names = await readdir(join(directory.path, 'uploads'))
  expect(names).toHaveLength(20)
  for (const name of names) expect((await stat(join(directory.path, 'uploads', name))).size).toBe(10_240)
})

describe('the load generator', () => {
  test('speaks with Landfall as its own client does, two requests a small file, and waits for the reference', async () => {
    const landfall = await startLandfall(directory.path)
    const proxy = await startProxy({ targetPort: portOf(landfall) })
    expect(await load('landfall', proxy.origin, 20, 10_240, 4)).toMatchObject({ uploads: 20, sizeBytes: 10_240 })
    const expected = pseudoRandomBytes(10_240, 'load')
    const declared = proxy.requests.filter(({ method }) => method === 'PUT')
    expect(declared).toHaveLength(20)
    expect(proxy.requests.filter(({ method }) => method === 'PATCH')).toHaveLength(20)
    for (const { path } of declared) {
      const headers = { 'x-owner': 'bench' }
      const found: unknown = await (await fetch(proxy.origin + path, { headers })).json()
      expect(found).toMatchObject({ offset: 10_240, recoveryPoint: expect.stringMatching(/^(referenced|completed)$/) })
      const stored = await fetch(proxy.origin + path.replace('/operations/', '/files/'), { headers })
      expect(Buffer.from(await stored.arrayBuffer()).equals(expected)).toBe(true)
    }
    await proxy.close()
    await landfall.kill()
  })

  test('reuses its connections, and counts what it measures', async () => {
    const proxy = await startProxy({ targetPort: Number(new URL(await startPeer('tus')).port) })
    const report = await load('tus', proxy.origin, 20, 1000, 4)
    expect(report).toMatchObject({ uploads: 20, requests: 40 })
    expect(proxy.connections.length).toBeLessThanOrEqual(4)
    expect(proxy.requests.map(({ method }) => method).toSorted()).toEqual([
      ...Array<string>(20).fill('PATCH'),
      ...Array<string>(20).fill('POST'),
    ])
    expect(proxy.bodyBytes()).toBe(20_000)
    await proxy.close()
  })

  test('fails when one upload fails', async () => {
    const proxy = await startProxy({ targetPort: Number(new URL(await startPeer('tus')).port) })
    proxy.arm({ kind: 'answer', status: 503, body: 'later' }, { match: ({ method }) => method === 'PATCH' })
    await expect(load('tus', proxy.origin, 4, 1000, 1)).rejects.toThrow('PATCH was answered 503: later')
    await proxy.close()
  })
})

const measured = (round: number, wallMs: number): Measurement => ({
  round,
  wallMs,
  successMs: wallMs,
  uploads: 1,
  sizeBytes: 1_048_576,
  p50Ms: 1,
  p99Ms: 2,
  requests: 2,
  loadCpuMs: 1,
  serverCpuMs: wallMs / 2,
  acknowledgedCpuMs: wallMs / 4,
  memoryBytes: 1,
  peakResidentBytes: 104_857_600,
})
const system = (name: 'landfall' | 'tus-sync') => ({
  name,
  title: name,
  speak: 'tus' as const,
  start: () => ({ command: '', ready: /x/ }),
})

describe('the table', () => {
  const series: Series = {
    workload: { name: 'big', title: 'one', count: 1, sizeBytes: 1_048_576, parallel: 1, on: 'disk', systems: [] },
    systems: [system('landfall'), system('tus-sync')],
    measurements: {
      // A slow round hits both; the ratio within it stays.
      landfall: [measured(0, 1000), measured(1, 8000), measured(2, 2000)],
      'tus-sync': [measured(0, 2000), measured(1, 10_000), measured(2, 2000)],
    },
  }

  test('takes medians, and ratios within a round', () => {
    expect(median([3, 1, 2])).toBe(2)
    expect(median([4, 1, 2, 3])).toBe(2.5)
    expect(medianRatio(series, 'landfall', 'tus-sync', (m) => m.wallMs)).toBe(0.8)
    expect(summarise(series)[0]).toMatchObject({ system: 'landfall', rounds: 3, wallMs: 2000, serverCpuMs: 1000 })
    expect(markdown(series)).toContain('| landfall | 2.00 s | 1 MiB/s | 1.00 s | 100 MiB | 0.80 | 0.80 | 1.00 |')
  })
})
