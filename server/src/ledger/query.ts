import { Param, SQL, StringChunk } from 'drizzle-orm'

// Statements that both databases run. A statement is a text with named arguments (`:owner`), and each engine runs it on
// its own kind of connection. A plan is a sequence of statements with the decisions between them.

export type SqlValue = string | number | bigint | null | Uint8Array
export type SqlRow = Readonly<Record<string, SqlValue>>
/** The values of a statement's arguments, by name. A statement may leave some of them out. */
export type Args = Readonly<Record<string, SqlValue>>

export interface Statement {
  /** What is returned: the first row, all rows, or how many rows the statement changed. */
  readonly wants: 'row' | 'rows' | 'changes'
  readonly sql: string
  /**
   * Each argument is in one of these objects. They are not merged, because a search in several objects takes less time
   * than copying them.
   */
  readonly args: readonly Args[]
}

/**
 * A sequence of statements and the decisions between them, written once for both databases. It is a generator that
 * yields statements and gets their results. SQLite runs a plan without a pause, within the one job of the queue that
 * has the connection. PostgreSQL waits for each result. A statement that fails ends the plan, and the plan is not
 * resumed.
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

/** A connection or a transaction that returns its results asynchronously. */
export interface Queries {
  ask(statement: Statement): Promise<unknown>
}

export async function runOn<T>(on: Queries, plan: Plan<T>): Promise<T> {
  let step = plan.next()
  while (step.done !== true) step = plan.next(await on.ask(step.value))
  return step.value
}

interface Compiled {
  /** The texts around the arguments: one more than there are names. */
  readonly parts: readonly string[]
  /** The argument that follows each part except the last. An argument that is used twice is listed twice. */
  readonly names: readonly string[]
  /** The text with `?1`, `?2`, … for the arguments. */
  readonly text: string
  /** The argument of each number. */
  readonly distinct: readonly string[]
}

/** It does not match within a word, because `'landfall:remove-bytes'` is text. */
const ARGUMENT = /(?<![\w:]):([a-z]\w*)/
/** More than there are. Texts differ only in which changes and which conditions are given. */
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

/** Numbers the arguments, as SQLite takes them. */
export function numbered(sql: string, args: readonly Args[]): { sql: string; values: SqlValue[] } {
  const { text, distinct } = compile(sql)
  return { sql: text, values: distinct.map((name) => valueOf(args, name)) }
}

/** Makes a query for Drizzle, which gives the arguments the form that its driver takes. */
export function queryOf(sql: string, args: readonly Args[]): SQL {
  const { parts, names } = compile(sql)
  const chunks: (StringChunk | Param)[] = []
  for (const [index, part] of parts.entries()) {
    if (index > 0) chunks.push(new Param(valueOf(args, names[index - 1] ?? '')))
    chunks.push(new StringChunk(part))
  }
  return new SQL(chunks)
}
