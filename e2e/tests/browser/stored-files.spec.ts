/** What a browser makes of files that somebody has uploaded, within an application that has headers of its own. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { getRequestListener } from '@hono/node-server'
import { createUploads, fileBlobs, kind, serializedLibsql, sqliteLedger, type SqliteTx } from '@landfall/server'
import { expect, test as base } from '@playwright/test'
import { createClient } from '@libsql/client'
import { drizzle } from 'drizzle-orm/libsql'
import { Hono } from 'hono'
import { secureHeaders } from 'hono/secure-headers'
import { temporaryDirectory } from '../../ground/files.js'

const SECRET = 'the secret of this origin'
const STEAL = `fetch('/secret').then((r) => r.text()).then((text) => fetch('/stolen?' + encodeURIComponent(text)))`
const FILES = {
  'a.svg': ['image/svg+xml', `<svg xmlns="http://www.w3.org/2000/svg"><script>${STEAL}</script></svg>`],
  'a.html': ['text/html', `<!doctype html><script>${STEAL}</script>`],
  'a.js': ['text/javascript', STEAL],
} as const
type Name = keyof typeof FILES

interface Application {
  readonly address: string
  /** What scripts have sent out. */
  readonly stolen: string[]
  pathOf(name: Name): string
}

/** Everybody is one owner, all of it may be shown in place, and the application's own headers come last. */
const test = base.extend<{ application: Application }>({
  // oxlint-disable-next-line no-empty-pattern -- Playwright reads the names of the fixtures from it
  async application({}, use) {
    const home = await temporaryDirectory('landfall-stored-')
    const client = serializedLibsql(createClient({ url: `file:${join(home.path, 'app.db')}` }))
    const uploads = createUploads({
      ledger: sqliteLedger(drizzle(client)),
      blobs: fileBlobs({ directory: join(home.path, 'blobs') }),
      authenticate: () => 'everybody',
      kinds: { file: kind({ onReference: async (_tx: SqliteTx<Record<string, never>>) => null }) },
      inlineTypes: ['image/*', 'image/svg+xml', 'text/*'],
    })
    const stolen: string[] = []
    const app = new Hono()
      .use(
        secureHeaders({ contentSecurityPolicy: { defaultSrc: ["'self'"], scriptSrc: ["'self'", "'unsafe-inline'"] } }),
      )
      .route('/uploads', uploads.routes)
      .get('/', (c) => c.html('<!doctype html><title>page</title>'))
      .get('/secret', (c) => c.text(SECRET))
      .get('/stolen', (c) => {
        stolen.push(decodeURIComponent(new URL(c.req.url).search.slice(1)))
        return c.text('')
      })
    const listener = getRequestListener(app.fetch)
    const server = createServer((request, response) => void listener(request, response))
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    const paths = new Map<string, string>()
    for (const [name, [type, text]] of Object.entries(FILES)) {
      const encode = (value: string): string => Buffer.from(value).toString('base64')
      const created = await fetch(`${address}/uploads/files`, {
        method: 'POST',
        headers: {
          'Tus-Resumable': '1.0.0',
          'Upload-Length': String(text.length),
          'Upload-Metadata': `filename ${encode(name)},filetype ${encode(type)}`,
          'Content-Type': 'application/offset+octet-stream',
        },
        body: text,
      })
      expect(created.status).toBe(201)
      paths.set(name, created.headers.get('Location') ?? '')
    }
    await use({ address, stolen, pathOf: (name) => paths.get(name) ?? '' })
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
    await uploads.close()
    client.close()
    await home.remove()
  },
})

test('the page itself can do what the uploaded files try', async ({ application, page }) => {
  await page.goto(application.address)
  await page.evaluate(STEAL)
  await expect.poll(() => application.stolen).toEqual([SECRET])
})

for (const name of ['a.svg', 'a.html'] as const)
  test(`${name} is saved when it is opened, and reads nothing in a frame`, async ({ application, page }) => {
    const path = application.pathOf(name)
    await page.goto(application.address)
    const saving = page.waitForEvent('download')
    // A navigation that becomes a download ends as aborted.
    await page.goto(application.address + path).catch(() => null)
    expect((await saving).suggestedFilename()).toBe(name)
    const savingFromFrame = page.waitForEvent('download')
    await page.evaluate((src) => {
      const frame = document.createElement('iframe')
      frame.src = src
      document.body.append(frame)
    }, path)
    await savingFromFrame
    expect(application.stolen).toEqual([])
  })

test('an SVG is shown as an image', async ({ application, page }) => {
  await page.goto(application.address)
  const loaded = await page.evaluate(
    (src) =>
      new Promise((resolve) => {
        const image = new Image()
        image.addEventListener('load', () => resolve('loaded'))
        image.addEventListener('error', () => resolve('failed'))
        image.src = src
      }),
    application.pathOf('a.svg'),
  )
  expect([loaded, application.stolen]).toEqual(['loaded', []])
})

test('an uploaded script is none of the page, and no worker of it', async ({ application, page }) => {
  const answers: number[] = []
  page.on('response', (response) => {
    if (response.url().endsWith(application.pathOf('a.js'))) answers.push(response.status())
  })
  await page.goto(application.address)
  const outcomes = await page.evaluate(async (src) => {
    const script = await new Promise((resolve) => {
      const element = document.createElement('script')
      element.addEventListener('load', () => resolve('loaded'))
      element.addEventListener('error', () => resolve('failed'))
      element.src = src
      document.head.append(element)
    })
    const worker = await new Promise((resolve) => {
      const started = new Worker(src)
      started.addEventListener('error', () => resolve('failed'))
      setTimeout(() => resolve('runs'), 2_000)
    })
    const serviceWorker = await navigator.serviceWorker.register(src).then(
      () => 'registered',
      () => 'failed',
    )
    // As data of a page that asks for it, it is a file like others.
    const { status } = await fetch(src)
    return [script, worker, serviceWorker, status]
  }, application.pathOf('a.js'))
  expect(outcomes).toEqual(['failed', 'failed', 'failed', 200])
  expect(answers).toEqual(expect.arrayContaining([403, 200]))
  expect(application.stolen).toEqual([])
})
