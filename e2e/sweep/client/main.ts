/**
 * `node e2e/dist/sweep/client/main.js`: kills a real page of a real browser right before and right after each of its
 * journal writes and requests, and once more while it resumes. In some runs the user comes back at once; in others the
 * user leaves the rest to the server. Then it checks that all invariants hold and that the user was told the truth.
 */
import { parseArgs } from 'node:util'
import {
  CAMPAIGN_ARGS,
  campaignOf,
  type CampaignOptions,
  counted,
  endCampaign,
  lineOf,
  sampleOf,
  takeAll,
} from '../campaign.js'
import type { Moment } from '../../clients/swept-page.js'
import { type ClientLane, type ClientResult, type ClientVariant, openClientLane } from './lane.js'
import { CLIENT_SCENARIOS, type ClientScenario } from './scenarios.js'

export interface ClientSweepOptions extends CampaignOptions<ClientResult> {
  /** Only scenarios whose name contains this text. */
  readonly only?: string
  /** Only kills at moments that match; matched against texts such as `before put …`. */
  readonly at?: RegExp
  /** The folder of a page that was built with a changed client. */
  readonly page?: string
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

/** Later calls of the same name find nothing new. */
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
    const chosen = sampleOf(all, options, {
      kind: ({ kill, variant }) => kindOf(variant.again ?? kill),
      isTwice: ({ variant }) => variant.again !== undefined,
      isExtra: () => false,
    })
    const runOn = (lane: ClientLane) => ({ run: (run: Run) => lane.run(run.scenario, run.kill, run.variant) })
    await takeAll(lanes.map(runOn), [...chosen], results, { ...options, of: chosen.length })
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

/** The kind of a moment, whatever the state of the record is and whichever database is used. */
const kindOf = ({ name, when }: Moment): string => {
  const words = name.split(' ')
  const told = words[0] === 'open' || words[0] === 'create' || words[0] === 'asked' ? 1 : words[0] === 'commit' ? 3 : 2
  return `${when} ${words.slice(0, told).join(' ')}`
}

export function describeClient(result: ClientResult): string {
  const { scenario, kill, variant } = result
  const again = variant.again === undefined ? '' : `, again ${words(variant.again)}`
  return lineOf(result, `${scenario}, user ${variant.user}: ${words(kill)}${again}`)
}

const words = ({ when, nth, name }: Moment): string => `${when} #${nth} ${name}`

export const clientSummary = ({ moments, runs, results, tookMs }: ClientSweepReport): string =>
  `client: ${moments} moments to kill at, ${results.length} of ${runs} runs: ${counted(results, tookMs)}`

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      ...CAMPAIGN_ARGS,
      only: { type: 'string', default: '' },
      at: { type: 'string', default: '^' },
      page: { type: 'string' },
    },
  })
  const report = await sweepClient({
    ...campaignOf(values),
    only: values.only,
    at: new RegExp(values.at),
    ...(values.page === undefined ? {} : { page: values.page }),
    onResult: (result, done, of) => process.stdout.write(`${done}/${of} ${describeClient(result)}\n`),
  })
  endCampaign(clientSummary(report), report.results)
}

if (process.argv[1] === import.meta.filename) await main()
