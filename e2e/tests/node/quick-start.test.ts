/** The quick start of the README, as a new user does it: its blocks, its commands, the packed tarballs, a browser. */
import { execFile } from 'node:child_process'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { type Browser, chromium } from '@playwright/test'
import { createClient } from '@libsql/client'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { launchOptions } from '../../ground/chromium.js'
import { blockOf, readPage } from '../../ground/documents.js'
import { temporaryDirectory } from '../../ground/files.js'
import { repository } from '../../ground/repository.js'
import { install, link, pack, PACKAGES } from '../../ground/packed.js'
import { freePort } from '../../ground/ports.js'
import { startProcess } from '../../ground/processes.js'

const execute = promisify(execFile)
const readme = readPage(repository, 'README.md')
/** A PNG of one red pixel. */
const PIXEL = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=='

let directory: Awaited<ReturnType<typeof temporaryDirectory>>
let project: string
let browser: Browser
const endings: (() => Promise<unknown>)[] = []

/** The packages that the README's `npm install` lines name. */
function installed(commands: string): string[] {
  const lines = commands.split('\n').filter((line) => line.startsWith('npm install '))
  expect(lines.length).toBeGreaterThan(1)
  return lines.flatMap((line) => line.split(' ').slice(2)).filter((word) => !word.startsWith('--'))
}

beforeAll(async () => {
  directory = await temporaryDirectory()
  endings.push(() => directory.remove())
  project = join(directory.path, 'photos')
  await mkdir(project)
  const commands = readme.blocks.find(({ language }) => language === 'sh')?.text ?? ''
  const names = installed(commands)
  // The README packs these three, and its wildcard installs all of them.
  expect(commands).toContain(PACKAGES.map((name) => `--workspace ${name}`).join(' '))
  expect(names.filter((name) => name.includes('.tgz'))).toEqual(['../landfall/landfall-*.tgz'])
  const tarballs: string[] = []
  for (const name of PACKAGES) tarballs.push(await pack(repository, name, join(directory.path, 'landfall')))
  await install(repository, project, tarballs)
  await link(
    repository,
    project,
    names.filter((name) => !name.includes('.tgz')),
  )
  for (const command of /^npm init.*$/m.exec(commands)?.[0].split(' && ') ?? []) {
    const [program = '', ...args] = command.split(' ')
    await execute(program, args, { cwd: project })
  }
  for (const name of ['server.ts', 'index.html', 'main.ts'])
    await writeFile(join(project, name), blockOf(readme, name).text)
  browser = await chromium.launch(launchOptions())
  endings.push(() => browser.close())
}, 120_000)
afterAll(async () => {
  for (const end of endings.toReversed()) await end()
})

test('from an empty folder to an image that is shown, and its row', async () => {
  const manifest: unknown = JSON.parse(await readFile(join(project, 'package.json'), 'utf8'))
  expect(manifest).toMatchObject({ type: 'module' })
  const [, build = '', serve = ''] = /Run\s+`npx (.*?)`\s+and\s+then\s+`node (.*?)`/.exec(readme.text) ?? []
  await execute('npx', build.split(' '), { cwd: project })
  const port = await freePort()
  const server = await startProcess({
    command: process.execPath,
    args: serve.split(' '),
    cwd: project,
    env: { PORT: String(port) },
    ready: /ready/,
  })
  endings.push(() => server.kill())

  const page = await browser.newPage()
  const errors: string[] = []
  page.on('pageerror', (error) => errors.push(String(error)))
  page.on('console', (message) => {
    // The quick start has no icon, which every browser asks for.
    if (message.type() === 'error' && !message.location().url.endsWith('/favicon.ico')) errors.push(message.text())
  })
  await page.goto(`http://localhost:${port}`)
  await page.setInputFiles('input', {
    name: 'red.png',
    mimeType: 'image/png',
    buffer: Buffer.from(PIXEL, 'base64'),
  })
  const image = page.locator('img')
  await image.waitFor()
  await expect.poll(() => image.evaluate((element) => Reflect.get(element, 'naturalWidth'))).toBe(1)
  await expect.poll(() => page.title()).toBe('red.png has arrived')
  expect(errors).toEqual([])

  const database = createClient({ url: `file:${join(project, 'app.db')}` })
  const { rows } = await database.execute(`
    SELECT photos.name, landfall_references.size FROM photos
    JOIN landfall_references ON landfall_references.operation_id = photos.uploadId`)
  database.close()
  expect(rows.map((row) => ({ ...row }))).toEqual([{ name: 'red.png', size: Buffer.from(PIXEL, 'base64').length }])

  // What the page promises: it is there again after a reload, and after the server was killed.
  await server.kill('SIGKILL')
  await server.restart()
  await page.reload()
  await image.waitFor()
  expect(await image.count()).toBe(1)
  // What is refused is told.
  const told = page.waitForEvent('dialog')
  await page.setInputFiles('input', { name: 'a.png', mimeType: 'image/png', buffer: Buffer.from('<p>no image</p>') })
  const dialog = await told
  expect(dialog.message()).toBe('The content is not of an accepted type')
  await dialog.dismiss()
})
