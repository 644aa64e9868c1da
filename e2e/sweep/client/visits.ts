import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import type { BrowserContext, Page } from '@playwright/test'
import { killBrowser, openProfile, renderersOf } from '../../ground/chromium.js'
import { temporaryDirectory } from '../../ground/files.js'
import { repository } from '../../ground/repository.js'
import type { Desk } from './desk.js'
import { TooLate, within } from '../../ground/patience.js'
import type { Moment, StoredRecord, SweptPage, Wanted } from '../../clients/swept-page.js'

declare const swept: SweptPage
declare const sweep: { moments: Moment[] }

/** One page of the user's browser, from its opening to its end. */
export interface Visit {
  /** The journal as the page found it. */
  readonly journal: readonly StoredRecord[]
  forget(): Promise<void>
  begin(wanted: Wanted): void
  /** The moments that were reached. Only to be called while the page lives. */
  moments(): Promise<Moment[]>
  /** Resolves when the page's process was killed at the planned moment. */
  readonly died: Promise<void>
}

/** The browser opens no page that works. */
export class NoPage extends Error {}
const OPENINGS = 10
/** If the process of a page does not start, Chromium reports nothing. */
const OPENING_MS = 40_000

/** A user's browser with its profile. It has one page at a time. */
export interface Visitor {
  /** Opens the page again after the previous one has ended. `kill` is the moment at which it is killed. */
  visit(kill: Moment | null): Promise<Visit>
  close(): Promise<void>
}

/** A limit for calls that hang. */
const PATIENCE_MS = 30_000
const asked = <T>(work: Promise<T>, what: string): Promise<T> => within(work, PATIENCE_MS, what)

const PRELOAD = join(repository, 'e2e/sweep/client/page-preload.js')

export async function openVisitor(origin: string, desk: Desk): Promise<Visitor> {
  const home = await temporaryDirectory('landfall-sweep-profile-')
  const context: BrowserContext = await openProfile(home.path)
  await context.addInitScript({ path: PRELOAD })
  let current: Page | null = context.pages()[0] ?? null
  let isDead = false

  /**
   * Kills all processes for pages. The only page is blocked at its moment, and the spare processes that Chromium keeps
   * for the next page contain none.
   */
  async function killPage(page: Page): Promise<void> {
    const crashed = new Promise<void>((resolve) => page.once('crash', () => resolve()))
    isDead = true
    for (const pid of renderersOf(home.path)) process.kill(pid, 'SIGKILL')
    await asked(crashed, 'the end of a killed page')
  }

  async function openPage(): Promise<Page> {
    const before = current
    const page = before !== null && !isDead ? before : await context.newPage()
    current = page
    // If the process of a page is gone, closing the page may never end.
    if (isDead) void before?.close().catch(() => {})
    isDead = false
    await page.goto(origin)
    await page.waitForFunction(() => 'swept' in globalThis)
    return page
  }

  /**
   * The browser may use for a new page one of the spare processes that were killed too. Then this opens another page.
   */
  async function openLivingPage(): Promise<{ page: Page; journal: StoredRecord[] }> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        const page = await within(openPage(), OPENING_MS, 'a page')
        return {
          page,
          journal: await asked(
            page.evaluate(() => swept.journal()),
            'the journal',
          ),
        }
      } catch (error) {
        if (error instanceof TooLate) throw new NoPage(error.message)
        if (!String(error).includes('crashed')) throw error
        if (attempt === OPENINGS) throw new NoPage(String(error))
        isDead = true
        await pause(200 * attempt)
      }
    }
  }

  return {
    async visit(kill) {
      desk.plan = kill
      const { page, journal } = await openLivingPage()
      const died = new Promise<void>((resolve, reject) => {
        desk.onStopped = () => void killPage(page).then(resolve, reject)
      })
      died.catch(() => {})
      return {
        died,
        journal,
        forget: () =>
          asked(
            page.evaluate(() => swept.forget()),
            'forgetting',
          ),
        // The page may be killed while this runs. `died` reports that.
        begin: (wanted) => void page.evaluate((what) => swept.begin(what), wanted).catch(() => {}),
        moments: () =>
          asked(
            page.evaluate(() => sweep.moments),
            'the moments',
          ),
      }
    },
    async close() {
      await asked(context.close(), 'the end of the browser').catch(() => killBrowser(home.path))
      await home.remove()
    },
  }
}
