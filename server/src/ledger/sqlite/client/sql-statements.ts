/**
 * How a statement uses the one queue of writes:
 *
 * - `read`: it changes nothing, and need not wait for the writer.
 * - `write`: it runs within a transaction of the queue.
 * - `alone`: it cannot run within a transaction, or it reads or sets something of the writer's connection.
 * - `transaction`: it begins, ends or nests a transaction by hand.
 */
export type Sort = 'read' | 'write' | 'alone' | 'transaction'

export interface Statement {
  readonly sort: Sort
  /** Its first word in capitals, for messages. */
  readonly word: string
  /** The name in SAVEPOINT, RELEASE and ROLLBACK TO. Null for every other statement. */
  readonly savepoint: string | null
  /** Why it must never run on the shared connection. Null if it may run there. */
  readonly harm: string | null
}

interface Token {
  readonly type: 'word' | 'quoted' | 'symbol'
  /** Words in capitals. Quoted names and texts without their quotes. */
  readonly text: string
}

/** Most statements are run repeatedly with other values, so the results are kept. */
const known = new Map<string, readonly Statement[]>()
const MOST_KNOWN = 500
const LONGEST_KNOWN = 4_096

/**
 * Splits a text into its statements and sorts them. It reads tokens as SQLite does, so that no comment, quote or
 * leading semicolon can hide a statement. Everything else is left to SQLite: a text that is not SQL counts as a
 * `write`, which fails.
 *
 * @see https://www.sqlite.org/lang.html
 */
export function statementsIn(sql: string): readonly Statement[] {
  const before = known.get(sql)
  if (before !== undefined) return before
  const statements = [...split(sql)].map(statementOf)
  if (sql.length <= LONGEST_KNOWN) {
    if (known.size >= MOST_KNOWN) known.delete(known.keys().next().value ?? '')
    known.set(sql, statements)
  }
  return statements
}

/** The tokens of each statement, as far as they are needed to recognise it. */
function* split(sql: string): Generator<Token[]> {
  let tokens: Token[] = []
  let trigger: 'maybe' | 'no' | 'yes' = 'maybe'
  let previous = ['', '']
  for (const token of tokensOf(sql)) {
    const isEnd = token.type === 'symbol' && token.text === ';'
    // The body of a trigger contains statements itself. It ends with "; END ;", as in sqlite3_complete().
    if (isEnd && (trigger !== 'yes' || (previous[0] === ';' && previous[1] === 'END'))) {
      if (tokens.length > 0) yield tokens
      tokens = []
      trigger = 'maybe'
      previous = ['', '']
      continue
    }
    if (trigger === 'maybe' && token.type === 'word') {
      if (token.text === 'TRIGGER') trigger = 'yes'
      else if (!BEFORE_TRIGGER.has(token.text)) trigger = 'no'
    }
    previous = [previous[1] ?? '', token.type === 'quoted' ? '' : token.text]
    // Only WITH is decided by a later token. Every other statement is recognised by its first tokens.
    if (tokens.length < ENOUGH_TOKENS || tokens[0]?.text === 'WITH') tokens.push(token)
  }
  if (tokens.length > 0) yield tokens
}

const BEFORE_TRIGGER: ReadonlySet<string> = new Set(['EXPLAIN', 'QUERY', 'PLAN', 'CREATE', 'TEMP', 'TEMPORARY'])
/** Enough for `ROLLBACK TRANSACTION TO SAVEPOINT name` and for `PRAGMA schema . name = - value`. */
const ENOUGH_TOKENS = 8

function statementOf(tokens: readonly Token[]): Statement {
  const word = tokens[0]?.type === 'word' ? tokens[0].text : ''
  const plain = { word, savepoint: null, harm: null }
  switch (word) {
    case 'SELECT':
    case 'VALUES':
    case 'EXPLAIN':
      return { ...plain, sort: 'read' }
    case 'WITH':
      return { ...plain, sort: READS.has(verbAfterWith(tokens)) ? 'read' : 'write' }
    case 'PRAGMA':
      return { ...plain, ...pragmaOf(tokens) }
    case 'VACUUM':
    case 'ATTACH':
    case 'DETACH':
      return { ...plain, sort: 'alone' }
    case 'BEGIN':
    case 'COMMIT':
    case 'END':
      return { ...plain, sort: 'transaction' }
    case 'SAVEPOINT':
    case 'RELEASE':
    case 'ROLLBACK':
      return { ...plain, sort: 'transaction', savepoint: savepointOf(tokens) }
    default:
      return { ...plain, sort: 'write' }
  }
}

const READS: ReadonlySet<string> = new Set(['SELECT', 'VALUES'])

/** `WITH [RECURSIVE] name [(columns)] AS [NOT MATERIALIZED] (…), … verb`: the verb follows the last closing bracket. */
function verbAfterWith(tokens: readonly Token[]): string {
  let depth = 0
  for (const [index, { type, text }] of tokens.entries()) {
    if (type !== 'symbol') continue
    if (text === '(') depth++
    if (text !== ')' || --depth > 0) continue
    const next = tokens[index + 1]
    if (next?.type === 'word' && next.text !== 'AS') return next.text
  }
  return ''
}

/** The name of the savepoint. Null for a ROLLBACK of the whole transaction. */
function savepointOf(tokens: readonly Token[]): string | null {
  const [first, ...rest] = tokens
  const to = rest.findIndex(({ type, text }) => type === 'word' && text === 'TO')
  if (first?.text === 'ROLLBACK' && to === -1) return null
  const name = first?.text === 'ROLLBACK' ? rest.slice(to + 1) : rest
  // The word SAVEPOINT may come before the name, and it may also be the name.
  return (name.length > 1 && name[0]?.text === 'SAVEPOINT' ? name[1] : name[0])?.text ?? ''
}

/** These tell about the database, and every connection gives the same answer. */
const PRAGMAS_THAT_READ: ReadonlySet<string> = new Set([
  'COLLATION_LIST',
  'COMPILE_OPTIONS',
  'DATABASE_LIST',
  'FOREIGN_KEY_CHECK',
  'FOREIGN_KEY_LIST',
  'FUNCTION_LIST',
  'INDEX_INFO',
  'INDEX_LIST',
  'INDEX_XINFO',
  'INTEGRITY_CHECK',
  'MODULE_LIST',
  'PRAGMA_LIST',
  'QUICK_CHECK',
  'TABLE_INFO',
  'TABLE_LIST',
  'TABLE_XINFO',
  // On the writer's connection this time-out would block the event loop, and `busyTimeoutMs` waits without it. It helps
  // the connections that read.
  'BUSY_TIMEOUT',
])
/** These read as well, unless they are set. */
const PRAGMAS_THAT_READ_BARE: ReadonlySet<string> = new Set([
  'APPLICATION_ID',
  'AUTO_VACUUM',
  'ENCODING',
  'FREELIST_COUNT',
  'PAGE_COUNT',
  'PAGE_SIZE',
  'SCHEMA_VERSION',
  'USER_VERSION',
])

const isOff = (value: string): boolean => /^(0|OFF|FALSE|NO)$/.test(value)
/** The values to which each of these may be set, and why all other values are refused. */
const PRAGMAS_THAT_HARM: ReadonlyMap<string, readonly [(value: string) => boolean, string]> = new Map([
  ['JOURNAL_MODE', [(value) => value === 'WAL', 'reads would wait for writes without WAL']],
  [
    'SYNCHRONOUS',
    [(value) => /^(2|FULL|3|EXTRA)$/.test(value), 'a reference that was reported would not survive a power loss'],
  ],
  ['LOCKING_MODE', [(value) => value === 'NORMAL', 'no other connection could read the database any more']],
  ['QUERY_ONLY', [isOff, 'nothing could be written through this client any more']],
  ['IGNORE_CHECK_CONSTRAINTS', [isOff, 'constraints keep what the ledger promises']],
  ['WRITABLE_SCHEMA', [isOff, 'it stays on for all users of the connection']],
])

function pragmaOf(tokens: readonly Token[]): Pick<Statement, 'sort' | 'harm'> {
  const at = tokens[2]?.text === '.' ? 3 : 1
  const name = tokens[at]?.text.toUpperCase() ?? ''
  const isSet = ['=', '('].includes(tokens[at + 1]?.text ?? '')
  const value = tokens[at + 2]?.text.toUpperCase() ?? ''
  const [allows, why] = PRAGMAS_THAT_HARM.get(name) ?? [() => true, '']
  const harm = isSet && !allows(value) ? `PRAGMA ${name.toLowerCase()}: ${why}` : null
  const reads = PRAGMAS_THAT_READ.has(name) || (!isSet && PRAGMAS_THAT_READ_BARE.has(name))
  return { sort: reads ? 'read' : 'alone', harm }
}

/** What SQLite takes for white space: a byte order mark too, but no other character beyond ASCII. */
const SPACE = /[ \t\n\f\r\uFEFF]+/y
const WORD = /[A-Za-z_\u0080-\u{10FFFF}][\w$\u0080-\u{10FFFF}]*/uy
const NUMBER = /[0-9][\w.]*/y
/** A parameter. One that begins with `$` may end with an index in brackets, as in Tcl. */
const PARAMETER = /[?@:#$][\w$\u0080-\u{10FFFF}:]*(?:(?<=[\w$])\([^\s)]*\))?/uy
const QUOTES: Readonly<Record<string, string>> = { "'": "'", '"': '"', '`': '`', '[': ']' }

/** @see https://www.sqlite.org/src/file/src/tokenize.c */
function* tokensOf(sql: string): Generator<Token> {
  const match = (pattern: RegExp, at: number): string | null => {
    pattern.lastIndex = at
    return pattern.exec(sql)?.[0] ?? null
  }
  for (let at = 0; at < sql.length;) {
    const char = sql[at] ?? ''
    const two = sql.slice(at, at + 2)
    const closing = QUOTES[char]
    const space = match(SPACE, at)
    if (space !== null) at += space.length
    else if (two === '--') at = endOf(sql, '\n', at + 2)
    else if (two === '/*') at = endOf(sql, '*/', at + 2)
    else if (closing !== undefined) {
      const end = endOfQuoted(sql, at + 1, closing)
      yield { type: 'quoted', text: sql.slice(at + 1, end - 1).replaceAll(closing + closing, closing) }
      at = end
    } else {
      const word = match(WORD, at)
      const text = word ?? match(NUMBER, at) ?? match(PARAMETER, at) ?? char
      yield { type: word === null ? 'symbol' : 'word', text: word === null ? text : text.toUpperCase() }
      at += text.length
    }
  }
}

function endOf(sql: string, mark: string, from: number): number {
  const at = sql.indexOf(mark, from)
  return at === -1 ? sql.length : at + mark.length
}

/** A doubled quote is one quote within the text. Only brackets have no doubled form. */
function endOfQuoted(sql: string, from: number, closing: string): number {
  for (let at = from; ; at += 2) {
    at = sql.indexOf(closing, at)
    if (at === -1) return sql.length + 1
    if (closing === ']' || sql[at + 1] !== closing) return at + 1
  }
}
