/** Where the bytes come from after a closed tab, when there is no copy: a new pick, which is proven first. */
import { copyFile, mkdir, open, stat, utimes } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import type { BrowserContext, Page } from '@playwright/test'
import { type MadeFile, sha256Of } from '../../ground/files.js'
import type { DemoStory as Story } from '../../programs/story.js'
import { buttonOf, cardOf, expectArrivedOn, pick, shot, visit } from './on-the-page.js'
import { MIB, expect, expectStored, inTheMiddle, isPatch, sentAgain, test } from './support.js'

const SIZE_BYTES = 60 * MIB
const MODIFIED_AT_S = 1_790_000_000

/** The same name, size and time, one byte changed. */
async function twinOf(file: MadeFile, changedAt: number, folder: string): Promise<MadeFile> {
  const path = join(dirname(file.path), folder, basename(file.path))
  await mkdir(dirname(path), { recursive: true })
  await copyFile(file.path, path)
  const handle = await open(path, 'r+')
  const byte = Buffer.alloc(1)
  await handle.read(byte, 0, 1, changedAt)
  byte[0] = (byte[0] ?? 0) ^ 1
  await handle.write(byte, 0, 1, changedAt)
  await handle.close()
  for (const each of [file.path, path]) await utimes(each, MODIFIED_AT_S, MODIFIED_AT_S)
  const twin = { path, sizeBytes: file.sizeBytes, sha256: await sha256Of(path) }
  expect(twin.sha256).not.toBe(file.sha256)
  expect(await stat(path)).toMatchObject({ size: file.sizeBytes, mtimeMs: (await stat(file.path)).mtimeMs })
  return twin
}

/** A tab is closed at about 40 %, and the browser has lost its copy: the page asks for the file. */
async function asksForFile(story: Story, context: BrowserContext, file: MadeFile): Promise<Page> {
  const page = await visit(context, story)
  story.proxy.setRate({ up: 14 * MIB })
  await pick(page, file)
  await inTheMiddle(story, file, 0.4)
  await page.close()
  const elsewhere = await context.newPage()
  await elsewhere.goto(`${story.proxy.origin}/icon.svg`)
  await elsewhere.evaluate(
    () =>
      new Promise<void>((resolve, reject) => {
        const deleting = indexedDB.deleteDatabase('landfall-copies')
        deleting.addEventListener('success', () => resolve())
        deleting.addEventListener('error', () => reject(new Error('the copies stay')))
      }),
  )
  await elsewhere.close()
  const again = await visit(context, story)
  await expect(cardOf(again, file)).toContainText('Choose the same file again to resume')
  await shot(again, 'needs-the-file')
  return again
}

async function chooseAgain(page: Page, file: MadeFile): Promise<void> {
  const choosing = page.waitForEvent('filechooser')
  await buttonOf(page, 'Choose file', file).click()
  await (await choosing).setFiles(file.path)
}

test('another file of equal name, size and time is refused before a byte of it is sent; the right one goes on', async ({
  begin,
  profile,
  sources,
}) => {
  const story = await begin()
  const file = await sources.file('scan.tiff', SIZE_BYTES)
  const twin = await twinOf(file, 3 * MIB + 7, 'changed-in-front')
  const page = await asksForFile(story, await profile.open(), file)
  const patches = story.proxy.requests.filter(isPatch).length
  const { operations } = await story.truth()
  await chooseAgain(page, twin)
  await expect(cardOf(page, file)).toContainText('That is another file. Choose the file that you started with')
  await shot(page, 'another-file')
  expect(story.proxy.requests.filter(isPatch)).toHaveLength(patches)
  await chooseAgain(page, file)
  await expectArrivedOn(page, [file])
  const first = story.proxy.requests.filter(isPatch)[patches]
  expect(Number(first?.headers['upload-offset'])).toBeGreaterThanOrEqual(operations[0]?.offset ?? Infinity)
  expect(sentAgain(story, [file])).toBeLessThanOrEqual(MIB)
  await expectStored(story, [file])
})

test('a file that differs only behind what was accepted never becomes a mixture of two', async ({
  begin,
  profile,
  sources,
}) => {
  const story = await begin()
  const file = await sources.file('scan.tiff', SIZE_BYTES)
  const twin = await twinOf(file, SIZE_BYTES - 9, 'changed-behind')
  const page = await asksForFile(story, await profile.open(), file)
  await chooseAgain(page, twin)
  await expect(cardOf(page, file)).toContainText('That is another file. Choose the file that you started with', {
    timeout: 60_000,
  })
  const { operations, references } = await story.truth()
  expect(references).toEqual([])
  expect(operations).toMatchObject([{ point: 'declared' }])
  await chooseAgain(page, file)
  await expectArrivedOn(page, [file])
  await expectStored(story, [file])
})
