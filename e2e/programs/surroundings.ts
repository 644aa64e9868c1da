import { createServer } from 'node:http'
import { join } from 'node:path'
import type { Browser, BrowserContext, Page } from '@playwright/test'
import { OWNER_HEADER, repository } from '../ground/landfall.js'
import { listen } from '../ground/ports.js'
import { type Site, startSite } from '../ground/site.js'
import type { Swept } from '../clients/swept.js'

declare const swept: Swept

// What every swept server has around it: a receiver of its webhooks, and pages.

const PAGE = join(repository, 'e2e/build/sweep')
const SECRET = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'
const OWNER = 'swept'

export interface Receiver {
  /** Ids of the effects that it has had, by operation. */
  readonly received: ReadonlyMap<string, ReadonlySet<string>>
  readonly url: string
  /** Of the server that sends to it. */
  readonly settings: Readonly<Record<string, string>>
  close(): Promise<void>
}

export async function startReceiver(): Promise<Receiver> {
  const received = new Map<string, Set<string>>()
  const server = createServer((request, response) => {
    let body = ''
    request.setEncoding('utf8').on('data', (chunk: string) => (body += chunk))
    request.on('end', () => {
      const { id } = (JSON.parse(body) as { data: { operation: { id: string } } }).data.operation
      const ids = received.get(id) ?? new Set()
      received.set(id, ids.add(String(request.headers['webhook-id'])))
      response.writeHead(204).end()
    })
  })
  const url = `http://127.0.0.1:${await listen(server)}/`
  return {
    received,
    url,
    settings: {
      LANDFALL_WEBHOOK_URL: url,
      LANDFALL_WEBHOOK_SECRET: SECRET,
      LANDFALL_WEBHOOK_ALLOW_PRIVATE: 'true',
    },
    async close() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** The page of the client, in front of the proxy on that port. */
export const openSweptSite = (port: number): Promise<Site> =>
  startSite({ directory: PAGE, forward: { path: '/uploads', port, headers: { [OWNER_HEADER]: OWNER } } })

/** A page of its own profile, with the client started. */
export async function visitSite(browser: Browser, site: Site): Promise<{ page: Page; context: BrowserContext }> {
  const context = await browser.newContext()
  const page = await context.newPage()
  await page.goto(site.origin)
  await page.waitForFunction(() => 'swept' in globalThis)
  await page.evaluate(() => swept.start())
  return { page, context }
}
