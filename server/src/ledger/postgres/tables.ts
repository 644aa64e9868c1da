import { type Part, partsOf, type Standing } from '../parts.js'
import { changes, type Plan, row, rows } from '../query.js'
import { tableStatements } from '../statements/tables.js'
import { POSTGRES } from './dialect.js'
import { POSTGRES_MIGRATIONS } from './migrations.js'

// How the tables are made and repaired in PostgreSQL, where several processes may start at once.

/**
 * The number for `pg_advisory_xact_lock`, so that one process migrates at a time. Any number works that no other
 * program uses.
 */
const MIGRATION_LOCK = 7_203_155_221
/**
 * How long a change of the tables waits for others that use them, such as a long transaction or a dump. In
 * milliseconds.
 */
const LOCK_MS = 2_000

const PARTS = partsOf(POSTGRES_MIGRATIONS)
const namesOf = (wanted: Part['kind']): string[] =>
  [...PARTS.others].filter(([, { kind }]) => kind === wanted).map(([name]) => name)
const NAMES = {
  tables: JSON.stringify(PARTS.tables),
  relations: JSON.stringify([...PARTS.tables, ...namesOf('INDEX')]),
  functions: JSON.stringify(namesOf('FUNCTION')),
  triggers: JSON.stringify(namesOf('TRIGGER')),
}
const named = (argument: keyof typeof NAMES): string =>
  `(SELECT given.value #>> '{}' AS name FROM ${POSTGRES.eachJson(`:${argument}`, 'given')}) AS ${argument}`

/** A trigger that is disabled counts as missing. */
function* standing(): Plan<Standing> {
  const there = yield* row(`SELECT to_regclass('landfall_meta') IS NOT NULL AS there`)
  if (String(there?.['there']) !== 'true') return { version: 0, identity: null, missing: [] }
  const all = yield* rows(`SELECT key, value FROM landfall_meta WHERE key IN ('version', 'identity')`)
  const meta = new Map(all.map(({ key, value }) => [key, String(value)]))
  const version = Number(meta.get('version') ?? 0)
  const identity = meta.get('identity') ?? null
  if (version !== POSTGRES_MIGRATIONS.length) return { version, identity, missing: [] }
  const missing = yield* rows(
    `SELECT name FROM ${named('relations')} WHERE to_regclass(name) IS NULL
     UNION ALL SELECT name FROM ${named('functions')} WHERE to_regproc(name) IS NULL
     UNION ALL SELECT name FROM ${named('triggers')} WHERE NOT EXISTS (
       SELECT 1 FROM pg_trigger t JOIN ${named('tables')} ON t.tgrelid = to_regclass(tables.name)
       WHERE t.tgname = triggers.name AND t.tgenabled IN ('O', 'A'))`,
    NAMES,
  )
  return { version, identity, missing: missing.map(({ name }) => String(name)) }
}

const ifMissing = (statement: string): string =>
  statement
    .replace(/^CREATE (UNIQUE )?(TABLE|INDEX) /, 'CREATE $1$2 IF NOT EXISTS ')
    .replace(/^CREATE (FUNCTION|TRIGGER) /, 'CREATE OR REPLACE $1 ')
    .replace(/^ALTER TABLE (\w+) ADD COLUMN /, 'ALTER TABLE $1 ADD COLUMN IF NOT EXISTS ')

function* apply(statement: string): Plan<void> {
  yield* changes(ifMissing(statement))
}

function* mend(parts: readonly Part[]): Plan<void> {
  // Without this lock, writes of other processes during the repair would not be counted, or would be counted twice.
  yield* rows(`LOCK TABLE landfall_operations, landfall_references, landfall_usage IN SHARE ROW EXCLUSIVE MODE`)
  // A trigger needs its function, and either may be missing. So all functions are made first.
  for (const { kind, statement } of PARTS.others.values()) if (kind === 'FUNCTION') yield* apply(statement)
  for (const { kind, statement } of parts) if (kind !== 'FUNCTION') yield* apply(statement)
  for (const { kind, statement } of parts) {
    if (kind !== 'TRIGGER') continue
    // A trigger that was disabled still exists, and CREATE OR REPLACE leaves it disabled.
    const [, name, table] = /^CREATE TRIGGER (\w+)[^]*? ON (\w+)/.exec(statement) ?? []
    yield* changes(`ALTER TABLE ${table} ENABLE TRIGGER ${name}`)
  }
}

/** `migrate` fails with `lock_not_available` (55P03) when another transaction uses a table for longer than `LOCK_MS`. */
export const POSTGRES_TABLES = tableStatements({
  migrations: POSTGRES_MIGRATIONS,
  metaTable: `CREATE TABLE IF NOT EXISTS landfall_meta (key text PRIMARY KEY, value text NOT NULL)`,
  standing,
  *begin() {
    yield* rows(`SELECT pg_advisory_xact_lock(${MIGRATION_LOCK})`)
    // Processes that ask for a table after this one wait behind it, readers included. So this one gives up early and
    // tries again later.
    yield* rows(`SELECT set_config('lock_timeout', :lock_ms, true)`, { lock_ms: String(LOCK_MS) })
  },
  apply,
  mend,
})
