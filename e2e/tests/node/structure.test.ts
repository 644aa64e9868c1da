import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { parseSync, Visitor } from 'rolldown/utils'
import { expect, test } from 'vitest'
import { repository } from '../../ground/repository.js'

const sourcesOf = (folder: string): string[] =>
  readdirSync(join(repository, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && /\.(ts|tsx|js|mjs)$/.test(entry.name))
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((path) => !/\/(node_modules|dist|build|test-results)\//.test(path))

/** The modules that a module imports or re-exports: values, types, and `import('…')` in expressions and types. */
function importsOf(path: string): string[] {
  const { program, errors } = parseSync(path, readFileSync(path, 'utf8'))
  if (errors.length > 0) throw new Error(`${path} cannot be parsed: ${errors[0]?.message}`)
  const names: string[] = []
  const note = ({ source }: { source: object | null }): void => {
    if (source !== null && 'value' in source && typeof source.value === 'string') names.push(source.value)
  }
  new Visitor({
    ImportDeclaration: note,
    ExportNamedDeclaration: note,
    ExportAllDeclaration: note,
    ImportExpression: note,
    TSImportType: note,
  }).visit(program)
  return names
}

/** The file of this repository that an import names, or null for another package. `from` is the importing file. */
function fileOf(from: string, name: string): string | null {
  if (!name.startsWith('.')) return null
  const path = resolve(dirname(from), name)
  return [path, path.replace(/\.js$/, '.ts'), path.replace(/\.js$/, '.tsx')].find((one) => existsSync(one)) ?? null
}

/** One line with a circle of imports for each group of files that import each other. Empty if there is none. */
function circlesOf(sources: readonly string[]): string[] {
  const filesOf = new Map(
    sources.map((path) => [path, importsOf(path).flatMap((name) => fileOf(path, name) ?? [])] as const),
  )
  const found: string[] = []
  const done = new Set<string>()
  function walk(path: string, way: readonly string[]): void {
    const at = way.indexOf(path)
    if (at !== -1) found.push([...way.slice(at), path].map((one) => relative(repository, one)).join(' → '))
    if (at !== -1 || done.has(path)) return
    for (const next of filesOf.get(path) ?? []) walk(next, [...way, path])
    done.add(path)
  }
  for (const path of sources) walk(path, [])
  return found
}

test.each(['shared/src', 'client/src', 'server/src', 'e2e'])(
  'no file of %s imports itself, by whatever way',
  (folder) => {
    expect(circlesOf(sourcesOf(folder))).toEqual([])
  },
)

/** The imports of a folder's files that its rules do not allow, as lines. A file in `base` itself is in the folder `.`. */
function forbiddenImports(base: string, room: string, allowed: readonly string[]): string[] {
  const root = join(repository, base)
  const roomOf = (path: string): string => {
    const [first = '', ...rest] = relative(root, path).split('/')
    return rest.length === 0 ? '.' : first
  }
  const sources = sourcesOf(`${base}/${room}`)
  expect(sources.length).toBeGreaterThan(0)
  return sources.flatMap((path) =>
    importsOf(path)
      .flatMap((name) => fileOf(path, name) ?? [])
      .filter((target) => roomOf(target) !== room && !allowed.includes(roomOf(target)))
      .map((target) => `${relative(repository, path)} imports ${relative(repository, target)}`),
  )
}

/** The folders of `e2e`, each with the folders from which it may import. */
const ROOMS: Readonly<Record<string, readonly string[]>> = {
  demo: [],
  ground: [],
  truth: ['ground'],
  programs: ['ground', 'truth', 'demo'],
  clients: ['ground', 'programs'],
  sweep: ['ground', 'programs', 'clients', 'truth'],
  faults: ['ground', 'programs', 'clients', 'truth'],
  mutants: ['ground', 'sweep'],
  chaos: ['ground', 'programs', 'clients', 'truth', 'mutants'],
  bench: ['ground', 'programs', 'clients', 'truth'],
  scripts: [],
}

test.each(Object.entries(ROOMS))('e2e/%s imports only the folders that its rules allow', (room, allowed) => {
  expect(forbiddenImports('e2e', room, allowed)).toEqual([])
})

test('every folder of e2e has import rules, or contains its tests', () => {
  const folders = readdirSync(join(repository, 'e2e'), { withFileTypes: true }).filter((entry) => entry.isDirectory())
  const others = ['tests', 'docs', 'node_modules', 'dist', 'build', 'test-results', '.turbo']
  expect(folders.map(({ name }) => name).filter((name) => !(name in ROOMS) && !others.includes(name))).toEqual([])
})

test.each([
  ['shared/src', /@landfall\/|^node:/],
  ['client/src', /@landfall\/server|^node:|hono|drizzle|libsql/],
  ['server/src', /@landfall\/client|idb-keyval|tus-js-client/],
])('imports of %s run one way', (folder, forbidden) => {
  const sources = sourcesOf(folder)
  expect(sources.length).toBeGreaterThan(3)
  const against = sources.flatMap((path) =>
    importsOf(path)
      .filter((name) => forbidden.test(name))
      .map((name) => `${path.slice(repository.length)} imports ${name}`),
  )
  expect(against).toEqual([])
})

/** The folders of `server/src`, each with those from which it may import. Files in the root may import all of them. */
const SERVER_ROOMS: Readonly<Record<string, readonly string[]>> = {
  lib: [],
  ports: ['lib'],
  kinds: ['lib', 'ports'],
  effects: ['lib', 'ports', 'kinds'],
  sequence: ['lib', 'ports', 'kinds', 'effects'],
  ledger: ['lib', 'ports'],
  blobs: ['lib', 'ports'],
  http: ['lib', 'ports', 'kinds', 'sequence', 'operate'],
  operate: ['lib', 'ports', 'sequence'],
  program: ['lib', 'ports', 'kinds', 'effects', 'ledger', 'blobs', 'http', 'operate', '.'],
  contract: ['lib', 'ports'],
}

test.each(Object.entries(SERVER_ROOMS))(
  'server/src/%s imports only the folders that its rules allow',
  (room, allowed) => {
    expect(forbiddenImports('server/src', room, allowed)).toEqual([])
  },
)

test('every folder of server/src has import rules', () => {
  const folders = readdirSync(join(repository, 'server/src'), { withFileTypes: true })
  const rooms = folders.filter((entry) => entry.isDirectory()).map(({ name }) => name)
  expect(rooms.toSorted()).toEqual(Object.keys(SERVER_ROOMS).toSorted())
})

test('the rules of the sequence import only what an operation is', () => {
  const own = importsOf(join(repository, 'server/src/sequence/rules.ts')).filter((name) => name.startsWith('.'))
  expect(own.filter((name) => !name.startsWith('../ports/'))).toEqual([])
})

test("the client's sequence imports no adapter", () => {
  expect(importsOf(join(repository, 'client/src/run.ts')).filter((name) => name.includes('/adapters/'))).toEqual([])
})
