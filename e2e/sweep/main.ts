/**
 * `npm run sweep`: kills a real server right before and right after each of its external calls, with a client that goes
 * on and with one that never comes back, once more while it recovers, and with the power lost; then looks whether all
 * invariants hold.
 */
import { parseArgs } from 'node:util'
import { type Browser, chromium } from '@playwright/test'
import { launchOptions } from '../ground/chromium.js'
import { seeded } from '../ground/seeded.js'
import { openNodesLane } from './nodes/lane.js'
import { type Lane, openLane, type Program, type Result, type Run } from './run.js'
import { kindOf, kindOfRun, runsOf, sampleOf } from './sample.js'
import { scenariosOf } from './scenarios.js'

export interface SweepOptions {
  /** How many runs at most, chosen by the seed so that every kind of call is among them; null: all. */
  readonly sample: number | null
  readonly seed: number
  readonly parallel: number
  /** Default: `serve` and `app`. */
  readonly programs?: readonly Program[]
  /** Names of scenarios; default: all. */
  readonly scenarios?: readonly string[]
  /** Of a copy of the server that was changed; see `mutations`. */
  readonly serverFolder?: string
  readonly onResult?: (result: Result, done: number, of: number) => void
  /** Stops with the first violation. */
  readonly bail?: boolean
  /** Only runs of which this holds. */
  readonly only?: (run: Run) => boolean
}

export interface SweepReport {
  readonly points: number
  /** Of what sorts the calls are. */
  readonly kinds: readonly string[]
  readonly results: readonly Result[]
  readonly tookMs: number
}

export async function sweep(browser: Browser, options: SweepOptions): Promise<SweepReport> {
  const startMs = performance.now()
  const { serverFolder } = options
  // Of a changed server only itself is run.
  const programs = options.programs ?? (serverFolder === undefined ? (['serve', 'app'] as const) : (['serve'] as const))
  const lanes: ProgramLane[] = []
  try {
    const all: Run[] = []
    for (const program of programs) {
      for (let n = 0; n < options.parallel; n += 1) {
        const firstSeed = options.seed * 1_000_000 + lanes.length * 100_000
        const world = serverFolder === undefined ? {} : { serverFolder }
        const lane =
          program === 'nodes' ? openNodesLane(browser, firstSeed) : openLane(browser, firstSeed, { ...world, program })
        lanes.push({ ...(await lane), program })
      }
      all.push(...(await momentsOf(lanes, program, options.scenarios)))
    }
    const results = await runAll(lanes, all.filter(options.only ?? (() => true)), options)
    const kinds = [...new Set(all.map(({ kill }) => kindOf(kill)))]
    return { points: all.length, kinds, results, tookMs: performance.now() - startMs }
  } finally {
    await Promise.all(lanes.map((lane) => lane.close().catch(() => {})))
  }
}

type ProgramLane = Lane & { readonly program: Program }

async function momentsOf(lanes: readonly ProgramLane[], program: Program, names?: readonly string[]): Promise<Run[]> {
  const first = lanes.find((lane) => lane.program === program)
  if (first === undefined) throw new RangeError('parallel: at least 1')
  const all: Run[] = []
  for (const scenario of scenariosOf(program)) {
    if (names !== undefined && !names.includes(scenario.name)) continue
    const { points, starting } = await first.record(scenario)
    all.push(...runsOf(program, scenario, points, starting))
  }
  return all
}

async function runAll(lanes: readonly ProgramLane[], wanted: readonly Run[], options: SweepOptions): Promise<Result[]> {
  const chosen = options.sample === null ? wanted : sampleOf(wanted, options.sample, options.seed)
  const spare = seeded(options.seed)
    .shuffled(wanted)
    .filter((run) => !chosen.includes(run))
  const queues = new Map<Program, Run[]>()
  for (const run of chosen) queues.set(run.program, [...(queues.get(run.program) ?? []), run])
  /** What depends on the moment does not always come: then another call of its kind is tried, of this program or a later one. */
  const tryAnotherLike = (missed: Run): void => {
    const turns = [...queues.keys()]
    const turn = ({ program }: Run): number => turns.indexOf(program)
    const at = spare.findIndex((run) => kindOfRun(run) === kindOfRun(missed) && turn(run) >= turn(missed))
    for (const other of at === -1 ? [] : spare.splice(at, 1)) queues.get(other.program)?.push(other)
  }
  const results: Result[] = []
  const isOver = (): boolean => options.bail === true && results.some(({ outcome }) => outcome === 'bad')
  for (const [program, queue] of queues)
    await Promise.all(
      lanes
        .filter((lane) => lane.program === program)
        .map(async (lane) => {
          for (let run = queue.shift(); run !== undefined && !isOver(); run = queue.shift()) {
            const result = await lane.run(run)
            results.push(result)
            if (result.outcome === 'not reached') tryAnotherLike(run)
            options.onResult?.(result, results.length, chosen.length)
          }
        }),
    )
  return results
}

function inWords({ scenario, kill, variant }: Run): string {
  const lossOf = (how: string | undefined, which: string): string =>
    how === undefined ? '' : `, power lost ${which} (${how})`
  const power = lossOf(variant.power, 'first') + lossOf(variant.powerAgain, 'second')
  const again = variant.again === undefined ? '' : `, again ${variant.again.when} ${variant.again.name}`
  return `${scenario.name}, client ${variant.client}${power}: ${kill.when} #${kill.nth} ${kill.name}${again}`
}

export function describe(result: Result): string {
  const { outcome, violations, losses, tookMs } = result
  const lost =
    losses === null
      ? ''
      : ` [lost: ${losses.files.reduce((sum, { bytes }) => sum + bytes, 0)} bytes of ${losses.files.length} files, ${losses.names.length} names, ${losses.walBytes} bytes of the log]`
  return [
    `${outcome}  ${inWords(result)}  ${Math.round(tookMs)} ms${lost}`,
    ...violations.map((words) => `     ${words}`),
  ].join('\n')
}

export function summary({ points, kinds, results, tookMs }: SweepReport): string {
  const count = (outcome: Result['outcome']): number => results.filter((result) => result.outcome === outcome).length
  return `${points} moments to kill at (${kinds.length} kinds of calls), ${results.length} run: ${count('ok')} ok, ${count('bad')} bad, ${count('not reached')} not reached; ${(tookMs / 1000).toFixed(0)} s, ${(tookMs / Math.max(1, results.length)).toFixed(0)} ms a run`
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      sample: { type: 'string' },
      seed: { type: 'string', default: '1' },
      parallel: { type: 'string', default: '2' },
      bail: { type: 'boolean', default: false },
      server: { type: 'string' },
      nodes: { type: 'boolean', default: false },
      // Words of the line that a run is printed as, separated by `;`: all of them, or none.
      only: { type: 'string', default: '' },
      without: { type: 'string' },
    },
  })
  const browser = await chromium.launch(launchOptions())
  const report = await sweep(browser, {
    sample: values.sample === undefined ? null : Number(values.sample),
    seed: Number(values.seed),
    parallel: Number(values.parallel),
    bail: values.bail,
    only: (run) =>
      values.only.split(';').every((words) => inWords(run).includes(words)) &&
      (values.without === undefined || !values.without.split(';').some((words) => inWords(run).includes(words))),
    ...(values.server === undefined ? {} : { serverFolder: values.server }),
    ...(values.nodes ? { programs: ['nodes'] as const } : {}),
    onResult: (result, done, of) => process.stdout.write(`${done}/${of} ${describe(result)}\n`),
  })
  await browser.close()
  const isBad = report.results.some(({ outcome }) => outcome === 'bad')
  // After thousands of kills the loop was seen to turn for ever (Node 20.20).
  process.stdout.write(`${summary(report)}\n`, () => process.exit(isBad ? 1 : 0))
}

if (process.argv[1] === import.meta.filename) await main()
