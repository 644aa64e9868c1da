import { join } from 'node:path'
import Database from 'libsql'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { statementsIn } from '../src/ledger/sqlite/client/sql-statements.js'
import { temporaryDirectory } from './fixtures.js'

let directory: Awaited<ReturnType<typeof temporaryDirectory>>
let db: InstanceType<typeof Database>
beforeAll(async () => {
  directory = await temporaryDirectory()
  db = new Database(join(directory.path, 'app.db'))
  db.exec('CREATE TABLE t (a, "select", [with; x], `end`)')
  db.exec('CREATE TABLE replace (a)')
})
afterAll(async () => {
  db.close()
  await directory.remove()
})

const sortsOf = (text: string): string[] => statementsIn(text).map(({ sort }) => sort)

/** SQLite's own classification: a program that writes has the opcode Transaction with a second operand. */
function writesByItself(text: string): boolean {
  const program = db.prepare(`EXPLAIN ${text}`).all() as { opcode: string; p2: number }[]
  return program.some(({ opcode, p2 }) => opcode === 'Transaction' && p2 > 0)
}

describe('read or write', () => {
  test.each([
    'SELECT 1',
    'VALUES (1)',
    'WITH x AS (SELECT 1) SELECT * FROM x',
    'WITH x (insert_into, b) AS (SELECT 1, 2), y AS NOT MATERIALIZED (SELECT 2) SELECT * FROM x, y',
    'with recursive n(i) as (select 1 union all select i + 1 from n where i < 9) select i from n',
    'WITH x AS (SELECT 1) VALUES (2)',
    'WITH x AS (SELECT 1) INSERT INTO t (a) SELECT * FROM x',
    'WITH x AS (SELECT 1) REPLACE INTO t (a) SELECT * FROM x',
    'WITH x AS (SELECT 1) UPDATE t SET a = (SELECT * FROM x)',
    'WITH x AS (SELECT 1) DELETE FROM t WHERE a IN x',
    'WITH replace AS (SELECT 1) SELECT * FROM replace',
    `WITH "delete" AS (SELECT ') INSERT') SELECT * FROM "delete"`,
    'WITH x AS (SELECT (((1)))) /* ) INSERT */ -- ) DELETE\n SELECT a FROM (SELECT * FROM x AS a), t',
    'WITH x AS (WITH y AS (SELECT 1) SELECT * FROM y) INSERT INTO t (a) SELECT * FROM x RETURNING a',
    '/* SELECT */ INSERT INTO t (a) VALUES (1)',
    '-- INSERT\n;;\uFEFF SELECT "select", [with; x], `end` FROM t',
    'REPLACE INTO t (a) VALUES (1)',
    'CREATE INDEX i ON t (a)',
    "SELECT 'it''s; COMMIT', x'00', ?1, :a, @b, $c::d(;) FROM t",
  ])('%s', (text) => {
    // EXPLAIN does not accept empty statements before the real one.
    const expected = writesByItself(text.replace(/^.*;;\uFEFF/s, '')) ? 'write' : 'read'
    expect(sortsOf(text)).toEqual([expected])
  })

  test('EXPLAIN runs nothing', () => {
    expect(sortsOf('EXPLAIN DELETE FROM t')).toEqual(['read'])
    expect(sortsOf('explain query plan insert into t (a) values (1)')).toEqual(['read'])
  })
})

describe('transactions by hand', () => {
  test.each([
    'BEGIN',
    'begin immediate',
    'COMMIT',
    'CoMmIt TRANSACTION',
    ' end',
    'ROLLBACK',
    'SAVEPOINT a',
    'RELEASE a',
    'ROLLBACK TO a',
    ';COMMIT',
    ' ; ; END;',
    '/* x */ COMMIT',
    '-- x\nCOMMIT',
    '\uFEFFCOMMIT',
    '/**/END/**/',
  ])('%s', (text) => {
    expect(sortsOf(text)).toEqual(['transaction'])
  })

  test.each([
    ['SAVEPOINT a', 'A'],
    ['release savepoint "b c"', 'b c'],
    ['ROLLBACK TRANSACTION TO SAVEPOINT [x]', 'x'],
    ['ROLLBACK TO savepoint', 'SAVEPOINT'],
    ['RELEASE `landfall_job`', 'landfall_job'],
    ['ROLLBACK', null],
    ['SELECT 1', null],
  ])('%s names the savepoint %s', (text, savepoint) => {
    expect(statementsIn(text)[0]?.savepoint).toBe(savepoint)
  })

  test('a word that only looks like such a statement is ignored', () => {
    for (const text of [`SELECT 'COMMIT'`, 'INSERT INTO "commit" VALUES (1)', 'UPDATE t SET "end" = 1', '"COMMIT"'])
      expect(sortsOf(text)).not.toContain('transaction')
  })
})

describe('several statements in one text', () => {
  test.each<[string, string[]]>([
    ['', []],
    [' ; -- nothing\n ;', []],
    ['SELECT 1; -- done', ['read']],
    ['INSERT INTO t (a) VALUES (1); COMMIT', ['write', 'transaction']],
    [`SELECT ';'; SELECT ";" AS x; SELECT [;] FROM t`, ['read', 'read', 'read']],
    ['SELECT 1 /* ; */ -- ;\n, 2;COMMIT -- ;', ['read', 'transaction']],
    ["SELECT 'open; COMMIT", ['read']],
    ['SELECT /* open; COMMIT', ['read']],
    ["SELECT $a('); COMMIT; --')", ['read', 'transaction']],
    [
      `CREATE TEMP TRIGGER g AFTER INSERT ON t BEGIN
         UPDATE t SET a = CASE WHEN a > 1 THEN 2 ELSE 3 END; SELECT 1; END; COMMIT`,
      ['write', 'transaction'],
    ],
    ['CREATE TABLE trigger_like (a); END', ['write', 'transaction']],
  ])('%s', (text, sorts) => {
    expect(sortsOf(text)).toEqual(sorts)
  })
})

describe('PRAGMA', () => {
  test.each([
    ['PRAGMA table_info(t)', 'read'],
    ['pragma main.table_xinfo("t")', 'read'],
    ['PRAGMA user_version', 'read'],
    ['PRAGMA user_version = 3', 'alone'],
    ['PRAGMA foreign_keys', 'alone'],
    ['PRAGMA foreign_keys = ON', 'alone'],
    ['PRAGMA busy_timeout = 5000', 'read'],
    ['PRAGMA wal_checkpoint(TRUNCATE)', 'alone'],
  ])('%s is a %s', (text, sort) => {
    expect(statementsIn(text)).toEqual([{ sort, word: 'PRAGMA', savepoint: null, harm: null }])
  })

  test.each([
    'PRAGMA journal_mode = DELETE',
    'pragma main . journal_mode(off)',
    'PRAGMA "synchronous" = \'normal\'',
    'PRAGMA synchronous=+0',
    'PRAGMA locking_mode=EXCLUSIVE',
    'PRAGMA query_only = 1',
    'PRAGMA ignore_check_constraints = yes',
    'PRAGMA writable_schema=ON',
  ])('%s would affect other users of the database', (text) => {
    expect(statementsIn(text)[0]?.harm).toMatch(/^PRAGMA [a-z_]+: /)
  })

  test.each(['PRAGMA journal_mode', 'PRAGMA journal_mode = wal', 'PRAGMA synchronous = FULL', 'PRAGMA query_only = 0'])(
    '%s affects no other users of the database',
    (text) => {
      expect(statementsIn(text)[0]?.harm).toBeNull()
    },
  )
})

test('a long statement is classified in one pass', () => {
  const rows = Array.from({ length: 20_000 }, (_, n) => `(${n}, 'it''s; COMMIT', ?)`).join(', ')
  const from = performance.now()
  expect(sortsOf(`INSERT INTO t VALUES ${rows}; SELECT 1`)).toEqual(['write', 'read'])
  // 120,000 tokens; a quadratic pass would take minutes.
  expect(performance.now() - from).toBeLessThan(2_000)
})
