import { createHash } from 'node:crypto'
import type { Page } from '@playwright/test'
import type { Swept } from './swept.js'
import { sweptBytes } from './bytes.js'
import type { Known } from './invariants.js'

declare const swept: Swept

/** What one run does, from a real page unless it says otherwise. */
export interface Scenario {
  readonly name: string
  readonly sizeBytes: number
  /** Begins, and answers the operation's id. */
  begin(page: Page, seed: number): Promise<string>
  /** What the user is told in the end. */
  told(page: Page, id: string): Promise<Known['told']>
  /** Ends without a reference, with this problem. */
  readonly doomed?: string
}

const told = async (page: Page, id: string): Promise<Known['told']> =>
  (await page.evaluate((which) => swept.settled(which), id)).ok ? 'success' : 'failure'

const upload = (name: string, sizeBytes: number): Scenario => ({
  name,
  sizeBytes,
  begin: (page, seed) => page.evaluate(([size, which]) => swept.add(size, which), [sizeBytes, seed] as const),
  told,
})

const KIB = 1024
const MIB = 1024 * KIB

export const SCENARIOS: readonly Scenario[] = [
  upload('a small file', 10 * KIB),
  upload('an empty file', 0),
  // Three chunks: 256 KiB, 512 KiB, the rest.
  upload('a file of three chunks', 3 * MIB),
  {
    ...upload('a file with another digest', 100 * KIB),
    doomed: 'digest-mismatch',
    begin: (page, seed) => page.evaluate(([size, which]) => swept.addWrong(size, which), [100 * KIB, seed] as const),
  },
  {
    ...upload('cancelled on the way', 3 * MIB),
    doomed: 'cancelled',
    async begin(page, seed) {
      const id = await page.evaluate(([size, which]) => swept.add(size, which), [3 * MIB, seed] as const)
      // Whenever that is: the server may die before.
      void page
        .waitForFunction((which) => swept.accepted(which) > 0, id, { polling: 5 })
        .then(() => page.evaluate((which) => swept.cancel(which), id))
        .catch(() => {})
      return id
    },
  },
]

export const digestOf = (sizeBytes: number, seed: number): string =>
  createHash('sha256').update(sweptBytes(sizeBytes, seed)).digest('hex')
