import { type HasDefault, type NotNull, sql } from 'drizzle-orm'
import {
  check,
  index,
  integer,
  primaryKey,
  type SQLiteColumn,
  type SQLiteIntegerBuilderInitial,
  sqliteTable,
  type SQLiteTextBuilderInitial,
  text,
  uniqueIndex,
} from 'drizzle-orm/sqlite-core'
import { type Column, type Columns, nameOf, type Table } from '../columns.js'
import { DISABLED_TARGETS, EFFECTS, META, OPERATIONS, REFERENCES, TOMBSTONES, USAGE } from '../tables.js'

type Text = SQLiteTextBuilderInitial<string, [string, ...string[]], number | undefined>
type Base<C extends Column> = C['type'] extends 'key' | 'text' ? Text : SQLiteIntegerBuilderInitial<string>
type Needed<C extends Column> = C['nullable'] extends true ? Base<C> : NotNull<Base<C>>
type Built<C extends Column> = C['hasDefault'] extends true ? HasDefault<Needed<C>> : Needed<C>
/** The columns of SQLite's table, as Drizzle knows them. */
export type SqliteColumns<C extends Columns> = {
  [P in keyof C as 'sqlite' extends C[P]['on'][number] ? P : never]: Built<C[P]>
}

/** Makes the Drizzle table of a definition. */
export function sqliteTableOf<const Name extends string, C extends Columns>(definition: Table<Name, C>) {
  const { name, columns, key, indexes, checks } = definition
  const built = Object.entries(columns).flatMap(([property, column]) => {
    if (!column.on.includes('sqlite')) return []
    const isText = column.type === 'key' || column.type === 'text'
    const base = isText ? text(nameOf(property)) : integer(nameOf(property))
    const needed = column.nullable ? base : base.notNull()
    const whole = column.default === undefined ? needed : needed.default(column.default as never)
    return [[property, key.length === 1 && key[0] === property ? whole.primaryKey() : whole]]
  })
  return sqliteTable(name, Object.fromEntries(built) as SqliteColumns<C>, (table) => {
    const of = (properties: readonly string[]) =>
      properties.map((property) => (table as Record<string, unknown>)[property]) as [SQLiteColumn, ...SQLiteColumn[]]
    return [
      ...(key.length > 1 ? [primaryKey({ columns: of(key) })] : []),
      ...indexes
        .filter(({ only = 'sqlite' }) => only === 'sqlite')
        .map(({ name: called, on, unique, where }) => {
          const made = (unique === true ? uniqueIndex(called) : index(called)).on(...of(on))
          return where === undefined ? made : made.where(sql.raw(where))
        }),
      ...Object.entries(checks).map(([called, condition]) => check(called, sql.raw(condition))),
    ]
  })
}

/**
 * The ledger's tables for SQLite, for applications that manage all tables with drizzle-kit. Most applications call
 * `uploads.migrate()` instead, or leave this to the start of the server. They must keep drizzle-kit away from these
 * tables with `tablesFilter: ['!landfall_*']`, because its `push` would drop them. drizzle-kit has no triggers, so
 * `uploads.migrate()` adds them to tables that drizzle-kit has made. The triggers enforce invariants 4 and 7 against
 * every writer.
 *
 * Use these definitions only with `drizzle-kit generate` and `migrate`, never with `drizzle-kit push`. Version 0.31
 * does not read partial indexes, checks and the order of a primary key back as they are. It would therefore make the
 * tables again with each push, and their triggers would be gone. An application that uses push leaves these definitions
 * out of its schema and sets `tablesFilter: ['!landfall_*']`. Without that setting, push drops the tables.
 *
 * All times are milliseconds since 1970 by SQLite's clock.
 */
export const landfallOperations = sqliteTableOf(OPERATIONS)
export const landfallReferences = sqliteTableOf(REFERENCES)
export const landfallEffects = sqliteTableOf(EFFECTS)
export const landfallDisabledTargets = sqliteTableOf(DISABLED_TARGETS)
export const landfallUsage = sqliteTableOf(USAGE)
export const landfallTombstones = sqliteTableOf(TOMBSTONES)
export const landfallMeta = sqliteTableOf(META)
