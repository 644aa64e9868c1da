/** Two people at one browser: what is the one's is never sent for the other. */
import type { Page } from '@playwright/test'
import type { RecordedRequest } from '../../ground/proxy.js'
import { cardOf, expectArrivedOn, load, pick, shot, visit } from './on-the-page.js'
import { MIB, expect, expectStored, sendUntilCopied, sentAgain, test } from './support.js'

async function signIn(page: Page, name: string): Promise<void> {
  await page.getByLabel('Signed in as').fill(name)
  await page.getByRole('button', { name: 'Switch' }).click()
  await expect(page.locator('#news')).toHaveText(`Signed in as ${name}`)
}

/** Everything of a request that could name an operation. */
const textOf = ({ path, headers, bodyStart }: RecordedRequest): string =>
  [path, ...Object.values(headers), bodyStart.toString('latin1')].join('\n')

const isOf = (name: string, { headers }: RecordedRequest): boolean =>
  (headers['cookie'] ?? '').startsWith(`visitor=${name}.`)

test("nobody else's requests carry an operation of somebody who left at 40 %; back again, it completes", async ({
  begin,
  profile,
  sources,
}) => {
  const story = await begin()
  const [film, note] = [await sources.file('film.mov', 100 * MIB), await sources.file('note.txt', 2 * MIB)]
  const context = await profile.open()
  const page = await visit(context, story)
  await signIn(page, 'ada')
  await pick(page, film)
  await sendUntilCopied(story, page, film)
  const { operations } = await story.truth()
  const { id, offset } = operations[0] ?? { id: '', offset: 0 }

  await signIn(page, 'bert')
  await expect(cardOf(page, film)).toHaveCount(0)
  story.proxy.setRate(null)
  await pick(page, note)
  await expectArrivedOn(page, [note])
  await load(page, story)
  await expectArrivedOn(page, [note])
  await shot(page, 'somebody-else')
  const between = await story.truth()
  expect(between.operations.find((operation) => operation.id === id)).toMatchObject({ owner: 'ada', point: 'declared' })
  expect(between.rows).toMatchObject([{ owner: 'bert', name: 'note.txt' }])

  await signIn(page, 'ada')
  await expect(cardOf(page, film)).toContainText('recovered')
  await expectArrivedOn(page, [film])
  const named = story.proxy.requests.filter((request) => textOf(request).includes(id))
  expect(named.length).toBeGreaterThan(10)
  expect(named.filter((request) => !isOf('ada', request))).toEqual([])
  expect(story.proxy.requests.some((request) => isOf('bert', request))).toBe(true)
  expect(offset).toBeGreaterThan(0.3 * film.sizeBytes)
  expect(sentAgain(story, [film, note])).toBeLessThanOrEqual(MIB)
  const { rows } = await expectStored(story, [film, note])
  expect(rows.find(({ name }) => name === 'film.mov')).toMatchObject({ owner: 'ada', id })
})

test('a tab that still sends for one stops before another tab signs somebody else in', async ({
  begin,
  profile,
  sources,
}) => {
  const story = await begin()
  const film = await sources.file('film.mov', 20 * MIB)
  const context = await profile.open()
  const sending = await visit(context, story)
  await signIn(sending, 'ada')
  story.proxy.setRate({ up: MIB })
  await pick(sending, film)
  await story.until(({ operations }) => (operations[0]?.offset ?? 0) > 0)
  const id = (await story.truth()).operations[0]?.id ?? ''

  const other = await visit(context, story)
  await signIn(other, 'bert')
  await expect(sending.getByLabel('Signed in as')).toHaveValue('bert')
  await expect(cardOf(sending, film)).toHaveCount(0)
  story.proxy.setRate(null)
  await signIn(other, 'ada')
  await expect(sending.getByLabel('Signed in as')).toHaveValue('ada')
  // Whichever tab has the lock: its copy may not have been made yet.
  const card = cardOf(other, film)
  await expect(card.or(other.locator('#files > .card'))).toHaveCount(1)
  const named = story.proxy.requests.filter((request) => textOf(request).includes(id))
  expect(named.filter((request) => !isOf('ada', request))).toEqual([])
  expect(story.proxy.requests.some((request) => isOf('bert', request))).toBe(true)
  expect((await story.truth()).operations.map(({ owner }) => owner)).toEqual(['ada'])
})
