import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'

/** A fenced block of a Markdown page. */
export interface Block {
  /** The word after the opening fence, such as `ts` or `sh`. */
  readonly language: string
  /** The block as the reader sees it. */
  readonly text: string
  /**
   * The file that its first line names, as in `// server.ts` or `<!-- index.html -->`; null if the line names no file.
   */
  readonly file: string | null
  /** What the page hides in `<!-- before … -->` right above the block: code that its reader already has. */
  readonly before: string
  /** The number of its first line in the page, counted from 1. */
  readonly line: number
}

export interface Page {
  /** Relative to the repository. */
  readonly path: string
  readonly text: string
  readonly blocks: readonly Block[]
  /**
   * Files that the page hides in `<!-- file NAME … -->`, by name. Its blocks import them, and the reader already has
   * them.
   */
  readonly hidden: ReadonlyMap<string, string>
}

const FENCE = /^```(\w*)[^\n]*\n(.*?)^```$/gms
const HIDDEN = /^<!-- (?:before|file (?<name>\S+))\n(?<text>.*?)^-->$/gms
const NAMED = /^(?:\/\/|<!--|#) ([\w./[\]-]+\.\w+)(?: -->)?$/m

const lineAt = (text: string, index: number): number => text.slice(0, index).split('\n').length

export function readPage(repository: string, path: string): Page {
  const text = readFileSync(join(repository, path), 'utf8')
  const hidden = new Map<string, string>()
  /** The hidden code, by the offset at which it ends. */
  const befores = new Map<number, string>()
  for (const found of text.matchAll(HIDDEN)) {
    const { name, text: code = '' } = found.groups ?? {}
    if (name === undefined) befores.set(found.index + found[0].length, code)
    else hidden.set(name, code)
  }
  const blocks = [...text.matchAll(FENCE)].map(({ index, 1: language = '', 2: code = '' }): Block => {
    const first = NAMED.exec(code)
    const above = text.slice(0, index).trimEnd().length
    return {
      language,
      text: code,
      file: first?.index === 0 ? (first[1] ?? null) : null,
      before: befores.get(above) ?? '',
      line: lineAt(text, index) + 1,
    }
  })
  return { path, text, blocks, hidden }
}

/** Every page for users and contributors. The pages in the repository's root come first. */
export function allPages(repository: string): string[] {
  const folders = ['shared', 'server', 'client', 'e2e']
  const inside = folders.flatMap((folder) =>
    readdirSync(join(repository, folder), { recursive: true, encoding: 'utf8' }).map((path) => join(folder, path)),
  )
  const pages = [...readdirSync(repository), ...inside].filter((path) => path.endsWith('.md'))
  return pages.filter((path) => !/(^|\/)(node_modules|dist|build|test-results)\//.test(path)).toSorted()
}

/** The one block with that name. @throws if there is none, or if there are several */
export function blockOf(page: Page, file: string): Block {
  const found = page.blocks.filter((block) => block.file === file)
  const [block] = found
  if (block === undefined || found.length > 1) throw new Error(`${page.path}: ${found.length} blocks named ${file}`)
  return block
}

/**
 * Links of a page to files of the repository, as paths relative to it, with the heading that they name ('' if none).
 */
export function linksOf({ path, text }: Page): { readonly target: string; readonly anchor: string }[] {
  const prose = text.replaceAll(FENCE, '').replaceAll(/`[^`\n]*`/g, '')
  return [...prose.matchAll(/\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]*))?\)/g)].map(({ 1: link = '', 2: anchor = '' }) => ({
    target: link === '' ? path : relative('.', join(dirname(path), link)),
    anchor,
  }))
}

/** The anchors that a Markdown renderer gives the headings of a page. */
export function anchorsOf(text: string): string[] {
  const headings = text.replaceAll(FENCE, '').matchAll(/^#{1,6} (.*)$/gm)
  return [...headings].map(({ 1: heading = '' }) =>
    heading
      .replaceAll(/\[([^\]]*)\]\([^)]*\)/g, '$1')
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-'),
  )
}
