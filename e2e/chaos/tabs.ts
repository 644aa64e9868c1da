import { setTimeout as sleep } from 'node:timers/promises'
import type { Browser, Page } from '@playwright/test'
import { visitPage } from '../clients/page.js'
import type { Swept } from '../clients/swept.js'
import { createTurns } from '../ground/turns.js'
import type { Operation } from './operation.js'
import type { PlannedClient } from './plan.js'

declare const swept: Swept

export interface TabContext {
  readonly browser: Browser
  readonly origin: string
  /** Resolves at that time of the run. */
  until(atMs: number): Promise<void>
}

/**
 * Runs a tab with our own client, from its first file until its user was told all outcomes, or until the tab is gone
 * permanently.
 */
export async function runTab(
  { browser, origin, until }: TabContext,
  { fate, leavesAfterMs, awayMs, operations: planned }: PlannedClient,
  operations: readonly Operation[],
): Promise<void> {
  await until(planned[0]?.atMs ?? 0)
  await inTurn(async () => {
    const context = await browser.newContext()
    context.setDefaultTimeout(PATIENCE_MS)
    try {
      let page = await visitPage(context, { origin })
      const following = operations.map(async (operation) => {
        await until(operation.planned.atMs)
        await begin(page, operation)
        await follow(page, operation)
      })
      if (fate === 'stays') return void (await Promise.all(following))

      await until((planned.at(-1)?.atMs ?? 0) + leavesAfterMs)
      await page.close()
      await Promise.all(following)
      for (const operation of operations) operation.attended = false
      if (fate === 'vanishes') return
      await sleep(awayMs)
      page = await visitPage(context, { origin })
      await Promise.all(operations.map((operation) => goOn(page, operation)))
    } finally {
      await context.close()
    }
  })
}

/** On a busy machine tabs start later, so that not more and more run at once. */
const MOST_TABS = 6
const PATIENCE_MS = 300_000
const inTurn = createTurns(MOST_TABS)

/** A tab may be closed at any moment. What it reported at that moment is unknown, and the result is null. */
const orGone = <T>(asked: Promise<T>): Promise<T | null> =>
  asked.catch((error: unknown) => {
    if (error instanceof Error && /closed|destroyed/.test(error.message)) return null
    throw error
  })

async function begin(page: Page, operation: Operation): Promise<void> {
  const { sizeBytes, contentSeed } = operation.planned
  const id = await orGone(page.evaluate(([size, seed]) => swept.add(size, seed), [sizeBytes, contentSeed] as const))
  if (id === null) return
  operation.id = id
  operation.fileIds.add(id)
  operation.startedAtMs = performance.now()
  operation.attended = true
}

async function follow(page: Page, operation: Operation): Promise<void> {
  const { id, planned } = operation
  if (id === '') return
  const told = orGone(page.evaluate((which) => swept.settled(which), id))
  if (planned.cancelAfterMs !== null) {
    await Promise.race([told, sleep(planned.cancelAfterMs)])
    // The user was told already, and there is nothing left to cancel.
    await orGone(page.evaluate((which) => swept.cancel(which).catch(() => {}), id)).catch(() => null)
  }
  const outcome = await told
  if (outcome === null) return
  const type = outcome.problem?.type ?? ''
  operation.told = outcome.ok
    ? 'success'
    : planned.cancelAfterMs !== null && type.includes('cancelled')
      ? 'cancelled'
      : 'failure'
  operation.why = type
}

/** Continues in the tab that came back. What its journal does not know was told before, or was never stored. */
async function goOn(page: Page, operation: Operation): Promise<void> {
  const { id, told, planned } = operation
  if (id === '' || told !== null) return
  const known = await page.evaluate(() => swept.known())
  if (!known.some((upload) => upload.id === id)) return
  operation.attended = true
  const { sizeBytes, contentSeed } = planned
  await page.evaluate(([which, size, seed]) => swept.pickAgain(which, size, seed), [
    id,
    sizeBytes,
    contentSeed,
  ] as const)
  await follow(page, operation)
}
