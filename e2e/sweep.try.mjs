import { chromium } from '@playwright/test'
import { launchOptions } from './dist/src/chromium.js'
import { openLane } from './dist/src/sweep/run.js'
import { SCENARIOS } from './dist/src/sweep/scenarios.js'
const browser = await chromium.launch(launchOptions())
const lane = await openLane(browser, 1000)
const every = Number(process.argv[2] ?? 10)
let n = 0
for (const scenario of SCENARIOS) {
  const { points, starting } = await lane.record(scenario)
  const chosen = points.filter(({ nth }) => nth <= 2)
  console.log(scenario.name, points.length, starting.length, chosen.length)
  for (const p of chosen)
    for (const when of ['before', 'after']) {
      if (n++ % every !== 0) continue
      const variant = [
        { client: 'retries' },
        { client: 'gone' },
        { client: 'retries', power: 'cut' },
        { client: 'gone', power: 'zero' },
      ][((n / every) | 0) % 4]
      const r = await lane.run(scenario, { ...p, when }, variant)
      console.log(
        r.outcome,
        Math.round(r.tookMs),
        JSON.stringify(variant),
        when,
        p.nth,
        p.name.slice(0, 90),
        r.violations.join('\n').slice(0, 1500),
        r.losses === null
          ? ''
          : JSON.stringify({ f: r.losses.files.length, n: r.losses.names.length, w: r.losses.walBytes }),
      )
    }
}
await lane.close()
await browser.close()
