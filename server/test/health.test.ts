/** Whether a process can take requests, as a load balancer asks it: often, from several sides, and while everything is away. */
import { join } from 'node:path'
import { sql } from 'drizzle-orm'
import { Hono } from 'hono'
import { afterEach, expect, test } from 'vitest'
import { lockFile } from '../src/lib/lock-file.js'
import { fileBlobs } from '../src/blobs/file/file-blobs.js'
import { UploadError } from '../src/lib/errors.js'
import { healthRoutes } from '../src/http/health.js'
import { kind } from '../src/kinds/kind.js'
import { sqliteLedger } from '../src/ledger/sqlite/ledger.js'
import type { LedgerPulse } from '../src/ports/ledger/inventory.js'
import { createUploads } from '../src/uploads.js'
import type { Tx } from './fixtures.js'
import { eventually, later, silent, startServer, type TestServer } from './harness.js'

const KINDS = { file: kind({ onReference: async () => null }) }
const READY = { ready: true, failed: [] }
const failed = (...names: string[]) => ({ ready: false, failed: names })
/** What was asked is good for a second. */
const FRESH_MS = 1_050

let server: TestServer | undefined
afterEach(async () => {
  await server?.close()
  server = undefined
})

const start = async (options: Parameters<typeof startServer>[1] = {}) => (server = await startServer(KINDS, options))

const heartbeatSecondsAgo = ({ db }: TestServer, seconds: number) =>
  db.run(
    sql`UPDATE landfall_meta SET value = CAST(CAST(unixepoch('subsec') * 1000 AS INTEGER) - ${seconds * 1000} AS TEXT) WHERE key = 'heartbeat'`,
  )

test('a process is ready when a completer is alive, and tells it by status and by name', async () => {
  const { uploads } = await start({ completerIntervalMs: 1_000 })
  const app = new Hono().route('/health', healthRoutes(uploads))
  const live = await app.request('/health/live')
  expect([live.status, await live.json()]).toEqual([200, { live: true }])
  const before = await app.request('/health/ready')
  expect([before.status, await before.json()]).toEqual([503, failed('completer')])
  expect(before.headers.get('Cache-Control')).toBe('no-store')
  await uploads.runOnce()
  await later(FRESH_MS)
  const after = await app.request('/health/ready')
  expect([after.status, await after.json()]).toEqual([200, READY])
  expect((await app.request('/health/ready', { method: 'HEAD' })).status).toBe(200)
})

test('a completer of any process counts, and one that has said nothing for long is dead', async () => {
  const { uploads, ledger } = await start({ completerIntervalMs: 1_000 })
  await ledger.heartbeat()
  expect(await uploads.health()).toEqual(READY)
  // Three intervals and half a minute.
  await heartbeatSecondsAgo(server!, 30)
  await later(FRESH_MS)
  expect(await uploads.health()).toEqual(READY)
  await heartbeatSecondsAgo(server!, 34)
  await later(FRESH_MS)
  expect(await uploads.health()).toEqual(failed('completer'))
  await sqliteLedger(server!.db).heartbeat()
  await later(FRESH_MS)
  expect(await uploads.health()).toEqual(READY)
})

test('where nobody says how often runOnce is called, the completer does not count', async () => {
  const { uploads } = await start()
  expect(await uploads.health()).toEqual(READY)
})

test('many who ask at once ask the database once', async () => {
  let asked = 0
  const { uploads } = await start({
    ledgerOf: (ledger) => ({
      ...ledger,
      pulse() {
        asked++
        return ledger.pulse()
      },
    }),
  })
  const answers = await Promise.all(Array.from({ length: 100 }, () => uploads.health()))
  expect(answers).toEqual(Array.from({ length: 100 }, () => READY))
  expect(asked).toBe(1)
  await later(FRESH_MS)
  await uploads.health()
  expect(asked).toBe(2)
})

test('a database that refuses, and one that does not answer, is said within a second', async () => {
  let asked = 0
  let pulse = (): Promise<LedgerPulse> => Promise.reject(new UploadError('ledger-unavailable', 'away'))
  const { uploads } = await start({
    ledgerOf: (ledger) => ({
      ...ledger,
      pulse: () => {
        asked++
        return pulse()
      },
    }),
  })
  expect(await uploads.health()).toEqual(failed('database'))
  let answer = (_pulse: LedgerPulse): void => {}
  pulse = () => new Promise((resolve) => (answer = resolve))
  await later(FRESH_MS)
  const from = performance.now()
  expect(await uploads.health()).toEqual(failed('database'))
  expect(performance.now() - from).toBeLessThan(1_500)
  await later(FRESH_MS)
  // Questions do not pile up on it.
  expect(await uploads.health()).toEqual(failed('database'))
  expect(asked).toBe(2)
  answer({ nowAt: 0, heartbeatAt: null })
  pulse = async () => ({ nowAt: 0, heartbeatAt: null })
  expect(
    await eventually(
      () => uploads.health(),
      ({ ready }) => ready,
    ),
  ).toEqual(READY)
})

test('a store whose disk is full is named, until there is room', async () => {
  let isFull = true
  const room = { freeBytes: 1, totalBytes: 2, reserveBytes: 1 }
  const { uploads } = await start({ blobsOf: (blobs) => ({ ...blobs, room: async () => ({ ...room, isFull }) }) })
  expect(await uploads.health()).toEqual(failed('space'))
  isFull = false
  await later(FRESH_MS)
  expect(await uploads.health()).toEqual(READY)
})

test('what cannot be opened is named, and is tried again by whoever asks', async () => {
  const first = await start()
  const ledger = sqliteLedger(first.db)
  await first.uploads.close()
  // As another process has it.
  const other = lockFile(join(first.directory, 'blobs'), 'landfall.lock')
  let away = true
  const second = createUploads<Tx, typeof KINDS>({
    ledger: {
      ...ledger,
      migrate: () => (away ? Promise.reject(new UploadError('ledger-unavailable', 'away')) : ledger.migrate()),
    },
    blobs: fileBlobs({ directory: join(first.directory, 'blobs') }),
    authenticate: () => null,
    kinds: KINDS,
    completer: 'manual',
    logger: silent,
  })
  expect(await second.health()).toEqual(failed('database', 'tables', 'store'))
  away = false
  await later(FRESH_MS)
  // The directory belongs to the other process.
  expect(await second.health()).toEqual(failed('store'))
  other?.release()
  await later(FRESH_MS)
  expect(await second.health()).toEqual(READY)
  await second.close()
})

test('a process that drains is not ready from the first moment, and serves for as long as was announced', async () => {
  const { uploads, get } = await start()
  expect(await uploads.health()).toEqual(READY)
  const closed = uploads.close({ announcedMs: 300 })
  expect(await uploads.health()).toEqual(failed('draining'))
  await later(150)
  expect((await get('0192f0c1-0000-7000-8000-000000000000')).status).toBe(404)
  await closed
  expect(await uploads.health()).toEqual(failed('draining'))
})
