import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Browser, chromium } from '@playwright/test'
import { build } from 'vite'
import { launchOptions } from '../ground/chromium.js'
import { temporaryDirectory } from '../ground/files.js'
import type { Place } from '../ground/place.js'
import { createTurns } from '../ground/turns.js'
import { statusOf, uploadByTus } from './tus.js'

/** What the clients need: a browser, and the built page in which they run. */
export interface Stage {
  readonly browser: Browser
  /** The folder of the page, for `ApplicationSettings.page`. */
  readonly page: string
  close(): Promise<void>
}

export async function openStage(): Promise<Stage> {
  const directory = await temporaryDirectory('landfall-stage-')
  const root = join(import.meta.dirname, 'pages/stock')
  await build({ root, configFile: false, logLevel: 'error', build: { outDir: directory.path, emptyOutDir: true } })
  const browser = await chromium.launch(launchOptions())
  return {
    browser,
    page: directory.path,
    async close() {
      await browser.close()
      await directory.remove()
    },
  }
}

/** What a client told its application. */
export interface Told {
  succeeded(): void
  failed(message: string, status: number | null): void
}

/** Begins an upload with default settings. Resolves with a function that ends the client. */
export type Client = (stage: Stage, place: Place, bytes: Buffer, told: Told) => Promise<() => Promise<void>>

const tusInNode: Client = async (_stage, { proxy }, bytes, tell) => {
  const { upload } = uploadByTus(bytes, {
    endpoint: `${proxy.origin}/uploads/files`,
    metadata: { filename: 'film.bin' },
    onSuccess: tell.succeeded,
    onError: (error) => tell.failed(error.message, statusOf(error)),
  })
  return () => upload.abort()
}

const inChromium =
  (name: 'tus' | 'uppy'): Client =>
  async (stage, place, bytes, told) => {
    const context = await stage.browser.newContext()
    const tab = await context.newPage()
    await tab.exposeFunction('succeeded', () => told.succeeded())
    await tab.exposeFunction('failed', (message: string, status: number | null) => told.failed(message, status))
    await tab.goto(`${place.proxy.origin}/?client=${name}`)
    const path = join(stage.page, `${crypto.randomUUID()}.bin`)
    await writeFile(path, bytes)
    await tab.setInputFiles('input', path)
    return () => context.close()
  }

export const CLIENTS: readonly [string, Client][] = [
  ['tus-js-client in Node', tusInNode],
  ['tus-js-client in Chromium', inChromium('tus')],
  ['Uppy in Chromium', inChromium('uppy')],
]

/** Starts two at a time. If thirty pages load at once on two cores, the time limits of the pages end them. */
export const inTurn = createTurns(2)
