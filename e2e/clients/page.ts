import type { Browser, BrowserContext, Page } from '@playwright/test'
import { builtPage } from '../ground/repository.js'
import { type Site, startSite } from '../ground/site.js'
import { OWNER_HEADER } from '../programs/landfall.js'
import type { Swept } from './swept.js'

declare const swept: Swept

/** The owner of the uploads of these pages. */
export const OWNER = 'swept'

/** Serves the page of our own client, in front of a server on that port. */
export const openPageSite = (port: number): Promise<Site> =>
  startSite({
    directory: builtPage('sweep'),
    forward: { path: '/uploads', port, headers: { [OWNER_HEADER]: OWNER } },
  })

/** Opens a page, and resolves when its client has started. */
export async function visitPage(context: BrowserContext, { origin }: Pick<Site, 'origin'>): Promise<Page> {
  const page = await context.newPage()
  await page.goto(origin)
  await page.waitForFunction(() => 'swept' in globalThis)
  await page.evaluate(() => swept.start())
  return page
}

/** Opens a page in a new profile. */
export async function visitAlone(browser: Browser, site: Site): Promise<{ page: Page; context: BrowserContext }> {
  const context = await browser.newContext()
  return { page: await visitPage(context, site), context }
}
