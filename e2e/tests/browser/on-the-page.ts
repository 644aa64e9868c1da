/** The demo's page in a real browser: opened, used, watched, killed, and what it has kept. */
import { basename, join } from 'node:path'
import { type BrowserContext, expect, type Locator, type Page } from '@playwright/test'
import type { MadeFile } from '../../ground/files.js'
import { repository } from '../../ground/repository.js'
import type { DemoStory as Story } from '../../programs/story.js'

/** In each page: what it tells people is written down, and so are the errors that nobody caught. */
export async function watch(context: BrowserContext, errors: Error[]): Promise<void> {
  context.on('weberror', (webError) => void errors.push(webError.error()))
  // From the start: switched on together with the key that opens the chooser, it would now and then come too late.
  context.on('page', (page) => void page.on('filechooser', () => {}))
  await context.addInitScript(recordWords)
}

function recordWords(): void {
  const said: string[] = []
  const last = new WeakMap<Element, string>()
  Object.assign(globalThis, { said })
  const look = (): void => {
    for (const node of document.querySelectorAll('#news, .card .status, #warnings li')) {
      const text = node.textContent?.trim() ?? ''
      if (text === '' || last.get(node) === text) continue
      last.set(node, text)
      const name = node.closest('.card')?.querySelector('.name')?.textContent
      said.push(name === undefined ? text : `${name}: ${text}`)
    }
  }
  new MutationObserver(look).observe(document, { subtree: true, childList: true, characterData: true })
}

/** What the page has told people since it was loaded. */
export const saidBy = (page: Page): Promise<string[]> =>
  page.evaluate(() => (globalThis as unknown as { said: string[] }).said)

/** Opens the demo's page and waits until it is signed in and has read its journal. */
export async function visit(context: BrowserContext, story: Story): Promise<Page> {
  const page = await context.newPage()
  await load(page, story)
  return page
}

export async function load(page: Page, story: Story): Promise<void> {
  const listed = page.waitForResponse((answer) => answer.url().endsWith('/api/files'))
  await page.goto(story.proxy.origin)
  await listed
}

export const pick = (page: Page, ...files: readonly MadeFile[]): Promise<void> =>
  page.locator('#pick').setInputFiles(files.map(({ path }) => path))

export const nameOf = ({ path }: MadeFile): string => basename(path)

/** The card of an upload that is on its way, or that ended without a reference. */
export const cardOf = (page: Page, file: MadeFile): Locator =>
  page.locator('#uploads > .card').filter({ has: page.getByText(nameOf(file), { exact: true }) })

/** The entry of a file that has arrived. */
export const storedOf = (page: Page, file: MadeFile): Locator =>
  page.locator('#files > .card').filter({ has: page.getByText(nameOf(file), { exact: true }) })

export const buttonOf = (page: Page, label: string, file: MadeFile): Locator =>
  page.getByRole('button', { name: `${label} ${nameOf(file)}`, exact: true })

/** The page says that all these files have arrived, and shows nothing else. */
export async function expectArrivedOn(page: Page, files: readonly MadeFile[], timeout = 60_000): Promise<void> {
  await expect(page.locator('#files > .card')).toHaveCount(files.length, { timeout })
  for (const file of files) await expect(storedOf(page, file)).toHaveCount(1)
  await expect(page.locator('#uploads > .card')).toHaveCount(0, { timeout })
}

/** What the browser has kept of its uploads. */
export function journalOf(page: Page): Promise<{ id: string; copy: string; point: string; paused: boolean }[]> {
  return page.evaluate(
    () =>
      new Promise((resolve, reject) => {
        const opening = indexedDB.open('landfall-journal')
        opening.addEventListener('error', () => reject(new Error('no journal')))
        opening.addEventListener('success', () => {
          const database = opening.result
          const asking = database.transaction('operations').objectStore('operations').getAll()
          asking.addEventListener('success', () => {
            database.close()
            // Whose they are is there too, and in the place of a record that was removed when that was.
            const records = asking.result.filter((each) => 'standing' in each)
            resolve(records.map(({ id, copy, paused, standing }) => ({ id, copy, paused, point: standing.point })))
          })
        })
      }),
  )
}

/** How many files the browser has copied. */
export function copiesOf(page: Page): Promise<number> {
  return page.evaluate(
    () =>
      new Promise<number>((resolve, reject) => {
        const opening = indexedDB.open('landfall-copies')
        opening.addEventListener('error', () => reject(new Error('no copies')))
        opening.addEventListener('success', () => {
          const counting = opening.result.transaction('files').objectStore('files').count()
          counting.addEventListener('success', () => {
            opening.result.close()
            resolve(counting.result)
          })
        })
      }),
  )
}

/** `kill -9` of the page's own process. */
export async function killPage(page: Page): Promise<void> {
  const crashed = page.waitForEvent('crash')
  const session = await page.context().newCDPSession(page)
  // It has nobody to answer.
  session.send('Page.crash').catch(() => {})
  await crashed
  await page.close()
}

const SHOTS = join(repository, 'e2e/test-results/screenshots')

/** A picture of the page in a state, for people to look at. */
export const shot = (page: Page, name: string): Promise<Buffer> =>
  page.screenshot({ path: join(SHOTS, `${name}.png`), fullPage: true })
