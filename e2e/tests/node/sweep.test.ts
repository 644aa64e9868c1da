import { type Browser, chromium } from '@playwright/test'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { launchOptions } from '../../ground/chromium.js'
import { clientSummary, describeClient, sweepClient } from '../../sweep/client/main.js'
import { describe as inWords, summary, sweep } from '../../sweep/main.js'
import { kindOf } from '../../sweep/runs.js'

let browser: Browser
beforeAll(async () => {
  browser = await chromium.launch(launchOptions())
})
afterAll(() => browser.close())

/** Another one by SWEEP_SEED: what one sample passes by, the next may find. `npm run sweep` runs all. */
const seed = Number(process.env['SWEEP_SEED'] ?? '1')

test('a server that is killed around its external calls, twice, and with its power lost, breaks no invariant', async () => {
  const report = await sweep(browser, { sample: 84, seed, parallel: 2 })
  process.stdout.write(`sweep, seed ${seed}: ${summary(report)}\n`)
  expect(report.results.filter(({ outcome }) => outcome === 'bad').map(inWords)).toEqual([])
  expect(report.results.filter(({ outcome }) => outcome === 'ok').length).toBeGreaterThanOrEqual(80)
  // Every kind of call is among them: statements, files, answers.
  const swept = new Set(report.results.filter(({ outcome }) => outcome === 'ok').map(({ kill }) => kindOf(kill)))
  expect(report.kinds.filter((kind) => !swept.has(kind))).toEqual([])
  expect(report.kinds.length).toBeGreaterThan(30)
}, 600_000)

test('a page that is killed around its journal writes and requests breaks no invariant, and its user is told the truth', async () => {
  const report = await sweepClient({ sample: 24, seed, parallel: 4 })
  process.stdout.write(`client sweep, seed ${seed}: ${clientSummary(report)}\n`)
  expect(report.results.filter(({ outcome }) => outcome === 'bad').map(describeClient)).toEqual([])
  expect(report.results.filter(({ outcome }) => outcome === 'ok').length).toBeGreaterThanOrEqual(20)
}, 600_000)
