import { chromium } from '@playwright/test'
import { launchOptions } from './dist/src/chromium.js'
import { openWorld } from './dist/src/sweep/world.js'
const browser = await chromium.launch(launchOptions())
const w = await openWorld()
const { page } = await w.visit(browser)
page.on('console', (m) => console.log('console', m.text()))
page.on('pageerror', (e) => console.log('pageerror', e))
const id = await page.evaluate(() => swept.add(3 * 1024 * 1024, 5))
await new Promise((r) => setTimeout(r, 4000))
console.log(
  await page.evaluate(() => JSON.stringify(swept.known())),
  await page.evaluate((id) => swept.accepted(id), id),
)
for (const r of w.proxy.requests)
  console.log(
    r.method,
    r.path,
    r.status,
    r.bodyBytes,
    JSON.stringify(r.answerHeaders).slice(0, 200),
    r.answerStart.toString().slice(0, 300),
  )
console.log(w.server.output().slice(-1500))
await w.close()
await browser.close()
