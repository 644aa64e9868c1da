import { Param, SQL, StringChunk } from 'drizzle-orm'

// Statements as both databases get them. A statement is a text with named arguments (`:owner`); an engine runs it on a
// connection of its own kind. What is asked one after the other, and what is decided in between, is a plan.

export type SqlValue = string | number | bigint | null | Uint8Array
export type SqlRow = Readonly<Record<string, SqlValue>>
/** The values of a statement's arguments, by name. A statement may leave some of them out. */
export type Args = Readonly<Record<string, SqlValue>>

export interface Statement {
  /** The first row, all rows, or how many rows the statement changed. */
  readonly wants: 'row' | 'rows' | 'changes'
  readonly sql: string
  /** Each argument is in one of them. Not put together: to copy objects takes longer than to look into several. */
  readonly args: readonly Args[]
}

/**
 * Statements in their order, and what is decided between them, written once for both databases: a generator that yields
 * statements and gets their answers. SQLite runs a plan at once, within the one job of the queue that has the connection;
 * PostgreSQL waits for each answer. A statement that fails ends the plan, which is not resumed.
 */
export type Plan<T> = Generator<Statement, T, unknown>

export function* row(sql: string, ...args: readonly Args[]): Plan<SqlRow | undefined> {
  return (yield { wants: 'row', sql, args }) as SqlRow | undefined
}

export function* rows(sql: string, ...args: readonly Args[]): Plan<SqlRow[]> {
  return (yield { wants: 'rows', sql, args }) as SqlRow[]
}

/** How many rows the statement changed. */
export function* changes(sql: string, ...args: readonly Args[]): Plan<number> {
  return (yield { wants: 'changes', sql, args }) as number
}

/** A connection, or a transaction, whose answers one has to wait for. */
export interface Queries {
  ask(statement: Statement): Promise<unknown>
}

export async function runOn<T>(on: Queries, plan: Plan<T>): Promise<T> {
  let step = plan.next()
  while (step.done !== true) step = plan.next(await on.ask(step.value))
  return step.value
}

interface Compiled {
  /** The text around the arguments: one part more than there are names. */
  readonly parts: readonly string[]
  /** The argument behind each part but the last. One that is used twice is here twice. */
  readonly names: readonly string[]
  /** With `?1`, `?2`, … */
  readonly text: string
  /** The argument of each number. */
  readonly distinct: readonly string[]
}

/** Not within a word: `'landfall:remove-bytes'` is text. */
const ARGUMENT = /(?<![\w:]):([a-z]\w*)/
/** More than there are; texts differ only by which changes and which conditions are given. */
const MOST_COMPILED = 1_000
const compiled = new Map<string, Compiled>()

function compile(sql: string): Compiled {
  const known = compiled.get(sql)
  if (known !== undefined) return known
  const pieces = sql.split(ARGUMENT)
  const parts = pieces.filter((_, index) => index % 2 === 0)
  const names = pieces.filter((_, index) => index % 2 === 1)
  const distinct = [...new Set(names)]
  const text = parts.reduce((before, part, index) => `${before}?${distinct.indexOf(names[index - 1] ?? '') + 1}${part}`)
  const made = { parts, names, text, distinct }
  if (compiled.size >= MOST_COMPILED) compiled.delete(compiled.keys().next().value ?? '')
  compiled.set(sql, made)
  return made
}

function valueOf(args: readonly Args[], name: string): SqlValue {
  for (const each of args) {
    const value = each[name]
    if (value !== undefined) return value
  }
  throw new RangeError(`a statement has no value for its argument ${name}`)
}

/** With numbers for the arguments, as SQLite takes it. */
export function numbered(sql: string, args: readonly Args[]): { sql: string; values: SqlValue[] } {
  const { text, distinct } = compile(sql)
  return { sql: text, values: distinct.map((name) => valueOf(args, name)) }
}

/** For Drizzle, which gives the arguments the form that its driver takes. */
export function queryOf(sql: string, args: readonly Args[]): SQL {
  const { parts, names } = compile(sql)
  const chunks: (StringChunk | Param)[] = []
  for (const [index, part] of parts.entries()) {
    if (index > 0) chunks.push(new Param(valueOf(args, names[index - 1] ?? '')))
    chunks.push(new StringChunk(part))
  }
  return new SQL(chunks)
}
