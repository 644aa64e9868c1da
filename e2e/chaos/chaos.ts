import { setMaxListeners } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Browser } from '@playwright/test'
import { quantile } from '../ground/figures.js'
import { seeded } from '../ground/seeded.js'
import { DIRECTORY_FAULTS } from './directory-faults.js'
import { type Fault, possibleFaults, schedule } from './fault.js'
import type { Machine } from './machine.js'
import { newOperation, type Operation } from './operation.js'
import { type PlannedClient, planClients } from './plan.js'
import { type Recovery, watchRecovery } from './recovery.js'
import { NODES_FAULTS } from './nodes-faults.js'
import { openNodesStage, openStage, type Stage } from './stage.js'
import { runStock } from './stock.js'
import type { System } from './system.js'
import { runTab } from './tabs.js'
import { judge, type Verdict } from './verdict.js'

export interface ChaosOptions {
  readonly system: System
  readonly seed: number
  readonly durationMs: number
  readonly machine: Machine
  /** Null: all clients are stock clients. */
  readonly browser: Browser | null
  /** Faults whose names contain one of these words are left out. */
  readonly without?: readonly string[]
  /**
   * Every fault strikes at least once, in quick succession, however long that takes. Default: as many faults as the
   * time allows.
   */
  readonly wholeRound?: boolean
  readonly say?: (line: string) => void
}

export interface ChaosReport extends Verdict {
  readonly system: string
  readonly title: string
  readonly seed: number
  readonly durationMs: number
  /** How often each fault struck. */
  readonly faults: Readonly<Record<string, number>>
  /** The faults that were left out, with the reason. */
  readonly left: readonly string[]
  readonly recoveries: number
  readonly recoveryP50Ms: number
  readonly recoveryP99Ms: number
  /** The time from the end of the faults until every user was told and nothing changed any more. */
  readonly settledMs: number
}

/** The rate that all clients share. */
const BYTES_PER_SECOND = 8 * 1024 * 1024
/** A limit after the last fault, only for runs that hang: clients must be told, and the server must come to rest. */
const SETTLE_MS = 600_000
const REST_MS = 60_000
const PAUSES = { long: { fromMs: 500, toMs: 3_500 }, short: { fromMs: 100, toMs: 600 } }

/**
 * Runs users with their files, and faults, for the duration. Then it stops the faults, waits, reconciles and counts.
 */
export async function runChaos(options: ChaosOptions): Promise<ChaosReport> {
  const { system, machine } = options
  switch (system.on) {
    case 'directory':
      return runOn(await openStage(system, machine), DIRECTORY_FAULTS, options)
    case 'nodes':
      return runOn(await openNodesStage(system), NODES_FAULTS, options)
  }
}

async function runOn<S extends Stage>(stage: S, all: readonly Fault<S>[], options: ChaosOptions): Promise<ChaosReport> {
  const { system, seed, durationMs } = options
  try {
    stage.proxy.setRate(BYTES_PER_SECOND)
    const startMs = performance.now()
    const stopping = new AbortController()
    setMaxListeners(0, stopping.signal)
    const until = async (atMs: number): Promise<void> => {
      await sleep(Math.max(0, startMs + atMs - performance.now()))
    }
    const { operations, clients, troubles } = startClients(options, stage, until, stopping.signal)
    const recovery = watchRecovery(stage, operations)
    const faults = await strikeAll(options, stage, all, recovery, startMs + durationMs)
    const peaceAtMs = performance.now()
    await Promise.race([clients, sleep(SETTLE_MS, null, { ref: false })])
    const recoveries = (await recovery.stop()).toSorted((a, b) => a - b)
    const before = await untilQuiet(stage)
    const settledMs = performance.now() - peaceAtMs
    const reconciled = await stage.reconcile()
    // The rows below are compared with what users were told up to now, so later outcomes must not change this copy.
    const told = operations.map((operation) => ({ ...operation }))
    const after = (await stage.look()) ?? before
    const verdict = await judge(told, stage.proxy.requests, { before, after, reconciled })
    stopping.abort()
    return {
      system: system.name,
      title: system.title,
      seed,
      durationMs,
      ...verdict,
      ...faults,
      violations: [...verdict.violations, ...faults.violations, ...troubles.map((why) => `a client broke: ${why}`)],
      recoveries: recoveries.length,
      recoveryP50Ms: quantile(recoveries, 0.5),
      recoveryP99Ms: quantile(recoveries, 0.99),
      settledMs,
    }
  } finally {
    await stage.close()
  }
}

function startClients(
  { system, seed, durationMs, browser }: ChaosOptions,
  stage: Stage,
  until: (atMs: number) => Promise<void>,
  stopping: AbortSignal,
): { operations: readonly Operation[]; clients: Promise<unknown>; troubles: readonly string[] } {
  const all: Operation[] = []
  const troubles: string[] = []
  async function run(client: PlannedClient): Promise<void> {
    const via = client.via === 'tab' && system.hasPages && browser !== null ? 'tab' : 'stock'
    const operations = client.operations.map((planned) =>
      newOperation(planned, via, via === 'tab' ? '' : crypto.randomUUID()),
    )
    all.push(...operations)
    if (via === 'tab' && browser !== null)
      return runTab({ browser, origin: stage.site.origin, until }, client, operations)
    for (const { id } of operations) if (system.hasPages) operations.find((one) => one.id === id)?.fileIds.add(id)
    const context = { system, origin: stage.proxy.origin, until, stopping }
    await Promise.all(operations.map((operation) => runStock(context, client, operation)))
  }
  const clients = planClients(seed, durationMs).map((client) =>
    run(client).catch((error: unknown) => void troubles.push(error instanceof Error ? error.message : String(error))),
  )
  return { operations: all, clients: Promise.all(clients), troubles }
}

async function strikeAll<S extends Stage>(
  { machine, seed, without = [], wholeRound = false, say }: ChaosOptions,
  stage: S,
  all: readonly Fault<S>[],
  recovery: Recovery,
  untilMs: number,
): Promise<{ faults: Record<string, number>; left: readonly string[]; violations: readonly string[] }> {
  const { possible, left } = possibleFaults(all, machine, without)
  const random = seeded(seed + 7)
  const faults: Record<string, number> = {}
  const violations: string[] = []
  const { fromMs, toMs } = PAUSES[wholeRound ? 'short' : 'long']
  const pause = (): Promise<void> => sleep(fromMs + random.below(toMs - fromMs))
  const isRound = (): boolean => !wholeRound || possible.every(({ name }) => name in faults)
  await pause()
  for (const fault of schedule(possible, random)) {
    if (performance.now() > untilMs && isRound()) break
    say?.(`${((untilMs - performance.now()) / 1000).toFixed(0).padStart(4)} s left: ${fault.name}`)
    recovery.faultBegins()
    try {
      await fault.strike(stage, random)
    } catch (error) {
      violations.push(`${fault.name}: ${error instanceof Error ? error.message : String(error)}`)
      await stage.up()
    }
    faults[fault.name] = (faults[fault.name] ?? 0) + 1
    await recovery.faultEnded()
    await pause()
  }
  return { faults, left, violations }
}

async function untilQuiet(stage: Stage) {
  for (const deadlineMs = performance.now() + REST_MS; ; await sleep(250)) {
    const looked = await stage.look()
    if (looked === null) throw new Error(`the server is down:\n${stage.output().slice(-3_000)}`)
    if (looked.unfinished.length === 0 || performance.now() > deadlineMs) return looked
  }
}
