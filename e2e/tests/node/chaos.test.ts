import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Browser, chromium } from '@playwright/test'
import { afterAll, beforeAll, describe, expect, it, test } from 'vitest'
import { runChaos } from '../../chaos/chaos.js'
import { DIRECTORY_FAULTS } from '../../chaos/directory-faults.js'
import { possibleFaults, schedule } from '../../chaos/fault.js'
import { landfallSystem, peerSystem } from '../../chaos/system.js'
import { lookAtMachine, type Means } from '../../chaos/machine.js'
import { planClients } from '../../chaos/plan.js'
import { type DirectoryStage, openStage } from '../../chaos/stage.js'
import { markdown } from '../../chaos/table.js'
import { launchOptions } from '../../ground/chromium.js'
import { seeded } from '../../ground/seeded.js'
import { expectNobodyMisled } from './chaos-verdict.js'

const machine = await lookAtMachine()
/** Another one by CHAOS_SEED. `npm run chaos` runs longer. */
const seed = Number(process.env['CHAOS_SEED'] ?? '1')
const DURATION_MS = 40_000
const say = (text: string): void => void process.stdout.write(`${text}\n`)

let browser: Browser
beforeAll(async () => {
  browser = await chromium.launch(launchOptions())
})
afterAll(() => browser.close())

test('through kills, cuts, stops, a full disk and torn files nobody is told what is not so', async () => {
  const report = await runChaos({
    system: landfallSystem(),
    seed,
    durationMs: DURATION_MS,
    machine,
    browser,
    wholeRound: true,
  })
  say(`${markdown([report])}\n${report.left.map((reason) => `left out: ${reason}\n`).join('')}`)
  expectNobodyMisled(report)
  expect(Object.keys(report.faults)).toHaveLength(DIRECTORY_FAULTS.length - report.left.length)
}, 900_000)

test('the harness counts a success that was told without a row', async () => {
  const system = peerSystem('lying')
  const report = await runChaos({
    system,
    seed,
    durationMs: 4_000,
    machine,
    browser: null,
    without: DIRECTORY_FAULTS.map(({ name }) => name),
  })
  expect(report.toldSuccess).toBeGreaterThan(5)
  expect(report.successWithoutReference).toBe(report.toldSuccess)
  expect(report.violations.filter((why) => why.startsWith('told success without'))).toHaveLength(report.toldSuccess)
  // Whole files without a row.
  expect(report.orphansBefore).toBeGreaterThanOrEqual(report.toldSuccess)
}, 500_000)

const TUS = { 'Tus-Resumable': '1.0.0' }
const SIZE = 300_000

/** One upload as a stock client sends it; answers the status of its PATCH, or 0 when there was none in time. */
async function upload({ system, proxy }: DirectoryStage, id: string): Promise<number> {
  const send = async (
    method: string,
    path: string,
    headers: Record<string, string>,
    body: Uint8Array<ArrayBuffer> | null,
  ) => {
    const all = { ...TUS, ...system.headers, ...headers }
    const answer = await fetch(proxy.origin + path, { method, headers: all, body, signal: AbortSignal.timeout(10_000) })
    await answer.arrayBuffer()
    return answer
  }
  try {
    const metadata = `operationId ${Buffer.from(id).toString('base64')}`
    const created = await send(
      'POST',
      system.tusPath,
      { 'Upload-Length': String(SIZE), 'Upload-Metadata': metadata },
      null,
    )
    if (!created.ok) return created.status
    const headers = { 'Upload-Offset': '0', 'Content-Type': 'application/offset+octet-stream' }
    return (await send('PATCH', `${system.tusPath}/${id}`, headers, new Uint8Array(SIZE).fill(1))).status
  } catch {
    return 0
  }
}

async function arrives(stage: DirectoryStage): Promise<void> {
  const id = randomUUID()
  expect(await upload(stage, id)).toBe(204)
  for (const deadline = performance.now() + 60_000; performance.now() < deadline; await sleep(100))
    if ((await stage.look())?.references.get(id)?.length === 1) return
  throw new Error(`no reference:\n${stage.server.output()}`)
}

/** What the server thinks what time it is, against the truth, in days. */
async function clockOf({ proxy }: DirectoryStage): Promise<number> {
  const answer = await fetch(proxy.origin)
  await answer.arrayBuffer()
  return Math.round((Date.parse(answer.headers.get('date') ?? '') - Date.now()) / 86_400_000)
}

const means: readonly Means[] = ['small disk', 'permissions', 'set clock']
for (const reason of means.flatMap((one) => machine.missing.get(one) ?? [])) say(`not tested here: ${reason}`)

/** No upload of a few bytes takes so long by itself. */
const LONG_MS = 1_000

describe('faults that not every machine can have', () => {
  async function during(
    name: string,
    look: (stage: DirectoryStage, over: AbortSignal) => Promise<boolean>,
  ): Promise<void> {
    const fault = possibleFaults(DIRECTORY_FAULTS, machine, []).possible.find((one) => one.name === name)
    if (fault === undefined) throw new Error(`there is no ${name}`)
    const stage = await openStage(landfallSystem(), machine)
    try {
      await arrives(stage)
      let felt = false
      // Busy machines may sleep over one of them.
      for (let times = 0; times < 5 && !felt; times += 1) {
        const over = new AbortController()
        const striking = fault.strike(stage, seeded(seed + times)).finally(() => over.abort())
        while (!over.signal.aborted && !felt) felt = await look(stage, over.signal)
        await striking
      }
      expect(felt).toBe(true)
      await arrives(stage)
      expect(await clockOf(stage)).toBeCloseTo(0)
    } finally {
      await stage.close()
    }
  }
  /** Refused, or kept waiting until it was over: nothing is taken meanwhile. */
  async function isNotTaken(stage: DirectoryStage, over: AbortSignal): Promise<boolean> {
    const fromMs = performance.now()
    const status = await upload(stage, randomUUID())
    return status !== 204 || (over.aborted && performance.now() - fromMs > LONG_MS)
  }

  it.skipIf(machine.missing.has('small disk'))('a full disk takes nothing, and is well again afterwards', () =>
    during('disk full', isNotTaken),
  )
  it.skipIf(machine.missing.has('permissions'))('a directory without permission takes nothing, and then does', () =>
    during('directory without permission', isNotTaken),
  )
  it.skipIf(machine.missing.has('set clock'))('a clock that is set is set for the whole server, and set back', () =>
    during('clock +8 days and back', async (stage) => (await clockOf(stage)) === 8),
  )
})

test('a seed gives the same users and the same order of faults', () => {
  expect(planClients(5, 60_000)).toEqual(planClients(5, 60_000))
  expect(planClients(5, 60_000)).not.toEqual(planClients(6, 60_000))
  const { possible } = possibleFaults(DIRECTORY_FAULTS, machine, [])
  const order = (of: number): string[] => {
    const faults = schedule(possible, seeded(of))
    return Array.from({ length: 40 }, () => faults.next().value?.name ?? '')
  }
  expect(order(5)).toEqual(order(5))
  expect(order(5)).not.toEqual(order(6))
  const sizes = planClients(5, 600_000).flatMap(({ operations }) => operations.map(({ sizeBytes }) => sizeBytes))
  expect(sizes.length).toBeGreaterThan(300)
  expect(Math.min(...sizes)).toBe(0)
  expect(Math.max(...sizes)).toBeGreaterThan(16 * 1024 * 1024)
})
