/** Many at once: nobody waits for somebody else's slow hook, and the server's memory stays small. */
import type { BrowserContext, Page } from '@playwright/test'
import type { MadeFile } from '../../ground/files.js'
import type { RecordedRequest } from '../../ground/proxy.js'
import type { DemoStory as Story } from '../../programs/story.js'
import { expectArrivedOn, load, pick, shot, storedOf, visit, watch } from './on-the-page.js'
import { MIB, type Sources, expect, expectStored, figure, test } from './support.js'

// Painting hundreds of moving bars without a graphics card is not what is looked at here.
test.use({ contextOptions: { reducedMotion: 'reduce' } })
test.describe.configure({ timeout: 300_000 })

const MEMORY_LIMIT_BYTES = 150 * MIB
const PAGE_LIMIT_MS = 1_000

const make = (sources: Sources, prefix: string, count: number, sizeBytes: number): Promise<MadeFile[]> =>
  Promise.all(Array.from({ length: count }, (_, n) => sources.file(`${prefix}-${n}.bin`, sizeBytes, prefix)))

/** In the page: how long each fetch of the page itself takes, until `stop` is called. */
function fetchThePage(): void {
  const tookMs: number[] = []
  Object.assign(globalThis, { tookMs })
  const ask = async (): Promise<void> => {
    const startMs = performance.now()
    await (await fetch('/', { cache: 'no-store' })).text()
    tookMs.push(performance.now() - startMs)
    setTimeout(() => void ask(), 100)
  }
  void ask()
}
const tookMs = (page: Page): Promise<number[]> =>
  page.evaluate(() => (globalThis as unknown as { tookMs: number[] }).tookMs)

for (const at of ['before-row', 'after-row'] as const) {
  test(`six hooks that hang for 30 s ${at} hold up neither the other files nor the page`, async ({
    begin,
    visitor,
    sources,
  }) => {
    const story = await begin({ hooks: [{ files: 'slow', at, does: 'wait', ms: 30_000 }] })
    const slow = await make(sources, 'slow', 6, 2 * MIB)
    const quick = await make(sources, 'quick', 6, 2 * MIB)
    await load(visitor, story)
    // The line is the limit, not this machine's processor.
    story.proxy.setRate({ up: 4 * MIB })
    await visitor.evaluate(fetchThePage)
    const startMs = performance.now()
    await pick(visitor, ...slow, ...quick)
    for (const file of quick) await expect(storedOf(visitor, file)).toHaveCount(1, { timeout: 28_000 })
    figure('the others have arrived after ms', Math.round(performance.now() - startMs))
    await shot(visitor, `hooks-hang-${at}`)
    expect((await story.truth()).rows.map(({ name }) => name).toSorted()).toEqual(
      quick.map(({ path }) => path.slice(path.lastIndexOf('/') + 1)).toSorted(),
    )
    // The last pauses before the end of the hang are drawn from up to 32 s.
    await expectArrivedOn(visitor, [...slow, ...quick], 120_000)
    const times = await tookMs(visitor)
    figure('slowest fetch of the page in ms', Math.round(Math.max(...times)))
    expect(times.length).toBeGreaterThan(60)
    expect(Math.max(...times)).toBeLessThan(PAGE_LIMIT_MS)
    await expectStored(story, [...slow, ...quick])
  })
}

/** Runs it, and checks how far the server's memory grew above what it had before. */
async function expectLittleMemory(story: Story, run: () => Promise<void>): Promise<void> {
  const { residentBytes } = story.server.usage()
  const startMs = performance.now()
  await run()
  const { peakResidentBytes } = story.server.usage()
  figure('took ms', Math.round(performance.now() - startMs))
  figure('peak memory above idle in MiB', Math.round((peakResidentBytes - residentBytes) / MIB))
  expect(peakResidentBytes - residentBytes).toBeLessThanOrEqual(MEMORY_LIMIT_BYTES)
}

test('200 files of 1 MiB from one page all arrive, in little memory', async ({ begin, visitor, sources }) => {
  const story = await begin()
  const files = await make(sources, 'photo', 200, MIB)
  await load(visitor, story)
  await expectLittleMemory(story, async () => {
    await pick(visitor, ...files)
    await expectArrivedOn(visitor, files, 120_000)
  })
  await expectStored(story, files)
})

test('20 people at once all get their files through, in little memory', async ({ begin, browser, sources }) => {
  const story = await begin()
  const errors: Error[] = []
  const everybody: { context: BrowserContext; page: Page; files: MadeFile[] }[] = []
  const arrive = async (n: number): Promise<void> => {
    const context = await browser.newContext({ reducedMotion: 'reduce' })
    await watch(context, errors)
    everybody.push({ context, page: await visit(context, story), files: await make(sources, `visitor-${n}`, 5, MIB) })
  }
  for (let n = 0; n < 20; n += 4) await Promise.all([n, n + 1, n + 2, n + 3].map(arrive))
  await expectLittleMemory(story, async () => {
    await Promise.all(everybody.map(({ page, files }) => pick(page, ...files)))
    await Promise.all(everybody.map(({ page, files }) => expectArrivedOn(page, files, 120_000)))
  })
  const { rows } = await expectStored(
    story,
    everybody.flatMap(({ files }) => files),
  )
  expect(new Set(rows.map(({ owner }) => owner)).size).toBe(20)
  expect(errors).toEqual([])
  await Promise.all(everybody.map(({ context }) => context.close()))
})

const isFault = ({ path, status }: RecordedRequest): boolean => path.startsWith('/uploads/') && (status ?? 0) >= 400

test('the application writes through its own database during 200 uploads, and nobody finds it locked', async ({
  begin,
  visitor,
  sources,
}) => {
  const story = await begin({ writes: true })
  const files = await make(sources, 'small', 200, 10_240)
  await load(visitor, story)
  const before = (await story.truth()).notes
  await pick(visitor, ...files)
  await expectArrivedOn(visitor, files, 120_000)
  const { writes } = await story.report()
  const { notes } = await expectStored(story, files)
  figure("the application's own writes meanwhile", notes - before)
  expect(writes.errors).toEqual([])
  expect(notes).toBe(writes.committed)
  expect(notes - before).toBeGreaterThan(200)
  expect(story.server.output()).not.toContain('locked')
  expect(story.proxy.requests.filter(isFault)).toEqual([])
})

test('a write past tx is a typed error within 1 s, and the next upload works', async ({ begin, visitor, sources }) => {
  const story = await begin({ hooks: [{ files: 'past', at: 'after-row', does: 'write-past-tx', times: 2 }] })
  const past = await sources.file('past.pdf', MIB)
  const next = await sources.file('next.pdf', MIB)
  await load(visitor, story)
  await pick(visitor, past)
  await expect.poll(async () => (await story.truth()).operations[0]?.offset).toBe(MIB)
  await pick(visitor, next)
  await expectArrivedOn(visitor, [past, next])
  const { faults } = await story.report()
  expect(faults).toMatchObject([
    { name: 'past.pdf', code: 'write-past-tx' },
    { name: 'past.pdf', code: 'write-past-tx' },
  ])
  figure('the error came after ms', Math.round(Math.max(...faults.map(({ tookMs: took }) => took))))
  for (const { tookMs: took } of faults) expect(took).toBeLessThan(1_000)
  const { notes } = await expectStored(story, [past, next])
  expect(notes).toBe(0)
})
