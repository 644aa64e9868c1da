/** The page in people's hands: by keyboard, on a phone, by dropping; paused, cancelled, downloaded, removed. */
import type { Page } from '@playwright/test'
import { type MadeFile, sha256Of } from '../../ground/files.js'
import {
  buttonOf,
  cardOf,
  copiesOf,
  expectArrivedOn,
  journalOf,
  load,
  nameOf,
  pick,
  shot,
  storedOf,
  visit,
} from './on-the-page.js'
import { MIB, expect, expectStored, isPatch, sendUntilCopied, test } from './support.js'

const SLOW = { up: MIB }

/** Presses Tab until this has the focus, as somebody without a mouse does. */
async function tabTo(page: Page, selector: string): Promise<void> {
  for (let presses = 0; presses < 20; presses += 1) {
    await page.keyboard.press('Tab')
    if (await page.evaluate((wanted) => document.activeElement?.matches(wanted) === true, selector)) return
  }
  throw new Error(`20 times Tab does not lead to ${selector}`)
}
const labelled = (label: string, file: MadeFile): string => `[aria-label="${label} ${nameOf(file)}"]`

/** The element with the focus is seen to have it: an outline on itself, or on what stands for it. */
const hasOutline = (page: Page): Promise<boolean> =>
  page.evaluate(() => {
    const active = document.activeElement
    const stands = active?.id === 'pick' ? document.querySelector('label[for=pick]') : active
    return stands !== null && stands !== undefined && getComputedStyle(stands).outlineStyle !== 'none'
  })

test('everything can be done without a mouse', async ({ begin, visitor, sources }) => {
  const story = await begin()
  const [file, other] = [await sources.file('notes.txt', 6 * MIB), await sources.file('draft.txt', 6 * MIB)]
  await load(visitor, story)
  await visitor.mouse.move(0, 0)
  story.proxy.setRate(SLOW)
  for (const [chosen, key] of [
    [file, 'Enter'],
    [other, 'Space'],
  ] as const) {
    await tabTo(visitor, '#pick')
    expect(await hasOutline(visitor)).toBe(true)
    const choosing = visitor.waitForEvent('filechooser')
    await visitor.keyboard.press(key)
    await (await choosing).setFiles(chosen.path)
    await expect(cardOf(visitor, chosen)).toBeVisible()
  }
  await tabTo(visitor, labelled('Pause', file))
  expect(await hasOutline(visitor)).toBe(true)
  await shot(visitor, 'keyboard-focus')
  await visitor.keyboard.press('Enter')
  await expect(cardOf(visitor, file)).toContainText('Paused')
  await tabTo(visitor, labelled('Resume', file))
  await visitor.keyboard.press('Space')
  await expect(buttonOf(visitor, 'Pause', file)).toBeVisible()
  await tabTo(visitor, labelled('Cancel', other))
  await visitor.keyboard.press('Enter')
  await expect(cardOf(visitor, other)).toHaveCount(0)
  story.proxy.setRate(null)
  await expectArrivedOn(visitor, [file])
  await tabTo(visitor, labelled('Download', file))
  expect(await hasOutline(visitor)).toBe(true)
  const downloading = visitor.waitForEvent('download')
  await visitor.keyboard.press('Enter')
  expect(await sha256Of(await (await downloading).path())).toBe(file.sha256)
  await tabTo(visitor, labelled('Remove', file))
  await visitor.keyboard.press('Enter')
  await tabTo(visitor, '#confirm .danger')
  await shot(visitor, 'remove-dialog')
  await visitor.keyboard.press('Enter')
  await expectArrivedOn(visitor, [])
  await story.until(({ rows, references, blobs }) => rows.length + references.length + blobs.size === 0)
})

const PHONE = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true }

test('nothing scrolls sideways on a phone', async ({ begin, browser, sources }) => {
  const story = await begin()
  const long = await sources.file(`${'holiday-in-the-mountains-'.repeat(6)}.mov`, 8 * MIB)
  const short = await sources.file('a.txt', MIB)
  const context = await browser.newContext(PHONE)
  const page = await visit(context, story)
  const expectFits = async (state: string): Promise<void> => {
    await shot(page, `phone-${state}`)
    expect(await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]), state).toEqual([390, 390])
    // What is cut off cannot be scrolled to either.
    const beyond = await page.evaluate(() =>
      [...document.querySelectorAll('button, a, input:not(.pick), .card, .status, label')]
        .filter((node) => node.getBoundingClientRect().right > innerWidth + 0.5)
        .map((node) => node.outerHTML.slice(0, 200)),
    )
    expect(beyond, state).toEqual([])
  }
  await expectFits('empty')
  story.proxy.setRate(SLOW)
  await pick(page, long)
  await expect(cardOf(page, long)).toContainText('/s')
  await expectFits('running')
  await buttonOf(page, 'Pause', long).tap()
  await expect(cardOf(page, long)).toContainText('Paused')
  await expectFits('paused')
  story.proxy.cut('reset')
  await buttonOf(page, 'Resume', long).tap()
  await expect(cardOf(page, long)).toContainText('Waiting for the network')
  await expectFits('waiting')
  story.proxy.heal()
  story.proxy.setRate(null)
  await pick(page, short)
  await expectArrivedOn(page, [long, short])
  await expectFits('arrived')
  await buttonOf(page, 'Remove', long).tap()
  await expectFits('dialog')
  await page.getByRole('button', { name: 'Keep it' }).tap()
  await expectArrivedOn(page, [long, short])
  await context.close()
})

test('files that are dropped on the page arrive', async ({ begin, visitor, sources }) => {
  const story = await begin()
  const files = [await sources.file('one.txt', MIB), await sources.file('two.txt', 2 * MIB)]
  await load(visitor, story)
  const session = await visitor.context().newCDPSession(visitor)
  const data = { items: [], files: files.map(({ path }) => path), dragOperationsMask: 1 }
  await session.send('Input.dispatchDragEvent', { type: 'dragEnter', x: 300, y: 500, data })
  // Again and again, as from a real pointer: what comes before the page's first frame hits nothing.
  await expect(async () => {
    await session.send('Input.dispatchDragEvent', { type: 'dragOver', x: 300, y: 500, data })
    await expect(visitor.locator('#drop')).toHaveClass(/over/, { timeout: 200 })
  }).toPass({ timeout: 10_000 })
  await shot(visitor, 'dropping')
  await session.send('Input.dispatchDragEvent', { type: 'drop', x: 300, y: 500, data })
  await expect(visitor.locator('#drop')).not.toHaveClass(/over/)
  await expectArrivedOn(visitor, files)
  await expectStored(story, files)
})

test('what was paused stays paused over a reload, sends nothing, and goes on when it is resumed', async ({
  begin,
  profile,
  sources,
}) => {
  const story = await begin()
  const file = await sources.file('tape.wav', 60 * MIB)
  const page = await visit(await profile.open(), story)
  await pick(page, file)
  await sendUntilCopied(story, page, file)
  await buttonOf(page, 'Pause', file).click()
  await expect(cardOf(page, file)).toContainText('Paused')
  await shot(page, 'paused')
  await expect.poll(() => journalOf(page)).toMatchObject([{ paused: true }])
  const before = story.proxy.requests.length
  await load(page, story)
  await expect(cardOf(page, file)).toContainText('Paused')
  await page.waitForLoadState('networkidle')
  await shot(page, 'paused-after-a-reload')
  expect(story.proxy.requests.slice(before).filter(({ path }) => path.startsWith('/uploads/'))).toEqual([])
  story.proxy.setRate(null)
  await buttonOf(page, 'Resume', file).click()
  await expectArrivedOn(page, [file])
  expect(Number(story.proxy.requests.slice(before).find(isPatch)?.headers['upload-offset'])).toBeGreaterThan(
    0.3 * file.sizeBytes,
  )
  await expectStored(story, [file])
})

test('a cancelled upload leaves no bytes, neither here nor there', async ({ begin, profile, sources }) => {
  const story = await begin()
  const file = await sources.file('mistake.iso', 60 * MIB)
  const page = await visit(await profile.open(), story)
  await pick(page, file)
  await sendUntilCopied(story, page, file)
  await buttonOf(page, 'Cancel', file).click()
  await expect(cardOf(page, file)).toHaveCount(0)
  const { references, rows } = await story.until(
    ({ operations, blobs }) => operations[0]?.point === 'cancelled' && blobs.size === 0,
  )
  expect([references, rows]).toEqual([[], []])
  await expect.poll(() => journalOf(page)).toEqual([])
  await expect.poll(() => copiesOf(page)).toBe(0)
  await load(page, story)
  await expect(page.getByText(nameOf(file))).toHaveCount(0)
})

test('a download has the same bytes, and a removal leaves none', async ({ begin, visitor, sources }) => {
  const story = await begin()
  const [file, other] = [await sources.file('Bericht über Äpfel.pdf', 20 * MIB), await sources.file('stays.txt', MIB)]
  await load(visitor, story)
  await pick(visitor, file, other)
  await expectArrivedOn(visitor, [file, other])
  await shot(visitor, 'arrived')
  const downloading = visitor.waitForEvent('download')
  await storedOf(visitor, file).getByRole('link').click()
  const download = await downloading
  expect(download.suggestedFilename()).toBe('Bericht über Äpfel.pdf')
  expect(await sha256Of(await download.path())).toBe(file.sha256)
  await buttonOf(visitor, 'Remove', file).click()
  await visitor.getByRole('button', { name: 'Remove', exact: true }).last().click()
  await expectArrivedOn(visitor, [other])
  await story.until(({ references, blobs }) => references.length === 1 && blobs.size === 1)
  const { rows, references, operations } = await story.truth()
  expect(rows.map(({ name }) => name)).toEqual(['stays.txt'])
  expect(references.map(({ id }) => id)).toEqual(rows.map(({ id }) => id))
  const removed = operations.find(({ name }) => name === nameOf(file))
  const answer = await visitor.request.get(`${story.proxy.origin}/uploads/files/${removed?.id}`)
  expect(answer.status()).toBe(410)
})

test('an empty file arrives too', async ({ begin, visitor, sources }) => {
  const story = await begin()
  const file = await sources.file('empty.txt', 0)
  await load(visitor, story)
  await pick(visitor, file)
  await expectArrivedOn(visitor, [file])
  await expectStored(story, [file])
})
