import { type Browser, chromium } from '@playwright/test'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { runChaos } from '../../chaos/chaos.js'
import { LINE_FAULTS } from '../../chaos/line-faults.js'
import { lookAtMachine } from '../../chaos/machine.js'
import { NODES_FAULTS } from '../../chaos/nodes-faults.js'
import { nodesSystem } from '../../chaos/system.js'
import { markdown } from '../../chaos/table.js'
import { launchOptions } from '../../ground/chromium.js'
import { groundMissing } from '../../ground/ground.js'
import { expectNobodyMisled } from './chaos-verdict.js'

const missing = await groundMissing()
/** Another one by CHAOS_SEED. `npm run chaos -- --system nodes` runs longer. */
const seed = Number(process.env['CHAOS_SEED'] ?? '1')
const DURATION_MS = 60_000

describe.skipIf(missing !== null)(`chaos on nodes${missing === null ? '' : ` (${missing})`}`, () => {
  let browser: Browser
  beforeAll(async () => {
    browser = await chromium.launch(launchOptions())
  })
  afterAll(() => browser.close())

  test('three nodes on PostgreSQL and S3, all of which die and come back, tell nobody what is not so', async () => {
    const report = await runChaos({
      system: nodesSystem(),
      seed,
      durationMs: DURATION_MS,
      machine: await lookAtMachine(),
      browser,
      // Those of the line to the clients strike in the chaos of one server, too.
      without: LINE_FAULTS.map(({ name }) => name),
      wholeRound: true,
    })
    process.stdout.write(`${markdown([report])}\n`)
    expectNobodyMisled(report)
    expect(Object.keys(report.faults)).toHaveLength(NODES_FAULTS.length - LINE_FAULTS.length)
  }, 900_000)
})
