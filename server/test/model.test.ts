import * as fc from 'fast-check'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { blobStoreContract } from '../src/contract/index.js'
import { type ModelDatabase, openModelDatabase } from './model/database.js'
import { describeFound, pairs, singles, type Tally } from './model/enumerate.js'
import { createDisk } from './model/memory-blobs.js'
import { createHolderName } from './model/modules.js'
import { histories } from './model/random.js'
import { SCENARIOS } from './model/scenarios.js'

/** With `LANDFALL_MODEL=full` all pairs run, with `singles` none, and otherwise this number for each scenario. */
const mode = process.env['LANDFALL_MODEL']
const PAIRS =
  mode === 'full'
    ? Number.POSITIVE_INFINITY
    : mode === 'singles'
      ? 0
      : Number(process.env['LANDFALL_MODEL_PAIRS'] ?? 12)
const RUNS = mode === 'full' ? 2_000 : mode === 'singles' ? 0 : 60
const SEED = Number(process.env['LANDFALL_MODEL_SEED'] ?? 20_261_124)
const LIMIT_MS = 24 * 60 * 60_000

describe.each([
  { exclusive: true, name: 'of one process' },
  { exclusive: false, name: 'of several' },
])('the disk of the model, $name, keeps the contract of a blob store', ({ exclusive }) =>
  blobStoreContract(test, async () => {
    const disk = createDisk()
    const open = async (identity: string, store: 'new' | 'known') => {
      const session = disk.session(new AbortController().signal, { exclusive, checkpoints: false })
      await session.open(identity, store)
      return session
    }
    return {
      store: await open('ledger-1', 'new'),
      holder: createHolderName(),
      reopen: (identity = 'ledger-1') => open(identity, 'known'),
      dispose: async () => {},
    }
  }),
)

describe('the invariants hold', () => {
  let database: ModelDatabase
  const tally: Tally = { histories: 0, found: [] }

  beforeAll(async () => {
    database = await openModelDatabase()
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'performance'] })
  })
  afterEach(() => void tally.found.splice(0))
  afterAll(async () => {
    vi.useRealTimers()
    process.stdout.write(`model: ${tally.histories} histories\n`)
    await database.close()
  })

  for (const scenario of SCENARIOS)
    test(
      `${scenario.name}: every fault, and pairs of faults`,
      async () => {
        const before = tally.histories
        const firsts = await singles(database, scenario, tally)
        const alone = tally.histories - before
        await pairs(database, scenario, firsts, { most: PAIRS, seed: SEED }, tally)
        process.stdout.write(
          `model: ${scenario.name}: ${alone} single faults, ${tally.histories - before - alone} pairs\n`,
        )
        expect(tally.found.slice(0, 10).map(describeFound)).toEqual([])
      },
      LIMIT_MS,
    )

  test(
    `random histories of several uploads, seed ${SEED}`,
    async () => {
      await fc.assert(histories(database, tally), { seed: SEED, numRuns: RUNS })
    },
    LIMIT_MS,
  )
})
