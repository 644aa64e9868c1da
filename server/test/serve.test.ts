import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { readSettings } from '../src/program/settings.js'
import { content, digestOf, eventually, later, newId } from './harness.js'
import { useProgram } from './program.js'
import { head, openLine } from './raw-http.js'

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

test('behind a proxy that takes a prefix away, answers have the path that clients see', async () => {
  const { address } = await serve({ LANDFALL_BASE_PATH: '/media/uploads' })
  const created = await fetch(`${address}/files`, {
    method: 'POST',
    headers: { 'X-Owner': 'ann', 'Tus-Resumable': '1.0.0', 'Upload-Length': '5' },
  })
  expect([created.status, created.headers.get('Location')]).toEqual([
    201,
    expect.stringMatching(/^\/media\/uploads\/files\/[0-9a-f-]{36}$/),
  ])
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
  const { child, address, tagOf, declare, exited } = await serve()
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
      'Landfall-Owner': await tagOf('ann'),
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

test('an owner holds no more than the quota, and another one has a quota of its own', async () => {
  const { declare, request } = await serve({ LANDFALL_QUOTA_BYTES: '1000' })
  const first = newId()
  expect((await declare(first, 600)).status).toBe(201)
  const over = await declare(newId(), 600)
  expect([over.status, ((await over.json()) as { code: string }).code]).toEqual([413, 'quota-exceeded'])
  expect((await declare(newId(), 600, 'bob')).status).toBe(201)
  expect((await request('DELETE', `/operations/${first}`)).status).toBe(200)
  expect((await declare(newId(), 600)).status).toBe(201)
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

test('an owner that is named twice is refused, and is nobody', async () => {
  const { address, declare } = await serve()
  const id = newId()
  expect((await declare(id, 5, 'ann')).status).toBe(201)
  const line = await openLine(Number(new URL(address).port))
  for (const [method, target] of [
    ['GET', `/uploads/operations/${id}`],
    ['DELETE', `/uploads/operations/${id}`],
    ['HEAD', `/uploads/files/${id}`],
  ] as const) {
    line.send(head(method, target, { 'X-Owner': 'bob', 'x-OWNER': 'ann', 'Tus-Resumable': '1.0.0' }))
    const answer = await line.answer(method)
    expect([method, answer.status]).toEqual([method, 400])
    if (method !== 'HEAD') expect(JSON.parse(answer.body)).toMatchObject({ detail: 'X-Owner came more than once' })
  }
  line.destroy()
  // A comma is a letter like others.
  expect((await declare(id, 5, 'bob, ann')).status).toBe(201)
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
    LANDFALL_MAX_SIZE_BYTES: '7 MB',
  }).exited
  expect([code, out]).toEqual([2, ''])
  for (const name of ['LANDFALL_PORT', 'LANDFALL_OWNER_HEADER', 'LANDFALL_LEASE_MS', 'LANDFALL_MAX_SIZE_BYTES'])
    expect(err).toContain(name)
  const { readdir } = await import('node:fs/promises')
  expect(await readdir(program.directory)).toEqual([])
})

test('starts in a pod beside a Service of its name, and says what it ignores', async () => {
  const started = await serveIn({
    LANDFALL_PORT: 'tcp://10.0.0.1:80',
    LANDFALL_SERVICE_HOST: '10.0.0.1',
    LANDFALL_PORT_80_TCP: 'tcp://10.0.0.1:80',
  })
  expect(started.err).toContain('unknown settings, which are ignored: LANDFALL_PORT_80_TCP, LANDFALL_SERVICE_HOST')
})

test.each(['--s3-secret-access-key', '--webhook-secret'])('%s is refused without its value', async (flag) => {
  const args = ['serve', '--data-dir', join(program.directory, 'data'), '--owner-header', 'x']
  for (const secret of [[flag, 'hidden'], [`${flag}=hidden`]]) {
    const { code, out, err } = await start([...args, ...secret]).exited
    expect([code, out]).toEqual([2, ''])
    expect(err).toContain(`${flag}: a secret in a flag can be read by everybody on the machine`)
    expect(err).not.toContain('hidden')
  }
  const { out } = await start(['serve', '--help']).exited
  expect(out).toContain(`${flag}-file <path>`)
  expect(out).not.toContain(`${flag} `)
})

/** With a flag for the port, because the platform has taken the variable. */
async function serveIn(env: Record<string, string>) {
  const { child, output, exited } = start(['serve', '--port', '0'], {
    LANDFALL_DATA_DIR: join(program.directory, 'data'),
    LANDFALL_OWNER_HEADER: 'X-Owner',
    ...env,
  })
  await eventually(
    async () => output.out,
    (out) => out.includes('landfall listens on'),
    60_000,
  )
  child.kill('SIGTERM')
  return exited
}

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
      LANDFALL_RETENTION_FINAL_MS: 30 * 24 * 60 * 60_000,
      LANDFALL_RETENTION_EFFECTS_MS: 7 * 24 * 60 * 60_000,
      LANDFALL_DECLARATIONS_PER_HOUR: 36_000,
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
    ['LANDFALL_OWNER_HEADER', 'landfall-owner'],
    ['LANDFALL_ALLOWED_ORIGINS', 'https://app.test/path'],
    ['LANDFALL_ALLOWED_ORIGINS', 'https://a.test, nonsense'],
    ['LANDFALL_BASE_PATH', 'media'],
    ['LANDFALL_BASE_PATH', '/media/'],
    ['LANDFALL_BASE_PATH', '/a b'],
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
    ['LANDFALL_PORT', 'http://x'],
    ['LANDFALL_S3_SECRET_ACCESS_KEY_FILE', '/nowhere/at/all'],
  ])('%s=%s is refused by name', (name, value) => {
    expect(() => readSettings({ ...least, [name]: value })).toThrow(name)
  })

  test('a setting that is required says what it is for', () => {
    const required = 'LANDFALL_OWNER_HEADER: required; the name of the header in which your proxy sends the owner'
    expect(() => readSettings({})).toThrow(required)
    expect(() => readSettings({ LANDFALL_OWNER_HEADER: '' })).toThrow(required)
  })

  const warningsOf = (variables: Record<string, string>, flags: Record<string, string> = {}) => {
    const warnings: string[] = []
    return {
      settings: readSettings({ ...least, ...variables }, { flags, warn: (what) => warnings.push(what) }),
      warnings,
    }
  }

  test('what Kubernetes sets beside a Service named landfall is ignored, and named', () => {
    const { settings, warnings } = warningsOf({
      LANDFALL_PORT: 'tcp://10.0.0.1:80',
      LANDFALL_SERVICE_HOST: '10.0.0.1',
      LANDFALL_PORT_80_TCP_ADDR: '10.0.0.1',
      LANDFALL_MAXSIZE: '7',
    })
    expect(settings.LANDFALL_PORT).toBe(3000)
    expect(warnings).toEqual([
      expect.stringMatching(/^LANDFALL_PORT is ignored/),
      'unknown settings, which are ignored: LANDFALL_MAXSIZE, LANDFALL_PORT_80_TCP_ADDR, LANDFALL_SERVICE_HOST',
    ])
    expect(warningsOf({ LANDFALL_PORT: 'udp://10.0.0.1:80' }, { LANDFALL_PORT: '81' })).toMatchObject({
      settings: { LANDFALL_PORT: 81 },
      warnings: [],
    })
    expect(warningsOf({ LANDFALL_PORT: '81' }).warnings).toEqual([])
  })

  test('a flag is read strictly', () => {
    expect(() => warningsOf({}, { LANDFALL_PORT: 'tcp://10.0.0.1:80' })).toThrow('LANDFALL_PORT')
  })

  test('secrets come from files, whose last newline is no part of them', async () => {
    const file = async (name: string, text: string) => {
      const path = join(program.directory, name)
      await writeFile(path, text)
      return path
    }
    const url = await file('url', 'postgres://user:secret@host/db\r\n')
    const variables = {
      LANDFALL_S3_BUCKET: 'b',
      LANDFALL_S3_ACCESS_KEY_ID_FILE: await file('id', 'me'),
      LANDFALL_S3_SECRET_ACCESS_KEY_FILE: await file('key', ' s3 cret \n'),
      LANDFALL_WEBHOOK_URL: 'https://x.test/',
      LANDFALL_WEBHOOK_SECRET_FILE: await file('hook', 'whsec_AAAA,whsec_BBBB\n'),
      LANDFALL_DATABASE_URL_FILE: url,
    }
    expect(warningsOf(variables)).toMatchObject({
      warnings: [],
      settings: {
        LANDFALL_S3_ACCESS_KEY_ID: 'me',
        LANDFALL_S3_SECRET_ACCESS_KEY: ' s3 cret ',
        LANDFALL_WEBHOOK_SECRET: ['whsec_AAAA', 'whsec_BBBB'],
        LANDFALL_DATABASE_URL: 'postgres://user:secret@host/db',
      },
    })
    // A flag wins over both forms of its variable.
    const flags = { LANDFALL_DATABASE_URL: 'file:x.db' }
    expect(warningsOf(variables, flags).settings.LANDFALL_DATABASE_URL).toBe('file:x.db')
    const inFile = { LANDFALL_DATABASE_URL_FILE: url }
    expect(warningsOf({ LANDFALL_DATABASE_URL: 'file:x.db' }, inFile).settings.LANDFALL_DATABASE_URL).toMatch(
      /^postgres/,
    )
    expect(() => warningsOf({ ...variables, LANDFALL_DATABASE_URL: 'file:x.db' })).toThrow('only one of them')
    expect(() => warningsOf({ LANDFALL_S3_SECRET_ACCESS_KEY_FILE: 'x' })).toThrow(
      'LANDFALL_S3_SECRET_ACCESS_KEY_FILE: the file cannot be read',
    )
    const empty = await file('empty', '\n')
    expect(() => warningsOf({ LANDFALL_DATABASE_URL_FILE: empty })).toThrow('is empty')
  })

  test.each([
    'postgres://user:hidden@host/db',
    'postgres://user@host/db?password=hidden',
    'postgres://user:hidden@host:port/db',
  ])('a password in a flag is refused and not repeated: %s', (url) => {
    expect(() => warningsOf({}, { LANDFALL_DATABASE_URL: url })).toThrow(/LANDFALL_DATABASE_URL_FILE/)
    expect(() => warningsOf({}, { LANDFALL_DATABASE_URL: url })).not.toThrow(/hidden/)
    expect(() => warningsOf({}, { LANDFALL_DATABASE_URL: 'postgres://user@host/db' })).not.toThrow()
  })

  test('origins are separated by commas', () => {
    expect(
      readSettings({ ...least, LANDFALL_ALLOWED_ORIGINS: 'https://a.test, http://b.test:8080' })
        .LANDFALL_ALLOWED_ORIGINS,
    ).toEqual(['https://a.test', 'http://b.test:8080'])
  })
})
