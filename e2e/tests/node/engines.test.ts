/**
 * Stories over several browser engines, told to a page interface that knows no driver. A `File` of Firefox is no
 * snapshot: edited while it is sent, it is read without an error. In Chromium reading it fails.
 */
import { open, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test as vitest } from 'vitest'
import { launchChromium } from '../../ground/engines/chromium.js'
import { type Engine, type EnginePage, textsOf } from '../../ground/engines/engine.js'
import { firefoxPath, launchFirefox } from '../../ground/engines/firefox.js'
import { makeFile, type MadeFile, sha256Of, temporaryDirectory } from '../../ground/files.js'
import { startStory, type DemoStory as Story } from '../../programs/story.js'

const MIB = 1_048_576
const SIZE_BYTES = 24 * MIB
/** Longer than the server waits for a digest that was promised, before it takes its own. */
const WITHIN_MS = 75_000

const firefox = firefoxPath()
const engines: [name: string, launch: (() => Promise<Engine>) | null][] = [
  ['Chromium', launchChromium],
  ['Firefox', firefox === undefined ? null : () => launchFirefox(firefox)],
]

describe.each(engines)('in %s', (_name, launch) => {
  const test = (name: string, body: () => Promise<void>): void =>
    vitest.skipIf(launch === null)(name + (launch === null ? ' (skipped: it is not installed)' : ''), body)
  let engine: Engine
  let story: Story
  let page: EnginePage
  let home: Awaited<ReturnType<typeof temporaryDirectory>>

  beforeAll(async () => {
    if (launch !== null) engine = await launch()
  })
  afterAll(() => launch === null || engine.close())
  beforeEach(async () => {
    home = await temporaryDirectory('landfall-engines-')
    story = await startStory()
  })
  afterEach(async () => {
    // Firefox reports a worker's script that is not there as the page's error; that is what the story is about.
    const errors = page.errors.filter((error) => !error.startsWith('Loading Worker'))
    await page.close()
    await story.close()
    await home.remove()
    expect(errors).toEqual([])
  })

  /** Resolves when the page is signed in and has read its journal. */
  const visit = async (): Promise<void> => {
    page = await engine.open(story.proxy.origin)
    await story.proxy.waitFor(({ path, answered }) => path === '/api/files' && answered)
    await sleep(200)
  }
  const begin = async (name: string, sizeBytes = SIZE_BYTES): Promise<MadeFile> => {
    const file = await makeFile(join(home.path, name), sizeBytes)
    story.proxy.setRate({ up: 6 * MIB })
    await page.pick('#pick', file.path)
    return file
  }
  const accepted = (share: number): Promise<unknown> =>
    story.until(({ operations }) => (operations[0]?.offset ?? 0) >= share * SIZE_BYTES, WITHIN_MS)
  const copied = async (): Promise<void> => {
    for (const deadline = performance.now() + WITHIN_MS; performance.now() < deadline; await sleep(50)) {
      if ((await page.run<string[]>(COPIES)).includes('verified')) return
    }
    throw new Error('there is no verified copy')
  }
  /** Saved by an editor: new bytes in front, in the middle and behind, in the same file. */
  const edit = async ({ path, sizeBytes }: MadeFile): Promise<string> => {
    const { mtimeMs } = await stat(path)
    const handle = await open(path, 'r+')
    for (const at of [7, sizeBytes / 2, sizeBytes - 1000]) await handle.write(Buffer.alloc(500, 'edited'), 0, 500, at)
    await handle.sync()
    await handle.close()
    expect((await stat(path)).mtimeMs).toBeGreaterThan(mtimeMs)
    return sha256Of(path)
  }
  /** Resolves when it has arrived, was refused for ever, or the user was told why not; answers what the page says. */
  const over = async (file: MadeFile): Promise<string> => {
    for (const deadline = performance.now() + WITHIN_MS; ; await sleep(100)) {
      const { references, operations } = await story.truth()
      const said = (await textsOf(page, '#uploads .card .status')).join()
      if (references.length > 0) return 'arrived'
      if (/choose|another file|cannot be read/i.test(said) || operations[0]?.point === 'rejected') return said
      if (performance.now() > deadline) throw new Error(`${basename(file.path)} is not over: ${said}`)
    }
  }
  const says = async (words: string): Promise<void> => {
    for (const deadline = performance.now() + WITHIN_MS; performance.now() < deadline; await sleep(100)) {
      if ((await textsOf(page, '#uploads .card .status')).join().includes(words)) return
    }
    throw new Error(`the page never says ${words}`)
  }
  const storedDigests = async (): Promise<(string | null)[]> => {
    const { references, blobs } = await story.truth()
    return Promise.all(references.map(async ({ blobKey }) => (await blobs.get(blobKey)?.digest()) ?? null))
  }
  /** As where a page's policy forbids workers, or a deployment has taken the script away. */
  const withoutWorker = (): void =>
    void story.proxy.arm(
      { kind: 'answer', status: 404, body: 'gone' },
      { match: ({ path }) => /worker[^/]*\.js/.test(path), times: Infinity },
    )

  test('a file that is edited while it is sent arrives whole as it was, from the verified copy', async () => {
    await visit()
    const file = await begin('letter.odt')
    await copied()
    await accepted(0.3)
    const edited = await edit(file)
    expect(edited).not.toBe(file.sha256)
    story.proxy.setRate(null)
    expect(await over(file)).toBe('arrived')
    expect(await storedDigests()).toEqual([file.sha256])
  })

  test('a file that is edited after its tab was closed arrives whole as it was, from the copy', async () => {
    await visit()
    const file = await begin('letter.odt')
    await copied()
    await accepted(0.2)
    await page.close()
    await edit(file)
    story.proxy.forget()
    await visit()
    story.proxy.setRate(null)
    expect(await over(file)).toBe('arrived')
    expect(await storedDigests()).toEqual([file.sha256])
  })

  test('a file that is edited after its tab was closed, and picked again: not a byte of it is sent', async () => {
    await visit()
    await page.run(WITHOUT_COPIES)
    const file = await begin('letter.odt')
    await accepted(0.2)
    await page.close()
    await edit(file)
    story.proxy.forget()
    await visit()
    expect(await over(file)).toContain('Choose the same file again')
    await page.pick('#uploads .card input.pick', file.path)
    await says('That is another file')
    expect(story.proxy.requests.filter(({ method }) => method === 'PATCH')).toEqual([])
    expect(await storedDigests()).toEqual([])
  })

  for (const [how, share] of [
    ['at its beginning', 0.01],
    ['in its middle', 0.4],
  ] as const) {
    test(`edited ${how}, without a copy: no mixture is referenced, and the page says why not`, async () => {
      await visit()
      await page.run(WITHOUT_COPIES)
      const file = await begin('letter.odt')
      await accepted(share)
      const edited = await edit(file)
      story.proxy.setRate(null)
      const said = await over(file)
      expect(await page.run<string[]>(COPIES)).not.toContain('verified')
      for (const digest of await storedDigests()) expect([file.sha256, edited]).toContain(digest)
      expect(said).not.toBe('')
    })

    test(`edited ${how}, without a worker: no mixture is referenced, and the page says why not`, async () => {
      withoutWorker()
      await visit()
      const file = await begin('letter.odt')
      await accepted(share)
      const edited = await edit(file)
      story.proxy.setRate(null)
      const said = await over(file)
      for (const digest of await storedDigests()) expect([file.sha256, edited]).toContain(digest)
      expect(said).not.toBe('')
    })
  }

  test('without the worker a first file waits for nothing at its end, and its digest is told', async () => {
    withoutWorker()
    await visit()
    const file = await begin('photo.heic', 5 * MIB)
    story.proxy.setRate(null)
    const startMs = performance.now()
    expect(await over(file)).toBe('arrived')
    expect(performance.now() - startMs).toBeLessThan(20_000)
    expect(await storedDigests()).toEqual([file.sha256])
    expect((await story.truth()).operations[0]?.digest).not.toBeNull()
  })
})

const COPIES = `
  const ask = (request) => new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result)
    request.onerror = () => reject(request.error)
  })
  const database = await ask(indexedDB.open('landfall-journal'))
  if (!database.objectStoreNames.contains('operations')) return []
  const records = await ask(database.transaction('operations').objectStore('operations').getAll())
  database.close()
  return records.map(({ copy }) => copy)`

/** As where the disk is full. */
const WITHOUT_COPIES = `
  const { put } = IDBObjectStore.prototype
  IDBObjectStore.prototype.put = function (...args) {
    if (this.transaction.db.name === 'landfall-copies') throw new DOMException('no room', 'QuotaExceededError')
    return put.apply(this, args)
  }`
