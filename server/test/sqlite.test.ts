import { fork } from 'node:child_process'
import { once } from 'node:events'
import { rename } from 'node:fs/promises'
import { join } from 'node:path'
import { createClient } from '@libsql/client'
import { sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/libsql'
import { generateSQLiteDrizzleJson, generateSQLiteMigration } from 'drizzle-kit/api'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { intentOf } from '../src/contract/ledger.js'
import { faultCode } from '../src/lib/errors.js'
import { MIGRATIONS } from '../src/ledger/sqlite/migrations.js'
import * as tables from '../src/ledger/sqlite/schema.js'
import { serializedLibsql, sqliteAccess } from '../src/ledger/sqlite/client/serialized-libsql.js'
import { sqliteLedger } from '../src/ledger/sqlite/ledger.js'
import { openConnection } from '../src/ledger/sqlite/client/connection.js'
import type { HookOutcome } from '../src/ports/ledger/references.js'
import type { Lease } from '../src/ports/ledger/leases.js'
import type { OperationRecord } from '../src/ports/operation.js'
import { openDatabase, photos, temporaryDirectory, type Tx } from './fixtures.js'

let directory: Awaited<ReturnType<typeof temporaryDirectory>>
let path: string
let close: (() => void)[] = []
beforeEach(async () => {
  directory = await temporaryDirectory()
  path = join(directory.path, 'app.db')
})
afterEach(async () => {
  for (const end of close) end()
  close = []
  await directory.remove()
})

/** With `migrates: false` the tables must exist, and the connection for reading is not open yet. */
async function open(options?: Parameters<typeof serializedLibsql>[1], { migrates = true } = {}) {
  const client = serializedLibsql(createClient({ url: `file:${path}` }), options)
  close.push(() => client.close())
  const db = drizzle(client, { schema: { photos } })
  await db.run(sql`CREATE TABLE IF NOT EXISTS photos (name TEXT NOT NULL UNIQUE)`)
  const ledger = sqliteLedger(db)
  if (migrates) await ledger.migrate()
  return { client, db, ledger }
}
type Opened = Awaited<ReturnType<typeof open>>

/** With a table whose constraint is checked only at COMMIT. */
async function openWithPrints() {
  const opened = await open()
  await opened.db.run(sql`CREATE TABLE prints (photo TEXT REFERENCES photos (name) DEFERRABLE INITIALLY DEFERRED)`)
  await opened.db.run(sql`PRAGMA foreign_keys = ON`)
  return { ...opened, writer: sqliteAccess(opened.client).writer }
}

async function driven({ ledger }: Opened): Promise<{ lease: Lease; operation: OperationRecord }> {
  const intent = intentOf()
  await ledger.declare(intent)
  const taken = await ledger.lease(intent, { holder: 'n1', leaseMs: 30_000, purpose: 'drive' })
  if (taken.outcome !== 'granted') throw new Error(taken.outcome)
  return taken
}

async function refer(opened: Opened, hook: (tx: Tx) => Promise<HookOutcome>, timeLimitMs = 10_000) {
  const { lease, operation } = await driven(opened)
  const content = { digest: 'sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:', type: 'image/png' }
  return opened.ledger.refer(
    lease,
    operation,
    { changes: { offset: 100, tailBase: 0 }, content, digestSource: 'server', timeLimitMs, effects: [] },
    hook,
  )
}

const accepted = { outcome: 'accepted', data: null } as const
const names = async ({ db }: Opened): Promise<string[]> =>
  (await db.select().from(photos)).map(({ name }) => name).toSorted()
const later = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

describe('one queue of writes', () => {
  test('the application and Landfall write at the same time without any "database is locked"', async () => {
    const opened = await open()
    const { db } = opened
    const loops = Array.from({ length: 4 }, async (_, loop) => {
      for (let n = 0; n < 30; n++) {
        if (n % 3 === 0)
          await db.transaction(async (tx) => void (await tx.insert(photos).values({ name: `tx ${loop}.${n}` })))
        else await db.insert(photos).values({ name: `db ${loop}.${n}` })
        await db.select().from(photos).limit(1)
      }
    })
    const uploads = Array.from({ length: 60 }, (_, n) =>
      refer(opened, async (tx) => {
        await tx.insert(photos).values({ name: `hook ${n}` })
        return accepted
      }),
    )
    await Promise.all(loops)
    expect((await Promise.all(uploads)).every(({ outcome }) => outcome === 'referenced')).toBe(true)
    expect(await names(opened)).toHaveLength(4 * 30 + 60)
  })

  test('a hook that waits before its first write does not block other writes', async () => {
    const opened = await open()
    const slow = refer(opened, async (tx) => {
      await later(400)
      await tx.insert(photos).values({ name: 'slow' })
      return accepted
    })
    await later(20)
    const startedAt = performance.now()
    await opened.db.insert(photos).values({ name: 'quick' })
    expect(performance.now() - startedAt).toBeLessThan(200)
    expect((await slow).outcome).toBe('referenced')
  })

  test('a hook that keeps the writer without using it loses it, and other writes continue', async () => {
    const opened = await open({ idleLimitMs: 150 })
    const stuck = refer(opened, async (tx) => {
      await tx.insert(photos).values({ name: 'stuck' })
      await later(600)
      await tx.insert(photos).values({ name: 'stuck too' })
      return accepted
    })
    await later(20)
    await Promise.all([
      opened.db.insert(photos).values({ name: 'other' }),
      expect(stuck).rejects.toSatisfy((error) => faultCode(error) === 'writer-held'),
    ])
    expect(await names(opened)).toEqual(['other'])
  })

  test('hooks that keep the writer repeatedly lose it sooner each time', async () => {
    const opened = await open({ idleLimitMs: 1_000 })
    const stuck = Array.from({ length: 4 }, (_, n) =>
      refer(opened, async (tx) => {
        await tx.insert(photos).values({ name: `stuck ${n}` })
        await later(5_000)
        return accepted
      }).catch((error: unknown) => faultCode(error)),
    )
    await later(50)
    const startedAt = performance.now()
    await opened.db.insert(photos).values({ name: 'other' })
    expect(await Promise.all(stuck)).toEqual(Array(4).fill('writer-held'))
    // 1,000 + 500 + 250 + 250, not four times 1,000 (and what waited between them was not last).
    expect(performance.now() - startedAt).toBeLessThan(3_500)
    expect(await names(opened)).toEqual(['other'])
    expect((await refer(opened, async () => accepted)).outcome).toBe('referenced')
  })

  test('an idle limit that is configured below the minimum for hooks is never raised to that minimum', async () => {
    const opened = await open({ idleLimitMs: 100 })
    for (let n = 0; n < 3; n += 1)
      await expect(
        refer(opened, async (tx) => {
          await tx.insert(photos).values({ name: `stuck ${n}` })
          await later(600)
          return accepted
        }),
      ).rejects.toThrow('only writer for 100 ms without a statement')
  })

  test('a transaction of the application that waits for its own write outside of it is ended and does not hang', async () => {
    const opened = await open({ idleLimitMs: 150 })
    const waitingForItself = opened.db.transaction(async (tx) => {
      await tx.insert(photos).values({ name: 'inside' })
      await opened.db.insert(photos).values({ name: 'outside' })
      await tx.insert(photos).values({ name: 'inside again' })
    })
    await expect(waitingForItself).rejects.toSatisfy((error) => faultCode(error) === 'writer-held')
    expect(await names(opened)).toEqual(['outside'])
  })

  test('a write that rolls everything back affects no other write of the same commit', async () => {
    const opened = await open()
    await opened.db.run(
      sql`CREATE TRIGGER strict_photos BEFORE INSERT ON photos WHEN NEW.name = 'bad' BEGIN SELECT RAISE(ROLLBACK, 'not this one'); END`,
    )
    const results = await Promise.allSettled(
      ['a', 'b', 'bad', 'c', 'd'].map((name) => opened.db.insert(photos).values({ name })),
    )
    expect(results.map(({ status }) => status)).toEqual([
      'fulfilled',
      'fulfilled',
      'rejected',
      'fulfilled',
      'fulfilled',
    ])
    expect(await names(opened)).toEqual(['a', 'b', 'c', 'd'])
  })

  test('a write that makes the COMMIT fail affects no other write of the same commit', async () => {
    const opened = await openWithPrints()
    const { db } = opened
    const orphan = db.run(sql`INSERT INTO prints VALUES ('no such photo')`)
    const insert = (name: string) => db.insert(photos).values({ name }).execute()
    const hook = refer(opened, async (tx) => {
      await tx.insert(photos).values({ name: 'hooked' })
      return accepted
    })
    const [a, bad, b] = await Promise.allSettled([insert('a'), orphan, insert('b')])
    expect([a.status, bad.status, b.status]).toEqual(['fulfilled', 'rejected', 'fulfilled'])
    expect(String(Reflect.get(bad.status === 'rejected' ? bad.reason : {}, 'cause'))).toContain('FOREIGN KEY')
    // The hook's own drive tries it again.
    const [hooked] = await Promise.allSettled([hook])
    if (hooked.status === 'rejected') expect(faultCode(hooked.reason)).toBe('ledger-unavailable')
    expect((await names(opened)).filter((name) => name !== 'hooked')).toEqual(['a', 'b'])
  })

  test('only the hook whose COMMIT fails ends, and it gets the reason', async () => {
    const opened = await openWithPrints()
    const hooked = async (name: string) => {
      const [result] = await Promise.allSettled([
        refer(opened, async (tx) => {
          if (name === 'bad') await tx.run(sql`INSERT INTO prints VALUES ('no such photo')`)
          else await tx.insert(photos).values({ name })
          return accepted
        }),
      ])
      return result.status === 'fulfilled' ? result.value.outcome : (faultCode(result.reason) ?? 'its own fault')
    }
    const first = await Promise.all(['a', 'bad', 'b'].map(hooked))
    expect(first).toContain('ledger-unavailable')
    expect(await Promise.all(['a', 'bad', 'b'].map((name) => hooked(name === 'bad' ? name : `${name} again`)))).toEqual(
      ['referenced', 'its own fault', 'referenced'],
    )
  })

  test('the writes of a COMMIT that failed are run once more, each in a commit of its own', async () => {
    const { writer } = await openWithPrints()
    const runs = [0, 0, 0]
    const write = (index: number, statement: string) =>
      writer.write((on) => {
        runs[index] = (runs[index] ?? 0) + 1
        on.run(statement)
      })
    const results = await Promise.allSettled([
      write(0, "INSERT INTO photos VALUES ('a')"),
      write(1, "INSERT INTO prints VALUES ('no such photo')"),
      write(2, "INSERT INTO photos VALUES ('b')"),
    ])
    expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled'])
    expect(Math.max(...runs)).toBe(2)
  })

  test('after a hook has made a COMMIT fail, its later attempts get a commit of their own, however long the pauses', async () => {
    const { writer } = await openWithPrints()
    vi.useFakeTimers({ toFake: ['performance'] })
    close.push(() => vi.useRealTimers())
    const attempt = async (label: string, statement: string) => {
      const hold = await writer.hold({ label, repeatable: true })
      hold.use((on) => on.run(statement))
      const [result] = await Promise.allSettled([hold.commit()])
      return result.status === 'fulfilled' ? 'committed' : (faultCode(result.reason) ?? 'its own fault')
    }
    const together = (n: number) =>
      Promise.all([
        attempt('bad', "INSERT INTO prints VALUES ('no such photo')"),
        attempt('good', `INSERT INTO photos VALUES ('${n}')`),
      ])
    expect(await together(0)).toEqual(['ledger-unavailable', 'ledger-unavailable'])
    for (let n = 1; n <= 4; n++) {
      vi.advanceTimersByTime(5 * 60_000) // the longest pause of a drive
      expect(await together(n)).toEqual(['its own fault', 'committed'])
    }
  })

  test('calls fail with a typed fault while the database is full, and succeed afterwards', async () => {
    const opened = await open()
    const { client, db, ledger } = opened
    await client.execute('PRAGMA max_page_count = 1')
    const large = { note: 'x'.repeat(100_000) }
    await expect(ledger.declare(intentOf({ metadata: large }))).rejects.toMatchObject({ code: 'ledger-unavailable' })
    // Statements of the application fail with the error of the database.
    const own = await db
      .insert(photos)
      .values({ name: 'x'.repeat(100_000) })
      .then(
        () => null,
        (error: unknown) => error,
      )
    expect([faultCode(own), String(Reflect.get(Object(own), 'cause'))]).toEqual([
      null,
      expect.stringContaining('SQLITE_FULL'),
    ])
    await client.execute('PRAGMA max_page_count = 1000000')
    expect((await ledger.declare(intentOf({ metadata: large }))).outcome).toBe('created')
  })

  test("if the database is full for a hook, the ledger reports a typed fault, and the hook gets the database's own error", async () => {
    const opened = await open()
    await opened.client.execute('PRAGMA max_page_count = 1')
    let seen: unknown
    const full = refer(opened, async (tx) => {
      const written = tx.insert(photos).values({ name: 'x'.repeat(100_000) })
      await written.catch((error: unknown) => {
        seen = error
        throw error
      })
      return accepted
    })
    await expect(full).rejects.toMatchObject({ code: 'ledger-unavailable' })
    expect([faultCode(seen), String(Reflect.get(Object(seen), 'cause'))]).toEqual([
      null,
      expect.stringContaining('SQLITE_FULL'),
    ])
  })

  test('a transaction that never got the writer can be closed', async () => {
    const { client } = await open({ busyTimeoutMs: 100 })
    const holder = await lockFrom(path)
    const unhandled: unknown[] = []
    const note = (error: unknown): void => void unhandled.push(error)
    process.on('unhandledRejection', note)
    const tx = await client.transaction('write')
    await expect(tx.execute("INSERT INTO photos VALUES ('a')")).rejects.toMatchObject({ code: 'ledger-unavailable' })
    tx.close()
    await later(50)
    process.off('unhandledRejection', note)
    expect(unhandled).toEqual([])
    expect(tx.closed).toBe(true)
    await holder.release()
  })

  test('a hook that ignores that it did not get the writer cannot commit and makes no reference', async () => {
    const opened = await open({ busyTimeoutMs: 100 })
    const overlooked = refer(opened, async (tx) => {
      const holder = await lockFrom(path)
      await tx
        .insert(photos)
        .values({ name: 'a' })
        .catch(() => {})
      await holder.release()
      return accepted
    })
    await expect(overlooked).rejects.toMatchObject({ code: 'ledger-unavailable' })
    expect(await names(opened)).toEqual([])
  })

  test('a client can be closed while its database fails to open', async () => {
    await open()
    const { ledger, client } = await open({}, { migrates: false })
    await rename(directory.path, `${directory.path}-away`)
    const unhandled: unknown[] = []
    const note = (error: unknown): void => void unhandled.push(error)
    process.on('unhandledRejection', note)
    const read = ledger.find({ owner: 'ann', id: 'x' })
    client.close()
    await expect(read).rejects.toMatchObject({ code: 'ledger-unavailable' })
    await later(50)
    process.off('unhandledRejection', note)
    await rename(`${directory.path}-away`, directory.path)
    expect(unhandled).toEqual([])
  })

  test('a database that could not be opened for reading once can be opened later', async () => {
    await open()
    const { ledger } = await open({}, { migrates: false })
    await rename(directory.path, `${directory.path}-away`)
    await expect(ledger.find({ owner: 'ann', id: 'x' })).rejects.toMatchObject({ code: 'ledger-unavailable' })
    await rename(`${directory.path}-away`, directory.path)
    expect(await ledger.find({ owner: 'ann', id: 'x' })).toBe(null)
  })

  test('a failing statement of one job undoes only that job', async () => {
    const opened = await open()
    await opened.db.insert(photos).values({ name: 'taken' })
    const results = await Promise.allSettled(
      ['a', 'taken', 'b'].map((name) => opened.db.insert(photos).values({ name })),
    )
    expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled'])
    expect(await names(opened)).toEqual(['a', 'b', 'taken'])
  })

  test('batches are all or nothing', async () => {
    const opened = await open()
    await expect(
      opened.db.batch([opened.db.insert(photos).values({ name: 'a' }), opened.db.insert(photos).values({ name: 'a' })]),
    ).rejects.toThrow()
    expect(await names(opened)).toEqual([])
    await opened.db.batch([
      opened.db.insert(photos).values({ name: 'a' }),
      opened.db.insert(photos).values({ name: 'b' }),
    ])
    expect(await names(opened)).toEqual(['a', 'b'])
  })

  test('while another process has locked the database, writes fail with a typed fault after a while and do not block the event loop', async () => {
    const opened = await open({ busyTimeoutMs: 300 })
    const holder = await lockFrom(path)
    const startedAt = performance.now()
    let ticks = 0
    const ticking = setInterval(() => ticks++, 10)
    await expect(opened.db.insert(photos).values({ name: 'refused' })).rejects.toSatisfy(
      (error) => faultCode(error) === 'ledger-unavailable',
    )
    clearInterval(ticking)
    expect(performance.now() - startedAt).toBeGreaterThan(250)
    expect(ticks).toBeGreaterThan(15)
    expect(await names(opened)).toEqual([])
    const waiting = opened.db.insert(photos).values({ name: 'patient' }).execute()
    await later(100)
    await holder.release()
    await waiting
    expect(await names(opened)).toEqual(['patient'])
  })
})

describe('a write past tx', () => {
  test('is a typed error at once, and the next upload works', async () => {
    const opened = await open()
    const startedAt = performance.now()
    const past = refer(opened, async (tx) => {
      await tx.insert(photos).values({ name: 'through tx' })
      await opened.db.insert(photos).values({ name: 'past tx' })
      return accepted
    })
    await expect(past).rejects.toSatisfy((error) => faultCode(error) === 'write-past-tx')
    expect(performance.now() - startedAt).toBeLessThan(1_000)
    expect(await names(opened)).toEqual([])
    expect((await refer(opened, async () => accepted)).outcome).toBe('referenced')
  })

  test.each([
    [
      'before the first statement of tx',
      async (opened: Opened) => void (await opened.db.insert(photos).values({ name: 'x' })),
    ],
    [
      'in a transaction of its own',
      async (opened: Opened) =>
        opened.db.transaction(async (tx) => void (await tx.insert(photos).values({ name: 'x' }))),
    ],
    [
      'in a batch',
      async (opened: Opened) => void (await opened.db.batch([opened.db.insert(photos).values({ name: 'x' })])),
    ],
  ])('is detected %s', async (_name, write) => {
    const opened = await open()
    const past = refer(opened, async () => {
      await write(opened)
      return accepted
    })
    await expect(past).rejects.toSatisfy((error) => faultCode(error) === 'write-past-tx')
    expect(await names(opened)).toEqual([])
  })

  test('does not include reads, nested transactions, or writes after the hook', async () => {
    const opened = await open()
    let after: Promise<unknown> = Promise.resolve()
    const referred = await refer(opened, async (tx) => {
      await opened.db.select().from(photos)
      await tx.transaction(async (nested) => void (await nested.insert(photos).values({ name: 'nested' })))
      await expect(
        tx.transaction(async (nested) => {
          await nested.insert(photos).values({ name: 'undone' })
          throw new Error('undo')
        }),
      ).rejects.toThrow('undo')
      after = later(50).then(() => opened.db.insert(photos).values({ name: 'after' }))
      return accepted
    })
    expect(referred.outcome).toBe('referenced')
    await after
    expect(await names(opened)).toEqual(['after', 'nested'])
  })

  test('a write that is not awaited changes nothing after the hook', async () => {
    const opened = await open()
    let late: Promise<unknown> = Promise.resolve()
    await refer(opened, async (tx) => {
      late = later(30).then(() => tx.insert(photos).values({ name: 'late' }))
      late.catch(() => {})
      return accepted
    })
    await opened.db.insert(photos).values({ name: 'neighbour' })
    await expect(late).rejects.toSatisfy((error) => faultCode(error) === 'transaction-closed')
    expect(await names(opened)).toEqual(['neighbour'])
  })

  test.each(['COMMIT', ' end', 'ROLLBACK', 'begin immediate', '/* x */ COMMIT'])(
    '%s by hand is refused',
    async (statement) => {
      const opened = await open()
      const byHand = refer(opened, async (tx) => {
        await tx.insert(photos).values({ name: 'a' })
        await tx.run(sql.raw(statement))
        return accepted
      })
      await expect(byHand).rejects.toSatisfy((error) => faultCode(error) === 'transaction-closed')
      await expect(opened.db.run(sql.raw(statement))).rejects.toSatisfy(
        (error) => faultCode(error) === 'transaction-closed',
      )
      expect(await names(opened)).toEqual([])
    },
  )
})

describe('a libsql client', () => {
  test('gives the same answers as @libsql/client', async () => {
    const plain = createClient({ url: `file:${join(directory.path, 'plain.db')}` })
    const serialized = serializedLibsql(createClient({ url: `file:${path}` }))
    close.push(
      () => plain.close(),
      () => serialized.close(),
    )
    const statements = [
      'CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b BLOB, c REAL)',
      { sql: 'INSERT INTO t (a, b, c) VALUES (?, ?, ?)', args: ['ä', new Uint8Array([1, 2]), 1.5] },
      { sql: 'INSERT INTO t (a) VALUES (:a) RETURNING id, a, b AS a', args: { a: 'x' } },
      { sql: 'UPDATE t SET c = ? WHERE id = ?', args: [true, 1n] },
      'SELECT id, a, b, c, count(*) OVER () FROM t ORDER BY id',
      'PRAGMA table_info(t)',
      'WITH x AS (SELECT 1) INSERT INTO t (a) SELECT * FROM x',
    ]
    for (const statement of statements) {
      const [expected, found] = [await plain.execute(statement), await serialized.execute(statement)]
      expect(JSON.stringify(found)).toBe(JSON.stringify(expected))
      expect(found.rows.map((row) => [row.length, Object.keys(row), row[0]])).toEqual(
        expected.rows.map((row) => [row.length, Object.keys(row), row[0]]),
      )
      expect(found.rowsAffected).toBe(expected.rowsAffected)
      expect(found.lastInsertRowid).toBe(expected.lastInsertRowid)
    }
    const failures = await Promise.allSettled([
      plain.execute('INSERT INTO t (id) VALUES (1)'),
      serialized.execute('INSERT INTO t (id) VALUES (1)'),
    ])
    const [expected, found] = failures.map((result) =>
      result.status === 'rejected' ? (result.reason as { code: string; extendedCode: string; name: string }) : null,
    )
    expect([found?.name, found?.code, found?.extendedCode]).toEqual([
      expected?.name,
      expected?.code,
      expected?.extendedCode,
    ])
  })

  test('does not run a failed statement again with its old arguments', () => {
    const connection = openConnection(path)
    connection.exec('CREATE TABLE t (n INTEGER CHECK (n < 10))')
    expect(() => connection.get('INSERT INTO t VALUES (?) RETURNING n', [11])).toThrow()
    expect(connection.get('INSERT INTO t VALUES (?) RETURNING n', [5])?.['n']).toBe(5)
    connection.close()
  })

  test('sees columns that another connection has added', async () => {
    const { client } = await open()
    await client.execute('INSERT INTO photos (name) VALUES (?) RETURNING *', ['a'])
    const other = createClient({ url: `file:${path}` })
    await other.execute('ALTER TABLE photos ADD COLUMN size INTEGER')
    other.close()
    const { columns } = await client.execute('INSERT INTO photos (name) VALUES (?) RETURNING *', ['b'])
    expect(columns).toEqual(['name', 'size'])
  })

  test('refuses a database in memory, and a ledger refuses a client that is not serialised', async () => {
    const memory = serializedLibsql(createClient({ url: ':memory:' }))
    close.push(() => memory.close())
    await expect(memory.execute('CREATE TABLE t (n)')).rejects.toMatchObject({ code: 'setup' })
    const plain = createClient({ url: `file:${path}` })
    close.push(() => plain.close())
    expect(() => sqliteLedger(drizzle(plain))).toThrow(/serializedLibsql/)
  })

  test('syncs each commit', async () => {
    const { client } = await open()
    expect((await client.execute('PRAGMA synchronous')).rows[0]?.[0]).toBe(2)
    expect((await client.execute('PRAGMA journal_mode')).rows[0]?.[0]).toBe('wal')
    expect((await client.execute('PRAGMA foreign_keys')).rows[0]?.[0]).toBe(1)
  })
})

test('the tables of drizzle-kit and those of the migrations are the same', async () => {
  const byKit = openConnection(join(directory.path, 'kit.db'))
  const ours = openConnection(join(directory.path, 'ours.db'))
  const empty = await generateSQLiteDrizzleJson({})
  for (const statement of await generateSQLiteMigration(empty, await generateSQLiteDrizzleJson(tables)))
    byKit.exec(statement)
  ours.exec('CREATE TABLE landfall_meta (key TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL)')
  for (const statement of MIGRATIONS.flat()) ours.exec(statement)
  const shape = (connection: typeof ours) => ({
    columns: connection.all(
      `SELECT m.name AS tbl, c.name, c.type, c."notnull", c.dflt_value, c.pk FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table' ORDER BY m.name, c.name`,
    ),
    indexes: connection
      .all(`SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL ORDER BY name`)
      .map(({ name, sql: text }) => [
        name,
        String(text)
          .replaceAll(/[`"\s]|landfall_\w+\./g, '')
          .toLowerCase(),
      ]),
    checks: connection
      .all(`SELECT sql FROM sqlite_master WHERE type = 'table' ORDER BY name`)
      .map(({ sql: text }) => String(text).match(/CHECK/gi)?.length ?? 0),
  })
  expect(JSON.stringify(shape(byKit), null, 1).replaceAll(/"duration":[^}]*/g, '')).toBe(
    JSON.stringify(shape(ours), null, 1).replaceAll(/"duration":[^}]*/g, ''),
  )
  byKit.close()
  ours.close()
})

test("migrates tables that the application's drizzle-kit has made", async () => {
  const { client, db } = await openDatabase(path)
  close.push(() => client.close())
  for (const statement of await generateSQLiteMigration(
    await generateSQLiteDrizzleJson({}),
    await generateSQLiteDrizzleJson(tables),
  ))
    await client.execute(statement)
  const ledger = sqliteLedger(db)
  await ledger.migrate()
  expect((await ledger.declare(intentOf())).outcome).toBe('created')
  const triggers = await client.execute(`SELECT count(*) FROM sqlite_master WHERE type = 'trigger'`)
  expect(triggers.rows[0]?.[0]).toBe(10)
})

/** Another process takes the write lock and keeps it. */
async function lockFrom(database: string): Promise<{ release(): Promise<void> }> {
  const child = fork(new URL('./lock-database.mjs', import.meta.url), [database], { stdio: 'ignore' })
  close.push(() => child.kill('SIGKILL'))
  await once(child, 'message')
  return {
    async release() {
      child.kill('SIGKILL')
      await once(child, 'exit')
    },
  }
}
