/**
 * Answers that never come: the server has done its work, and the page does not know. No second operation, blob or
 * reference, and the right bytes.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Page } from '@playwright/test'
import type { RecordedRequest } from '../../ground/proxy.js'
import type { DemoStory as Story } from '../../programs/story.js'
import { cardOf, expectArrivedOn, journalOf, killPage, load, nameOf, pick, saidBy, shot, visit } from './on-the-page.js'
import { MIB, expect, expectStored, figure, isPatch, test } from './support.js'

const SIZE_BYTES = 20 * MIB
/** `reset` on a kept-alive connection: the browser itself sends it again, unseen. `fin`: the page learns it. */
const ENDINGS = ['reset', 'fin'] as const

const endOf = ({ headers }: RecordedRequest): number =>
  Number(headers['upload-offset']) + Number(headers['content-length'])

const LOST: readonly { of: string; match: (request: RecordedRequest) => boolean }[] = [
  { of: 'PUT /operations', match: ({ method }) => method === 'PUT' },
  {
    of: 'a PATCH in the middle',
    match: (request) => isPatch(request) && request.headers['upload-offset'] !== '0' && endOf(request) < SIZE_BYTES,
  },
  { of: 'the last PATCH', match: (request) => isPatch(request) && endOf(request) === SIZE_BYTES },
]

for (const { of, match } of LOST) {
  test(`a lost answer to ${of} makes no second operation, blob or reference`, async ({ begin, visitor, sources }) => {
    const story = await begin()
    await load(visitor, story)
    const files = []
    for (const ending of ENDINGS) {
      const file = await sources.file(`${ending}.bin`, SIZE_BYTES)
      files.push(file)
      const lost = story.proxy.arm({ kind: 'swallow-answer', ending }, { match })
      await pick(visitor, file)
      await expectArrivedOn(visitor, files)
      expect(lost.matched).toHaveLength(1)
      expect(lost.matched[0]).toMatchObject({ answered: false, status: of.startsWith('PUT') ? 201 : 204 })
    }
    await expectStored(story, files)
  })
}

test('with the page gone and the server killed after the last byte, the completer alone makes the reference', async ({
  begin,
  profile,
  sources,
}) => {
  const story = await begin({ hooks: [{ files: 'letter', at: 'before-row', does: 'wait', ms: 3_000 }] })
  const file = await sources.file('letter.pdf', SIZE_BYTES)
  const context = await profile.open()
  const page = await visit(context, story)
  await pick(page, file)
  const last = await story.proxy.waitFor(
    (request) => isPatch(request) && endOf(request) === SIZE_BYTES && request.status === 204,
  )
  await story.kill()
  await context.close()
  const { operations, references } = await story.truth()
  expect(last.status).toBe(204)
  expect(operations).toMatchObject([{ offset: SIZE_BYTES }])
  expect(references).toEqual([])
  const asked = story.proxy.requests.length
  await story.restart()
  const startMs = performance.now()
  await story.until((truth) => truth.references.length === 1, 75_000)
  figure('referenced after ms', Math.round(performance.now() - startMs))
  expect(story.proxy.requests).toHaveLength(asked)
  await expectStored(story, [file])
})

const isList = ({ method, path }: RecordedRequest): boolean => method === 'GET' && path.includes('/operations?ids=')
const isFiles = ({ path }: RecordedRequest): boolean => path === '/api/files'
const arrivals = async (page: Page): Promise<number> =>
  (await saidBy(page)).filter((words) => words.endsWith('has arrived')).length

/** Loads the page anew, and waits until everything that a page does by itself at the start is done. */
async function expectQuietAfterReload(page: Page, story: Story): Promise<void> {
  const before = story.proxy.requests.length
  await load(page, story)
  await expect.poll(() => journalOf(page)).toEqual([])
  await page.waitForLoadState('networkidle')
  expect(await arrivals(page)).toBe(0)
  expect(story.proxy.requests.slice(before).filter(({ path }) => path.includes('/uploads/'))).toEqual([])
}

test('a page killed between the reference and its handler tells it after the reload, and once acknowledged never again', async ({
  begin,
  profile,
  sources,
}) => {
  const story = await begin()
  const file = await sources.file('receipt.pdf', 3 * MIB)
  const context = await profile.open()
  const first = await visit(context, story)
  const held = story.proxy.arm({ kind: 'swallow-answer', ending: 'black-hole' }, { match: isList, times: Infinity })
  await pick(first, file)
  await story.until(({ references }) => references.length === 1)
  await expect.poll(() => held.matched.length).toBeGreaterThan(0)
  await expect(cardOf(first, file)).toContainText('finishing')
  expect(await arrivals(first)).toBe(0)
  await killPage(first)
  held.release()

  // Told, but the page dies inside its handler, which asks for the list of files: nothing was acknowledged.
  const second = await context.newPage()
  const handler = story.proxy.arm({ kind: 'swallow-answer', ending: 'black-hole' }, { match: isFiles, times: Infinity })
  await second.goto(story.proxy.origin)
  await expect.poll(() => journalOf(second)).toMatchObject([{ point: 'referenced' }])
  await expect.poll(() => handler.matched.length).toBeGreaterThan(0)
  expect(await arrivals(second)).toBe(0)
  await killPage(second)
  handler.release()

  const third = await visit(context, story)
  await expect.poll(() => arrivals(third)).toBe(1)
  await expectArrivedOn(third, [file])
  await expectQuietAfterReload(third, story)
  await expectQuietAfterReload(third, story)
  expect((await story.truth()).rows.map(({ name }) => name)).toEqual([nameOf(file)])
  await expectStored(story, [file])
})

const HTML = '<!doctype html><title>Gateway</title><h1>Something is wrong here</h1>'

test('a proxy that answers 404, 403 or 200 with HTML for 20 s is a fault that passes', async ({
  begin,
  browser,
  sources,
}) => {
  const file = await sources.file('plan.dwg', 40 * MIB)
  await Promise.all(
    [404, 403, 200].map(async (status) => {
      const story = await begin()
      const context = await browser.newContext()
      const page = await visit(context, story)
      story.proxy.setRate({ up: 8 * MIB })
      await pick(page, file)
      const before = await story.until(({ operations }) => (operations[0]?.offset ?? 0) > 10 * MIB, 60_000)
      const html = story.proxy.arm(
        { kind: 'answer', status, headers: { 'content-type': 'text/html' }, body: HTML },
        { times: Infinity },
      )
      await sleep(20_000)
      await expect(cardOf(page, file)).toContainText('Waiting for the server')
      await shot(page, `html-${status}`)
      const during = await story.truth()
      const from = story.proxy.requests.length
      html.release()
      await expectArrivedOn(page, [file])
      const first = story.proxy.requests.slice(from).find(isPatch)
      expect(html.matched.length).toBeGreaterThan(2)
      expect(Number(first?.headers['upload-offset'])).toBe(during.operations[0]?.offset)
      const after = await expectStored(story, [file])
      expect(after.operations[0]?.id).toBe(before.operations[0]?.id)
      await context.close()
    }),
  )
})
