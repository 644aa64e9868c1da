import { existsSync } from 'node:fs'
import { launch } from 'puppeteer-core'
import { temporaryDirectory } from '../files.js'
import type { Engine } from './engine.js'

/**
 * Where Linux distributions install it. `npm test` searches further, installs it if necessary and sets `FIREFOX_PATH`.
 */
const USUAL_PLACES = ['/usr/bin/firefox-esr', '/usr/bin/firefox']

/** The Firefox that the tests use. Undefined means that there is none. */
export const firefoxPath = (): string | undefined =>
  process.env['FIREFOX_PATH'] ?? USUAL_PLACES.find((path) => existsSync(path))

/** The browser sends no requests of its own, because tests count requests. */
const PREFERENCES = {
  'app.normandy.enabled': false,
  'network.captive-portal-service.enabled': false,
  'network.connectivity-service.enabled': false,
}

/**
 * Starts Firefox with a profile on the disk, driven by puppeteer-core (WebDriver BiDi), because Playwright drives only
 * its own build of Firefox.
 */
export async function launchFirefox(executablePath: string): Promise<Engine> {
  const profile = await temporaryDirectory('landfall-firefox-')
  const browser = await launch({
    browser: 'firefox',
    executablePath,
    headless: true,
    userDataDir: profile.path,
    defaultViewport: null,
    protocolTimeout: 60_000,
    extraPrefsFirefox: PREFERENCES,
  })
  return {
    name: 'Firefox',
    async open(url) {
      const page = await browser.newPage()
      const errors: string[] = []
      page.on('pageerror', (error) => errors.push(error instanceof Error ? error.message : String(error)))
      await page.goto(url, { waitUntil: 'load' })
      return {
        errors,
        reload: async () => void (await page.reload({ waitUntil: 'load' })),
        async pick(selector, ...paths) {
          const input = await page.$(selector)
          const element = await input?.toElement('input')
          if (element === undefined) throw new Error(`there is no ${selector}`)
          await element.uploadFile(...paths)
        },
        click: (selector) => page.click(selector),
        run: async <T>(body: string) => (await page.evaluate(`(async () => { ${body} })()`)) as T,
        close: () => page.close(),
      }
    },
    async close() {
      await browser.close()
      await profile.remove()
    },
  }
}
