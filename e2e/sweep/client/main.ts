/**
 * `node e2e/dist/sweep/client/main.js`: kills a real page of a real browser right before and right after each of
 * its journal writes and requests, and once more while it goes on; with a user who comes back at once and with one who
 * leaves the rest to the server; then looks whether all invariants hold and whether he was told the truth.
 */
import { parseArgs } from 'node:util'
import { seeded } from '../../ground/seeded.js'
import { type ClientLane, type ClientResult, type ClientVariant, openClientLane } from './lane.js'
import { CLIENT_SCENARIOS, type ClientScenario } from './scenarios.js'
import type { Moment } from '../../clients/swept-page.js'

export interface ClientSweepOptions {
  /** How many runs at most, chosen by the seed so that every kind of call is among them; null: all. */
  readonly sample: number | null
  readonly seed: number
  readonly parallel: number
  /** Only scenarios whose name contains it. */
  readonly only?: string
  /** Only kills at moments like this; matched against `before put …`. */
  readonly at?: RegExp
  /** Of a page that was built on a changed client. */
  readonly page?: string
  readonly onResult?: (result: ClientResult, done: number, of: number) => void
  /** Stops with the first violation. */
  readonly bail?: boolean
}

export interface ClientSweepReport {
  readonly moments: number
  readonly runs: number
  readonly results: readonly ClientResult[]
  readonly tookMs: number
}

interface Run {
  readonly scenario: ClientScenario
  readonly kill: Moment
  readonly variant: ClientVariant
}

/** The same call again and again says nothing new. */
const MOST_OF_A_NAME = 3
const USERS = ['back', 'gone'] as const

export async function sweepClient(options: ClientSweepOptions): Promise<ClientSweepReport> {
  const startMs = performance.now()
  const results: ClientResult[] = []
  const lanes = await Promise.all(
    Array.from({ length: options.parallel }, (_, n) =>
      openClientLane(options.seed * 1_000_000 + n * 100_000, options.page),
    ),
  )
  try {
    const scenarios = CLIENT_SCENARIOS.filter(({ name }) => name.includes(options.only ?? ''))
    const recorded = await allRuns(lanes, scenarios)
    const { moments } = recorded
    const all = recorded.all.filter(({ kill, variant }) => (options.at ?? /^/).test(nameOf(variant.again ?? kill)))
    const chosen = options.sample === null ? all : sampleOf(all, options.sample, options.seed)
    const queue = [...chosen]
    const isOver = (): boolean => options.bail === true && results.some(({ outcome }) => outcome === 'bad')
    await Promise.all(
      lanes.map(async (lane) => {
        for (let run = queue.shift(); run !== undefined && !isOver(); run = queue.shift()) {
          const result = await lane.run(run.scenario, run.kill, run.variant)
          results.push(result)
          options.onResult?.(result, results.length, chosen.length)
        }
      }),
    )
    return { moments, runs: all.length, results, tookMs: performance.now() - startMs }
  } finally {
    await Promise.all(lanes.map((lane) => lane.close()))
  }
}

async function allRuns(
  lanes: readonly ClientLane[],
  scenarios: readonly ClientScenario[],
): Promise<{ all: Run[]; moments: number }> {
  const waiting = [...scenarios]
  const found = new Map<ClientScenario, { runs: Run[]; moments: number }>()
  await Promise.all(
    lanes.map(async (lane) => {
      for (let scenario = waiting.shift(); scenario !== undefined; scenario = waiting.shift())
        found.set(scenario, runsOf(scenario, await lane.record(scenario)))
    }),
  )
  const inOrder = scenarios.flatMap((scenario) => found.get(scenario) ?? [])
  return {
    all: inOrder.flatMap(({ runs }) => runs),
    moments: inOrder.reduce((sum, { moments }) => sum + moments, 0),
  }
}

function runsOf(
  scenario: ClientScenario,
  { moments, base, resuming }: { moments: readonly Moment[]; base: Moment; resuming: readonly Moment[] },
): { runs: Run[]; moments: number } {
  const isSwept = ({ name, nth }: Moment): boolean =>
    nth <= MOST_OF_A_NAME && (scenario.isFirstVisit === true || !name.startsWith('create'))
  const kills = moments.filter(isSwept)
  const once = kills.flatMap((kill) => USERS.map((user) => ({ scenario, kill, variant: { user } })))
  const again = resuming.filter(isSwept)
  const twice = again.map((moment, index) => ({
    scenario,
    kill: base,
    variant: { user: USERS[index % USERS.length] ?? 'back', again: moment },
  }))
  return { runs: [...once, ...twice], moments: kills.length + again.length }
}

const nameOf = ({ name, when }: Moment): string => `${when} ${name}`

/** Of what kind a moment is, whatever the record says and which database it is. */
const kindOf = ({ name, when }: Moment): string => {
  const words = name.split(' ')
  const told = words[0] === 'open' || words[0] === 'create' || words[0] === 'asked' ? 1 : words[0] === 'commit' ? 3 : 2
  return `${when} ${words.slice(0, told).join(' ')}`
}

/** Each kind of moment once, in a first visit where it comes there; then whatever comes. */
function sampleOf(all: readonly Run[], count: number, seed: number): Run[] {
  const shuffled = seeded(seed).shuffled(all)
  const chosen = new Set<Run>()
  const kinds = new Set<string>()
  const firstVisitsFirst = shuffled.toSorted(
    (a, b) => Number(a.variant.again !== undefined) - Number(b.variant.again !== undefined),
  )
  for (const run of firstVisitsFirst) {
    const kind = kindOf(run.variant.again ?? run.kill)
    if (kinds.has(kind)) continue
    kinds.add(kind)
    chosen.add(run)
  }
  for (const run of shuffled) {
    if (chosen.size >= count) break
    chosen.add(run)
  }
  return [...chosen]
}

export function describeClient({ scenario, kill, variant, outcome, violations, tookMs }: ClientResult): string {
  const again = variant.again === undefined ? '' : `, again ${words(variant.again)}`
  return [
    `${outcome}  ${scenario}, user ${variant.user}: ${words(kill)}${again}  ${Math.round(tookMs)} ms`,
    ...violations.map((violation) => `     ${violation}`),
  ].join('\n')
}

const words = ({ when, nth, name }: Moment): string => `${when} #${nth} ${name}`

export function clientSummary({ moments, runs, results, tookMs }: ClientSweepReport): string {
  const count = (outcome: ClientResult['outcome']): number =>
    results.filter((result) => result.outcome === outcome).length
  return `client: ${moments} moments to kill at, ${results.length} of ${runs} runs: ${count('ok')} ok, ${count('bad')} bad, ${count('not reached')} not reached; ${(tookMs / 1000).toFixed(0)} s, ${(tookMs / Math.max(1, results.length)).toFixed(0)} ms a run`
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      sample: { type: 'string' },
      seed: { type: 'string', default: '1' },
      parallel: { type: 'string', default: '2' },
      only: { type: 'string', default: '' },
      at: { type: 'string', default: '^' },
      bail: { type: 'boolean', default: false },
      page: { type: 'string' },
    },
  })
  const report = await sweepClient({
    sample: values.sample === undefined ? null : Number(values.sample),
    seed: Number(values.seed),
    parallel: Number(values.parallel),
    only: values.only,
    at: new RegExp(values.at),
    bail: values.bail,
    ...(values.page === undefined ? {} : { page: values.page }),
    onResult: (result, done, of) => process.stdout.write(`${done}/${of} ${describeClient(result)}\n`),
  })
  const isBad = report.results.some(({ outcome }) => outcome === 'bad')
  // After thousands of kills the loop was seen to turn for ever (Node 20.20).
  process.stdout.write(`${clientSummary(report)}\n`, () => process.exit(isBad ? 1 : 0))
}

if (process.argv[1] === import.meta.filename) await main()
