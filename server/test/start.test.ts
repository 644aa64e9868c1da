/** When the server begins to work: not by being mounted, and without anybody's help once it is asked for anything. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { createClient } from '@libsql/client'
import { drizzle } from 'drizzle-orm/libsql'
import { Hono } from 'hono'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { fileBlobs } from '../src/blobs/file/file-blobs.js'
import { lockFile } from '../src/lib/lock-file.js'
import { kind } from '../src/kinds/kind.js'
import { serializedLibsql } from '../src/ledger/sqlite/client/serialized-libsql.js'
import { sqliteLedger } from '../src/ledger/sqlite/ledger.js'
import type { Ledger } from '../src/ports/ledger.js'
import { createUploads } from '../src/uploads.js'
import { temporaryDirectory, type Tx } from './fixtures.js'
import { eventually, later, newId, silent } from './harness.js'

let directory: Awaited<ReturnType<typeof temporaryDirectory>>
let closing: (() => Promise<void>)[] = []
beforeEach(async () => {
  directory = await temporaryDirectory()
})
afterEach(async () => {
  for (const close of closing.toReversed()) await close()
  closing = []
  await directory.remove()
})

function create(
  ledgerOf: (ledger: Ledger<Tx>) => Ledger<Tx> = (ledger) => ledger,
  completer: 'automatic' | 'manual' = 'automatic',
) {
  const client = serializedLibsql(createClient({ url: `file:${join(directory.path, 'app.db')}` }))
  const uploads = createUploads<Tx, { file: ReturnType<typeof kind<Tx, null>> }>({
    ledger: ledgerOf(sqliteLedger(drizzle(client)) as unknown as Ledger<Tx>),
    blobs: fileBlobs({ directory: join(directory.path, 'blobs') }),
    authenticate: (c) => c.req.header('X-Owner') ?? null,
    kinds: { file: kind<Tx, null>({ onReference: async () => null }) },
    completer,
    completerIntervalMs: 50,
    logger: silent,
  })
  closing.push(async () => {
    await uploads.close({ withinMs: 1_000 })
    client.close()
  })
  return { uploads, app: new Hono().route('/uploads', uploads.routes) }
}

/** What is in the directory, SQLite's own files of a database that is open left out. */
const made = async (): Promise<string[]> => (await readdir(directory.path)).filter((name) => !name.startsWith('app.db'))

test('mounting makes nothing, however often it is done', async () => {
  const { uploads } = create()
  new Hono().route('/other', uploads.routes)
  await later(200)
  expect(await made()).toEqual([])
  const plain = createClient({ url: `file:${join(directory.path, 'app.db')}` })
  expect((await plain.execute(`SELECT name FROM sqlite_schema`)).rows).toEqual([])
  plain.close()
})

test('a program that only mounts ends by itself and leaves no file', async () => {
  const index = new URL('../dist/index.js', import.meta.url)
  const program = `
    import { createUploads, fileBlobs, kind, serializedLibsql, sqliteLedger } from ${JSON.stringify(index.href)}
    import { createClient } from '@libsql/client'
    import { drizzle } from 'drizzle-orm/libsql'
    import { Hono } from 'hono'
    const client = serializedLibsql(createClient({ url: 'file:' + process.env.DIRECTORY + '/app.db' }))
    const uploads = createUploads({
      ledger: sqliteLedger(drizzle(client)),
      blobs: fileBlobs({ directory: process.env.DIRECTORY + '/blobs' }),
      authenticate: () => 'ann',
      kinds: { file: kind({ onReference: async () => null }) },
    })
    new Hono().route('/uploads', uploads.routes)`
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
    cwd: fileURLToPath(new URL('..', import.meta.url)),
    env: { PATH: process.env['PATH'], DIRECTORY: directory.path },
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  expect(await once(child, 'exit')).toEqual([0, null])
  expect(await made()).toEqual([])
})

test('the first request starts all of it, also one that nobody is signed in for', async () => {
  const { app } = create((ledger) => ledger, 'manual')
  const id = newId()
  const declared = await app.request(`/uploads/operations/${id}`, {
    method: 'PUT',
    headers: { 'X-Owner': 'ann', 'Content-Type': 'application/json' },
    body: JSON.stringify({ file: { name: 'a', size: 0, type: '' } }),
  })
  expect(await declared.json()).toMatchObject({ recoveryPoint: 'referenced' })
  await closing.pop()?.()

  // Another process: what is left of it is the completer's.
  const plain = createClient({ url: `file:${join(directory.path, 'app.db')}` })
  closing.push(async () => plain.close())
  const point = async () => (await plain.execute('SELECT point FROM landfall_operations')).rows[0]?.['point']
  const second = create()
  await later(300)
  expect(await point()).toBe('referenced')
  expect((await second.app.request(`/uploads/operations/${id}`)).status).toBe(401)
  await eventually(point, (now) => now === 'completed')
})

test('start() begins without a request, and again after a failure, until it works', async () => {
  let failures = 2
  const { uploads } = create((ledger) => ({
    ...ledger,
    async migrate() {
      if (failures-- > 0) throw new Error('the database is away')
      return ledger.migrate()
    },
  }))
  uploads.start()
  uploads.start()
  await eventually(made, (names) => names.includes('blobs'), 10_000)
  expect(failures).toBe(-1)
  await eventually(uploads.health, ({ ready }) => ready)
})

test('start() ends with close()', async () => {
  let attempts = 0
  const { uploads } = create((ledger) => ({
    ...ledger,
    migrate: () => {
      attempts += 1
      return Promise.reject(new Error('the database is away'))
    },
  }))
  uploads.start()
  await eventually(
    async () => attempts,
    (count) => count === 1,
  )
  await uploads.close({ withinMs: 100 })
  await later(1_500)
  expect(attempts).toBe(1)
})

test('ready() says at once what keeps it from starting, and a later one tries again', async () => {
  let isAway = true
  const { uploads } = create((ledger) => ({
    ...ledger,
    migrate: () => (isAway ? Promise.reject(new Error('the database is away')) : ledger.migrate()),
  }))
  await expect(uploads.ready()).rejects.toThrow('the database is away')
  isAway = false
  await uploads.ready()
  expect(await made()).toEqual(['blobs'])
})

test('what is closed while it still begins has let go of everything when close() has resolved', async () => {
  let begun = false
  const { uploads } = create((ledger) => ({
    ...ledger,
    ownerKey: async () => {
      begun = true
      await later(300)
      return ledger.ownerKey()
    },
  }))
  uploads.start()
  await eventually(async () => begun, Boolean)
  await uploads.close({ withinMs: 3_000 })
  await later(600)
  const blobs = join(directory.path, 'blobs')
  expect((await readdir(blobs)).filter((name) => name.endsWith('.sock'))).toEqual([])
  const lock = lockFile(blobs, 'landfall.lock')
  expect(lock).not.toBeNull()
  lock?.release()
})
