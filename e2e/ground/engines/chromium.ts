import { openProfile } from '../chromium.js'
import { temporaryDirectory } from '../files.js'
import type { Engine } from './engine.js'

/** Starts Chromium with a profile on the disk, driven by Playwright. */
export async function launchChromium(): Promise<Engine> {
  const profile = await temporaryDirectory('landfall-chromium-')
  const context = await openProfile(profile.path)
  return {
    name: 'Chromium',
    async open(url) {
      const page = await context.newPage()
      const errors: string[] = []
      page.on('pageerror', (error) => errors.push(error.message))
      await page.goto(url)
      return {
        errors,
        reload: async () => void (await page.reload()),
        pick: (selector, ...paths) => page.locator(selector).setInputFiles(paths),
        click: (selector) => page.locator(selector).click(),
        run: (body) => page.evaluate(`(async () => { ${body} })()`),
        close: () => page.close(),
      }
    },
    async close() {
      await context.close()
      await profile.remove()
    },
  }
}
