import { once } from 'node:events'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { readSettings } from '../src/settings.js'
import { content, digestOf, eventually, later, newId } from './harness.js'
import { useProgram } from './program.js'

const program = useProgram()
const { start, serve } = program

test('says one line with its address, and takes a file', async () => {
  const { child, exited, address, request, declare, patch } = await serve()
  expect(address).not.toBe('')
  const id = newId()
  expect((await declare(id, 5)).status).toBe(201)
  expect((await patch(id, 0, content(5))).headers.get('Landfall-Recovery-Point')).toBe('referenced')
  const stored = await request('GET', `/files/${id}`)
  expect(digestOf(new Uint8Array(await stored.arrayBuffer()))).toBe(digestOf(content(5)))
  expect((await fetch(`${address}/operations/${id}`)).status).toBe(401)
  child.kill('SIGTERM')
  const { out, err } = await exited
  expect(out.split('\n')).toHaveLength(2)
  const lines = err
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { operationId?: string; msg: string })
  expect(lines.filter(({ msg }) => msg === 'referenced').map(({ operationId }) => operationId)).toEqual([id])
})

test('killed and started again, it goes on where it was, at once', async () => {
  const first = await serve()
  const id = newId()
  await first.declare(id, 10)
  await first.patch(id, 0, content(4))
  first.child.kill('SIGKILL')
  await first.exited
  const second = await serve()
  const continued = (await (await second.declare(id, 10)).json()) as { offset: number }
  expect(continued.offset).toBe(4)
  expect((await second.patch(id, 4, content(10).subarray(4))).headers.get('Landfall-Recovery-Point')).toBe('referenced')
})

test('on SIGTERM a running request ends at an acknowledged offset, and the program with 0', async () => {
  const { child, address, declare, exited } = await serve()
  const id = newId()
  await declare(id, 100_000)
  const body = new ReadableStream<Uint8Array>({
    start: (controller) => controller.enqueue(content(40_000)),
  })
  const sending = fetch(`${address}/files/${id}`, {
    method: 'PATCH',
    headers: {
      'X-Owner': 'ann',
      'Tus-Resumable': '1.0.0',
      'Upload-Offset': '0',
      'Content-Type': 'application/offset+octet-stream',
      'Landfall-Version': '1',
    },
    body,
    duplex: 'half',
  } as RequestInit)
  await later(500)
  child.kill('SIGTERM')
  const answer = await sending
  expect([answer.status, answer.headers.get('Upload-Offset')]).toEqual([204, '40000'])
  expect(await exited).toMatchObject({ code: 0 })
  const again = await serve()
  expect(await (await again.declare(id, 100_000)).json()).toMatchObject({ offset: 40_000 })
})

test('health is for everybody, metrics only for an operator who wants them', async () => {
  const { address, declare, patch } = await serve({ LANDFALL_METRICS_PATH: '/internal/metrics' })
  const get = (path: string) => fetch(new URL(path, address))
  const live = await get('/health/live')
  expect([live.status, await live.json()]).toEqual([200, { live: true }])
  expect(
    await eventually(
      async () => (await get('/health/ready')).json(),
      (health) => (health as { ready: boolean }).ready,
    ),
  ).toEqual({ ready: true, failed: [] })
  const id = newId()
  await declare(id, 5)
  await patch(id, 0, content(5))
  const page = await get('/internal/metrics')
  expect(page.headers.get('Content-Type')).toBe('application/openmetrics-text; version=1.0.0; charset=utf-8')
  const text = await page.text()
  for (const line of [
    'landfall_ledger_up 1',
    'landfall_bytes_accepted_total 5',
    'landfall_operations_reached_total{point="referenced"} 1',
    'landfall_finalise_lag_seconds_count 1',
  ])
    expect(text.split('\n')).toContain(line)
  expect(text).toContain('process_resident_memory_bytes')
  const quiet = await serve({ LANDFALL_DATA_DIR: join(program.directory, 'other') })
  expect((await fetch(new URL('/metrics', quiet.address))).status).toBe(404)
})

test('a second one on the same data is refused, and harms nothing', async () => {
  const { declare } = await serve()
  const second = start([
    'serve',
    '--port',
    '0',
    '--data-dir',
    join(program.directory, 'data'),
    '--owner-header',
    'x-owner',
  ])
  const { code, out, err } = await second.exited
  expect([code, out]).toEqual([2, ''])
  expect(err).toContain('another process uses this directory')
  expect((await declare(newId(), 5)).status).toBe(201)
})

test('a port that is taken is said by name', async () => {
  const taken = createServer().listen(0, '127.0.0.1')
  await once(taken, 'listening')
  const { port } = taken.address() as { port: number }
  const { code, err } = await start([
    'serve',
    '--port',
    String(port),
    '--data-dir',
    join(program.directory, 'data'),
    '--owner-header',
    'x-owner',
  ]).exited
  taken.close()
  expect(code).toBe(2)
  expect(err).toMatch(/LANDFALL_PORT.*EADDRINUSE/)
})

test('bad settings are refused by name, all of them, and nothing is made', async () => {
  const { code, out, err } = await start(['serve', '--port', 'http'], {
    LANDFALL_DATA_DIR: join(program.directory, 'data'),
    LANDFALL_LEASE_MS: '-5',
    LANDFALL_MAXSIZE: '7',
  }).exited
  expect([code, out]).toEqual([2, ''])
  for (const name of ['LANDFALL_PORT', 'LANDFALL_OWNER_HEADER', 'LANDFALL_LEASE_MS', 'LANDFALL_MAXSIZE'])
    expect(err).toContain(name)
  const { readdir } = await import('node:fs/promises')
  expect(await readdir(program.directory)).toEqual([])
})

describe('settings', () => {
  const least = { LANDFALL_OWNER_HEADER: 'X-User' }
  test('have the documented defaults', () => {
    expect(readSettings(least)).toEqual({
      LANDFALL_HOST: '127.0.0.1',
      LANDFALL_PORT: 3000,
      LANDFALL_DATA_DIR: './landfall-data',
      LANDFALL_DATABASE_CONNECTIONS: 10,
      LANDFALL_S3_REGION: 'us-east-1',
      LANDFALL_S3_PREFIX: '',
      LANDFALL_OWNER_HEADER: 'X-User',
      LANDFALL_MAX_SIZE_BYTES: 1024 ** 4,
      LANDFALL_EXPIRES_AFTER_MS: 604_800_000,
      LANDFALL_COMPLETER_INTERVAL_MS: 5_000,
      LANDFALL_LEASE_MS: 30_000,
      LANDFALL_ALLOWED_ORIGINS: [],
      LANDFALL_LOG_LEVEL: 'info',
      LANDFALL_DRAIN_DELAY_MS: 0,
      LANDFALL_MIGRATE: 'automatic',
      LANDFALL_WEBHOOK_ALLOW_PRIVATE: false,
    })
  })

  test.each([
    ['LANDFALL_PORT', '65536'],
    ['LANDFALL_PORT', '80.5'],
    ['LANDFALL_MAX_SIZE_BYTES', '1e3'],
    ['LANDFALL_OWNER_HEADER', 'x owner'],
    ['LANDFALL_ALLOWED_ORIGINS', 'https://app.test/path'],
    ['LANDFALL_ALLOWED_ORIGINS', 'https://a.test, nonsense'],
    ['LANDFALL_DATABASE_URL', 'mysql://x'],
    ['LANDFALL_DATABASE_CONNECTIONS', '1'],
    ['LANDFALL_S3_ENDPOINT', 's3.example'],
    ['LANDFALL_S3_ACCESS_KEY_ID', 'x'],
    ['LANDFALL_LOG_LEVEL', 'loud'],
    ['LANDFALL_METRICS_PATH', 'metrics'],
    ['LANDFALL_METRICS_PATH', '/uploads/files'],
    ['LANDFALL_METRICS_PATH', '/health'],
    ['LANDFALL_METRICS_PATH', '/:id'],
    ['LANDFALL_DRAIN_DELAY_MS', '-1'],
    ['LANDFALL_NONSENSE', '1'],
  ])('%s=%s is refused by name', (name, value) => {
    expect(() => readSettings({ ...least, [name]: value })).toThrow(name)
  })

  test('origins are separated by commas', () => {
    expect(
      readSettings({ ...least, LANDFALL_ALLOWED_ORIGINS: 'https://a.test, http://b.test:8080' })
        .LANDFALL_ALLOWED_ORIGINS,
    ).toEqual(['https://a.test', 'http://b.test:8080'])
  })
})
