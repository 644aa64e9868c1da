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

/** SWEEP_SEED sets another seed, which gives another sample. `npm run sweep` runs all moments. */
const seed = Number(process.env['SWEEP_SEED'] ?? '1')

test('no invariant breaks if a server is killed around its external calls, once or twice, also with a loss of power', async () => {
  const report = await sweep(browser, { sample: 84, seed, parallel: 2 })
  process.stdout.write(`sweep, seed ${seed}: ${summary(report)}\n`)
  expect(report.results.filter(({ outcome }) => outcome === 'bad').map(inWords)).toEqual([])
  expect(report.results.filter(({ outcome }) => outcome === 'ok').length).toBeGreaterThanOrEqual(80)
  // The sample contains every kind of call: statements, files and answers.
  const swept = new Set(report.results.filter(({ outcome }) => outcome === 'ok').map(({ kill }) => kindOf(kill)))
  expect(report.kinds.filter((kind) => !swept.has(kind))).toEqual([])
  expect(report.kinds.length).toBeGreaterThan(30)
}, 600_000)

test('no invariant breaks if a page is killed around its journal writes and requests, and its user gets no false answer', async () => {
  const report = await sweepClient({ sample: 24, seed, parallel: 4 })
  process.stdout.write(`client sweep, seed ${seed}: ${clientSummary(report)}\n`)
  expect(report.results.filter(({ outcome }) => outcome === 'bad').map(describeClient)).toEqual([])
  expect(report.results.filter(({ outcome }) => outcome === 'ok').length).toBeGreaterThanOrEqual(20)
}, 600_000)
