/** The programs that the guides show, run as they stand there, from the packed tarballs. */
import { createHash, randomUUID } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import { networkInterfaces } from 'node:os'
import { dirname, join } from 'node:path'
import { type Browser, chromium } from '@playwright/test'
import { createClient } from '@libsql/client'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { launchOptions } from '../../ground/chromium.js'
import { blockOf, readPage } from '../../ground/documents.js'
import { pseudoRandomBytes, temporaryDirectory } from '../../ground/files.js'
import { repository } from '../../ground/repository.js'
import { install, link, pack, PACKAGES } from '../../ground/packed.js'
import { freePort } from '../../ground/ports.js'
import { type RunningProcess, startProcess } from '../../ground/processes.js'

const NAMES = 'hono @hono/node-server drizzle-orm @libsql/client vite tsx express fastify valibot'
/** A PNG of one red pixel. */
const PIXEL = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=='

let directory: Awaited<ReturnType<typeof temporaryDirectory>>
const tarballs: string[] = []
let started: RunningProcess[] = []

beforeAll(async () => {
  directory = await temporaryDirectory()
  for (const name of PACKAGES) tarballs.push(await pack(repository, name, join(directory.path, 'tarballs')))
}, 120_000)
afterEach(async () => {
  for (const running of started.toReversed()) await running.kill()
  started = []
})
afterAll(() => directory.remove())

const installIn = async (project: string): Promise<void> => {
  await install(repository, project, tarballs)
  await link(repository, project, NAMES.split(' '))
}

/** A folder with the named files of pages. */
async function projectOf(name: string, ...pages: [page: string, files: string[]][]): Promise<string> {
  const project = join(directory.path, name)
  await mkdir(project)
  await writeFile(join(project, 'package.json'), '{ "type": "module" }')
  for (const [path, files] of pages) {
    const page = readPage(repository, path)
    for (const file of files) {
      await mkdir(dirname(join(project, file)), { recursive: true })
      await writeFile(join(project, file), blockOf(page, file).text)
    }
  }
  return project
}

/** Starts a server of the guides and resolves with its origin once it answers. */
async function serve(project: string, file: string): Promise<string> {
  const port = await freePort()
  // These programs say nothing when they are ready. The shell says that it begins, and becomes the program.
  const running = await startProcess({
    cwd: project,
    env: { PORT: String(port) },
    command: 'sh',
    args: ['-c', `echo begun; exec ${process.execPath} --import tsx ${file}`],
    ready: /begun/,
  })
  started.push(running)
  const origin = `http://127.0.0.1:${port}`
  await expect
    .poll(
      () =>
        fetch(origin).then(
          () => true,
          () => false,
        ),
      { timeout: 60_000, message: running.output() },
    )
    .toBe(true)
  return origin
}

describe('servers', () => {
  const page = 'server/docs/express-fastify-next.md'

  // One installation for all of them: Node looks for packages in the folders above, too.
  beforeAll(() => installIn(directory.path))

  /** Declares and sends a file, and answers its id. */
  async function upload(origin: string, headers: Record<string, string>, bytes: Buffer, more: object): Promise<string> {
    const id = randomUUID()
    const declared = await fetch(`${origin}/uploads/operations/${id}`, {
      method: 'PUT',
      headers: { ...headers, 'Content-Type': 'application/json' },
      body: JSON.stringify({ file: { name: 'a.bin', size: bytes.length, type: '' }, ...more }),
    })
    expect([declared.status, await declared.json()]).toMatchObject([201, { recoveryPoint: 'declared' }])
    const sent = await fetch(`${origin}/uploads/files/${id}`, {
      method: 'PATCH',
      headers: {
        ...headers,
        'Tus-Resumable': '1.0.0',
        'Upload-Offset': '0',
        'Content-Type': 'application/offset+octet-stream',
      },
      body: new Uint8Array(bytes),
    })
    expect([sent.status, sent.headers.get('Upload-Offset')]).toEqual([204, String(bytes.length)])
    return id
  }

  test.each(['hono.ts', 'express.ts', 'fastify.ts', 'plain.ts', 'stopping.ts'])('%s takes an upload', async (file) => {
    const project = await projectOf(file.replace('.ts', ''), [page, ['uploads.ts', file]])
    const origin = await serve(project, file)
    const headers = { 'X-User': 'ann' }
    const bytes = pseudoRandomBytes(3_000_000, file)
    const id = await upload(origin, headers, bytes, {})
    const operation: unknown = await (await fetch(`${origin}/uploads/operations/${id}`, { headers })).json()
    const digest = `sha-256=:${createHash('sha256').update(bytes).digest('base64')}:`
    expect(operation).toMatchObject({ reference: { digest, url: `/uploads/files/${id}` } })
    const stored = await fetch(`${origin}/uploads/files/${id}`, { headers })
    expect(Buffer.from(await stored.arrayBuffer()).equals(bytes)).toBe(true)
    const offered = await fetch(`${origin}/uploads/files`, { method: 'OPTIONS' })
    expect(offered.headers.get('Tus-Version')).toBe('1.0.0')
    expect((await fetch(`${origin}/uploads/operations?open`)).status).toBe(401)

    const database = createClient({ url: `file:${join(project, 'app.db')}` })
    const { rows } = await database.execute('SELECT name, uploadId FROM photos')
    database.close()
    expect(rows.map((row) => ({ ...row }))).toEqual([{ name: 'a.bin', uploadId: id }])
    if (file === 'stopping.ts') expect(await started[0]?.kill('SIGTERM')).toEqual({ code: 0, signal: null })
  })

  test('the long form of the quick start: sign-in, metadata, the row, removal', async () => {
    const project = await projectOf('long', ['server/docs/quick-start.md', ['uploads.ts', 'app.ts']])
    const origin = await serve(project, 'app.ts')
    expect((await fetch(`${origin}/photos`)).status).toBe(401)
    const session = await fetch(`${origin}/session/ann`, { method: 'PUT' })
    const headers = { Cookie: session.headers.get('Set-Cookie')?.split(';')[0] ?? '' }
    const id = await upload(origin, headers, Buffer.from(PIXEL, 'base64'), { metadata: { album: 'summer' } })
    const photos = async (): Promise<unknown> => (await fetch(`${origin}/photos`, { headers })).json()
    expect(await photos()).toEqual([{ id: 1, owner: 'ann', album: 'summer', name: 'a.bin', uploadId: id }])
    const file = (): Promise<Response> => fetch(`${origin}/uploads/files/${id}`, { headers })
    expect((await file()).headers.get('Content-Disposition')).toMatch(/^inline/)
    expect(await (await fetch(`${origin}/health/ready`)).json()).toEqual({ ready: true, failed: [] })
    expect((await fetch(`${origin}/photos/1`, { method: 'DELETE', headers })).status).toBe(204)
    expect(await photos()).toEqual([])
    expect((await file()).status).toBe(410)
    expect(await started[0]?.kill('SIGTERM')).toEqual({ code: 0, signal: null })
  })
})

describe("the quick start's page through Vite's development server", () => {
  let browser: Browser
  let port: number

  beforeAll(async () => {
    browser = await chromium.launch(launchOptions())
  })
  afterAll(() => browser.close())

  async function develop(name: string): Promise<void> {
    const project = await projectOf(
      name,
      ['README.md', ['server.ts', 'index.html', 'main.ts']],
      ['client/docs/recipes.md', ['vite.config.ts']],
    )
    // Vite serves nothing from outside of the project.
    await installIn(project)
    const origin = await serve(project, 'server.ts')
    port = await freePort()
    const args = [join(project, 'node_modules/.bin/vite'), '--host', '--port', String(port), '--strictPort']
    const env = { PORT: new URL(origin).port }
    started.push(await startProcess({ command: process.execPath, args, cwd: project, env, ready: /Local:/ }))
  }

  async function upload(origin: string): Promise<boolean> {
    const context = await browser.newContext()
    // With a cookie the server looks at where the request comes from.
    await context.addCookies([{ name: 'session', value: 'x', url: origin }])
    const page = await context.newPage()
    await page.goto(origin)
    const picked = { name: 'red.png', mimeType: 'image/png', buffer: Buffer.from(PIXEL, 'base64') }
    // Vite loads the page again once it has found the page's packages.
    await expect
      .poll(
        async () => {
          if ((await page.locator('img').count()) === 0) await page.setInputFiles('input', picked)
          return page.title()
        },
        { timeout: 30_000, interval: 1_000 },
      )
      .toBe('red.png has arrived')
    const image = page.locator('img').first()
    await expect.poll(() => image.evaluate((element) => Reflect.get(element, 'naturalWidth'))).toBe(1)
    const isSecure = await page.evaluate(() => isSecureContext)
    await context.close()
    return isSecure
  }

  test('uploads on localhost', async () => {
    await develop('vite')
    expect(await upload(`http://localhost:${port}`)).toBe(true)
  })

  const address = Object.values(networkInterfaces())
    .flatMap((entries) => entries ?? [])
    .find(({ family, internal }) => family === 'IPv4' && !internal)?.address
  test.skipIf(address === undefined)('uploads from a phone in the local network, over plain HTTP', async () => {
    await develop('phone')
    expect(await upload(`http://${address}:${port}`)).toBe(false)
  })
})
