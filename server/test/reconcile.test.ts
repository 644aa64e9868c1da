/** The ledger against what is stored, both ways, on a real database and a real directory. */
import { writeFileSync } from 'node:fs'
import { copyFile, cp, mkdir, readdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { sql } from 'drizzle-orm'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { relativePath } from '../src/blobs/key.js'
import { kind } from '../src/kinds/kind.js'
import { type Finding, reconcile as compareStore, type ReconcileOptions } from '../src/operate/reconcile.js'
import type { BlobStore } from '../src/ports/blob-store.js'
import { systemClock } from '../src/sequence/clock.js'
import type { Tx } from './fixtures.js'
import { content, newId, startServer, type TestServer } from './harness.js'

const kinds = { file: kind({ onReference: async (_tx: Tx) => null }) }
let server: TestServer
beforeEach(async () => {
  server = await startServer(kinds)
})
afterEach(() => server.close())

const pathOf = (key: string, of = server): string => join(of.directory, 'blobs', 'blobs', relativePath(key))
const keyOf = async (id: string): Promise<string> =>
  (await server.ledger.find({ owner: 'ann', id }))?.blobKey ?? expect.fail('no such operation')

async function upload(size = 100, bytes = size): Promise<{ id: string; key: string }> {
  const id = newId()
  await server.declare(id, { size })
  if (bytes > 0) expect((await server.patch(id, 0, content(size).subarray(0, bytes))).status).toBe(204)
  return { id, key: await keyOf(id) }
}

async function plant(key: string, text = 'whose?'): Promise<void> {
  await mkdir(join(pathOf(key), '..'), { recursive: true })
  await writeFile(pathOf(key), text)
}

async function reconcile(options: ReconcileOptions = {}) {
  const findings: Finding[] = []
  const report = await server.uploads.operator.reconcile({
    ...options,
    onFinding: (found) => void findings.push(found),
  })
  return { ...report, findings: findings.map(({ type, blob, action }) => ({ type, blob, action })) }
}
const FORCE = { apply: true, force: true }
const UNKNOWN = '0190000000007000800000000000000a'
const stored = async (): Promise<string[]> =>
  (await readdir(join(server.directory, 'blobs', 'blobs'), { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map(({ name }) => name)
    .toSorted()

test('nothing differs: referenced, half there, empty, declared only, cancelled, removed', async () => {
  await upload()
  await upload(100, 40)
  await upload(0)
  await upload(100, 0)
  const { id } = await upload(100, 30)
  await server.request('DELETE', `/operations/${id}`)
  const removed = await upload()
  await server.db.transaction((tx) => server.uploads.remove(tx, removed.id, 'ann'))
  // Also before the completer has come by: it is its work.
  expect(await reconcile()).toMatchObject({ difference: 0, findings: [], operations: 6 })
  await server.uploads.runOnce()
  expect(await reconcile()).toMatchObject({ difference: 0, findings: [], operations: 6, blobs: 3 })
})

test('what nobody knows is set aside for a week, and then deleted; a dry run touches nothing', async () => {
  const { key } = await upload()
  await plant(UNKNOWN)
  expect(await reconcile()).toMatchObject({
    applied: false,
    difference: 1,
    refused: null,
    findings: [{ type: 'unknown', blob: UNKNOWN, action: 'none' }],
  })
  expect(await stored()).toEqual([UNKNOWN, key].toSorted())
  expect(await reconcile(FORCE)).toMatchObject({
    difference: 0,
    quarantined: 1,
    findings: [{ type: 'unknown', blob: UNKNOWN, action: 'quarantined' }],
  })
  expect(await stored()).toEqual([key])
  expect(await reconcile(FORCE)).toMatchObject({ difference: 0, quarantined: 1, findings: [] })
  expect(await reconcile({ ...FORCE, quarantineMs: 0 })).toMatchObject({
    difference: 0,
    quarantined: 0,
    findings: [{ type: 'overdue', blob: UNKNOWN, action: 'deleted' }],
  })
  expect(await readdir(join(server.directory, 'blobs', 'quarantine'))).toEqual([])
})

const unknownKey = (n: number): string => `01900000000070008000${n.toString(16).padStart(12, '0')}`

test.each([
  { known: 3, unknown: 1 },
  { known: 2, unknown: 2 },
  { known: 30, unknown: 10 },
])('a few blobs go without force: $unknown beside $known', async ({ known, unknown }) => {
  for (let n = 0; n < known; n += 1) await upload()
  for (let n = 0; n < unknown; n += 1) await plant(unknownKey(n))
  expect(await reconcile()).toMatchObject({ refused: null })
  expect(await reconcile({ apply: true })).toMatchObject({
    refused: null,
    difference: 0,
    done: { quarantined: unknown },
  })
})

test.each([
  { known: 0, unknown: 1 },
  { known: 2, unknown: 3 },
  { known: 30, unknown: 11 },
])('more than 1 % and a few is not believed without force: $unknown beside $known', async ({ known, unknown }) => {
  for (let n = 0; n < known; n += 1) await upload()
  for (let n = 0; n < unknown; n += 1) await plant(unknownKey(n))
  const { refused, done, difference } = await reconcile({ apply: true })
  expect(refused).toMatch('more than 1 %')
  expect([done, difference]).toEqual([{ 'taken-back': 0, quarantined: 0, deleted: 0 }, unknown])
  expect(await stored()).toHaveLength(known + unknown)
})

test('what comes to light only while it is applied counts as well', async () => {
  for (let n = 0; n < 10; n += 1) await upload()
  await plant(unknownKey(0))
  let isPlanted = false
  const report = await server.uploads.operator.reconcile({
    apply: true,
    onProgress({ doing }) {
      // Between the look and what is done about it somebody copies files into the store.
      if (isPlanted || doing !== 'looking') return
      isPlanted = true
      for (let n = 1; n < 20; n += 1) writeFileSync(join(pathOf(unknownKey(0)), '..', unknownKey(n)), 'whose?')
    },
  })
  expect(report).toMatchObject({ done: { quarantined: 5 } })
  expect(report.refused).toMatch('more blobs would be removed than the first pass had found')
})

test('once it has stopped for what came to light, it removes nothing more, the remains of uploads included', async () => {
  for (let n = 0; n < 10; n += 1) await upload()
  const removed: string[] = []
  let looks = 0
  // A store that has remains next to each blob, as S3 can have; what is overdue in its quarantine comes between the looks.
  const blobs: BlobStore = Object.create(server.blobs, {
    list: {
      value: async function* () {
        for await (const blob of server.blobs.list()) yield { ...blob, hasUploadRemains: true }
      },
    },
    uploadRemains: { value: { found: async () => true, remove: async (key: string) => void removed.push(key) } },
    quarantine: {
      value: {
        ...server.blobs.quarantine,
        list: async function* () {
          looks += 1
          if (looks % 2 === 0) for (let n = 0; n < 20; n += 1) yield { key: unknownKey(n), sizeBytes: 1, sinceAt: 0 }
        },
        remove: async (key: string) => void removed.push(key),
      },
    },
  }) as BlobStore
  const deps = { ledger: server.ledger, blobs, clock: systemClock }
  const stopped = await compareStore(deps, { apply: true })
  expect(stopped.refused).toMatch('more blobs would be removed than the first pass had found')
  expect(stopped).toMatchObject({ found: { overdue: 20, 'upload-remains': 10 }, done: { deleted: 5 } })
  expect(removed).toEqual([0, 1, 2, 3, 4].map(unknownKey))
  expect(await compareStore(deps, { apply: true, force: true })).toMatchObject({ refused: null, difference: 0 })
  expect(removed).toHaveLength(5 + 20 + 10)
})

test('what a row counts on comes back from quarantine, also where deletions are refused', async () => {
  const { id, key } = await upload()
  await server.blobs.quarantine.add(key, Date.now())
  await plant(UNKNOWN)
  expect((await server.request('GET', `/files/${id}`)).status).toBe(503)
  expect(await reconcile()).toMatchObject({ difference: 2, found: { 'set-aside': 1, unknown: 1 } })
  expect(await reconcile({ apply: true })).toMatchObject({ difference: 1, done: { 'taken-back': 1, quarantined: 0 } })
  const file = await server.request('GET', `/files/${id}`)
  expect(new Uint8Array(await file.arrayBuffer())).toEqual(content(100))
})

test('bytes that are missing are told, and nothing is invented', async () => {
  const gone = await upload()
  const short = await upload()
  const half = await upload(100, 50)
  await rm(pathOf(gone.key))
  await writeFile(pathOf(short.key), content(99))
  await rm(pathOf(half.key))
  const report = await reconcile({ apply: true })
  expect(report).toMatchObject({ difference: 3, refused: null, found: { missing: 3 } })
  expect(report.findings.map(({ blob }) => blob).toSorted()).toEqual([gone.key, short.key, half.key].toSorted())
  expect(await server.get(gone.id)).toMatchObject({ reference: { size: 100 } })
})

test('bytes that a final operation has left are deleted', async () => {
  const { id, key } = await upload(100, 50)
  await server.request('DELETE', `/operations/${id}`)
  await server.uploads.runOnce()
  // As after a power loss that undid the removal of the name.
  await plant(key)
  expect(await reconcile(FORCE)).toMatchObject({
    difference: 0,
    findings: [{ type: 'leftover', blob: key, action: 'deleted' }],
  })
  expect(await stored()).toEqual([])
})

test('bytes whose removal was given up are left over', async () => {
  const { id, key } = await upload()
  await server.db.transaction((tx) => server.uploads.remove(tx, id, 'ann'))
  // Its completer's work still.
  expect(await reconcile(FORCE)).toMatchObject({ difference: 0, findings: [] })
  await server.db.run(sql`UPDATE landfall_effects SET given_up_at = 1, due_at = NULL WHERE type = 'remove-bytes'`)
  expect(await reconcile(FORCE)).toMatchObject({
    difference: 0,
    findings: [{ type: 'leftover', blob: key, action: 'deleted' }],
  })
  expect(await stored()).toEqual([])
})

test('keys that differ in their last digit only are told apart', async () => {
  const { key } = await upload()
  const [first, second] = [`${key.slice(0, -1)}3`, `${key.slice(0, -1)}a`]
  const other = await upload()
  await server.db.run(sql`UPDATE landfall_operations SET blob_key = ${first} WHERE blob_key = ${key}`)
  await server.db.run(sql`UPDATE landfall_references SET blob_key = ${first} WHERE blob_key = ${key}`)
  await server.db.run(sql`UPDATE landfall_operations SET blob_key = ${second} WHERE blob_key = ${other.key}`)
  await server.db.run(sql`UPDATE landfall_references SET blob_key = ${second} WHERE blob_key = ${other.key}`)
  // Both too short: looked at once more, each by its own row.
  for (const each of [first, second]) await plant(each, 'short')
  for (const each of [key, other.key]) if (each !== first && each !== second) await rm(pathOf(each), { force: true })
  const { findings } = await reconcile()
  expect(findings.map(({ type, blob }) => [type, blob])).toEqual([
    ['missing', first],
    ['missing', second],
  ])
})

test('files that are not ours are told, and never touched', async () => {
  await upload()
  for (const path of ['note.txt', '019000/note.txt', `019000/00/${UNKNOWN.toUpperCase()}`]) {
    await mkdir(join(server.directory, 'blobs/blobs', path, '..'), { recursive: true })
    await writeFile(join(server.directory, 'blobs/blobs', path), 'mine')
  }
  expect(await reconcile(FORCE)).toMatchObject({ difference: 0, found: { foreign: 3, unknown: 0 } })
  expect(await stored()).toHaveLength(4)
})

test('beside live traffic nothing is taken for garbage', async () => {
  const lanes = new Set([0, 1, 2, 3])
  const traffic = Array.from({ length: lanes.size }, async (_, lane) => {
    for (let n = 0; n < 60; n += 1) {
      const { id } = await upload(100, lane === 0 ? 50 : 100)
      if (lane === 0) await server.request('DELETE', `/operations/${id}`)
      if (lane === 1) await server.db.transaction((tx) => server.uploads.remove(tx, id, 'ann'))
    }
    lanes.delete(lane)
  })
  const findings: unknown[] = []
  let rounds = 0
  for (; lanes.size > 0; rounds += 1) {
    findings.push(...(await reconcile({ ...FORCE, quarantineMs: 0 })).findings)
    await server.uploads.runOnce({ maxMs: 10 })
  }
  await Promise.all(traffic)
  expect(rounds).toBeGreaterThan(3)
  await server.uploads.runOnce()
  expect(findings).toEqual([])
  const report = await reconcile()
  expect(report).toMatchObject({ difference: 0, findings: [], operations: 240 })
})

test('a ledger that was restored from an older backup deletes nothing, and says why', async () => {
  await upload()
  const database = join(server.directory, 'app.db')
  await server.db.run(sql`VACUUM INTO ${join(server.directory, 'backup.db')}`)
  const later = await upload()
  await server.restart(async () => {
    for (const suffix of ['', '-wal', '-shm']) await rm(database + suffix, { force: true })
    await copyFile(join(server.directory, 'backup.db'), database)
  })
  // Work goes on, and another restart does not make it forget.
  await upload()
  await server.restart()
  const report = await reconcile({ ...FORCE, quarantineMs: 0 })
  expect(report).toMatchObject({ difference: 1, findings: [{ type: 'unknown', blob: later.key, action: 'none' }] })
  expect(report.refused).toMatch('restored from a backup')
  expect(await stored()).toContain(later.key)
  expect((await server.uploads.operator.doctor()).find(({ name }) => name === 'identity')).toMatchObject({
    state: 'warning',
    found: expect.stringContaining('restored from a backup'),
  })
  // Whoever wants it so says so.
  expect(await reconcile({ ...FORCE, acceptRestored: true })).toMatchObject({
    difference: 0,
    findings: [{ type: 'unknown', blob: later.key, action: 'quarantined' }],
  })
})

test("another environment's database finds the store closed", async () => {
  await upload()
  const before = await stored()
  const other = await startServer(kinds)
  await upload()
  await other
    .restart(async () => {
      await rm(join(other.directory, 'blobs'), { recursive: true })
      await cp(join(server.directory, 'blobs'), join(other.directory, 'blobs'), { recursive: true })
    })
    .then(
      () => expect.fail('it was opened'),
      (error: unknown) =>
        expect(error).toMatchObject({ code: 'setup', message: expect.stringContaining('another database') }),
    )
  await expect(other.uploads.operator.reconcile({ ...FORCE, quarantineMs: 0 })).rejects.toMatchObject({
    code: 'setup',
    message: expect.stringContaining('another database'),
  })
  expect((await stored()).length).toBeGreaterThanOrEqual(before.length)
  await other.close()
})
