/**
 * What a statement does to the one queue of writes:
 *
 * - `read`: it changes nothing, and needs not wait for the writer;
 * - `write`: it runs within a transaction of the queue;
 * - `alone`: it cannot run within a transaction, or asks for or sets something of the writer's connection;
 * - `transaction`: it begins, ends or nests a transaction by hand.
 */
export type Sort = 'read' | 'write' | 'alone' | 'transaction'

export interface Statement {
  readonly sort: Sort
  /** Its first word in capitals, for messages. */
  readonly word: string
  /** Of SAVEPOINT, RELEASE and ROLLBACK TO: the name; null for everything else. */
  readonly savepoint: string | null
  /** Why it must never run on the shared connection; null where it may. */
  readonly harm: string | null
}

interface Token {
  readonly type: 'word' | 'quoted' | 'symbol'
  /** Words in capitals, quoted names and texts without their quotes. */
  readonly text: string
}

/** Most statements are asked for again and again with other values. */
const known = new Map<string, readonly Statement[]>()
const MOST_KNOWN = 500
const LONGEST_KNOWN = 4_096

/**
 * The statements in a text, told apart and sorted. It reads tokens as SQLite does, so that neither comments nor quotes
 * nor a semicolon in front hide one, and leaves everything else to SQLite: what is no SQL is a `write`, which fails.
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

/** The tokens of each statement, as far as they are needed to tell what it is. */
function* split(sql: string): Generator<Token[]> {
  let tokens: Token[] = []
  let trigger: 'maybe' | 'no' | 'yes' = 'maybe'
  let previous = ['', '']
  for (const token of tokensOf(sql)) {
    const isEnd = token.type === 'symbol' && token.text === ';'
    // The body of a trigger holds statements of its own; it ends with "; END ;", as sqlite3_complete() has it.
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
    // Only WITH is decided by what comes late; of all others the beginning tells.
    if (tokens.length < ENOUGH_TOKENS || tokens[0]?.text === 'WITH') tokens.push(token)
  }
  if (tokens.length > 0) yield tokens
}

const BEFORE_TRIGGER: ReadonlySet<string> = new Set(['EXPLAIN', 'QUERY', 'PLAN', 'CREATE', 'TEMP', 'TEMPORARY'])
/** `ROLLBACK TRANSACTION TO SAVEPOINT name`, and `PRAGMA schema . name = - value`. */
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

/** `WITH [RECURSIVE] name [(columns)] AS [NOT MATERIALIZED] (…), … verb`: the verb is what follows the last bracket. */
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

/** Null for ROLLBACK of the whole. */
function savepointOf(tokens: readonly Token[]): string | null {
  const [first, ...rest] = tokens
  const to = rest.findIndex(({ type, text }) => type === 'word' && text === 'TO')
  if (first?.text === 'ROLLBACK' && to === -1) return null
  const name = first?.text === 'ROLLBACK' ? rest.slice(to + 1) : rest
  // The word SAVEPOINT may stand before the name, and may be one.
  return (name.length > 1 && name[0]?.text === 'SAVEPOINT' ? name[1] : name[0])?.text ?? ''
}

/** They say what is in the database, whichever connection is asked. */
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
  // On the writer's connection it would block the event loop; `busyTimeoutMs` waits without. On the readers' it helps.
  'BUSY_TIMEOUT',
])
/** So do these, as long as they are not set. */
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
/** What each of these may be set to, and why nothing else. */
const PRAGMAS_THAT_HARM: ReadonlyMap<string, readonly [(value: string) => boolean, string]> = new Map([
  ['JOURNAL_MODE', [(value) => value === 'WAL', 'reads would wait for writes without WAL']],
  [
    'SYNCHRONOUS',
    [(value) => /^(2|FULL|3|EXTRA)$/.test(value), 'a reference that was told would not survive a power loss'],
  ],
  ['LOCKING_MODE', [(value) => value === 'NORMAL', 'nobody else could read the database any more']],
  ['QUERY_ONLY', [isOff, 'nobody could write through this client any more']],
  ['IGNORE_CHECK_CONSTRAINTS', [isOff, 'constraints keep what the ledger promises']],
  ['WRITABLE_SCHEMA', [isOff, 'it stays on for all who share the connection']],
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

/** What SQLite takes for space: a byte order mark too, but no other character beyond ASCII. */
const SPACE = /[ \t\n\f\r\uFEFF]+/y
const WORD = /[A-Za-z_\u0080-\u{10FFFF}][\w$\u0080-\u{10FFFF}]*/uy
const NUMBER = /[0-9][\w.]*/y
/** A parameter; one that begins with `$` may end with an index in brackets, as in Tcl. */
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

/** A quote that stands twice is one within; only brackets know none. */
function endOfQuoted(sql: string, from: number, closing: string): number {
  for (let at = from; ; at += 2) {
    at = sql.indexOf(closing, at)
    if (at === -1) return sql.length + 1
    if (closing === ']' || sql[at + 1] !== closing) return at + 1
  }
}
