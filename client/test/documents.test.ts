/** The tables of the page of states and problems say what the code says: nothing is missing, and nothing is too much. */
import { fileURLToPath } from 'node:url'
import { problem, type ProblemCode, PROBLEMS } from '@landfall/shared'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { codesIn, codesOf, type PublicTypes, tablesIn, typesIn } from '../../shared/test/reference-pages.js'
import type { Upload } from '../src/index.js'
import { fileOf, openBrowser, type Tab, until } from './browser.js'
import { type FakeServer, startFakeServer } from './fake-server.js'

const pathOf = (path: string): string => fileURLToPath(new URL(`../${path}`, import.meta.url))
const tables = tablesIn(pathOf('docs/states-and-problems.md'))

let types: PublicTypes
beforeAll(() => {
  types = typesIn(pathOf('tsconfig.json'), pathOf('src/index.ts'))
})
afterAll(() => types.close())

const sorted = (words: readonly string[]): string[] => words.toSorted()

it('every point of an upload is in the page, and no other', () => {
  expect(sorted(codesOf(tables.get('Points'), 'point'))).toEqual(sorted(types.words('ClientPoint')))
  // An activity that is named there is one.
  const states = codesOf(tables.get('Activities'), 'state')
  for (const activity of codesOf(tables.get('Points'), 'activities at this point')) expect(states).toContain(activity)
})

it('every activity is in the page with each of its reasons, and no other', () => {
  const documented = (tables.get('Activities') ?? []).map((row) => [...codesIn(row['state']), ...codesIn(row['why'])])
  const real = types
    .variants('Activity')
    .flatMap(({ state = [], why = [''] }) => why.map((reason) => [...state, ...(reason === '' ? [] : [reason])]))
  expect(sorted(documented.map(String))).toEqual(sorted(real.map(String)))
})

it.each([
  ['Warnings', 'code', () => types.wordsOf('Warning', 'code')],
  ['Reasons of `unauthenticated`', 'reason', () => types.wordsOf('Unauthenticated', 'reason')],
  ['Errors', 'code', () => types.words('UploadErrorCode')],
  ['Events', 'event', () => types.members('UploaderEvents')],
  ['Problem codes', 'code', () => Object.keys(PROBLEMS)],
])('%s has every one that there is, and no other', (heading, column, real) => {
  expect(sorted(codesOf(tables.get(heading), column))).toEqual(sorted(real()))
})

it('every cell that explains something does so', () => {
  for (const [heading, rows] of tables)
    for (const row of rows)
      for (const [column, cell] of Object.entries(row))
        if (column !== 'why') expect([heading, row, cell !== '']).toEqual([heading, row, true])
})

it('has no table that is not compared', () => {
  const compared = ['Points', 'Activities', 'Events', 'Reasons of `unauthenticated`', 'Warnings', 'Errors']
  expect([...tables.keys()]).toEqual([...compared, 'Problem codes'])
})

describe('an upload whose declaration is answered with a problem', () => {
  let server: FakeServer
  let tab: Tab
  afterEach(async () => {
    await tab.kill()
    await server.close()
  })

  /** As the page says it, once it is certain. */
  const becomes = (upload: Upload): string | null => {
    const { point, activity } = upload.snapshot()
    if (point === 'failed') return '`failed`'
    return activity.state === 'waiting' && activity.why !== 'turn' ? `\`waiting\` for \`${activity.why}\`` : null
  }

  it.each(Object.keys(PROBLEMS) as ProblemCode[])('%s becomes what the page says', async (code) => {
    server = await startFakeServer()
    tab = openBrowser().tab({ endpoint: server.endpoint })
    const answer = { kind: 'problem', problem: problem(code, { retryAfterSeconds: 3_000 }) } as const
    // Whose it is the server says with the first answer, so that a declaration follows.
    server.fault = ({ method }) => (method === 'PUT' || server.count('PUT') > 0 ? answer : null)
    const upload = tab.uploader.add(fileOf(10))
    let became: string | null = null
    await until('it is certain', () => server.count('PUT') > 0 && (became = becomes(upload)) !== null)
    const row = (tables.get('Problem codes') ?? []).find((each) => codesIn(each['code'])[0] === code)
    expect(row?.['the upload becomes']).toBe(became)
    if (upload.problem !== null) expect(upload.problem.code).toBe(code)
  })
})
