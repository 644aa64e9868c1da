/** Every block of TypeScript and JavaScript in the documents compiles against the packed tarballs, and every link leads somewhere. */
import { execFile } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { mkdir, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { allPages, anchorsOf, linksOf, type Page, readPage } from '../../ground/documents.js'
import { temporaryDirectory } from '../../ground/files.js'
import { repository } from '../../ground/repository.js'
import { install, link, pack, PACKAGES } from '../../ground/packed.js'

const execute = promisify(execFile)
const COMPILED = new Set(['ts', 'tsx', 'js'])
/** What the readers of the documents install beside ours, and nothing else. */
const OTHERS =
  'hono @hono/node-server drizzle-orm @libsql/client pg postgres valibot vite express fastify drizzle-kit ' +
  'tus-js-client @uppy/core @uppy/tus @tus/s3-store @aws-sdk/client-s3'

const pages = allPages(repository).map((path) => readPage(repository, path))
const compiled = pages.filter(({ blocks }) => blocks.some(({ language }) => COMPILED.has(language)))

let directory: Awaited<ReturnType<typeof temporaryDirectory>>
/** What the compiler says, by page. */
const complaints = new Map<string, string[]>()

const folderOf = ({ path }: Page): string => path.replaceAll('/', '__').replace(/\.md$/, '')

async function put(path: string, text: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true })
  await writeFile(path, text)
}

beforeAll(async () => {
  directory = await temporaryDirectory()
  const root = directory.path
  const tarballs: string[] = []
  for (const name of PACKAGES) tarballs.push(await pack(repository, name, join(root, 'tarballs')))
  await install(repository, root, tarballs)
  await link(repository, root, OTHERS.split(' '))
  await symlink(join(repository, 'node_modules/@types'), join(root, 'node_modules/@types'))
  await put(join(root, 'package.json'), JSON.stringify({ type: 'module' }))
  const compilerOptions = {
    target: 'ES2022',
    module: 'preserve',
    moduleResolution: 'bundler',
    lib: ['ES2023', 'DOM', 'DOM.Iterable'],
    types: ['node', 'vite/client'],
    paths: { 'e2e/*': [join(repository, 'e2e/*')] },
    strict: true,
    skipLibCheck: true,
    noEmit: true,
    allowJs: true,
    checkJs: true,
    jsx: 'react-jsx',
  }
  await put(join(root, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['pages'] }))
  for (const page of compiled) {
    const folder = join(root, 'pages', folderOf(page))
    for (const [name, text] of page.hidden) await put(join(folder, name), text)
    for (const { language, text, file, before, line } of page.blocks) {
      if (!COMPILED.has(language)) continue
      // A block without imports is a module, too: its names are its own.
      await put(join(folder, file ?? `line-${line}.${language}`), `${before}${text}\nexport {}\n`)
    }
  }
  const tsc = join(repository, 'node_modules/.bin/tsc')
  const output = await execute(tsc, ['-p', '.', '--pretty', 'false'], { cwd: root }).then(
    () => '',
    (error: Error & { stdout?: string }) => error.stdout ?? error.message,
  )
  for (const line of output.split('\n').filter((text) => text !== '')) {
    const name = /^pages\/([^/]+)\//.exec(line)?.[1] ?? ''
    complaints.set(name, [...(complaints.get(name) ?? []), line])
  }
}, 120_000)
afterAll(() => directory.remove())

describe('the code in the documents', () => {
  test('is found', () => {
    expect(compiled.map(({ path }) => path)).toEqual(expect.arrayContaining(['README.md', 'server/README.md']))
    expect(complaints.get('')).toBeUndefined()
  })

  test.each(compiled.map((page) => [page.path, page] as const))('of %s compiles', (_path, page) => {
    expect(complaints.get(folderOf(page)) ?? []).toEqual([])
  })
})

describe('the links in the documents', () => {
  test.each(pages.map((page) => [page.path, page] as const))('of %s lead somewhere', (_path, page) => {
    const broken = linksOf(page).filter(({ target, anchor }) => {
      if (!existsSync(join(repository, target))) return true
      return anchor !== '' && !anchorsOf(readFileSync(join(repository, target), 'utf8')).includes(anchor)
    })
    expect(broken.map(({ target, anchor }) => (anchor === '' ? target : `${target}#${anchor}`))).toEqual([])
  })
})

test('the README has at most 150 lines', () => {
  expect(readFileSync(join(repository, 'README.md'), 'utf8').trimEnd().split('\n').length).toBeLessThanOrEqual(150)
})
