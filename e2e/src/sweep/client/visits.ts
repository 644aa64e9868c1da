import { join } from 'node:path'
import type { BrowserContext, Page } from '@playwright/test'
import { openProfile, renderersOf } from '../../chromium.js'
import { temporaryDirectory } from '../../files.js'
import { repository } from '../../landfall.js'
import type { Desk } from './desk.js'
import type { Moment, StoredRecord, SweptPage, Wanted } from './swept-page.js'

declare const swept: SweptPage
declare const sweep: { moments: Moment[] }

/** One page of the user's browser, from its opening to its end. */
export interface Visit {
  journal(): Promise<StoredRecord[]>
  forget(): Promise<void>
  begin(wanted: Wanted): void
  /** Those that were reached; only while it lives. */
  moments(): Promise<Moment[]>
  /** Resolves when its process was killed at the planned moment. */
  readonly died: Promise<void>
}

/** A user's browser with its profile; one page at a time. */
export interface Visitor {
  /** Opens the page anew; the one before is over. `kill`: where it is killed. */
  visit(kill: Moment | null): Promise<Visit>
  close(): Promise<void>
}

const PRELOAD = join(repository, 'e2e/src/sweep/client/page-preload.js')

export async function openVisitor(origin: string, desk: Desk): Promise<Visitor> {
  const home = await temporaryDirectory('landfall-sweep-profile-')
  const context: BrowserContext = await openProfile(home.path)
  await context.addInitScript({ path: PRELOAD })
  let current: Page | null = context.pages()[0] ?? null
  let isDead = false

  /** Its only page stands still; a spare process that Chromium keeps ready holds none. */
  const killPage = (): void => {
    isDead = true
    for (const pid of renderersOf(home.path)) process.kill(pid, 'SIGKILL')
  }

  return {
    async visit(kill) {
      const before = current
      const page = before !== null && !isDead ? before : await context.newPage()
      current = page
      if (isDead) await before?.close()
      isDead = false
      desk.plan = kill
      const died = new Promise<void>((resolve, reject) => {
        const crashed = new Promise<void>((gone) => page.once('crash', () => gone()))
        desk.onStopped = () => {
          try {
            killPage()
            void crashed.then(resolve)
          } catch (error) {
            reject(error instanceof Error ? error : new Error(String(error)))
          }
        }
      })
      await page.goto(origin)
      await page.waitForFunction(() => 'swept' in globalThis)
      return {
        died,
        journal: () => page.evaluate(() => swept.journal()),
        forget: () => page.evaluate(() => swept.forget()),
        // It may die on the way: whoever looks at `died` knows.
        begin: (wanted) => void page.evaluate((what) => swept.begin(what), wanted).catch(() => {}),
        moments: () => page.evaluate(() => sweep.moments),
      }
    },
    async close() {
      await context.close()
      await home.remove()
    },
  }
}
