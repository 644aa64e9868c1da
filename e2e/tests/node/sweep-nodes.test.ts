import { type Browser, chromium } from '@playwright/test'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { launchOptions } from '../../ground/chromium.js'
import { groundMissing } from '../../ground/ground.js'
import { describe as inWords, summary, sweep } from '../../sweep/main.js'
import { kindOf } from '../../sweep/runs.js'

const missing = await groundMissing()
/** SWEEP_SEED sets another seed. `npm run sweep -- nodes` runs all moments. */
const seed = Number(process.env['SWEEP_SEED'] ?? '1')
/** These calls change nothing, so a kill around one is the same as a kill after the call before it. */
const onlyReads = (kind: string): boolean => kind.startsWith('sql SELECT')

describe.skipIf(missing !== null)(`sweep of nodes${missing === null ? '' : ` (${missing})`}`, () => {
  let browser: Browser
  beforeAll(async () => {
    browser = await chromium.launch(launchOptions())
  })
  afterAll(() => browser.close())

  test('no invariant breaks if one of three nodes is killed around its calls to PostgreSQL and S3', async () => {
    const report = await sweep(browser, {
      programs: ['nodes'],
      // The other scenarios make no statement and no call that is not also made in these.
      scenarios: ['a file of three chunks', 'cancelled after a part', 'a stock client'],
      sample: 26,
      seed,
      parallel: 1,
      only: ({ kill, variant }) => !onlyReads(kindOf(kill)) && !(variant.again && onlyReads(kindOf(variant.again))),
    })
    process.stdout.write(`sweep of nodes, seed ${seed}: ${summary(report)}\n`)
    expect(report.results.filter(({ outcome }) => outcome === 'bad').map(inWords)).toEqual([])
    const swept = new Set(report.results.filter(({ outcome }) => outcome === 'ok').map(({ kill }) => kindOf(kill)))
    // The sample contains every kind of statement and of call to the store.
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
