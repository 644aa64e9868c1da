import { type Part, partsOf, type Standing } from '../parts.js'
import { changes, type Plan, row, rows } from '../query.js'
import { tableStatements } from '../statements/tables.js'
import { MIGRATIONS } from './migrations.js'

// How the tables are made and repaired in SQLite, within one job of the queue.

const PARTS = partsOf(MIGRATIONS)

function* standing(): Plan<Standing> {
  const there = new Set((yield* rows(`SELECT name FROM sqlite_schema`)).map(({ name }) => String(name)))
  if (!there.has('landfall_meta')) return { version: 0, identity: null, missing: [] }
  const all = yield* rows(`SELECT key, value FROM landfall_meta`)
  const meta = new Map(all.map(({ key, value }) => [key, String(value)]))
  const version = Number(meta.get('version') ?? 0)
  const missing =
    version === MIGRATIONS.length ? [...PARTS.tables, ...PARTS.others.keys()].filter((name) => !there.has(name)) : []
  return { version, identity: meta.get('identity') ?? null, missing }
}

const ifMissing = (statement: string): string =>
  statement.replace(/^CREATE (UNIQUE )?(TABLE|INDEX|TRIGGER) /, 'CREATE $1$2 IF NOT EXISTS ')

function* apply(statement: string): Plan<void> {
  // SQLite has no IF NOT EXISTS for columns.
  const [, table = '', column] = /^ALTER TABLE (\w+) ADD COLUMN (\w+)/.exec(statement) ?? []
  const isDone =
    column !== undefined &&
    (yield* row(`SELECT 1 AS there FROM pragma_table_info(:table) WHERE name = :column`, { table, column })) !==
      undefined
  if (!isDone) yield* changes(ifMissing(statement))
}

export const SQLITE_TABLES = tableStatements({
  migrations: MIGRATIONS,
  metaTable: `CREATE TABLE IF NOT EXISTS landfall_meta (key TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL)`,
  standing,
  *begin() {},
  apply,
  *mend(parts: readonly Part[]) {
    for (const { statement } of parts) yield* apply(statement)
  },
})
