/** What all stories need: a server that is broken on purpose, files, a browser that can be killed, and the truth. */
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { type BrowserContext, expect, type Page, test as base } from '@playwright/test'
import { killBrowser, openProfile } from '../../ground/chromium.js'
import { type MadeFile, makeFile, temporaryDirectory, wireDigest } from '../../ground/files.js'
import type { RecordedRequest } from '../../ground/proxy.js'
import { startStory, type DemoStory as Story, type Truth } from '../../programs/story.js'
import { journalOf, nameOf, visit, watch } from './on-the-page.js'

export const MIB = 1_048_576

export interface Sources {
  /** A file with this name, made once per worker; in a directory of its own where `folder` is given. */
  file(name: string, sizeBytes: number, folder?: string): Promise<MadeFile>
  readonly directory: string
}

/** A browser with a profile on the disk, as people have it: closed, killed, and opened again. */
export interface Profile {
  readonly directory: string
  open(): Promise<BrowserContext>
  /** The same, where somebody has signed in the day before: Chromium writes new cookies down only after up to 30 s. */
  openSignedIn(story: Story): Promise<BrowserContext>
  /** `kill -9` of all its processes. */
  kill(): Promise<void>
}

interface Fixtures {
  /** Starts the application of this story; ended with it. */
  readonly begin: (settings?: Parameters<typeof startStory>[0]) => Promise<Story>
  readonly profile: Profile
  /** A browser as in a private window, without a profile. */
  readonly visitor: Page
}

export const test = base.extend<Fixtures, { sources: Sources }>({
  sources: [
    // oxlint-disable-next-line no-empty-pattern -- Playwright reads the names of the fixtures from it
    async ({}, use) => {
      const home = await temporaryDirectory('landfall-sources-')
      const made = new Map<string, Promise<MadeFile>>()
      await use({
        directory: home.path,
        file(name, sizeBytes, folder = '') {
          const path = join(home.path, folder, name)
          const key = `${path} ${sizeBytes}`
          const making =
            made.get(key) ??
            mkdir(join(home.path, folder), { recursive: true }).then(() => makeFile(path, sizeBytes, key))
          made.set(key, making)
          return making
        },
      })
      await home.remove()
    },
    { scope: 'worker' },
  ],

  // oxlint-disable-next-line no-empty-pattern -- see above
  async begin({}, use, testInfo) {
    const stories: Story[] = []
    await use(async (settings) => {
      const story = await startStory(settings)
      stories.push(story)
      return story
    })
    for (const [index, story] of stories.entries()) {
      if (testInfo.status !== testInfo.expectedStatus || process.env['STORY_LINES'] !== undefined) {
        const said = [
          story.server.output(),
          ...story.proxy.requests.map(lineOf),
          JSON.stringify(await story.truth(), null, 1),
        ]
        await testInfo.attach(`story ${index}`, { body: said.join('\n'), contentType: 'text/plain' })
      }
      await story.close()
    }
  },

  // oxlint-disable-next-line no-empty-pattern -- see above
  async profile({}, use) {
    const home = await temporaryDirectory('landfall-profile-')
    const errors: Error[] = []
    const running = new Set<BrowserContext>()
    const open = async (): Promise<BrowserContext> => {
      const context = await openProfile(home.path)
      running.add(context)
      context.on('close', () => void running.delete(context))
      await watch(context, errors)
      return context
    }
    await use({
      directory: home.path,
      open,
      async openSignedIn(story) {
        const before = await open()
        await visit(before, story)
        await before.close()
        return open()
      },
      async kill() {
        const closed = [...running].map((context) => context.waitForEvent('close'))
        await killBrowser(home.path)
        await Promise.all(closed)
      },
    })
    for (const context of running) await context.close()
    await home.remove()
    expect(errors).toEqual([])
  },

  async visitor({ context }, use) {
    const errors: Error[] = []
    await watch(context, errors)
    await use(await context.newPage())
    expect(errors).toEqual([])
  },
})

export { expect }

export function lineOf(request: RecordedRequest): string {
  const { method, path, connection, nth, bodyBytes, status, answered, fault, headers } = request
  const at = headers['upload-offset'] === undefined ? '' : ` at ${headers['upload-offset']}`
  const ms = `${Math.round(request.startedAtMs)}+${request.endedAtMs === null ? '…' : Math.round(request.endedAtMs - request.startedAtMs)} ms`
  return `${ms} #${connection}.${nth} ${method} ${path}${at} ${bodyBytes} B → ${status}${answered ? '' : ' (unseen)'}${fault === null ? '' : ` [${fault}]`}`
}

const isReferenced = ({ point }: { point: string }): boolean => point === 'referenced' || point === 'completed'

/** One operation, one reference, one row and one blob for each file, the stored bytes are the source's, and there is nothing else. */
export async function expectStored(story: Story, files: readonly MadeFile[]): Promise<Truth> {
  const truth = await story.until(
    ({ operations }) => operations.every(isReferenced) && operations.length >= files.length,
  )
  const byName = new Map(files.map((file) => [nameOf(file), file]))
  const names = files.map(nameOf).toSorted()
  expect(byName.size, 'names must differ').toBe(files.length)
  expect(truth.operations.map(({ name }) => name).toSorted()).toEqual(names)
  expect(truth.rows.map(({ name }) => name).toSorted()).toEqual(names)
  expect(truth.references).toHaveLength(files.length)
  expect([...truth.blobs.keys()].toSorted()).toEqual(truth.references.map(({ blobKey }) => blobKey).toSorted())
  for (const operation of truth.operations) {
    const file = byName.get(operation.name)
    const isOfIt = (each: { id: string; owner: string }): boolean =>
      each.id === operation.id && each.owner === operation.owner
    const reference = truth.references.find(isOfIt)
    const row = truth.rows.find(isOfIt)
    const digest = wireDigest(file?.sha256 ?? '')
    expect(await truth.blobs.get(operation.blobKey)?.digest(), `the stored bytes of ${operation.name}`).toBe(
      file?.sha256,
    )
    expect(reference).toMatchObject({ blobKey: operation.blobKey, size: file?.sizeBytes, digest })
    expect(row).toMatchObject({ size: file?.sizeBytes, digest })
  }
  return truth
}

export const isPatch = ({ method }: RecordedRequest): boolean => method === 'PATCH'

/** Bytes that crossed the line more than once, counted at the proxy. */
export const sentAgain = (story: Story, files: readonly MadeFile[]): number =>
  story.proxy.bodyBytes(isPatch) - files.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)

/** Resolves in the middle of a chunk (5 of 8 MiB have crossed the line) behind this share of the one file. */
export const inTheMiddle = (story: Story, file: MadeFile, share: number): Promise<RecordedRequest> =>
  story.proxy.waitFor((request) => {
    const { headers, bodyBytes, status } = request
    const isChunk = isPatch(request) && Number(headers['content-length']) === 8 * MIB && status === null
    return isChunk && bodyBytes > 5 * MIB && Number(headers['upload-offset']) + bodyBytes > share * file.sizeBytes
  }, 90_000)

/**
 * Lets the one upload run to about 40 % of its file, slower at the end until the browser has a copy that it has read
 * back, and resolves in the middle of a chunk.
 */
export async function sendUntilCopied(story: Story, page: Page, file: MadeFile): Promise<void> {
  story.proxy.setRate({ up: 14 * MIB })
  await story.until(({ operations }) => (operations[0]?.offset ?? 0) >= 0.36 * file.sizeBytes, 90_000)
  story.proxy.setRate({ up: 2 * MIB })
  await expect.poll(async () => (await journalOf(page))[0]?.copy, { timeout: 60_000 }).toBe('verified')
  story.proxy.setRate({ up: 14 * MIB })
  await inTheMiddle(story, file, 0.38)
  // So that it stays in the middle while something is closed or killed.
  story.proxy.setRate({ up: 2 * MIB })
}

export const figure = (name: string, value: number | string): void => {
  test.info().annotations.push({ type: name, description: String(value) })
}
