import { type HasDefault, type NotNull, sql } from 'drizzle-orm'
import {
  bigint,
  check,
  type ConvertCustomConfig,
  customType,
  index,
  integer,
  type PgBigInt53BuilderInitial,
  type PgColumn,
  type PgCustomColumnBuilder,
  type PgIntegerBuilderInitial,
  type PgSmallIntBuilderInitial,
  pgTable,
  type PgTextBuilderInitial,
  primaryKey,
  smallint,
  text,
  uniqueIndex,
} from 'drizzle-orm/pg-core'
import { type Column, type Columns, nameOf, type SqlType, type Table } from '../columns.js'
import { DISABLED_TARGETS, EFFECTS, META, OPERATIONS, REFERENCES, TOMBSTONES, USAGE } from '../tables.js'

/** Keys and ids are compared byte by byte, as JavaScript and the blob stores do. */
const bytewise = customType<{ data: string }>({ dataType: () => 'text COLLATE "C"' })

interface Builders {
  key: PgCustomColumnBuilder<ConvertCustomConfig<string, { data: string }>>
  text: PgTextBuilderInitial<string, [string, ...string[]]>
  big: PgBigInt53BuilderInitial<string>
  int: PgIntegerBuilderInitial<string>
  small: PgSmallIntBuilderInitial<string>
}
const BUILDERS: { readonly [T in SqlType]: (name: string) => Builders[T] } = {
  key: bytewise,
  text: (name) => text(name),
  big: (name) => bigint(name, { mode: 'number' }),
  int: integer,
  small: smallint,
}

type Needed<C extends Column> = C['nullable'] extends true ? Builders[C['type']] : NotNull<Builders[C['type']]>
type Built<C extends Column> = C['hasDefault'] extends true ? HasDefault<Needed<C>> : Needed<C>
/** The columns of PostgreSQL's table, as Drizzle knows them. */
export type PostgresColumns<C extends Columns> = {
  [P in keyof C as 'postgres' extends C[P]['on'][number] ? P : never]: Built<C[P]>
}

/** Makes the Drizzle table of a definition. */
export function postgresTableOf<const Name extends string, C extends Columns>(definition: Table<Name, C>) {
  const { name, columns, key, indexes, checks } = definition
  const built = Object.entries(columns).flatMap(([property, column]) => {
    if (!column.on.includes('postgres')) return []
    // All kinds of columns are built by the same calls.
    const base = BUILDERS[column.type](nameOf(property)) as Builders['text']
    const needed = column.nullable ? base : base.notNull()
    const whole = column.default === undefined ? needed : needed.default(column.default as string)
    return [[property, key.length === 1 && key[0] === property ? whole.primaryKey() : whole]]
  })
  return pgTable(name, Object.fromEntries(built) as PostgresColumns<C>, (table) => {
    const of = (properties: readonly string[]) =>
      properties.map((property) => (table as Record<string, unknown>)[property]) as [PgColumn, ...PgColumn[]]
    return [
      ...(key.length > 1 ? [primaryKey({ columns: of(key), name: `${name}_pkey` })] : []),
      ...indexes
        .filter(({ only = 'postgres' }) => only === 'postgres')
        .map(({ name: called, on, unique, where }) => {
          const made = (unique === true ? uniqueIndex(called) : index(called)).on(...of(on))
          return where === undefined ? made : made.where(sql.raw(where))
        }),
      ...Object.entries(checks).map(([called, condition]) => check(called, sql.raw(condition))),
    ]
  })
}

/**
 * The ledger's tables for PostgreSQL, for applications that manage all tables with drizzle-kit. Most applications call
 * `uploads.migrate()` instead, or leave this to the start of the server. They must keep drizzle-kit away from these
 * tables with `tablesFilter: ['!landfall_*']`, because its `push` would drop them. drizzle-kit has no triggers, so
 * `uploads.migrate()` adds them to tables that drizzle-kit has made. The triggers enforce invariants 4 and 7 against
 * every writer, and count what is open.
 *
 * Use these definitions only with `drizzle-kit generate` and `migrate`, never with `drizzle-kit push`. Version 0.31
 * does not read collations and the order of a primary key back as they are. So each push would change columns and a key
 * again that are already right. An application that uses push leaves these definitions out of its schema and sets
 * `tablesFilter: ['!landfall_*']`. Without that setting, push drops the tables.
 *
 * All times are milliseconds since 1970 by PostgreSQL's clock.
 */
export const landfallOperations = postgresTableOf(OPERATIONS)
export const landfallReferences = postgresTableOf(REFERENCES)
export const landfallEffects = postgresTableOf(EFFECTS)
export const landfallDisabledTargets = postgresTableOf(DISABLED_TARGETS)
export const landfallUsage = postgresTableOf(USAGE)
export const landfallTombstones = postgresTableOf(TOMBSTONES)
export const landfallMeta = postgresTableOf(META)
