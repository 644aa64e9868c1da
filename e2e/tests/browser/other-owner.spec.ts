/** Two accounts in one browser, and the cookie changes without a word to the page: nothing goes to whoever it names now. */
import { setTimeout as sleep } from 'node:timers/promises'
import { isDeepStrictEqual } from 'node:util'
import type { BrowserContext, Page } from '@playwright/test'
import { renderersOf } from '../../ground/chromium.js'
import type { MadeFile } from '../../ground/files.js'
import type { RecordedRequest } from '../../ground/proxy.js'
import type { DemoStory as Story, Truth } from '../../programs/story.js'
import { buttonOf, cardOf, expectArrivedOn, load, pick, shot, storedOf, visit } from './on-the-page.js'
import { MIB, expect, expectStored, type Sources, test } from './support.js'

// The uploads are slow on purpose, so that all states are there at once.
test.setTimeout(240_000)

const HELD = 'Somebody else is signed in'
const HOOKS = [{ files: 'finishing', at: 'before-row', does: 'wait', ms: 12_000 }] as const

/** As a sign-in in another tab, or a single sign-on: only the cookie is another one. */
async function signInSilently(context: BrowserContext, story: Story, name: string): Promise<void> {
  const answer = await context.request.put(`${story.proxy.origin}/api/session`, { data: { name } })
  expect(answer.status()).toBe(200)
}

const isBerts = ({ headers }: RecordedRequest): boolean => (headers['cookie'] ?? '').includes('visitor=bert.')
const isOfUploads = ({ path }: RecordedRequest): boolean => path.startsWith('/uploads/')
const textOf = ({ path, headers, bodyStart }: RecordedRequest): string =>
  [path, ...Object.values(headers), bodyStart.toString('latin1')].join('\n')
const standingOf = ({ operations }: Truth, owner: string) =>
  operations
    .filter((operation) => operation.owner === owner)
    .map(({ id, name, offset, point }) => [id, name, offset, point])

/** Uploads of ada's in every state that sends, or would: one needs its file, one is finishing, three send, one waits. */
async function inEveryState(context: BrowserContext, story: Story, sources: Sources) {
  const lost = await sources.file('lost.bin', 3 * MIB)
  const finishing = await sources.file('finishing.bin', MIB / 4)
  const films = await Promise.all([1, 2, 3].map((n) => sources.file(`film-${n}.mov`, 5 * MIB)))
  const waiting = await sources.file('waiting.bin', 2 * MIB)

  await signInSilently(context, story, 'ada')
  const first = await visit(context, story)
  story.proxy.setRate({ up: MIB / 2 })
  await pick(first, lost)
  await story.until(({ operations }) => (operations[0]?.offset ?? 0) > 0)
  await first.close()
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

  const page = await visit(context, story)
  await expect(cardOf(page, lost)).toContainText('Choose the same file again')
  await pick(page, finishing)
  await expect(cardOf(page, finishing)).toContainText('finishing')
  await pick(page, ...films, waiting)
  await story.until(
    ({ operations }) =>
      films.every((film) => operations.some(({ name, offset }) => film.path.endsWith(name) && offset > 0)),
    60_000,
  )
  await expect(cardOf(page, waiting)).toContainText('Waiting for its turn')
  return { page, lost, films, waiting, all: [lost, finishing, ...films, waiting] }
}

async function chooseAgain(page: Page, file: MadeFile): Promise<void> {
  const choosing = page.waitForEvent('filechooser')
  await buttonOf(page, 'Choose file', file).click()
  await (await choosing).setFiles(file.path)
}

/**
 * Nothing of bert's has changed but what he has uploaded himself, and nothing of ada's goes on, whatever was asked. A page
 * that asks first whose its uploads are names none of them.
 */
async function expectNothingSent(story: Story, from: number, before: Truth, ofBert: readonly string[]): Promise<void> {
  const asked = story.proxy.requests.slice(from).filter((request) => isBerts(request) && isOfUploads(request))
  const ids = before.operations.map(({ id }) => id)
  const named = asked.filter((request) => ids.some((id) => textOf(request).includes(id)))
  expect(asked.length).toBeGreaterThan(0)
  expect(named.filter(({ status }) => status !== 412).map(textOf)).toEqual([])
  const truth = await story.truth()
  expect(truth.operations.filter(({ owner }) => owner === 'bert').map(({ name }) => name)).toEqual(ofBert)
  expect(truth.rows.filter(({ owner }) => owner === 'bert').map(({ name }) => name)).toEqual(ofBert)
  // The one that was all there is brought to its end by the server.
  const isSent = (entry: readonly unknown[]): boolean => entry[1] !== 'finishing.bin'
  expect(standingOf(truth, 'ada').filter(isSent)).toEqual(standingOf(before, 'ada').filter(isSent))
}

/** The truth once what was on its way with the old cookie has come to an end: a server checkpoints every 2 s. */
async function atRest(story: Story): Promise<Truth> {
  story.proxy.setRate(null)
  for (let before = await story.truth(); ;) {
    await sleep(3_000)
    const now = await story.truth()
    if (isDeepStrictEqual(standingOf(now, 'ada'), standingOf(before, 'ada'))) return now
    before = now
  }
}

async function whileStopped<T>(pids: readonly number[], body: () => Promise<T>): Promise<T> {
  for (const pid of pids) process.kill(pid, 'SIGSTOP')
  try {
    return await body()
  } finally {
    for (const pid of pids) process.kill(pid, 'SIGCONT')
  }
}

test('signed in as somebody else in another tab: uploads in every state stop, and go on when the right one is back', async ({
  begin,
  profile,
  sources,
}) => {
  const story = await begin({ hooks: [...HOOKS] })
  const context = await profile.open()
  const { page, lost, films, waiting, all } = await inEveryState(context, story, sources)
  const from = story.proxy.requests.length

  await signInSilently(context, story, 'bert')
  for (const file of [...films, waiting]) await expect(cardOf(page, file)).toContainText(HELD, { timeout: 30_000 })
  await expect(page.locator('#news')).toHaveText('Somebody else is signed in: sign in as ada to continue')
  const before = await atRest(story)
  await chooseAgain(page, lost)
  const added = await sources.file('added.txt', 1000)
  await pick(page, added)
  for (const file of [lost, added]) await expect(cardOf(page, file)).toContainText(HELD)
  await shot(page, 'other-owner')
  // And bert is not held up by it.
  const note = await sources.file('note.txt', MIB / 4)
  const other = await visit(context, story)
  await expect(other.getByLabel('Signed in as')).toHaveValue('bert')
  await pick(other, note)
  await expectArrivedOn(other, [note])
  await expectNothingSent(story, from, before, ['note.txt'])

  await signInSilently(context, story, 'ada')
  await other.close()
  story.proxy.setRate(null)
  await page.bringToFront()
  await expectArrivedOn(page, [...all, added], 90_000)
  const { rows } = await expectStored(story, [...all, added, note])
  expect(rows.filter(({ owner }) => owner === 'bert').map(({ name }) => name)).toEqual(['note.txt'])
  const saidOther = await page.evaluate(() =>
    (globalThis as unknown as { said: string[] }).said.filter((text) => text.startsWith('Somebody else is signed in:')),
  )
  expect(saidOther).toHaveLength(1)
})

test('frozen while somebody else signs in, a page sends nothing for them when it wakes', async ({
  begin,
  profile,
  sources,
}) => {
  const story = await begin({ hooks: [...HOOKS] })
  const context = await profile.open()
  const { page, lost, films, waiting, all } = await inEveryState(context, story, sources)
  const frozen = renderersOf(profile.directory)
  expect(frozen.length).toBeGreaterThan(0)
  const from = story.proxy.requests.length
  const before = await whileStopped(frozen, async () => {
    await signInSilently(context, story, 'bert')
    story.proxy.resetConnections()
    // The browser's own process goes on, and sends again what was cut off, with the cookie of before.
    return atRest(story)
  })

  for (const file of [...films, waiting]) await expect(cardOf(page, file)).toContainText(HELD, { timeout: 30_000 })
  await expectNothingSent(story, from, before, [])
  await signInSilently(context, story, 'ada')
  story.proxy.setRate(null)
  await chooseAgain(page, lost)
  await page.bringToFront()
  await expectArrivedOn(page, all, 90_000)
  const { rows } = await expectStored(story, all)
  expect(new Set(rows.map(({ owner }) => owner))).toEqual(new Set(['ada']))
})

test('a page of the session before, restored when somebody else is signed in, sends nothing for them', async ({
  begin,
  profile,
  sources,
}) => {
  const story = await begin({ hooks: [...HOOKS] })
  const { films, waiting, lost, all } = await inEveryState(await profile.openSignedIn(story), story, sources)
  await profile.kill()
  const before = await atRest(story)
  const from = story.proxy.requests.length

  const context = await profile.open()
  await signInSilently(context, story, 'bert')
  // As the browser had it: the page is ada's, the cookie no more.
  const restored = (url: URL): boolean => url.pathname === '/api/session'
  await context.route(restored, (route) => route.fulfill({ json: { name: 'ada' } }))
  const page = await visit(context, story)
  for (const file of [...films, waiting, lost])
    await expect(cardOf(page, file)).toContainText(HELD, { timeout: 30_000 })
  await expectNothingSent(story, from, before, [])

  await signInSilently(context, story, 'ada')
  story.proxy.setRate(null)
  await page.bringToFront()
  // What had no copy is asked for, by the same page.
  for (const file of all) {
    const asks = cardOf(page, file).getByText('Choose the same file again')
    await expect(asks.or(storedOf(page, file))).toBeVisible({ timeout: 60_000 })
    if (await asks.isVisible()) await chooseAgain(page, file)
  }
  await expectArrivedOn(page, all, 90_000)
  await load(page, story)
  const { rows } = await expectStored(story, all)
  expect(new Set(rows.map(({ owner }) => owner))).toEqual(new Set(['ada']))
})
