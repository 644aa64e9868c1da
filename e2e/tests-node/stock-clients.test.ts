/**
 * Unmodified clients of the tus ecosystem, with their default settings, against a server that finishes slowly or badly.
 *
 * All run at the same time, each with a server and a proxy of its own: most of the time they wait.
 */
import { createHash } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Browser, chromium } from '@playwright/test'
import { Upload } from 'tus-js-client'
import { build } from 'vite'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { launchOptions } from '../src/chromium.js'
import { pseudoRandomBytes, temporaryDirectory } from '../src/files.js'
import type { RecordedRequest } from '../src/proxy.js'
import type { ScenarioSettings } from '../src/scenario-app.js'
import { type Scenario, startScenario } from '../src/scenario.js'

const FILE = { name: 'film.bin', mimeType: 'application/octet-stream' }
const SIZE_BYTES = 3_000_000
/** What may be sent more than once of a file whose bytes the server has all received. */
const SENT_AGAIN_BYTES = 16 * 1024

let page: Awaited<ReturnType<typeof temporaryDirectory>>
let browser: Browser
beforeAll(async () => {
  page = await temporaryDirectory()
  const root = join(import.meta.dirname, 'fixtures/stock')
  await build({ root, configFile: false, logLevel: 'error', build: { outDir: page.path, emptyOutDir: true } })
  browser = await chromium.launch(launchOptions())
}, 120_000)
afterAll(async () => {
  await browser.close()
  await page.remove()
})

/** What a client told its application. */
interface Told {
  succeeded(): void
  failed(message: string, status: number | null): void
}

/** Begins an upload; answers how to end the client. */
type Client = (scenario: Scenario, bytes: Buffer, told: Told) => Promise<() => Promise<void>>

const tusInNode: Client = async (scenario, bytes, told) => {
  const upload = new Upload(bytes, {
    endpoint: `${scenario.proxy.origin}/uploads/files`,
    metadata: { filename: FILE.name, filetype: FILE.mimeType },
    onSuccess: () => told.succeeded(),
    onError: (error) =>
      told.failed(error.message, 'originalResponse' in error ? (error.originalResponse?.getStatus() ?? null) : null),
  })
  upload.start()
  return () => upload.abort()
}

const inChromium =
  (name: 'tus' | 'uppy'): Client =>
  async (scenario, bytes, told) => {
    const context = await browser.newContext()
    const tab = await context.newPage()
    await tab.exposeFunction('succeeded', () => told.succeeded())
    await tab.exposeFunction('failed', (message: string, status: number | null) => told.failed(message, status))
    await tab.goto(`${scenario.proxy.origin}/?client=${name}`)
    const path = join(page.path, `${crypto.randomUUID()}.bin`)
    await writeFile(path, bytes)
    await tab.setInputFiles('input', path)
    return () => context.close()
  }

const CLIENTS: readonly [string, Client][] = [
  ['tus-js-client in Node', tusInNode],
  ['tus-js-client in Chromium', inChromium('tus')],
  ['Uppy in Chromium', inChromium('uppy')],
]

/** Two at a time: thirty pages that load at once on two cores run into time limits that have nothing to do with it. */
const startGate = { free: 2, waiting: [] as (() => void)[] }

async function inTurn<T>(start: () => Promise<T>): Promise<T> {
  if (startGate.free > 0) startGate.free -= 1
  else await new Promise<void>((resolve) => startGate.waiting.push(resolve))
  try {
    return await start()
  } finally {
    const next = startGate.waiting.shift()
    if (next === undefined) startGate.free += 1
    else next()
  }
}

interface Situation {
  readonly name: string
  readonly settings: Omit<ScenarioSettings, 'directory' | 'page'>
  readonly sizeBytes?: number
  /** From the moment the server has all bytes. Answers how to stop it. */
  disturb?(scenario: Scenario): Promise<() => void>
}

const nothing = (): void => {}

const resetEach10s = async ({ proxy }: Scenario): Promise<() => void> => {
  const timer = setInterval(() => proxy.resetConnections(), 10_000)
  return () => clearInterval(timer)
}

/** The longest first: they begin in turn. */
const SITUATIONS: readonly Situation[] = [
  { name: 'prepare takes 180 s', settings: { prepareMs: 180_000 } },
  {
    name: 'prepare takes 180 s, connections are reset each 10 s',
    settings: { prepareMs: 180_000 },
    disturb: resetEach10s,
  },
  { name: 'prepare takes 60 s', settings: { prepareMs: 60_000 } },
  {
    name: 'prepare takes 60 s, connections are reset each 10 s',
    settings: { prepareMs: 60_000 },
    disturb: resetEach10s,
  },
  { name: 'prepare takes 20 s', settings: { prepareMs: 20_000 } },
  {
    name: 'prepare takes 20 s, the server is killed and restarted after 5 s',
    settings: { prepareMs: 20_000 },
    async disturb(scenario) {
      // A PATCH without its answer would be sent again whole by Chromium, whatever the server does.
      await scenario.proxy.waitFor((request) => isPatch(request) && request.status !== null, 60_000)
      await sleep(5000)
      await scenario.killAndRestart()
      return nothing
    },
  },
  { name: 'the file is empty and prepare takes 3 s', settings: { prepareMs: 3000 }, sizeBytes: 0 },
  {
    name: 'the database is away for 20 s after the last byte',
    settings: { prepareMs: 1000 },
    async disturb(scenario) {
      const away = await scenario.takeDatabaseAway()
      await sleep(20_000)
      await away.release()
      return nothing
    },
  },
  { name: 'onReference throws twice', settings: { throws: 2 } },
  { name: 'the file is empty', settings: {}, sizeBytes: 0 },
]

interface Course {
  readonly successes: number
  readonly errors: readonly { message: string; status: number | null }[]
  /** How many references there were when the client said success. */
  readonly referencesAtSuccess: number
  /** From the last byte (or the start, for an empty file) until the client told the first thing. */
  readonly tookMs: number
  readonly bytes: Buffer
}

const isCreation = ({ method, path }: RecordedRequest): boolean => method === 'POST' && /\/files\/?$/.test(path)
const isPatch = ({ method }: RecordedRequest): boolean => method === 'PATCH'

/** Uploads with this client in this situation until it has told something, and a little longer. */
async function follow(scenario: Scenario, client: Client, situation: Situation): Promise<Course> {
  const bytes = pseudoRandomBytes(situation.sizeBytes ?? SIZE_BYTES, situation.name)
  const errors: Course['errors'][number][] = []
  const counts: Promise<number>[] = []
  let startMs = performance.now()
  let tookMs = 0
  let tellFirst = nothing
  const first = new Promise<void>((resolve) => (tellFirst = resolve))
  const tell = (): void => {
    if (tookMs === 0) tookMs = performance.now() - startMs
    tellFirst()
  }
  const told: Told = {
    succeeded() {
      counts.push(scenario.truth().then(({ references }) => references))
      tell()
    },
    failed(message, status) {
      errors.push({ message, status })
      tell()
    },
  }
  const end = await inTurn(() => client(scenario, bytes, told))
  let calm = nothing
  if (bytes.length > 0) {
    await scenario.proxy.waitFor((request) => isPatch(request) && request.forwardedBodyBytes === bytes.length, 60_000)
    startMs = performance.now()
    calm = (await situation.disturb?.(scenario)) ?? nothing
  }
  await first
  calm()
  // Whoever says something twice does it soon.
  await sleep(3000)
  await end()
  return { successes: counts.length, errors, referencesAtSuccess: (await counts[0]) ?? 0, tookMs, bytes }
}

/** The bytes of a rejected file go soon after. */
async function withoutBlobs(scenario: Scenario): Promise<void> {
  for (let waitedMs = 0; waitedMs < 15_000 && (await scenario.truth()).blobs > 0; waitedMs += 250) await sleep(250)
}

function describeRequests({ proxy }: Scenario): string {
  return proxy.requests
    .map(({ method, path, headers, bodyBytes, status, startedAtMs, nth }) => {
      const offset = headers['upload-offset'] ?? ''
      return `${(startedAtMs / 1000).toFixed(1)} ${method} ${path} ${offset} ${bodyBytes} B, ${nth}. → ${status}`
    })
    .join('\n')
}

describe.concurrent.each(CLIENTS)('%s', (_name, client) => {
  test.concurrent.each(SITUATIONS)('$name: success, not early, and once', { timeout: 480_000 }, async (situation) => {
    const scenario = await inTurn(() => startScenario({ ...situation.settings, page: page.path }))
    try {
      const course = await follow(scenario, client, situation)
      const report = (): string => `${describeRequests(scenario)}\n${scenario.server.output().slice(-4000)}`
      expect(course, report()).toMatchObject({ successes: 1, errors: [], referencesAtSuccess: 1 })
      expect(course.tookMs, report()).toBeGreaterThan(situation.settings.prepareMs ?? 0)
      const truth = await scenario.truth()
      expect(truth, report()).toMatchObject({
        operations: [{ point: expect.stringMatching(/^(referenced|completed)$/), offset: course.bytes.length }],
        references: 1,
        arrivals: 1,
        blobs: 1,
      })
      expect(scenario.proxy.requests.filter(isCreation), report()).toHaveLength(1)
      const sentAgainBytes = scenario.proxy.bodyBytes(isPatch) - course.bytes.length
      expect(sentAgainBytes, report()).toBeLessThanOrEqual(SENT_AGAIN_BYTES)
      const sha256 = createHash('sha256').update(course.bytes).digest('hex')
      expect(await scenario.storedSha256(truth.operations[0]?.id ?? '')).toBe(sha256)
    } finally {
      await scenario.close()
    }
  })

  test.concurrent.each([
    { name: 'at once', settings: { reject: 'infected' } },
    { name: 'after 20 s', settings: { reject: 'infected', prepareMs: 20_000 } },
    { name: 'an empty file', settings: { reject: 'infected' }, sizeBytes: 0 },
  ])('a rejection, $name: an error, once, and nothing is kept', { timeout: 300_000 }, async (situation) => {
    const scenario = await inTurn(() => startScenario({ ...situation.settings, page: page.path }))
    try {
      const course = await follow(scenario, client, situation)
      const report = (): string => `${describeRequests(scenario)}\n${scenario.server.output().slice(-4000)}`
      expect(course, report()).toMatchObject({ successes: 0, errors: [{ status: 422 }] })
      expect(course.errors).toHaveLength(1)
      await withoutBlobs(scenario)
      expect(await scenario.truth(), report()).toMatchObject({
        operations: [{ point: 'rejected' }],
        references: 0,
        arrivals: 0,
        blobs: 0,
      })
      expect(scenario.proxy.requests.filter(isCreation), report()).toHaveLength(1)
      const sentAgainBytes = scenario.proxy.bodyBytes(isPatch) - course.bytes.length
      expect(sentAgainBytes, report()).toBeLessThanOrEqual(SENT_AGAIN_BYTES)
    } finally {
      await scenario.close()
    }
  })
})
