import { readFileSync } from 'node:fs'
import {
  API,
  type Checker,
  SignatureKind,
  SymbolFlags,
  type Symbol as TypeSymbol,
  type Type,
} from 'typescript/unstable/sync'

// What the tests of the reference pages compare: the tables of a page, and the types of a package.

/** A row by the headings of its columns. */
export type Row = Readonly<Record<string, string>>

/**
 * The tables of a Markdown page, by the heading above each.
 *
 * @throws where a heading has two tables, and where a row does not have the columns of its table.
 */
export function tablesIn(path: string | URL): ReadonlyMap<string, readonly Row[]> {
  const tables = new Map<string, Row[]>()
  let heading = ''
  let columns: readonly string[] | null = null
  let isCode = false
  for (const line of readFileSync(path, 'utf8').split('\n')) {
    if (line.startsWith('```')) isCode = !isCode
    if (isCode || !line.startsWith('|')) {
      columns = null
      if (!isCode && line.startsWith('#')) heading = line.replace(/^#+ /, '')
      continue
    }
    const cells = cellsOf(line)
    if (columns === null) {
      if (tables.has(heading)) throw new Error(`two tables below "${heading}"`)
      columns = cells
      tables.set(heading, [])
    } else if (!cells.every((cell) => /^:?-+:?$/.test(cell))) {
      if (cells.length !== columns.length) throw new Error(`below "${heading}": ${line}`)
      tables.get(heading)?.push(Object.fromEntries(columns.map((column, at) => [column, cells[at] ?? ''])))
    }
  }
  return tables
}

const cellsOf = (line: string): string[] =>
  line
    .split(/(?<!\\)\|/)
    .slice(1, -1)
    .map((cell) => cell.trim().replaceAll('\\|', '|'))

/** All that a cell has as code: "`a`, `b` and more" is ['a', 'b']. */
export const codesIn = (cell = ''): string[] => [...cell.matchAll(/`([^`]+)`/g)].map(([, code = '']) => code)

/** The code of one column, in the order of the page. */
export const codesOf = (rows: readonly Row[] | undefined, column: string): string[] =>
  (rows ?? []).flatMap((row) => codesIn(row[column]))

/** The public types of a package, as the compiler sees them. */
export interface PublicTypes {
  /** The texts that a type may be: the members of a union of string literals. */
  words(name: string): string[]
  /** The same of a member of an interface. */
  wordsOf(name: string, member: string): string[]
  /** The names of the members of an interface. */
  members(name: string): string[]
  /** Each type of a union: what the members of it that are texts may be. */
  variants(name: string): Readonly<Record<string, readonly string[]>>[]
  /** The names of the members of a method's first parameter. */
  parameters(name: string, method: string): string[]
  close(): void
}

/**
 * @param config The `tsconfig.json` that compiles the package.
 * @param entry The module whose exports are looked at.
 */
export function typesIn(config: string, entry: string): PublicTypes {
  const api = new API()
  const project = api.updateSnapshot({ openProjects: [config] }).getProject(config)
  const source = project?.program.getSourceFile(entry)
  if (project === undefined || source === undefined) throw new Error(`${entry} is not compiled by ${config}`)
  const { checker } = project
  const module = checker.getSymbolAtLocation(source)
  const exported = new Map(
    (module === undefined ? [] : checker.getExportsOfModule(module)).map((symbol) => [symbol.name, symbol]),
  )

  function typeOf(name: string): Type {
    const symbol = exported.get(name)
    if (symbol === undefined) throw new Error(`${entry} exports no ${name}`)
    const isAlias = (symbol.flags & SymbolFlags.Alias) !== 0
    return checker.getDeclaredTypeOfSymbol(isAlias ? checker.getAliasedSymbol(symbol) : symbol)
  }
  function memberOf(type: Type, member: string): Type {
    const symbol = checker.getPropertyOfType(type, member)
    const found = symbol && checker.getTypeOfSymbol(symbol)
    if (found === undefined) throw new Error(`no ${member}`)
    return found
  }
  return {
    words: (name) => wordsOfType(typeOf(name)),
    wordsOf: (name, member) => wordsOfType(memberOf(typeOf(name), member)),
    members: (name) => namesOf(checker.getPropertiesOfType(typeOf(name))),
    variants: (name) =>
      partsOf(typeOf(name)).map((part) =>
        Object.fromEntries(
          checker
            .getPropertiesOfType(part)
            .map(({ name: member }) => [member, wordsOfType(memberOf(part, member))] as const)
            .filter(([, words]) => words.length > 0),
        ),
      ),
    parameters: (name, method) => parametersOf(checker, memberOf(typeOf(name), method)),
    close: () => api.close(),
  }
}

const namesOf = (symbols: readonly TypeSymbol[]): string[] => symbols.map(({ name }) => name)

/** A union's types, or the one type. */
const partsOf = (type: Type): readonly Type[] => (type.isUnionType() ? type.getTypes() : [type])

const wordsOfType = (type: Type): string[] =>
  partsOf(type).flatMap((part) => (part.isStringLiteralType() ? [part.value] : []))

function parametersOf(checker: Checker, method: Type): string[] {
  const [signature] = checker.getSignaturesOfType(method, SignatureKind.Call)
  const parameter = signature && checker.getParameterType(signature, 0)
  const given = parameter && checker.getNonNullableType(parameter)
  return given === undefined ? [] : namesOf(checker.getPropertiesOfType(given))
}
