/** What an operator's numbers say, beside what has happened. */
import { afterEach, expect, test } from 'vitest'
import { UploadError } from '../src/lib/errors.js'
import { kind, reject } from '../src/kinds/kind.js'
import { meteredBlobs, meteredLedger } from '../src/operate/metering.js'
import { NO_METRICS } from '../src/ports/metrics.js'
import { openMetrics } from '../src/metrics.js'
import type { BlobStore } from '../src/ports/blob-store.js'
import { brokenBody, content, eventually, newId, type Options, startServer, type TestServer } from './harness.js'

let server: TestServer | undefined
afterEach(async () => {
  await server?.close()
  server = undefined
})

/** The samples of a page, by their name with labels; each belongs to a family that was announced before. */
function samplesOf(text: string): Record<string, number> {
  const lines = text.split('\n')
  expect(lines.slice(-2)).toEqual(['# EOF', ''])
  const families = new Map<string, string>()
  const samples: Record<string, number> = {}
  for (const line of lines.slice(0, -2)) {
    const type = /^# TYPE (\S+) (counter|gauge|histogram|summary|unknown)$/.exec(line)
    if (type !== null) families.set(type[1] ?? '', type[2] ?? '')
    if (line.startsWith('#')) continue
    const [, name = '', labels = '', value = ''] = /^([a-z0-9_]+)(\{.*\})? (\S+)$/.exec(line) ?? []
    const family = name.replace(/_(total|bucket|sum|count)$/, '')
    expect([line, families.has(name) || families.has(family)]).toEqual([line, true])
    samples[name + labels] = value === '+Inf' ? Number.POSITIVE_INFINITY : Number(value.replace('Nan', 'NaN'))
  }
  return samples
}

async function measured(
  kinds: Parameters<typeof startServer>[0],
  options: Options & { blobsOf?: (blobs: BlobStore) => BlobStore } = {},
) {
  const metrics = openMetrics()
  server = await startServer(kinds, { ...options, metrics })
  return { ...server, server, metrics, samples: async () => samplesOf((await metrics.expose()).text) }
}

const onReference = async () => null

test('says where operations went, how long it took and what was stored', async () => {
  const { declare, patch, request, uploads, samples, metrics } = await measured({
    file: kind({ onReference, effects: { notify: async () => {} } }),
    picky: kind({ onReference: async () => reject('no', 'never') }),
  })
  const [first, second, cancelled, refused] = [newId(), newId(), newId(), newId()]
  for (const id of [first, second, cancelled]) await declare(id, { size: 100 }, { kind: 'file' })
  await declare(refused, { size: 100 }, { kind: 'picky' })
  expect((await patch(first, 0, content(100))).headers.get('Landfall-Recovery-Point')).toBe('referenced')
  await patch(second, 0, content(30))
  await patch(second, 30, content(100).subarray(30, 60))
  await request('DELETE', `/operations/${cancelled}`)
  await patch(refused, 0, content(100))
  await declare(refused, { size: 100 }, { kind: 'picky' })
  await uploads.runOnce()
  expect((await metrics.expose()).contentType).toBe('application/openmetrics-text; version=1.0.0; charset=utf-8')
  const now = await samples()
  expect(now).toMatchObject({
    'landfall_operations_reached_total{point="declared"}': 4,
    'landfall_operations_reached_total{point="referenced"}': 1,
    'landfall_operations_reached_total{point="cancelled"}': 1,
    'landfall_operations_reached_total{point="rejected"}': 1,
    'landfall_operations_reached_total{point="expired"}': 0,
    landfall_bytes_accepted_total: 260,
    landfall_finalise_lag_seconds_count: 1,
    'landfall_effect_attempts_total{outcome="delivered"}': 1,
    'landfall_store_calls_total{call="append",outcome="ok"}': 4,
    'landfall_store_calls_total{call="seal",outcome="ok"}': 2,
    'landfall_writes_fenced_total{by="holder"}': 0,
    landfall_leases_lost_total: 0,
    landfall_ledger_up: 1,
    'landfall_operations{point="declared"}': 1,
    'landfall_operations{point="referenced"}': 0,
    landfall_operations_stalled: 0,
    'landfall_oldest_unfinished_seconds{waits_for="server"}': 0,
    'landfall_effects{state="due"}': 0,
  })
  expect(now['landfall_finalise_lag_seconds_sum']).toBeGreaterThan(0)
  expect(now['landfall_oldest_unfinished_seconds{waits_for="client"}']).toBeGreaterThan(0)
  expect(now['landfall_completer_heartbeat_age_seconds']).toBeLessThan(60)
})

test('the lag counts from the last byte, whoever failed meanwhile', async () => {
  let fails = 1
  const { declare, patch, uploads, get, samples } = await measured({
    file: kind({
      onReference: async () => {
        if (fails-- > 0) throw new Error('not yet')
        return null
      },
    }),
  })
  const id = newId()
  await declare(id, { size: 10 })
  await patch(id, 0, content(10))
  await eventually(
    async () => {
      await uploads.runOnce()
      return get(id)
    },
    ({ recoveryPoint }) => recoveryPoint === 'referenced' || recoveryPoint === 'completed',
  )
  const now = await samples()
  expect(now['landfall_finalise_lag_seconds_count']).toBe(1)
  // The pause after a failure is at least so long.
  expect(now['landfall_finalise_lag_seconds_sum']).toBeGreaterThanOrEqual(0.05)
})

test('a lease that was lost, and the write that it refused, are counted', async () => {
  const { declare, patch, ledger, samples, get } = await measured({ file: kind({ onReference }) }, { leaseMs: 300 })
  const id = newId()
  await declare(id, { size: 100 })
  const sending = patch(id, 0, brokenBody([content(40)], 'silent'))
  await eventually(
    () => ledger.find({ owner: 'ann', id }),
    (operation) => operation?.leaseHolder !== null,
  )
  // Somebody else takes over.
  expect(await ledger.forgetOtherHolders('another')).toBe(1)
  expect((await sending).status).toBeGreaterThanOrEqual(400)
  expect(await samples()).toMatchObject({
    landfall_leases_lost_total: 1,
    'landfall_writes_fenced_total{by="holder"}': 1,
    'landfall_writes_fenced_total{by="cancel"}': 0,
  })
  expect(await get(id)).toMatchObject({ offset: 0 })
})

test('what a user cancels is no sign of nodes in trouble', async () => {
  const { declare, patch, request, ledger, samples } = await measured({ file: kind({ onReference }) })
  const id = newId()
  await declare(id, { size: 100 })
  const sending = patch(id, 0, brokenBody([content(40)], 'silent'))
  await eventually(
    () => ledger.find({ owner: 'ann', id }),
    (operation) => operation?.leaseHolder !== null,
  )
  await request('DELETE', `/operations/${id}`)
  await sending
  expect(await samples()).toMatchObject({
    landfall_leases_lost_total: 0,
    'landfall_writes_fenced_total{by="holder"}': 0,
    'landfall_writes_fenced_total{by="cancel"}': 1,
  })
})

test('a store that fails is counted by what failed', async () => {
  let failing = true
  const { declare, patch, samples } = await measured(
    { file: kind({ onReference }) },
    {
      blobsOf: (blobs) => ({
        ...blobs,
        seal: (blob) => (failing ? Promise.reject(new UploadError('storage-unavailable', 'away')) : blobs.seal(blob)),
        inspect: () => Promise.reject(new Error('odd')),
      }),
    },
  )
  const ids = [newId(), newId()]
  for (const id of ids) {
    await declare(id, { size: 10 })
    await patch(id, 0, content(10))
    failing = false
  }
  expect(
    await eventually(samples, (now) => now['landfall_store_calls_total{call="inspect",outcome="fault"}'] === 1),
  ).toMatchObject({ 'landfall_store_calls_total{call="seal",outcome="storage-unavailable"}': 1 })
})

test('of a ledger that is away nothing is said, and the rest goes out', async () => {
  const metrics = openMetrics()
  expect(samplesOf((await metrics.expose()).text)['landfall_ledger_up']).toBe(0)
  metrics.observe(() => Promise.reject(new UploadError('ledger-unavailable', 'away')))
  metrics.count({ type: 'bytes-accepted', bytes: 7 })
  const now = samplesOf((await metrics.expose()).text)
  expect(now).toMatchObject({ landfall_ledger_up: 0, landfall_bytes_accepted_total: 7 })
  for (const name of ['landfall_operations_stalled', 'landfall_operations{point="declared"}'])
    expect(now[name]).toBe(Number.NaN)
})

test('many scrapes look into the ledger once, and a hanging one keeps no scrape', async () => {
  const metrics = openMetrics()
  let looks = 0
  metrics.observe(() => {
    looks++
    return new Promise(() => {})
  })
  const from = performance.now()
  const pages = await Promise.all([metrics.expose(), metrics.expose(), metrics.expose()])
  expect(pages.map(({ text }) => samplesOf(text)['landfall_ledger_up'])).toEqual([0, 0, 0])
  expect(performance.now() - from).toBeLessThan(5_000)
  expect(looks).toBe(1)
})

test('the process may be measured beside, in a page of its own for each call', async () => {
  const { text } = await openMetrics({ process: true }).expose()
  expect(samplesOf(text)['process_resident_memory_bytes']).toBeGreaterThan(1e6)
  expect((await openMetrics().expose()).text).not.toContain('process_')
})

test('where nobody counts, nothing is wrapped; and what is wrapped may be frozen, or a class', async () => {
  class Store {
    readonly exclusive = true
    readonly #sizes = new Map([['a', 7]])
    readonly quarantine = {}
    async sizeOf(key: string): Promise<number | null> {
      return this.#sizes.get(key) ?? null
    }
  }
  const store = Object.freeze(new Store()) as unknown as BlobStore
  expect(meteredBlobs(store, NO_METRICS)).toBe(store)
  const ledger = {} as Parameters<typeof meteredLedger>[0]
  expect(meteredLedger(ledger, NO_METRICS)).toBe(ledger)
  const counted: unknown[] = []
  const metered = meteredBlobs(store, { count: (event) => counted.push(event), observe: () => {} })
  expect([metered.exclusive, await metered.sizeOf('a')]).toEqual([true, 7])
  expect(counted).toEqual([{ type: 'store-call', call: 'sizeOf', outcome: 'ok', tookMs: expect.any(Number) }])
})
