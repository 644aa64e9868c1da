import type { JsonValue } from '@landfall/shared'
import type { Args, SqlRow, SqlValue } from './query.js'

// The parts of a table's definition. `tables.ts` defines each column once. From there come the Drizzle schemas of both
// engines, the lists of columns, the mapping of rows and the inserts.

export type Engine = 'sqlite' | 'postgres'

/**
 * `key`: text that is compared byte by byte, as JavaScript and the blob stores compare it. `big`: an integer up to
 * 2^53, for sizes and times (milliseconds since 1970 by the database's clock). `small`: 0 or 1, or a level. SQLite has
 * only text and integer.
 */
export type SqlType = 'key' | 'text' | 'big' | 'int' | 'small'

interface Options<Given> {
  readonly null?: true
  readonly default?: string | number
  /** Only statements use the column. It is not part of the record that is made from a row. */
  readonly hidden?: true
  readonly only?: Engine
  /** The value in a new row. Without this and `afterMs`, a new row gets the column's default. */
  readonly fill?: (given: Given) => unknown
  /** A new row gets the database's time plus this many milliseconds. */
  readonly afterMs?: (given: Given) => number
  /**
   * The value after the owner was forgotten. Without it, the column says nothing about the owner and is left unchanged.
   */
  readonly forgotten?: string | number | null
}

export interface Column<
  Type extends SqlType = SqlType,
  Nullable extends boolean = boolean,
  Defaulted extends boolean = boolean,
  Hidden extends boolean = boolean,
  On extends Engine = Engine,
  Value = unknown,
> {
  readonly type: Type
  readonly keeps: 'string' | 'number' | null
  readonly nullable: Nullable
  readonly hasDefault: Defaulted
  readonly default: string | number | undefined
  readonly hidden: Hidden
  readonly on: readonly On[]
  readonly fill: ((given: never) => unknown) | undefined
  readonly afterMs: ((given: never) => number) | undefined
  readonly forgotten: string | number | null | undefined
  read(value: SqlValue): Value
  write(value: Value): SqlValue
}

export type Columns = Readonly<Record<string, Column>>

export interface Index {
  readonly name: string
  readonly on: readonly string[]
  readonly unique?: true
  /** The condition of a partial index. */
  readonly where?: string
  readonly only?: Engine
}

export interface Table<Name extends string = string, C extends Columns = Columns, Given = never> {
  readonly name: Name
  readonly columns: C
  readonly key: readonly string[]
  readonly indexes: readonly Index[]
  readonly checks: Readonly<Record<string, string>>
  /** Never set. It carries the type from which a new row is filled. */
  readonly given?: (given: Given) => void
}

type Is<O, Name extends string> = O extends Readonly<Record<Name, true>> ? true : false
type ColumnOf<Type extends SqlType, Value, O> = Column<
  Type,
  Is<O, 'null'>,
  O extends { readonly default: string | number } ? true : false,
  Is<O, 'hidden'>,
  O extends { readonly only: infer On extends Engine } ? On : Engine,
  Value | (O extends { readonly null: true } ? null : never)
>

interface Codec<Value> {
  /** The type of the values that are read without a conversion. */
  readonly keeps: 'string' | 'number' | null
  readonly read: (value: SqlValue) => Value
  readonly write: (value: Value) => SqlValue
}
const plain: Codec<SqlValue> = { keeps: 'string', read: (value) => value, write: (value) => value }
const texts = plain as unknown as Codec<string>
/** PostgreSQL's drivers return a bigint as text. */
const numbers: Codec<number> = { keeps: 'number', read: Number, write: (value) => value }
const flags: Codec<boolean> = { keeps: null, read: (value) => Number(value) === 1, write: (value) => (value ? 1 : 0) }
const documents: Codec<unknown> = {
  keeps: null,
  // Most of these columns are empty most of the time, so the empty values are read without a parser.
  read: (value) => (value === 'null' ? null : value === '{}' ? {} : (JSON.parse(value as string) as JsonValue)),
  write: (value) => JSON.stringify(value),
}

/** The type of a column's values, if it is narrower than the type that the column has otherwise. */
export type Like<Value> = { readonly like: Value }
export const like = <Value>(): Like<Value> | undefined => undefined

/** The functions for a definition. `Given` is the type from which a new row is filled. */
export function definition<Given = never>() {
  const column =
    <Type extends SqlType, Base>(type: Type, { keeps, read, write }: Codec<Base>) =>
    <const O extends Options<Given>, Value extends Base = Base>(
      options: O,
      _is?: Like<Value>,
    ): ColumnOf<Type, Value, O> => {
      const of = {
        type,
        keeps,
        nullable: options.null === true,
        hasDefault: options.default !== undefined,
        default: options.default,
        hidden: options.hidden === true,
        on: options.only === undefined ? ['sqlite', 'postgres'] : [options.only],
        fill: options.fill,
        afterMs: options.afterMs,
        forgotten: options.forgotten,
        read: options.null === true ? (value: SqlValue) => (value === null ? null : read(value)) : read,
        write: options.null === true ? (value: Base | null) => (value === null ? null : write(value)) : write,
      }
      return of as unknown as ColumnOf<Type, Value, O>
    }
  return {
    key: column('key', texts),
    text: column('text', texts),
    /** JSON as text. The text `null` means that there is no value. */
    json: column('text', documents),
    big: column('big', numbers),
    int: column('int', numbers),
    small: column('small', numbers),
    flag: column('small', flags),
    table: <const Name extends string, C extends Columns>(
      name: Name,
      columns: C,
      {
        key,
        indexes = [],
        checks = {},
      }: { readonly key: readonly (keyof C & string)[] } & Partial<Pick<Table, 'indexes' | 'checks'>>,
    ): Table<Name, C, Given> => ({ name, columns, key, indexes, checks }),
  }
}

/** `fileLastModified` becomes the column `file_last_modified`. */
export const nameOf = (property: string): string =>
  property.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
/** The name as statements need it, because `offset` is a keyword of SQL. */
const quoted = (name: string): string => (name === 'offset' ? '"offset"' : name)
export const columnName = (property: string): string => quoted(nameOf(property))

type RecordOf<C extends Columns, K extends keyof C> = {
  readonly [P in K]: C[P] extends { read(value: SqlValue): infer Value } ? Value : never
}
export type Shown<C extends Columns> = { [P in keyof C]: C[P]['hidden'] extends true ? never : P }[keyof C]

/**
 * A record is a copy of this object, and then its properties are set. V8 keeps an object that is made with all its
 * properties in a fast form. Adding dozens of properties by name takes several times as long.
 */
const blankOf = (names: readonly string[]): Record<string, SqlValue> =>
  JSON.parse(JSON.stringify(Object.fromEntries(names.map((name) => [name, null])))) as Record<string, SqlValue>

/** Some columns of a table: their list for statements, and a reader that makes a record from a row with them. */
export interface Selection<R> {
  /** `owner, id, …`, or `o.owner, o.id, …`. */
  list(alias?: string): string
  read(row: SqlRow): R
}

/** The columns that are part of the record of a row, without those in `except`. */
export const shown = <C extends Columns, E extends keyof C & string = never>(
  { columns }: Pick<Table<string, C>, 'columns'>,
  except: readonly E[] = [],
): readonly Exclude<Shown<C> & string, E>[] =>
  Object.keys(columns).filter(
    (property) => columns[property]?.hidden === false && !(except as readonly string[]).includes(property),
  ) as Exclude<Shown<C> & string, E>[]

/**
 * @param prefix Precedes the names in the row, for statements in which several tables have a column of the same name.
 */
export function selection<C extends Columns, K extends keyof C & string>(
  { columns }: Pick<Table<string, C>, 'columns'>,
  chosen: readonly K[],
  prefix = '',
): Selection<RecordOf<C, K>> {
  const readers = chosen.map((property) => {
    const column = columns[property]
    if (column === undefined) throw new RangeError(`there is no column ${property}`)
    const { keeps, nullable, read } = column
    return { property, name: prefix + nameOf(property), keeps, nullable, read }
  })
  const blank = blankOf(chosen)
  return {
    list: (alias) =>
      chosen
        .map((property) => (alias === undefined ? '' : `${alias}.`) + columnName(property))
        .map((name, index) => (prefix === '' ? name : `${name} AS ${readers[index]?.name}`))
        .join(', '),
    read(row) {
      const record: Record<string, unknown> = { ...blank }
      for (const { property, name, keeps, nullable, read } of readers) {
        const value = row[name] ?? null
        // Most values need no conversion. This saves a call for each of them.
        record[property] = typeof value === keeps || (nullable && value === null) ? value : read(value)
      }
      return record as RecordOf<C, K>
    },
  }
}

/** A SET list with the values of the columns after their owner was forgotten. */
export const forgottenOf = ({ columns }: Pick<Table, 'columns'>): string =>
  Object.entries(columns)
    .filter(([, { forgotten }]) => forgotten !== undefined)
    .map(([property, { forgotten }]) => {
      const value = typeof forgotten === 'string' ? `'${forgotten}'` : (forgotten ?? 'NULL')
      return `${columnName(property)} = ${value}`
    })
    .join(', ')

/**
 * Casts for PostgreSQL, which cannot infer the type of an argument in the list of a SELECT. SQLite accepts them too.
 */
const CAST_TO = { key: 'text', text: 'text', big: 'bigint', int: 'integer', small: 'smallint' } as const

export interface Insert<Given> {
  /** `INSERT INTO table (columns)` */
  readonly into: string
  /** The values of the columns in the same order, for a SELECT. */
  readonly values: string
  /** The arguments of `values`. */
  args(given: Given): Args
}

/** @param instead By property: an expression instead of an argument, for rows that are made from other rows. */
export function insertOf<C extends Columns, Given>(
  { name: table, columns }: Table<string, C, Given>,
  now: string,
  instead: { readonly [P in keyof C]?: string } = {},
): Insert<Given> {
  const filled = Object.entries(columns).flatMap(([property, column]) => {
    const { fill, afterMs } = column as unknown as {
      fill?: (given: Given) => unknown
      afterMs?: (given: Given) => number
    }
    if (fill === undefined && afterMs === undefined) return []
    const name = nameOf(property)
    const argument = `CAST(:${name} AS ${CAST_TO[column.type]})`
    const value = instead[property] ?? (afterMs === undefined ? argument : `${now} + ${argument}`)
    const argumentOf = (given: Given): SqlValue =>
      afterMs === undefined ? column.write(fill?.(given)) : Math.round(afterMs(given))
    return [{ property, name, value, argumentOf }]
  })
  const given = filled.filter(({ property }) => instead[property] === undefined)
  const blank = blankOf(given.map(({ name }) => name))
  return {
    into: `INSERT INTO ${table} (${filled.map(({ property }) => columnName(property)).join(', ')})`,
    values: filled.map(({ value }) => value).join(', '),
    args(from) {
      const args: Record<string, SqlValue> = { ...blank }
      for (const { name, argumentOf } of given) args[name] = argumentOf(from)
      return args
    },
  }
}
