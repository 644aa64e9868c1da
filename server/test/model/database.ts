import { AsyncLocalStorage } from 'node:async_hooks'
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Client, createClient, type InStatement, type TransactionMode } from '@libsql/client'
import { drizzle } from 'drizzle-orm/libsql'
import Database from 'libsql'
import type { SqliteAccess } from '../../src/ledger/sqlite/client/serialized-libsql.js'
import type { SqlRow } from '../../src/ledger/query.js'
import type { Connection } from '../../src/ledger/sqlite/client/connection.js'
import type { Hold } from '../../src/ledger/sqlite/client/writer.js'
import type { Lease } from '../../src/ports/ledger/leases.js'
import { NOW, serializedLibsql, sqliteLedger } from './modules.js'

const ACCESS = Symbol.for('landfall.sqlite')

/** The lease under which a statement runs, so that a write after the lease was lost is noticed at once. */
export const writing = new AsyncLocalStorage<{ lease: Lease; violated: (words: string) => void }>()

/** The application's database, one for all histories: each has an owner of its own. */
export type ModelDatabase = Awaited<ReturnType<typeof openModelDatabase>>

/** Ends with its process. */
export interface Living {
  readonly died: AbortSignal
  /** The database's clock, in milliseconds. */
  now(): number
}

/** Finds what is due for a completer, now or later. */
export const DUE = `SELECT due_at AS due FROM landfall_operations WHERE due_at IS NOT NULL
  UNION ALL SELECT due_at FROM landfall_effects WHERE due_at IS NOT NULL
  UNION ALL SELECT 0 FROM landfall_operations WHERE point = 'referenced' AND owes_effects = 0
  UNION ALL SELECT 0 FROM landfall_operations o WHERE forgotten_at IS NOT NULL AND cleanup_due = 0 AND lease_holder IS NULL
    AND NOT EXISTS (SELECT 1 FROM landfall_effects e WHERE e.owner = o.owner AND e.operation_id = o.id AND e.delivered_at IS NULL)`

class Dropped extends Error {}

export async function openModelDatabase() {
  // A file system in memory has real commits, and syncs cost nothing.
  const folder = await mkdtemp(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'landfall-model-'))
  const path = join(folder, 'app.db')
  const base = serializedLibsql(createClient({ url: `file:${path}` }))
  const { identity } = await sqliteLedger(drizzle(base)).migrate()
  await sqliteLedger(drizzle(base)).rememberStore()
  await base.execute('CREATE TABLE arrivals (operation_id TEXT NOT NULL, owner TEXT NOT NULL, digest TEXT NOT NULL)')
  await base.execute('CREATE INDEX arrivals_operation ON arrivals (owner, operation_id)')
  const raw = new Database(path, { timeout: 1_000 })
  raw.exec('PRAGMA synchronous=OFF')
  const statements = new Map<string, ReturnType<typeof raw.prepare>>()
  const read = (sql: string, args: readonly string[]): SqlRow[] => {
    const statement = statements.get(sql) ?? raw.prepare(sql)
    statements.set(sql, statement)
    return statement.all([...args]) as SqlRow[]
  }

  return {
    identity,
    /** Reads the database without the server. */
    read,
    /** The database for one process, whose running statements end with it. */
    connect: (living: Living) => drizzle(clientOf(base, living)),
    /** Makes everything of earlier histories not due any more. */
    forget(): void {
      if (read(`SELECT 1 FROM (${DUE}) LIMIT 1`, []).length === 0) return
      raw.exec(`UPDATE landfall_operations SET due_at = NULL, stalled = 1 WHERE due_at IS NOT NULL;
        UPDATE landfall_effects SET due_at = NULL WHERE due_at IS NOT NULL;
        UPDATE landfall_operations SET forgotten_at = NULL WHERE forgotten_at IS NOT NULL;
        UPDATE landfall_operations SET owes_effects = 1 WHERE point = 'referenced' AND owes_effects = 0;`)
    },
    async close(): Promise<void> {
      base.close()
      raw.close()
      await rm(folder, { recursive: true, force: true })
    },
  }
}

/** The real queue of writes, with the clock of the model and a fence that checks the ledger's fence. */
function clientOf(base: ReturnType<typeof serializedLibsql>, living: Living) {
  const { writer, reader, intMode } = (base as unknown as Record<typeof ACCESS, SqliteAccess>)[ACCESS]
  const virtual = (on: Connection): Connection => withClock(on, living.now)
  const alive = (): void => {
    if (living.died.aborted) throw new Dropped('its process is dead')
  }
  const work =
    <T>(job: (on: Connection) => T, context = writing.getStore()) =>
    (on: Connection): T => {
      alive()
      return fenced(on, context, () => job(virtual(on)))
    }
  const access: SqliteAccess = {
    intMode,
    reader: async () => virtual(await reader()),
    writer: {
      write: (job) => writer.write(work(job)),
      alone: (job) => writer.alone(work(job)),
      async hold(options) {
        const hold = await writer.hold(options)
        // The connection of a dead process is closed, and SQLite rolls back.
        const drop = (): void => void hold.rollback()
        if (living.died.aborted) drop()
        living.died.addEventListener('abort', drop, { once: true })
        const ended = <T>(end: Promise<T>): Promise<T> =>
          end.finally(() => living.died.removeEventListener('abort', drop))
        return {
          use: (statement) => hold.use((on) => statement(virtual(on))),
          commit: (last) => ended(hold.commit(last === undefined ? undefined : work(last))),
          rollback: () => ended(hold.rollback()),
        } satisfies Hold
      },
      close: () => {},
    },
  }
  const rewritten = (statement: InStatement): InStatement =>
    typeof statement === 'string'
      ? inTime(statement, living.now())
      : { ...statement, sql: inTime(statement.sql, living.now()) }
  const client: Client = {
    ...base,
    execute: (statement: InStatement | string) => base.execute(rewritten(statement)),
    async transaction(mode: TransactionMode = 'write') {
      const transaction = await base.transaction(mode)
      return { ...transaction, execute: (statement: InStatement | string) => transaction.execute(rewritten(statement)) }
    },
  }
  return Object.assign(client, { [ACCESS]: access })
}

const inTime = (sql: string, now: number): string => sql.replaceAll(NOW, String(Math.floor(now)))

function withClock(on: Connection, now: () => number): Connection {
  return {
    run: (sql, args) => on.run(inTime(sql, now()), args),
    get: (sql, args) => on.get(inTime(sql, now()), args),
    all: (sql, args) => on.all(inTime(sql, now()), args),
    execute: (statement, intMode) =>
      on.execute(
        typeof statement === 'string' ? inTime(statement, now()) : { ...statement, sql: inTime(statement.sql, now()) },
        intMode,
      ),
    exec: (sql) => on.exec(inTime(sql, now())),
    get inTransaction() {
      return on.inTransaction
    },
    close: () => {},
  }
}

const ROW = 'SELECT * FROM landfall_operations WHERE owner = ? AND id = ?'

/** Checks invariant 8 at each statement: a process without the lease changes nothing. */
function fenced<T>(on: Connection, context: ReturnType<typeof writing.getStore>, job: () => T): T {
  if (context === undefined) return job()
  const { lease, violated } = context
  const before = on.get(ROW, [lease.owner, lease.id])
  const result = job()
  if (before?.['lease_token'] === lease.token && before['lease_holder'] === lease.holder) return result
  const after = on.get(ROW, [lease.owner, lease.id])
  if (textOf(before) !== textOf(after))
    violated(`8: a process without the lease changed the row from ${pointOf(before)} to ${pointOf(after)}`)
  return result
}

/** libsql adds the duration of the statement, which is left out. */
const textOf = (row: SqlRow | undefined): string => JSON.stringify({ ...row, _metadata: null })
const pointOf = (row: SqlRow | undefined): string => JSON.stringify(row?.['point'] ?? null)
