import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { API } from 'typescript/unstable/sync'
import { type Expression, type Node, type SourceFile } from 'typescript/unstable/ast'
import {
  isArrowFunction,
  isCallExpression,
  isFunctionExpression,
  isIdentifier,
  isNoSubstitutionTemplateLiteral,
  isPropertyAccessExpression,
  isStringLiteral,
  isTaggedTemplateExpression,
  isTemplateExpression,
} from 'typescript/unstable/ast/is'
import { beforeAll, describe, expect, test } from 'vitest'

// Each row of FAILURES.md names the tests that hold it. Here each of these names is compared with the sources.

/** The folder of the `package.json` that names the workspaces. */
function repositoryRoot(from: string): string {
  const manifest = join(from, 'package.json')
  if (existsSync(manifest) && 'workspaces' in (JSON.parse(readFileSync(manifest, 'utf8')) as object)) return from
  if (dirname(from) === from) throw new Error('no package.json with workspaces above this test')
  return repositoryRoot(dirname(from))
}

const root = repositoryRoot(dirname(fileURLToPath(import.meta.url)))

/** One piece of a test's name: text, or what is only known when the tests run (`${…}`, `%s`, `$name`). */
type Piece = { text: string } | { hole: string }
/** The names of the `describe` blocks around a test, outermost first, and the test's own name. */
type TestName = readonly (readonly Piece[])[]

const SEPARATOR = ' › '

/** `%s`, `%i`, `$name` and the like in the name of a parametrised test. */
const piecesOfText = (text: string, parametrised: boolean): Piece[] =>
  parametrised
    ? text
        .split(/(%[sdifjoO#$%]|\$[A-Za-z_][\w.]*)/)
        .map((part, index) => (index % 2 === 0 ? { text: part } : { hole: part }))
    : [{ text }]

function piecesOf(name: Expression | undefined, parametrised: boolean): Piece[] | null {
  if (name === undefined) return null
  if (isStringLiteral(name) || isNoSubstitutionTemplateLiteral(name)) return piecesOfText(name.text, parametrised)
  if (isTemplateExpression(name))
    return [
      ...piecesOfText(name.head.text, parametrised),
      ...name.templateSpans.flatMap((span) => [
        { hole: `\${${span.expression.getText()}}` },
        ...piecesOfText(span.literal.text, parametrised),
      ]),
    ]
  return null
}

/** `test.each([…])` → `test`, and whether its names are patterns. Of a test that is always skipped: null. */
function calleeOf(callee: Expression): { name: string; parametrised: boolean } | null {
  let parametrised = false
  for (let at = callee; ;) {
    if (isIdentifier(at)) return { name: at.text, parametrised }
    if (isPropertyAccessExpression(at)) {
      if (at.name.text === 'skip' || at.name.text === 'todo') return null
      parametrised ||= at.name.text === 'each' || at.name.text === 'for'
      at = at.expression
    } else if (isCallExpression(at)) at = at.expression
    else if (isTaggedTemplateExpression(at)) at = at.tag
    else return null
  }
}

const REGISTERS = ['describe', 'it', 'suite', 'test']

/** The tests that a file registers. A contract registers its own with a function that it is given, by any name. */
function testsOf(file: SourceFile): TestName[] {
  const isContract = file.fileName.includes('/contract/')
  const tests: TestName[] = []
  const visit = (node: Node, around: TestName): void => {
    if (isCallExpression(node)) {
      const callee = calleeOf(node.expression)
      const registers =
        callee !== null && (REGISTERS.includes(callee.name) || (isContract && isIdentifier(node.expression)))
      const body = node.arguments.findLast((one) => isArrowFunction(one) || isFunctionExpression(one))
      const pieces = registers && body !== undefined ? piecesOf(node.arguments[0], callee.parametrised) : null
      if (pieces !== null) {
        const name = [...around, pieces]
        const chain = node.expression.getText()
        const groups = callee?.name === 'describe' || callee?.name === 'suite' || chain.startsWith('test.describe')
        if (!groups) tests.push(name)
        node.forEachChild((child) => visit(child, groups ? name : around))
        return
      }
    }
    node.forEachChild((child) => visit(child, around))
  }
  visit(file, [])
  return tests
}

/** Matches a name as the source writes it, or as it is when the test runs. A name without any word matches itself only. */
function patternOf(name: TestName): RegExp {
  const quoted = (text: string): string => text.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`)
  const parts = name.map((pieces) => {
    const says = pieces.some((piece) => 'text' in piece && /[\p{L}\p{N}]{2}/u.test(piece.text))
    return pieces
      .map((piece) =>
        'text' in piece
          ? quoted(piece.text)
          : says
            ? `(?:${quoted(piece.hole)}|(?:(?!${SEPARATOR}).)*)`
            : quoted(piece.hole),
      )
      .join('')
  })
  return new RegExp(`^${parts.join(quoted(SEPARATOR))}$`, 'su')
}

/** `path "name"` in a code span, of one backtick or more. */
const CITED = /(`+)([\w@./-]+) "(.+?)"\1(?!`)/g

/** The rows of the tables of FAILURES.md, each as its cells. In a cell `|` is written `\|`. */
const rowsOf = (document: string): string[][] =>
  document
    .split('\n')
    .filter((line) => line.startsWith('|') && !/^\| (?:What fails|---) /.test(line))
    .map((line) => line.split(/(?<!\\)\|/).slice(1, -1))

/** The names in each file that can hold tests, by the file's path below the root. */
let patterns: ReadonlyMap<string, readonly RegExp[]>

/** Where a test of this name is, for a message that helps when a file was moved. */
function elsewhere(name: string): string {
  const found = [...patterns].filter(([, names]) => names.some((pattern) => pattern.test(name))).map(([path]) => path)
  return found.length === 0 ? '' : `, but in ${found.join(', ')}`
}

/** What is wrong with the tests that the tables of a document cite, one line each. */
function complaints(document: string): string[] {
  const wrong: string[] = []
  for (const cells of rowsOf(document)) {
    const [fault = '', , tests = ''] = cells
    if (cells.length !== 3) wrong.push(`${fault.trim()}: ${cells.length} cells instead of three`)
    const rest = tests.replaceAll(CITED, '').replaceAll('<br>', '').trim()
    if (rest === '' ? tests.trim() === '' : !/^No test: \w.+\.$/.test(rest))
      wrong.push(`${fault.trim()}: the last cell is neither tests with their whole names nor "No test: why."`)
    for (const [, , path = '', cited = ''] of tests.matchAll(CITED)) {
      const name = cited.replaceAll(String.raw`\|`, '|')
      if (name.includes('…')) wrong.push(`${path} "${name}": the name is cut short`)
      const names = patterns.get(path)
      if (names === undefined) wrong.push(`${path} "${name}": there is no such file${elsewhere(name)}`)
      else if (!names.some((pattern) => pattern.test(name)))
        wrong.push(`${path} "${name}": there is no such test${elsewhere(name)}`)
    }
  }
  return wrong
}

beforeAll(async () => {
  const { workspaces } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { workspaces: string[] }
  const files = workspaces.flatMap((workspace) =>
    readdirSync(join(root, workspace), { withFileTypes: true })
      .filter((folder) => folder.isDirectory() && !['build', 'dist', 'node_modules'].includes(folder.name))
      .flatMap(({ name }) =>
        readdirSync(join(root, workspace, name), { recursive: true, encoding: 'utf8' }).map((file) =>
          join(workspace, name, file),
        ),
      )
      .filter((path) => /\.(?:test|spec)\.tsx?$|\/contract\/.*\.ts$/.test(path)),
  )
  // Only syntax is asked for: neither imports nor libraries are read, which would take ten times as long.
  const folder = await mkdtemp(join(tmpdir(), 'landfall-failures-'))
  const config = join(folder, 'tsconfig.json')
  const compilerOptions = { noLib: true, noResolve: true, types: [] }
  await writeFile(config, JSON.stringify({ compilerOptions, files: files.map((path) => join(root, path)) }))
  const api = new API({ cwd: folder })
  try {
    const program = api.updateSnapshot({ openProjects: [config] }).getProject(config)?.program
    patterns = new Map(
      files.flatMap((path) => {
        const source = program?.getSourceFile(join(root, path))
        return source === undefined ? [] : [[path, testsOf(source).map(patternOf)] as const]
      }),
    )
  } finally {
    api.close()
    await rm(folder, { recursive: true })
  }
})

test('each test that FAILURES.md names is there, under its whole name', () => {
  const document = readFileSync(join(root, 'FAILURES.md'), 'utf8')
  expect(rowsOf(document).length).toBeGreaterThan(150)
  expect(complaints(document)).toEqual([])
})

describe('the comparison finds', () => {
  const RECOVERY = 'server/test/recovery.test.ts'
  const said = (tests: string): string[] =>
    complaints(`| What fails | What happens | Test |\n| it | this | ${tests} |\n`)
  const [found, template] = [
    `\`${RECOVERY} "a failing application › that never works is a stall, kept and visible, until an operator retries"\``,
    '`server/test/protocol.test.ts "answers that tell what to do › a body in the coding %s is 415"`',
  ]

  test('nothing where all is there, also names that are known only when they run', () => {
    expect(said(found)).toEqual([])
    expect(said(`${found}<br>${template}`)).toEqual([])
    expect(said(template.replace('%s', 'gzip'))).toEqual([])
    expect(said('No test: this follows from the name alone.')).toEqual([])
  })

  test.each<[string, string, RegExp]>([
    ['a name that is cut short', found.replace(', until an operator retries', '…'), /cut short/],
    ['a name without its end', found.replace(', until an operator retries', ''), /no such test$/],
    ['a name without its group', found.replace('a failing application › ', ''), /no such test$/],
    ['a name in another group', found.replace('a failing application', 'time'), /no such test$/],
    ['a group without a test', `\`${RECOVERY} "a failing application"\``, /no such test$/],
    [
      'a test of another file',
      found.replace('recovery', 'leases'),
      /no such test, but in server\/test\/recovery\.test\.ts$/,
    ],
    ['a file that is not there', found.replace('recovery', 'gone'), /no such file, but in server\/test\/recovery/],
    ['another text around what is only known when it runs', template.replace('is 415', 'is 400'), /no such test$/],
    [
      'a name of which nothing is known before it runs',
      `\`${RECOVERY} "the completer alone continues from › x"\``,
      /no such test$/,
    ],
    ['a file without a name', RECOVERY, /whole names/],
    ['a name outside of a code span', found.replaceAll('`', ''), /whole names/],
    ['no test and no reason', '', /whole names/],
    ['a fourth cell', `${found} | more`, /4 cells/],
  ])('%s', (_what, tests, complaint) => {
    expect(said(tests).join('\n')).toMatch(complaint)
  })
})
