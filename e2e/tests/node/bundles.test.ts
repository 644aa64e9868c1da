import { createHash } from 'node:crypto'
import { cp, readdir, readFile, writeFile } from 'node:fs/promises'
import { extname, join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { type Browser, chromium } from '@playwright/test'
import { build } from 'vite'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import webpack from 'webpack'
import { parseOperationList } from '@landfall/shared'
import { launchOptions } from '../../ground/chromium.js'
import { pseudoRandomBytes, temporaryDirectory } from '../../ground/files.js'
import { OWNER_HEADER, startLandfall } from '../../programs/landfall.js'
import { portOf } from '../../ground/processes.js'
import { repository } from '../../ground/repository.js'
import { install, pack } from '../../ground/packed.js'
import type { RunningProcess } from '../../ground/processes.js'
import { startSite } from '../../ground/site.js'

let directory: Awaited<ReturnType<typeof temporaryDirectory>>
let project: string
let server: RunningProcess
let browser: Browser
/** Of what was started, so that a start that fails leaves nothing behind. */
const endings: (() => Promise<unknown>)[] = []

beforeAll(async () => {
  directory = await temporaryDirectory()
  endings.push(() => directory.remove())
  project = join(directory.path, 'project')
  await cp(join(import.meta.dirname, 'fixtures/project'), project, { recursive: true })
  const destination = join(directory.path, 'tarballs')
  const tarballs = [await pack(repository, 'shared', destination), await pack(repository, 'client', destination)]
  await install(repository, project, tarballs)
  server = await startLandfall(join(directory.path, 'data'))
  endings.push(() => server.kill())
  browser = await chromium.launch(launchOptions())
  endings.push(() => browser.close())
}, 120_000)
afterAll(async () => {
  for (const end of endings.toReversed()) await end()
})

async function viteBuild(root: string, outDir: string, input: string): Promise<void> {
  await build({
    root,
    configFile: false,
    logLevel: 'error',
    build: {
      outDir,
      emptyOutDir: true,
      modulePreload: false,
      rolldownOptions: { input, preserveEntrySignatures: 'strict' },
    },
  })
}

async function webpackBuild(context: string, outDir: string): Promise<void> {
  const stats = await new Promise<webpack.Stats | undefined>((resolve, reject) => {
    const compiler = webpack({ mode: 'production', context, entry: './webpack.js', output: { path: outDir } })
    compiler?.run((error, result) => (error === null ? compiler.close(() => resolve(result)) : reject(error)))
  })
  if (stats?.hasErrors() ?? true) throw new Error(stats?.toString('errors-only') ?? 'webpack said nothing')
  const page = await readFile(join(context, 'index.html'), 'utf8')
  await writeFile(join(outDir, 'index.html'), page.replace('./vite.js', './main.js'))
}

/** Kibibytes of all scripts in a folder, each gzipped on its own as a server would send it. */
async function gzippedKiB(folder: string): Promise<number> {
  const names = (await readdir(folder, { recursive: true })).filter((name) => extname(name) === '.js')
  expect(names).not.toHaveLength(0)
  const sizes = await Promise.all(
    names.map(async (name) => gzipSync(await readFile(join(folder, name)), { level: 9 }).length),
  )
  return sizes.reduce((sum, size) => sum + size, 0) / 1024
}

describe('the size, minified and gzipped, with all dependencies', () => {
  test('of the headless client is at most 23 KiB, what it loads later included', async () => {
    const entry = join(project, 'page/size.js')
    await writeFile(entry, `export { createUploader } from '@landfall/client'\n`)
    const out = join(directory.path, 'size')
    await viteBuild(join(project, 'page'), out, entry)
    expect(await gzippedKiB(out)).toBeLessThanOrEqual(23)
  })

  test('of the worker is at most 8 KiB', async () => {
    const worker = await readFile(join(project, 'node_modules/@landfall/client/dist/worker.js'))
    expect(gzipSync(worker, { level: 9 }).length / 1024).toBeLessThanOrEqual(8)
    expect(worker.toString()).not.toMatch(/^\s*import\b|\bimport\(/m)
  })
})

describe("a page built from the tarballs, under script-src 'self'", () => {
  const bundlers = [
    ['Vite', (out: string) => viteBuild(join(project, 'page'), out, join(project, 'page/index.html'))],
    ['webpack', (out: string) => webpackBuild(join(project, 'page'), out)],
  ] as const

  test.each(bundlers)('by %s uploads, its worker included', async (name, bundle) => {
    const out = join(directory.path, `page-${name}`)
    await bundle(out)
    const owner = `owner of ${name}`
    const site = await startSite({
      directory: out,
      headers: { 'content-security-policy': "script-src 'self'" },
      forward: { path: '/uploads', port: portOf(server), headers: { [OWNER_HEADER]: owner } },
    })
    const page = await browser.newPage()
    const errors: string[] = []
    page.on('pageerror', (error) => errors.push(String(error)))
    page.on('console', (message) => message.type() === 'error' && errors.push(message.text()))
    await page.goto(site.origin)
    const bytes = pseudoRandomBytes(3_000_000, name)
    const file = { mimeType: 'application/octet-stream', buffer: bytes }
    await page.setInputFiles('input', [
      { name: 'a.bin', ...file },
      { name: 'empty.bin', ...file, buffer: Buffer.alloc(0) },
    ])
    await page.locator('li').nth(1).waitFor({ timeout: 30_000 })
    const told: unknown[] = (await page.locator('li').allTextContents()).map((text) => JSON.parse(text))
    const digest = `sha-256=:${createHash('sha256').update(bytes).digest('base64')}:`
    expect(told).toEqual([
      // The digest came from the client: its worker ran.
      { ok: true, reference: expect.objectContaining({ size: 3_000_000, digest, digestSource: 'client' }) },
      { ok: true, reference: expect.objectContaining({ size: 0 }) },
    ])
    expect(errors).toEqual([])

    const headers = { [OWNER_HEADER]: owner, 'landfall-version': '1' }
    const ids = told.map((outcome) =>
      String(Reflect.get(Object(Reflect.get(Object(outcome), 'reference')), 'operationId')),
    )
    const origin = `http://127.0.0.1:${portOf(server)}/uploads`
    const listed = parseOperationList(await (await fetch(`${origin}/operations?ids=${ids.join()}`, { headers })).json())
    expect(listed.ok && listed.value.operations.map(({ file: { size } }) => size)).toEqual([3_000_000, 0])
    const stored = await fetch(`${origin}/files/${ids[0]}`, { headers })
    expect(Buffer.from(await stored.arrayBuffer()).equals(bytes)).toBe(true)
    await page.close()
    await site.close()
  })
})
