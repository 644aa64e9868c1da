/**
 * `npm run sweep`: kills a real server right before and right after each of its external calls. It does so with a
 * client that continues and with one that never comes back, once more while the server recovers, and with the power
 * lost. Then it checks that all invariants hold.
 */
import { parseArgs } from 'node:util'
import { type Browser, chromium } from '@playwright/test'
import { launchOptions } from '../ground/chromium.js'
import { seeded } from '../ground/seeded.js'
import { CAMPAIGN_ARGS, campaignOf, type CampaignOptions, counted, endCampaign, lineOf, takeAll } from './campaign.js'
import { killedNode } from './killed-node.js'
import { killedServer } from './killed-server.js'
import { type Lane, openLaneOn } from './lane.js'
import { kindOf, kindOfRun, type Result, type Run, runsOf, sampleOfRuns } from './runs.js'
import { type Program, scenariosOf } from './scenarios.js'

export interface SweepOptions extends CampaignOptions<Result> {
  /** Default: `serve` and `app`. */
  readonly programs?: readonly Program[]
  /** Names of scenarios; default: all. */
  readonly scenarios?: readonly string[]
  /** The folder of a changed copy of the server. Then only that server is run, and no application. */
  readonly serverFolder?: string
  /** Only runs for which this holds. */
  readonly only?: (run: Run) => boolean
}

export interface SweepReport {
  readonly points: number
  /** The kinds of the calls. */
  readonly kinds: readonly string[]
  readonly results: readonly Result[]
  readonly tookMs: number
}

type ProgramLane = Lane & { readonly program: Program }

async function openLane(
  browser: Browser,
  firstSeed: number,
  { program, serverFolder }: { program: Program; serverFolder?: string | undefined },
): Promise<Lane> {
  if (program === 'nodes') return openLaneOn(browser, firstSeed, killedNode)
  return openLaneOn(
    browser,
    firstSeed,
    killedServer({ program, ...(serverFolder === undefined ? {} : { serverFolder }) }),
  )
}

export async function sweep(browser: Browser, options: SweepOptions): Promise<SweepReport> {
  const startMs = performance.now()
  const { serverFolder, programs = serverFolder === undefined ? ['serve', 'app'] : ['serve'] } = options
  const lanes: ProgramLane[] = []
  try {
    const all: Run[] = []
    for (const program of programs) {
      for (let n = 0; n < options.parallel; n += 1) {
        const firstSeed = options.seed * 1_000_000 + lanes.length * 100_000
        lanes.push({ ...(await openLane(browser, firstSeed, { program, serverFolder })), program })
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
  const chosen = sampleOfRuns(wanted, options)
  const spare = seeded(options.seed)
    .shuffled(wanted)
    .filter((run) => !chosen.includes(run))
  const queues = new Map<Program, Run[]>()
  for (const run of chosen) queues.set(run.program, [...(queues.get(run.program) ?? []), run])
  /**
   * A call that depends on the moment does not happen in every run. If it was not reached, another call of its kind is
   * tried, of the same program or of a later one.
   */
  const tryAnotherLike = (missed: Run): void => {
    const turns = [...queues.keys()]
    const turn = ({ program }: Run): number => turns.indexOf(program)
    const at = spare.findIndex((run) => kindOfRun(run) === kindOfRun(missed) && turn(run) >= turn(missed))
    for (const other of at === -1 ? [] : spare.splice(at, 1)) queues.get(other.program)?.push(other)
  }
  const results: Result[] = []
  for (const [program, queue] of queues)
    await takeAll(
      lanes.filter((lane) => lane.program === program),
      queue,
      results,
      { ...options, of: chosen.length, after: (run, { outcome }) => outcome === 'not reached' && tryAnotherLike(run) },
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
  const { losses } = result
  const lost =
    losses === null
      ? ''
      : ` [lost: ${losses.files.reduce((sum, { bytes }) => sum + bytes, 0)} bytes of ${losses.files.length} files, ${losses.names.length} names, ${losses.walBytes} bytes of the log]`
  return lineOf(result, inWords(result), lost)
}

export const summary = ({ points, kinds, results, tookMs }: SweepReport): string =>
  `${points} moments to kill at (${kinds.length} kinds of calls), ${results.length} run: ${counted(results, tookMs)}`

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      ...CAMPAIGN_ARGS,
      server: { type: 'string' },
      nodes: { type: 'boolean', default: false },
      // Words of the line that is printed for a run, separated by `;`. A run is taken if its line contains all of them.
      only: { type: 'string', default: '' },
      without: { type: 'string' },
    },
  })
  const browser = await chromium.launch(launchOptions())
  const report = await sweep(browser, {
    ...campaignOf(values),
    only: (run) =>
      values.only.split(';').every((words) => inWords(run).includes(words)) &&
      (values.without === undefined || !values.without.split(';').some((words) => inWords(run).includes(words))),
    ...(values.server === undefined ? {} : { serverFolder: values.server }),
    ...(values.nodes ? { programs: ['nodes'] } : {}),
    onResult: (result, done, of) => process.stdout.write(`${done}/${of} ${describe(result)}\n`),
  })
  await browser.close()
  endCampaign(summary(report), report.results)
}

if (process.argv[1] === import.meta.filename) await main()
