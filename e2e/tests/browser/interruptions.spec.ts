/**
 * A big file on its way, and what happens to it: a closed tab, a killed browser, a killed server, a network that is cut
 * or slow, and connections that are reset. It goes on where it was, and what is sent again is counted on the line.
 */
import { stat } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import type { BrowserContext, Page } from '@playwright/test'
import type { MadeFile } from '../../ground/files.js'
import type { RecordedRequest } from '../../ground/proxy.js'
import type { DemoStory as Story } from '../../programs/story.js'
import { cardOf, expectArrivedOn, pick, shot, storedOf, visit } from './on-the-page.js'
import { MIB, expect, expectStored, figure, inTheMiddle, isPatch, sendUntilCopied, sentAgain, test } from './support.js'

const BIG_BYTES = 300 * MIB
const MIDDLE_BYTES = 100 * MIB
/** Fast enough for a test, slow enough that socket buffers hold little of what was counted. */
const FAST = { up: 20 * MIB }
/** A kept-alive connection that is reset: the browser itself sends the whole request again. */
const FRESH_LIMIT_BYTES = MIB
const KEPT_ALIVE_LIMIT_BYTES = 9 * MIB

const offsetOf = (request: RecordedRequest | undefined): number => Number(request?.headers['upload-offset'])

/** One reference with the right bytes, and what was sent again for it, counted on the line. */
async function expectLittleAgain(story: Story, file: MadeFile, limitBytes: number): Promise<void> {
  const again = sentAgain(story, [file])
  figure('bytes sent again', again)
  expect(again).toBeLessThanOrEqual(limitBytes)
  await expectStored(story, [file])
}

/** Opened again: no pick, the first byte at the acknowledged offset, at most 1 MiB sent again, one reference. */
async function expectGoesOn(
  context: BrowserContext,
  story: Story,
  file: MadeFile,
  acknowledgedBytes: number,
): Promise<Page> {
  const before = story.proxy.requests.length
  const page = await visit(context, story)
  await expect(cardOf(page, file)).toContainText('recovered')
  await story.proxy.waitFor((request) => story.proxy.requests.indexOf(request) >= before && isPatch(request))
  await shot(page, 'recovered')
  story.proxy.setRate(FAST)
  await expectArrivedOn(page, [file])
  const first = offsetOf(story.proxy.requests.slice(before).find(isPatch))
  expect(first).toBeGreaterThanOrEqual(acknowledgedBytes)
  expect(acknowledgedBytes).toBeGreaterThanOrEqual(0.36 * file.sizeBytes)
  expect(acknowledgedBytes).toBeLessThan(0.6 * file.sizeBytes)
  await expectLittleAgain(story, file, FRESH_LIMIT_BYTES)
  return page
}

test('a tab that was closed at 40 % goes on by itself when the page is opened again', async ({
  begin,
  profile,
  sources,
}) => {
  const story = await begin()
  const file = await sources.file('film.mov', BIG_BYTES)
  const context = await profile.open()
  const page = await visit(context, story)
  await pick(page, file)
  await sendUntilCopied(story, page, file)
  await shot(page, 'running')
  await page.close()
  const { operations } = await story.truth()
  await expectGoesOn(context, story, file, operations[0]?.offset ?? 0)
})

test('a browser that was killed at 40 % goes on when it is started again', async ({ begin, profile, sources }) => {
  const story = await begin()
  const file = await sources.file('film.mov', BIG_BYTES)
  const page = await visit(await profile.openSignedIn(story), story)
  await pick(page, file)
  await sendUntilCopied(story, page, file)
  await profile.kill()
  const { operations } = await story.truth()
  await expectGoesOn(await profile.open(), story, file, operations[0]?.offset ?? 0)
})

test('a server that was killed and restarted gets the rest', async ({ begin, profile, sources }) => {
  const story = await begin()
  const file = await sources.file('film.mov', BIG_BYTES)
  const page = await visit(await profile.open(), story)
  story.proxy.setRate(FAST)
  await pick(page, file)
  await inTheMiddle(story, file, 0.4)
  await story.kill()
  const { operations, blobs } = await story.truth()
  for (const { path = '' } of blobs.values())
    figure('on the disk and not acknowledged', (await stat(path)).size - (operations[0]?.offset ?? 0))
  await expect(cardOf(page, file)).toContainText('Waiting for the network')
  await shot(page, 'waiting-for-the-network')
  const before = story.proxy.requests.length
  await story.restart()
  await expectArrivedOn(page, [file])
  const resumed = story.proxy.requests.slice(before).find((request) => isPatch(request) && request.status === 204)
  expect(offsetOf(resumed)).toBeGreaterThanOrEqual(operations[0]?.offset ?? Infinity)
  await expectLittleAgain(story, file, KEPT_ALIVE_LIMIT_BYTES)
})

test('a network that was cut for 30 s is waited for', async ({ begin, profile, sources }) => {
  const story = await begin()
  const file = await sources.file('talk.mp4', MIDDLE_BYTES)
  const page = await visit(await profile.open(), story)
  story.proxy.setRate(FAST)
  await pick(page, file)
  await inTheMiddle(story, file, 0.4)
  story.proxy.cut()
  await sleep(30_000)
  await expect(storedOf(page, file)).toHaveCount(0)
  story.proxy.heal()
  await expectArrivedOn(page, [file])
  await expectLittleAgain(story, file, KEPT_ALIVE_LIMIT_BYTES)
})

test('a network that refuses every connection for 30 s is waited for', async ({ begin, profile, sources }) => {
  const story = await begin()
  const file = await sources.file('talk.mp4', MIDDLE_BYTES)
  const page = await visit(await profile.open(), story)
  story.proxy.setRate(FAST)
  await pick(page, file)
  await inTheMiddle(story, file, 0.4)
  story.proxy.cut('reset')
  await sleep(30_000)
  await expect(cardOf(page, file)).toContainText('Waiting for the network')
  story.proxy.heal()
  await expectArrivedOn(page, [file])
  // The browser's own repetition met a closed door: nothing of it was sent.
  await expectLittleAgain(story, file, FRESH_LIMIT_BYTES)
})

test('a link of 2 Mbit/s for 30 s loses nothing', async ({ begin, profile, sources }) => {
  const story = await begin()
  const file = await sources.file('talk.mp4', MIDDLE_BYTES)
  const context = await profile.open()
  const page = await visit(context, story)
  story.proxy.setRate(FAST)
  await pick(page, file)
  await inTheMiddle(story, file, 0.4)
  const before = await story.truth()
  const link = await context.newCDPSession(page)
  const throttled = { offline: false, latency: 0, downloadThroughput: -1, uploadThroughput: 2_000_000 / 8 }
  await link.send('Network.enable')
  await link.send('Network.emulateNetworkConditions', throttled)
  await sleep(30_000)
  const after = await story.truth()
  figure('accepted in 30 s', (after.operations[0]?.offset ?? 0) - (before.operations[0]?.offset ?? 0))
  await expect(storedOf(page, file)).toHaveCount(0)
  await link.send('Network.emulateNetworkConditions', { ...throttled, uploadThroughput: -1 })
  await expectArrivedOn(page, [file])
  await expectLittleAgain(story, file, FRESH_LIMIT_BYTES)
})

/** Resets the connection in the middle of three chunks of 8 MiB. */
async function resetThrice(story: Story, page: Page, file: MadeFile): Promise<readonly RecordedRequest[]> {
  const isWhole = (request: RecordedRequest): boolean =>
    isPatch(request) && Number(request.headers['content-length']) === 8 * MIB
  const struck: RecordedRequest[] = []
  for (const [index, megabytes] of [5, 2, 7].entries()) {
    const armed = story.proxy.arm({ kind: 'reset', afterBodyBytes: megabytes * MIB }, { match: isWhole })
    // A reset throws away what the server has not read yet: slow enough that this is what the limit is about.
    story.proxy.setRate({ up: 5 * MIB })
    if (index === 0) await pick(page, file)
    const hit = await story.proxy.waitFor(
      (request) => armed.matched.includes(request) && request.bodyBytes >= megabytes * MIB,
      60_000,
    )
    struck.push(hit)
    story.proxy.setRate(FAST)
    await story.until(({ operations }) => (operations[0]?.offset ?? 0) > (0.2 + 0.2 * index) * file.sizeBytes, 60_000)
  }
  await expectArrivedOn(page, [file])
  return struck
}

test('a fresh connection that is reset costs at most 1 MiB', async ({ begin, profile, sources }) => {
  const story = await begin({ keepAlive: false })
  const file = await sources.file('film.mov', BIG_BYTES)
  const page = await visit(await profile.open(), story)
  const struck = await resetThrice(story, page, file)
  expect(struck.map(({ nth }) => nth)).toEqual([1, 1, 1])
  await expectLittleAgain(story, file, 3 * FRESH_LIMIT_BYTES)
})

test('a kept-alive connection that is reset costs at most one chunk and 1 MiB', async ({ begin, profile, sources }) => {
  const story = await begin()
  const file = await sources.file('film.mov', BIG_BYTES)
  const page = await visit(await profile.open(), story)
  const struck = await resetThrice(story, page, file)
  expect(struck.every(({ nth }) => nth > 1)).toBe(true)
  await expectLittleAgain(story, file, 3 * KEPT_ALIVE_LIMIT_BYTES)
})
