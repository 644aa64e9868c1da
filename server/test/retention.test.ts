/** What is kept of operations that ended long ago, and of owners that were forgotten. */
import { Writable } from 'node:stream'
import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import * as fc from 'fast-check'
import { sql } from 'drizzle-orm'
import { pino } from 'pino'
import * as v from 'valibot'
import { afterEach, describe, expect, test } from 'vitest'
import { kind, reject } from '../src/kinds/kind.js'
import { intentOf } from '../src/contract/ledger.js'
import { attended, attendedSince } from '../src/ledger/clock-marks.js'
import { numbered } from '../src/ledger/query.js'
import { MIGRATIONS } from '../src/ledger/sqlite/migrations.js'
import { untilNextMs } from '../src/ledger/rate.js'
import { sqliteLedger } from '../src/ledger/sqlite/ledger.js'
import { openConnection } from '../src/ledger/sqlite/client/connection.js'
import { DELIVERED_EFFECTS, ENDED_OPERATIONS, FORGOTTEN_OPERATIONS } from '../src/ledger/statements/retention.js'
import { UploadError } from '../src/lib/errors.js'
import { openDatabase, photos, temporaryDirectory, type Tx } from './fixtures.js'
import { brokenBody, content, eventually, newId, type Options, startServer, type TestServer } from './harness.js'

let close: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const end of close.toReversed()) await end()
  close = []
})

const plain = kind({ onReference: async (_tx: Tx) => null })
const AT_ONCE = { retention: { finalMs: 0, effectsMs: 0 } }

async function start(options: Options = AT_ONCE, kinds: Parameters<typeof startServer>[0] = { file: plain }) {
  const server = await startServer(kinds, options)
  close.push(() => server.close())
  return server
}

/** Runs the completer until nothing is left to do. */
const settle = (server: TestServer) => server.uploads.runOnce({ maxMs: 10_000 })
const upload = async (server: TestServer, size = 5): Promise<string> => {
  const id = newId()
  expect((await server.declare(id, { size })).status).toBe(201)
  expect((await server.patch(id, 0, content(size))).status).toBe(204)
  expect((await server.get(id)).recoveryPoint).toMatch(/referenced|completed/)
  return id
}

/** The answers to each kind of request for an operation. */
async function asked(server: TestServer, id: string) {
  const said = async (response: Promise<Response>): Promise<[number, unknown]> => {
    const answered = await response
    const text = await answered.text()
    return [answered.status, text === '' ? null : (JSON.parse(text) as { code?: string }).code]
  }
  const tus = { 'Tus-Resumable': '1.0.0' }
  return {
    put: await said(
      server.request('PUT', `/operations/${id}`, {
        headers: { 'Content-Type': 'application/json', 'Landfall-Version': '1' },
        body: JSON.stringify({ file: { name: 'another.bin', size: 7, type: 'text/plain' } }),
      }),
    ),
    get: await said(server.request('GET', `/operations/${id}`)),
    wait: await said(server.request('GET', `/operations/${id}?wait=5`)),
    prefix: await said(server.request('GET', `/operations/${id}/prefix`)),
    cancel: await said(server.request('DELETE', `/operations/${id}`)),
    create: await said(server.create(5, { operationId: id, filename: 'a.bin' })),
    head: await said(server.head(id)),
    ownHead: await said(server.head(id, { headers: { 'Landfall-Version': '1' } })),
    patch: await said(server.patch(id, 0, content(5), { stock: true })),
    ownPatch: await said(server.patch(id, 0, content(5))),
    terminate: await said(server.request('DELETE', `/files/${id}`, { headers: tus })),
    download: await said(server.request('GET', `/files/${id}`)),
  }
}
const everywhere = (code: string) => ({
  put: [410, code],
  get: [410, code],
  wait: [410, code],
  prefix: [410, code],
  cancel: [410, code],
  create: [410, code],
  head: [410, null],
  ownHead: [410, null],
  patch: [410, code],
  ownPatch: [410, code],
  terminate: [410, code],
  download: [410, code],
})

describe('a retired operation is a tombstone and is answered as before', () => {
  test('cancelled', async () => {
    const server = await start()
    const id = newId()
    await server.declare(id, { size: 5 })
    await server.patch(id, 0, content(2))
    expect((await server.request('DELETE', `/operations/${id}`)).status).toBe(200)
    await settle(server)
    expect(await server.ledger.find({ owner: 'ann', id })).toBeNull()
    const before = await server.blobs.list()[Symbol.asyncIterator]().next()
    expect(before.done).toBe(true)
    expect(await asked(server, id)).toEqual(everywhere('cancelled'))
    // None of these requests has created anything.
    expect(await server.ledger.find({ owner: 'ann', id })).toBeNull()
    expect((await server.blobs.list()[Symbol.asyncIterator]().next()).done).toBe(true)
    const listed = await server.request('GET', `/operations?ids=${id}`)
    expect(await listed.json()).toEqual({ operations: [] })
  })

  test('rejected by the application', async () => {
    const server = await start(AT_ONCE, { file: kind({ onReference: async (_tx: Tx) => reject('infected') }) })
    const id = newId()
    await server.declare(id, { size: 5 })
    await server.patch(id, 0, content(5))
    expect((await server.get(id)).problem?.code).toBe('infected')
    // The request that was rejected still removes the bytes.
    await eventually(
      () => server.ledger.find({ owner: 'ann', id }),
      (operation) => operation?.leaseHolder === null && !operation.cleanupDue,
    )
    await settle(server)
    expect(await asked(server, id)).toEqual(everywhere('rejected'))
  })

  test('a reference that was removed', async () => {
    const server = await start()
    const id = await upload(server)
    await settle(server)
    expect((await server.get(id)).recoveryPoint).toBe('completed')
    await server.db.transaction((tx) => server.uploads.remove(tx, id, 'ann'))
    await settle(server)
    expect(await asked(server, id)).toEqual(everywhere('removed'))
    expect(await server.uploads.operator.reconcile()).toMatchObject({ difference: 0, blobs: 0 })
  })

  test('also if a new declaration would be refused now', async () => {
    const server = await start({ ...AT_ONCE, limits: { maxSizeBytes: 10, maxOpenPerOwner: 1 } })
    const id = newId()
    await server.declare(id, { size: 5 })
    await server.request('DELETE', `/operations/${id}`)
    await settle(server)
    expect((await server.declare(newId(), { size: 5 })).status).toBe(201)
    for (const [size, kindOf] of [
      [5, 'file'],
      [50, 'file'],
      [5, 'no such kind'],
    ] as const)
      expect((await server.declare(id, { size }, { kind: kindOf })).code).toBe('cancelled')
  })

  test('but an operation with a reference is never retired, and its reference is answered again', async () => {
    const server = await start()
    const id = await upload(server)
    await settle(server)
    await settle(server)
    const again = await server.declare(id, { size: 5 })
    expect([again.status, again.reference?.size]).toEqual([200, 5])
  })

  test('and another owner may use its id', async () => {
    const server = await start()
    const id = newId()
    await server.declare(id, { size: 5 })
    await server.request('DELETE', `/operations/${id}`)
    await settle(server)
    expect((await server.declare(id, { size: 5 }, {}, 'bob')).status).toBe(201)
    expect((await server.declare(id, { size: 5 })).status).toBe(410)
  })
})

test('by default an operation that has ended is kept for a time', async () => {
  const server = await start({})
  const id = newId()
  await server.declare(id, { size: 5 })
  await server.request('DELETE', `/operations/${id}`)
  await settle(server)
  expect((await server.get(id)).recoveryPoint).toBe('cancelled')
})

test('no operation is retired while the clock is not trusted', async () => {
  let atMs = 0
  const clock = {
    // A wall clock that was set ahead by a day since the start, while no time has passed.
    now: () => Date.now() + atMs,
    monotonicMs: () => performance.now(),
    sleep: (ms: number, signal?: AbortSignal) =>
      new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, ms)
        signal?.addEventListener('abort', () => (clearTimeout(timer), resolve()), { once: true })
      }),
  }
  const server = await start({ ...AT_ONCE, clock })
  const id = newId()
  await server.declare(id, { size: 5 })
  await server.request('DELETE', `/operations/${id}`)
  atMs = 24 * 60 * 60_000
  await settle(server)
  expect((await server.get(id)).recoveryPoint).toBe('cancelled')
})

describe('the database itself ensures that', () => {
  async function open() {
    const directory = await temporaryDirectory()
    const { client, db } = await openDatabase(join(directory.path, 'app.db'))
    close.push(async () => {
      client.close()
      await directory.remove()
    })
    for (const statement of MIGRATIONS.flat()) await client.execute(statement)
    const insert = (id: string, hash: string | null) =>
      client.execute({
        sql: `INSERT INTO landfall_operations (owner, id, kind, point, file_name, file_size, file_type, metadata, validated, facts,
          blob_key, created_at, updated_at, expires_at, owner_hash)
          VALUES ('ann', ?, 'file', 'cancelled', 'a', 1, '', '{}', '{}', '', ?, 1, 1, 1, ?)`,
        args: [id, `key of ${id}`, hash],
      })
    return { client, db, insert }
  }

  test('no operation is deleted without its tombstone, and no tombstone is deleted', async () => {
    const { client, insert } = await open()
    await insert('one', 'hash')
    await expect(client.execute(`DELETE FROM landfall_operations`)).rejects.toThrow(
      'never deleted without its tombstone',
    )
    await client.execute(`INSERT INTO landfall_tombstones VALUES ('one', 'of another', 'cancelled')`)
    await expect(client.execute(`DELETE FROM landfall_operations`)).rejects.toThrow(
      'never deleted without its tombstone',
    )
    await client.execute(`INSERT INTO landfall_tombstones VALUES ('one', 'hash', 'cancelled')`)
    await client.execute(`DELETE FROM landfall_operations`)
    await expect(client.execute(`DELETE FROM landfall_tombstones`)).rejects.toThrow('a tombstone stays')
    await expect(client.execute(`UPDATE landfall_tombstones SET id = 'two'`)).rejects.toThrow('a tombstone stays')
  })

  test('a version without tombstones cannot use an id again', async () => {
    const { client, insert } = await open()
    await client.execute(`INSERT INTO landfall_tombstones VALUES ('one', 'hash', 'cancelled')`)
    await expect(insert('one', null)).rejects.toThrow('an id is never used again')
    await expect(insert('one', 'hash')).rejects.toThrow('an id is never used again')
    await insert('one', 'of another')
    await insert('two', null)
  })
})

test('due operations are found by an index, however many others there are', async () => {
  const directory = await temporaryDirectory()
  close.push(() => directory.remove())
  const connection = openConnection(join(directory.path, 'plan.db'))
  for (const statement of MIGRATIONS.flat()) connection.exec(statement)
  const plan = (text: string) => {
    const { sql: words, values } = numbered(text, [{ until: 1, limit: 1 }])
    return connection.all(`EXPLAIN QUERY PLAN ${words}`, values).map(({ detail }) => detail)
  }
  expect(plan(ENDED_OPERATIONS)[0]).toBe('SEARCH o USING INDEX landfall_operations_ended (updated_at<?)')
  expect(plan(FORGOTTEN_OPERATIONS)[0]).toBe('SEARCH o USING INDEX landfall_operations_forgotten (forgotten_at>?)')
  expect(plan(DELIVERED_EFFECTS)).toEqual([
    'SEARCH e USING INDEX landfall_effects_delivered (delivered_at>? AND delivered_at<?)',
  ])
  connection.close()
})

test('operations of an older version are counted, retired and forgotten', async () => {
  const directory = await temporaryDirectory()
  const { client, db } = await openDatabase(join(directory.path, 'app.db'))
  close.push(async () => {
    client.close()
    await directory.remove()
  })
  await client.execute(`CREATE TABLE landfall_meta (key TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL)`)
  for (const statement of MIGRATIONS.slice(0, 3).flat()) await client.execute(statement)
  await client.execute(`INSERT INTO landfall_meta VALUES ('version', '3')`)
  for (const [id, owner, point] of [
    ['1', 'ann', 'cancelled'],
    ['2', 'ann', 'completed'],
    ['3', 'bob', 'cancelled'],
  ] as const)
    await client.execute({
      sql: `INSERT INTO landfall_operations (owner, id, kind, point, file_name, file_size, file_type, metadata, validated, facts, "offset",
          blob_key, created_at, updated_at, expires_at)
        VALUES (?, ?, 'file', ?, 'a', 1, '', '{}', '{}', '', 1, ?, 1, 1, 1)`,
      args: [owner, id, point, `${owner} ${id}`],
    })
  await client.execute(
    `INSERT INTO landfall_references (owner, operation_id, blob_key, size, type, digest, digest_source, stored_at, data)
     VALUES ('ann', '2', 'ann 2', 1, '', '', 'server', 1, 'null')`,
  )
  const ledger = sqliteLedger(db)
  await ledger.migrate()
  const within = { quotaFiles: 1 }
  expect(await ledger.declare(intentOf(within))).toEqual({ outcome: 'over-file-quota', usedFiles: 1 })
  expect(await ledger.retire({ finalMs: 1_000, effectsMs: 1_000 }, 10)).toEqual({ operations: 2, effects: 0 })
  expect(await ledger.tombstone({ owner: 'ann', id: '1' })).toBe('cancelled')
  expect(await ledger.tombstone({ owner: 'bob', id: '3' })).toBe('cancelled')
  await ledger.forgetOwner(null, 'ann')
  expect(await ledger.tombstone({ owner: 'ann', id: '2' })).toBe('completed')
  expect((await ledger.declare(intentOf(within))).outcome).toBe('created')
})

test('a retired operation takes little space, however large its metadata was', async () => {
  const server = await start()
  const metadata = { note: 'n'.repeat(16_000) }
  const bytes = async (): Promise<number> => {
    await server.db.run(sql`VACUUM`)
    await server.db.run(sql`PRAGMA wal_checkpoint(TRUNCATE)`)
    return (await stat(join(server.directory, 'app.db'))).size
  }
  const count = 1_000
  const emptyBytes = await bytes()
  for (let n = 0; n < count; n += 50)
    await Promise.all(
      Array.from({ length: 50 }, async () => {
        const id = newId()
        expect((await server.declare(id, { size: 5 }, { metadata })).status).toBe(201)
        expect((await server.request('DELETE', `/operations/${id}`)).status).toBe(200)
      }),
    )
  const endedBytes = await bytes()
  await settle(server)
  const retiredBytes = await bytes()
  const each = (atBytes: number): number => (atBytes - emptyBytes) / count
  process.stdout.write(
    `an operation that was declared and cancelled: ${each(endedBytes).toFixed(0)} bytes, after its time ${each(retiredBytes).toFixed(0)} bytes\n`,
  )
  expect(each(endedBytes)).toBeGreaterThan(16_000)
  expect(each(retiredBytes)).toBeLessThanOrEqual(400)
})

describe('the right to erasure', () => {
  const SECRET = 'Zaphod-Beeblebrox'
  const owner = `owner-${SECRET}`
  const withSecrets = kind({
    metadata: v.object({ note: v.string() }),
    prepare: { look: async ({ operation }) => ({ saw: operation.file.name }) },
    onReference: async (tx: Tx, { operation }) => {
      if (operation.file.name.startsWith('fails')) throw new Error('the application cannot use it')
      await tx.insert(photos).values({ name: 'a photo' })
      return operation.file.name.startsWith('bad') ? reject('no', operation.file.name) : { title: operation.file.name }
    },
    effects: {
      tell: async () => {},
      never: async () => {
        throw new Error('nobody listens')
      },
    },
  })

  test('nothing of an owner is left in the files of the database or in the log', async () => {
    let log = ''
    const logger = pino(
      { level: 'trace' },
      new Writable({ write: (chunk: Buffer, _encoding, done) => ((log += chunk.toString()), done()) }),
    )
    const server = await start({ logger }, { file: withSecrets })
    const send = async (name: string, bytes: number, size = 5): Promise<string> => {
      const id = newId()
      const metadata = { note: `note of ${SECRET}` }
      expect((await server.declare(id, { size, name }, { metadata }, owner)).status).toBe(201)
      if (bytes > 0) await server.patch(id, 0, content(bytes), { owner })
      return id
    }
    const stored = await send(`stored ${SECRET}`, 5)
    const removed = await send(`removed ${SECRET}`, 5)
    await server.uploads.runOnce({ maxMs: 3_000 })
    await server.db.transaction((tx) => server.uploads.remove(tx, removed, owner))
    const ids = [
      stored,
      removed,
      await send(`partial ${SECRET}`, 2),
      await send(`bad ${SECRET}`, 5),
      await send(`fails ${SECRET}`, 5),
      await send(`declared ${SECRET}`, 0),
    ]
    const created = await server.create(5, { filename: `stock ${SECRET}`, note: `stock ${SECRET}` }, { owner })
    expect(created.status).toBe(201)
    await server.uploads.runOnce({ maxMs: 3_000 })
    const bystander = newId()
    await server.declare(bystander, { size: 5, name: 'of somebody else' }, { metadata: { note: 'a' } }, 'bob')

    const path = join(server.directory, 'app.db')
    // The secrets are in the database before, so that the test can fail.
    await server.db.run(sql`PRAGMA wal_checkpoint(TRUNCATE)`)
    expect((await readFile(path)).includes(SECRET)).toBe(true)
    const found = await server.db.transaction((tx) => server.uploads.forgetOwner(tx, owner))
    expect(found).toMatchObject({ operations: 7, references: 1, bytes: 5 })
    await server.uploads.runOnce({ maxMs: 3_000 })
    for (const table of ['operations', 'references', 'effects', 'usage'] as const) {
      const rows = await server.db.all(sql.raw(`SELECT * FROM landfall_${table}`))
      expect(JSON.stringify(rows)).not.toContain(SECRET)
    }
    await server.db.run(sql`VACUUM`)
    await server.db.run(sql`PRAGMA wal_checkpoint(TRUNCATE)`)
    for (const file of [path, `${path}-wal`])
      expect([file, (await readFile(file)).includes(SECRET)]).toEqual([file, false])
    expect(log).toContain('a step failed')
    expect(log.split('\n').filter((line) => line.includes(SECRET))).toEqual([])
    for (const id of ids) {
      const answer = await server.get(id, '', owner)
      expect([answer.status, answer.code]).toEqual([410, expect.stringMatching(/^(removed|cancelled|rejected)$/)])
    }
    // Other owners have lost nothing.
    expect((await server.get(bystander, '', 'bob')).file.name).toBe('of somebody else')
    expect(await server.uploads.operator.reconcile()).toMatchObject({ difference: 0, blobs: 0 })
  })

  test('a running upload ends, its bytes are removed, and new ids may be used at once', async () => {
    const server = await start()
    const id = newId()
    await server.declare(id, { size: 1_000 })
    const patching = server.patch(id, 0, brokenBody([content(500)], 'silent'), { stock: true })
    await eventually(
      async () => (await server.ledger.list({ id, after: null, limit: 1 }))[0]?.leaseHolder ?? null,
      (holder) => holder !== null,
    )
    await server.db.transaction((tx) => server.uploads.forgetOwner(tx, 'ann'))
    const fresh = newId()
    expect((await server.declare(fresh, { size: 5 })).status).toBe(201)
    expect((await server.declare(id, { size: 1_000 })).code).toBe('cancelled')
    expect(await asked(server, id)).toEqual(everywhere('cancelled'))
    // Bytes that are still sent are not acknowledged.
    await server.uploads.close({ withinMs: 1_000 })
    expect((await patching).status).toBe(410)
    await server.restart()
    await settle(server)
    expect(await server.uploads.operator.reconcile()).toMatchObject({ difference: 0, blobs: 0 })
    expect((await server.ledger.list({ after: null, limit: 10 })).map((row) => row.id)).toEqual([fresh])
  })

  test('the bytes are removed also after a crash, and reconcile does not touch them before', async () => {
    const server = await start()
    const id = await upload(server, 1_000)
    await server.db.transaction((tx) => server.uploads.forgetOwner(tx, 'ann'))
    // The process ends before it has removed anything.
    expect(await server.uploads.operator.reconcile({ apply: true, force: true })).toMatchObject({
      blobs: 1,
      difference: 0,
      done: { quarantined: 0, deleted: 0 },
    })
    await server.restart()
    await settle(server)
    expect(await server.uploads.operator.reconcile()).toMatchObject({ blobs: 0, operations: 0, difference: 0 })
    expect((await server.get(id)).code).toBe('removed')
  })
})

describe('declarations', () => {
  test('above the rate are answered 429 with the time to wait, and a repeated one is not counted', async () => {
    const server = await start({ limits: { declarationsPerOwner: { count: 2, perMs: 60 * 60_000 } } })
    const [first, second] = [newId(), newId()]
    expect((await server.declare(first, { size: 5 })).status).toBe(201)
    expect((await server.declare(second, { size: 0 })).status).toBe(201)
    await server.request('DELETE', `/operations/${first}`)
    for (let round = 0; round < 3; round += 1) expect((await server.declare(second, { size: 0 })).status).toBe(200)
    const refused = await server.request('PUT', `/operations/${newId()}`, {
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ file: { name: 'a', size: 5, type: '' } }),
    })
    expect(refused.status).toBe(429)
    const waitSeconds = Number(refused.headers.get('Retry-After'))
    expect(waitSeconds).toBeGreaterThan(29 * 60)
    expect(waitSeconds).toBeLessThanOrEqual(30 * 60)
    expect(await refused.json()).toMatchObject({ code: 'too-many-declared', retryAfterSeconds: waitSeconds })
    expect((await server.create(5, { filename: 'a' })).status).toBe(429)
    expect((await server.declare(newId(), { size: 5 }, {}, 'bob')).status).toBe(201)
  })

  test('of empty files count towards a quota of files', async () => {
    const server = await start({ limits: { quotaFiles: (owner) => (owner === 'ann' ? 2 : null) } })
    for (let n = 0; n < 2; n += 1) expect((await server.declare(newId(), { size: 0 })).status).toBe(201)
    const refused = await server.declare(newId(), { size: 0 })
    expect([refused.status, refused.code, refused.detail]).toEqual([413, 'quota-exceeded', '2 of 2 files'])
    expect((await server.declare(newId(), { size: 0 }, {}, 'bob')).status).toBe(201)
  })

  test('settings that make no sense are refused at once, by name', async () => {
    for (const [options, name] of [
      [{ retention: { finalMs: -1 } }, 'retention.finalMs'],
      [{ retention: { effectsMs: Number.NaN } }, 'retention.effectsMs'],
      [{ retention: { finalMs: 1.5 } }, 'retention.finalMs'],
      [{ limits: { declarationsPerOwner: { count: 0, perMs: 1 } } }, 'limits.declarationsPerOwner'],
      [
        { limits: { declarationsPerOwner: { count: 1, perMs: Number.POSITIVE_INFINITY } } },
        'limits.declarationsPerOwner',
      ],
    ] as const) {
      const refused = await startServer({ file: plain }, options).catch((error: unknown) => error)
      expect(refused).toBeInstanceOf(UploadError)
      expect(String(refused)).toContain(name)
    }
  })
})

test('at least the wanted attended time has passed since the moment that is computed', () => {
  const steps = fc.array(fc.record({ at: fc.integer({ min: 0, max: 1_000 }), byMs: fc.integer({ min: 1, max: 300 }) }))
  fc.assert(
    fc.property(steps, fc.integer({ min: 0, max: 2_000 }), (unordered, ms) => {
      const known = unordered.toSorted((one, other) => one.at - other.at)
      const since = attendedSince(known, 1_000, ms)
      expect(attended(known, since, 1_000)).toBeGreaterThanOrEqual(ms)
    }),
  )
})

test('a rate never lets through more declarations than it allows', () => {
  const rate = { count: 5, perMs: 1_000 }
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 400 }), { minLength: 20, maxLength: 200 }), (pausesMs) => {
      let [nowMs, untilUs] = [1_000_000, 0]
      const begun: number[] = []
      for (const pauseMs of pausesMs) {
        nowMs += pauseMs
        if (untilNextMs(rate, untilUs, nowMs * 1_000) > 0) continue
        untilUs = Math.max(untilUs, nowMs * 1_000) + 200_000
        begun.push(nowMs)
      }
      // Any period admits the number that is allowed at once, and one more for each interval in it.
      for (const [first, fromMs] of begun.entries())
        for (const [last, toMs] of begun.entries())
          if (last >= first) expect(last - first + 1).toBeLessThanOrEqual(5 + Math.floor((toMs - fromMs) / 200))
    }),
  )
})
