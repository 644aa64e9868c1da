import { type Browser, chromium } from '@playwright/test'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { launchOptions } from '../../ground/chromium.js'
import { groundMissing } from '../../ground/ground.js'
import { describe as inWords, summary, sweep } from '../../sweep/main.js'
import { kindOf } from '../../sweep/runs.js'

const missing = await groundMissing()
/** Another one by SWEEP_SEED. `npm run sweep -- nodes` runs all. */
const seed = Number(process.env['SWEEP_SEED'] ?? '1')
/** It leaves everything as it is: a kill around it is one after the call before. */
const onlyReads = (kind: string): boolean => kind.startsWith('sql SELECT')

describe.skipIf(missing !== null)(`sweep of nodes${missing === null ? '' : ` (${missing})`}`, () => {
  let browser: Browser
  beforeAll(async () => {
    browser = await chromium.launch(launchOptions())
  })
  afterAll(() => browser.close())

  test('one of three nodes that is killed around its calls to PostgreSQL and S3 breaks no invariant', async () => {
    const report = await sweep(browser, {
      programs: ['nodes'],
      // Of all others nothing is said or asked that is not among these.
      scenarios: ['a file of three chunks', 'cancelled after a part', 'a stock client'],
      sample: 26,
      seed,
      parallel: 1,
      only: ({ kill, variant }) => !onlyReads(kindOf(kill)) && !(variant.again && onlyReads(kindOf(variant.again))),
    })
    process.stdout.write(`sweep of nodes, seed ${seed}: ${summary(report)}\n`)
    expect(report.results.filter(({ outcome }) => outcome === 'bad').map(inWords)).toEqual([])
    const swept = new Set(report.results.filter(({ outcome }) => outcome === 'ok').map(({ kill }) => kindOf(kill)))
    // Every kind of statement and of call to the store is among them.
    expect(report.kinds.filter((kind) => !swept.has(kind) && !onlyReads(kind))).toEqual([])
    expect([...swept].filter((kind) => kind.startsWith('sql')).length).toBeGreaterThanOrEqual(7)
    expect([...swept]).toEqual(
      expect.arrayContaining([
        'PutObject blobs',
        'PutObject tails',
        'CreateMultipartUpload blobs',
        'UploadPart blobs',
        'CompleteMultipartUpload blobs',
        'HeadObject blobs',
        'AbortMultipartUpload blobs',
        'DeleteObject tails',
      ]),
    )
  }, 600_000)
})
