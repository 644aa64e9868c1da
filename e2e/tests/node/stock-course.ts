import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'vitest'
import { pseudoRandomBytes } from '../../ground/files.js'
import type { RecordedRequest } from '../../ground/proxy.js'
import type { ApplicationSettings } from '../../programs/application.js'
import { startApplication, type Story } from '../../programs/story.js'
import { type Client, inTurn, type Stage, type Told } from '../../clients/stock.js'

export interface Situation {
  readonly name: string
  readonly settings: Omit<ApplicationSettings, 'directory' | 'page'>
  /** Default 3,000,000. */
  readonly sizeBytes?: number
  /** From the moment the server has all bytes. Answers how to stop it. */
  disturb?(scenario: Story): Promise<() => void>
}

/** What happened to one upload. */
interface Course {
  readonly successes: number
  readonly errors: readonly { message: string; status: number | null }[]
  /** How many references there were when the client said success. */
  readonly referencesAtSuccess: number
  /** From the last byte (or the start, for an empty file) until the client told the first thing. */
  readonly tookMs: number
  readonly sizeBytes: number
  readonly sha256: string
}

/** What may be sent more than once of a file whose bytes the server has all received. */
const SENT_AGAIN_BYTES = 16 * 1024

const isCreation = ({ method, path }: RecordedRequest): boolean => method === 'POST' && /\/files\/?$/.test(path)
export const isPatch = ({ method }: RecordedRequest): boolean => method === 'PATCH'

export const nothing = (): void => {}
const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex')

/** Success, not before the reference, once; one operation, one creation, the right bytes, next to nothing sent again. */
export async function expectSuccess(stage: Stage, client: Client, situation: Situation): Promise<void> {
  const scenario = await inTurn(() => startApplication({ ...situation.settings, page: stage.page }))
  try {
    const course = await follow(stage, scenario, client, situation)
    const report = describe(scenario)
    expect(course, report).toMatchObject({ successes: 1, errors: [], referencesAtSuccess: 1 })
    expect(course.tookMs, report).toBeGreaterThan(situation.settings.prepareMs ?? 0)
    const truth = await scenario.truth()
    expect(truth, report).toMatchObject({
      operations: [{ point: expect.stringMatching(/^(referenced|completed)$/), offset: course.sizeBytes }],
      references: { length: 1 },
      rows: { length: 1 },
      blobs: { size: 1 },
    })
    expectLittleTraffic(scenario, course, report)
    const served = await fetch(`${scenario.proxy.origin}/uploads/files/${truth.operations[0]?.id ?? ''}`)
    expect(served.status, report).toBe(200)
    expect(sha256(Buffer.from(await served.arrayBuffer())), report).toBe(course.sha256)
  } finally {
    await scenario.close()
  }
}

/** An error with the server's 422, once, and nothing is kept. */
export async function expectRejection(stage: Stage, client: Client, situation: Situation): Promise<void> {
  const scenario = await inTurn(() => startApplication({ ...situation.settings, page: stage.page }))
  try {
    const course = await follow(stage, scenario, client, situation)
    const report = describe(scenario)
    expect(course, report).toMatchObject({ successes: 0, errors: [{ status: 422 }] })
    expect(course.errors, report).toHaveLength(1)
    await blobsGone(scenario)
    const truth = { operations: [{ point: 'rejected' }], references: [], rows: [], blobs: { size: 0 } }
    expect(await scenario.truth(), report).toMatchObject(truth)
    expectLittleTraffic(scenario, course, report)
  } finally {
    await scenario.close()
  }
}

function expectLittleTraffic({ proxy }: Story, course: Course, report: string): void {
  expect(proxy.requests.filter(isCreation), report).toHaveLength(1)
  expect(proxy.bodyBytes(isPatch) - course.sizeBytes, report).toBeLessThanOrEqual(SENT_AGAIN_BYTES)
}

/** Uploads with this client in this situation until it has told something, and a little longer. */
async function follow(stage: Stage, scenario: Story, client: Client, situation: Situation): Promise<Course> {
  const sizeBytes = situation.sizeBytes ?? 3_000_000
  const bytes = pseudoRandomBytes(sizeBytes, situation.name)
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
      counts.push(scenario.truth().then(({ references }) => references.length))
      tell()
    },
    failed(message, status) {
      errors.push({ message, status })
      tell()
    },
  }
  const end = await inTurn(() => client(stage, scenario, bytes, told))
  let calm = nothing
  if (sizeBytes > 0) {
    await scenario.proxy.waitFor((request) => isPatch(request) && request.forwardedBodyBytes === sizeBytes, 60_000)
    startMs = performance.now()
    calm = (await situation.disturb?.(scenario)) ?? nothing
  }
  await first
  calm()
  // Whoever says something twice does it soon.
  await sleep(3000)
  await end()
  const referencesAtSuccess = (await counts[0]) ?? 0
  return { successes: counts.length, errors, referencesAtSuccess, tookMs, sizeBytes, sha256: sha256(bytes) }
}

/** The bytes of a rejected file go soon after. */
async function blobsGone(scenario: Story): Promise<void> {
  for (let waitedMs = 0; waitedMs < 15_000 && (await scenario.truth()).blobs.size > 0; waitedMs += 250) await sleep(250)
}

function describe({ proxy, server }: Story): string {
  const requests = proxy.requests.map(({ method, path, headers, bodyBytes, status, startedAtMs, nth }) => {
    const offset = headers['upload-offset'] ?? ''
    return `${(startedAtMs / 1000).toFixed(1)} ${method} ${path} ${offset} ${bodyBytes} B, ${nth}. → ${status}`
  })
  return [...requests, server.output().slice(-4000)].join('\n')
}
