import { createHash } from 'node:crypto'
import type { Page } from '@playwright/test'
import { OWNER } from '../clients/page.js'
import { uploadByTus } from '../clients/tus.js'
import { OWNER_HEADER } from '../programs/landfall.js'
import { sweptBytes } from '../clients/bytes.js'
import type { Known } from './invariants.js'
import type { Swept } from '../clients/swept.js'

declare const swept: Swept

/**
 * The program that is swept: `landfall serve`, an application that embeds Landfall, or three nodes on PostgreSQL and
 * S3.
 */
export type Program = 'serve' | 'app' | 'nodes'

/** Where a run takes place. */
export interface Place {
  readonly page: Page
  /** The origin of the server, through the proxy. */
  readonly origin: string
}

export interface Begun {
  readonly id: string
  /** What the user is told at the end. */
  readonly told: Promise<Known['told']>
  /** For a client that is not a page: it goes away and never comes back. */
  leave?(): void
}

/** What one run does. */
export interface Scenario {
  readonly name: string
  readonly sizeBytes: number
  /** Default: `landfall serve`, alone and as one of several nodes. `app`, `nodes`: only with that program. */
  readonly program?: Program
  begin(place: Place, seed: number): Promise<Begun>
  /** The upload ends without a reference and with this problem. */
  readonly doomed?: string
  /** The user takes the reference back. */
  readonly removable?: boolean
}

const KIB = 1024
const MIB = 1024 * KIB

const settled = async (page: Page, id: string): Promise<Known['told']> =>
  (await page.evaluate((which) => swept.settled(which), id)).ok ? 'success' : 'failure'

async function add({ page }: Place, sizeBytes: number, seed: number): Promise<Begun> {
  const id = await page.evaluate(([size, which]) => swept.add(size, which), [sizeBytes, seed] as const)
  return { id, told: settled(page, id) }
}

const upload = (name: string, sizeBytes: number): Scenario => ({
  name,
  sizeBytes,
  begin: (place, seed) => add(place, sizeBytes, seed),
})

const cancelled = (name: string, sizeBytes: number, behindBytes: number): Scenario => ({
  name,
  sizeBytes,
  doomed: 'cancelled',
  async begin(place, seed) {
    const begun = await add(place, sizeBytes, seed)
    // This is not awaited, because the server may die before the condition holds.
    void place.page
      .waitForFunction(([which, least]) => swept.accepted(which) > least, [begun.id, behindBytes] as const, {
        polling: 5,
      })
      .then(() => place.page.evaluate((which) => swept.cancel(which), begun.id))
      .catch(() => {})
    return begun
  },
})

/** Enough attempts for the longest run. */
const RETRY_DELAYS_MS = Array.from({ length: 150 }, () => 200)

/** tus-js-client, unmodified but patient: one creation, and one PATCH with the whole file. */
async function stock({ origin }: Place, sizeBytes: number, seed: number): Promise<Begun> {
  const id = crypto.randomUUID()
  const { upload: sending, told } = uploadByTus(Buffer.from(sweptBytes(sizeBytes, seed)), {
    endpoint: `${origin}/uploads/files`,
    headers: { [OWNER_HEADER]: OWNER },
    metadata: { operationId: id, filename: `${seed}.bin` },
    retryDelays: RETRY_DELAYS_MS,
  })
  const success = async (): Promise<Known['told']> => {
    const { success: isSuccess, why } = await told
    if (!isSuccess) throw new Error(why ?? 'the stock client failed')
    return 'success'
  }
  return { id, told: success(), leave: () => void sending.abort() }
}

const SCENARIOS: readonly Scenario[] = [
  upload('a small file', 10 * KIB),
  upload('an empty file', 0),
  // Three chunks: 256 KiB, 512 KiB and the rest.
  upload('a file of three chunks', 3 * MIB),
  {
    name: 'a file with another digest',
    sizeBytes: 100 * KIB,
    doomed: 'digest-mismatch',
    async begin({ page }, seed) {
      const id = await page.evaluate(([size, which]) => swept.addWrong(size, which), [100 * KIB, seed] as const)
      return { id, told: settled(page, id) }
    },
  },
  cancelled('cancelled on the way', 3 * MIB, 0),
  // At that point an upload to an object store has stored parts.
  { ...cancelled('cancelled after a part', 64 * MIB, 8 * MIB), program: 'nodes' },
  // One request, in which the server acknowledges bytes every 16 MiB while they arrive.
  { name: 'a stock client', sizeBytes: 20 * MIB, begin: (place, seed) => stock(place, 20 * MIB, seed) },
  { ...upload('in an application', 10 * KIB), program: 'app' },
  {
    name: 'taken back',
    removable: true,
    sizeBytes: 10 * KIB,
    program: 'app',
    async begin(place, seed) {
      const { id, told } = await add(place, 10 * KIB, seed)
      const removed = async (): Promise<Known['told']> => {
        if ((await told) !== 'success') return 'failure'
        await place.page.evaluate((which) => swept.remove(which), id)
        return 'removed'
      }
      return { id, told: removed() }
    },
  },
]

const isOf = (program: Program, { program: own }: Scenario): boolean =>
  own === undefined ? program !== 'app' : own === program

export const scenariosOf = (program: Program): readonly Scenario[] => SCENARIOS.filter((one) => isOf(program, one))

export const digestOf = (sizeBytes: number, seed: number): string =>
  createHash('sha256').update(sweptBytes(sizeBytes, seed)).digest('hex')
