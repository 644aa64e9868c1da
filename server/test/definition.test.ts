/** The one definition of the tables. A new column needs only this definition and its migration. */
import { getTableColumns } from 'drizzle-orm'
import { getTableConfig as postgresConfig } from 'drizzle-orm/pg-core'
import { getTableConfig as sqliteConfig } from 'drizzle-orm/sqlite-core'
import { describe, expect, expectTypeOf, test } from 'vitest'
import { intentOf } from '../src/contract/ledger.js'
import { definition, forgottenOf, insertOf, selection, shown } from '../src/ledger/columns.js'
import type { Dialect } from '../src/ledger/dialect.js'
import { POSTGRES } from '../src/ledger/postgres/dialect.js'
import * as postgres from '../src/ledger/postgres/schema.js'
import { numbered, type Plan, type Statement } from '../src/ledger/query.js'
import { SQLITE } from '../src/ledger/sqlite/dialect.js'
import * as sqlite from '../src/ledger/sqlite/schema.js'
import { operationStatements } from '../src/ledger/statements/operations.js'
import { type Declaration, OPERATIONS } from '../src/ledger/tables.js'

const { table, text } = definition<Declaration>()
/** The table of operations with one more column, which is named only here. */
const WIDER = table(
  'landfall_operations',
  { ...OPERATIONS.columns, shelfMark: text({ null: true, forgotten: null, fill: ({ facts }) => `of ${facts}` }) },
  { key: ['owner', 'id'] },
)

const DIALECTS: readonly [string, Dialect][] = [
  ['SQLite', SQLITE],
  ['PostgreSQL', POSTGRES],
]

const firstOf = (plan: Plan<unknown>): Statement => {
  const { value, done } = plan.next()
  if (done === true) throw new Error('the plan has no statement')
  return value
}

describe('a new column needs one place, the definition, and its migration', () => {
  test('it is in the Drizzle schemas of both engines', () => {
    const columns = {
      sqlite: sqlite.sqliteTableOf(WIDER).shelfMark,
      postgres: postgres.postgresTableOf(WIDER).shelfMark,
    }
    for (const { name, notNull } of Object.values(columns))
      expect({ name, notNull }).toEqual({ name: 'shelf_mark', notNull: false })
    expectTypeOf<
      ReturnType<typeof sqlite.sqliteTableOf<'t', typeof WIDER.columns>>['$inferSelect']['shelfMark']
    >().toEqualTypeOf<string | null>()
  })

  test('it is read, and is a part of the record', () => {
    const { list, read } = selection(WIDER, shown(WIDER))
    expect(list('o').split(', ')).toContain('o.shelf_mark')
    expect(read({ metadata: '{}', validated: '1', shelf_mark: 'B 7' })).toMatchObject({ shelfMark: 'B 7' })
  })

  test.each(DIALECTS)('it is inserted with the declaration: %s', (_, dialect) => {
    const { sql, args } = firstOf(operationStatements(dialect, WIDER).declare(intentOf(), 'hash'))
    expect(sql).toMatch(/INSERT INTO landfall_operations \([^)]*, shelf_mark\)/)
    expect(numbered(sql, args).values).toContain('of facts')
    expect(insertOf(WIDER, dialect.now).values).toContain('CAST(:shelf_mark AS text)')
  })

  test('it is emptied when its owner is forgotten', () => {
    expect(forgottenOf(WIDER)).toContain('shelf_mark = NULL')
    expect(forgottenOf(OPERATIONS)).not.toContain('shelf_mark')
  })
})

test('the Drizzle tables have the types of their columns', () => {
  type Operation = typeof sqlite.landfallOperations.$inferSelect
  expectTypeOf<Pick<Operation, 'owner' | 'fileSize' | 'digest' | 'owesEffects'>>().toEqualTypeOf<{
    owner: string
    fileSize: number
    digest: string | null
    owesEffects: number
  }>()
  type NewEffect = typeof postgres.landfallEffects.$inferInsert
  expectTypeOf<Pick<NewEffect, 'effectId' | 'attempts' | 'dueAt'>>().toEqualTypeOf<{
    effectId: string
    attempts?: number | undefined
    dueAt?: number | null | undefined
  }>()
})

test('a column of one engine is in the table of that engine only', () => {
  expect(Object.keys(getTableColumns(sqlite.landfallOperations))).toContain('owesEffects')
  expect(Object.keys(getTableColumns(sqlite.landfallOperations))).not.toContain('owedEffects')
  expect(Object.keys(getTableColumns(postgres.landfallOperations))).toContain('owedEffects')
  const namesOf = (indexes: readonly { config: { name?: string | undefined } }[]) =>
    new Set(indexes.map(({ config }) => config.name))
  expect(namesOf(postgresConfig(postgres.landfallOperations).indexes)).toEqual(
    namesOf(sqliteConfig(sqlite.landfallOperations).indexes),
  )
})

describe('arguments of statements', () => {
  test('have numbers, one for each name', () => {
    expect(numbered('SELECT :b, :a, :b', [{ a: 1 }, { b: 2 }])).toEqual({ sql: 'SELECT ?1, ?2, ?1', values: [2, 1] })
  })
  test('are not found within words or casts', () => {
    const sql = `SELECT 'landfall:remove-bytes', x::text`
    expect(numbered(sql, [])).toEqual({ sql, values: [] })
  })
  test('must have a value', () => {
    expect(() => numbered('SELECT :a', [{ b: 1 }])).toThrow('no value for its argument a')
  })
})
