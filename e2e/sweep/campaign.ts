import { seeded } from '../ground/seeded.js'

// What all sweeps share: a sample of the runs, lanes that take runs in turn, and a summary.

export interface Outcome {
  /** `not reached`: the call did not happen in this run. Everything was checked nevertheless. */
  readonly outcome: 'ok' | 'bad' | 'not reached'
  readonly violations: readonly string[]
  readonly tookMs: number
}

export interface CampaignOptions<R extends Outcome = Outcome> {
  /** The highest number of runs. The seed chooses them so that every kind of call is included. Null: all runs. */
  readonly sample: number | null
  readonly seed: number
  readonly parallel: number
  /** Stops at the first violation. */
  readonly bail?: boolean
  readonly onResult?: (result: R, done: number, of: number) => void
}

/**
 * Takes runs from a queue, which may grow, until it is empty or the campaign is over. `results` are those of the whole
 * campaign.
 */
export async function takeAll<Run, R extends Outcome>(
  lanes: readonly { run(run: Run): Promise<R> }[],
  queue: Run[],
  results: R[],
  options: CampaignOptions<R> & { readonly of: number; readonly after?: (run: Run, result: R) => void },
): Promise<void> {
  const isOver = (): boolean => options.bail === true && results.some(({ outcome }) => outcome === 'bad')
  await Promise.all(
    lanes.map(async (lane) => {
      for (let run = queue.shift(); run !== undefined && !isOver(); run = queue.shift()) {
        const result = await lane.run(run)
        results.push(result)
        options.after?.(run, result)
        options.onResult?.(result, results.length, options.of)
      }
    }),
  )
}

/**
 * Chooses each kind of run once, first those with one kill. Then it adds other runs until there are `sample` runs. A
 * run for which `isExtra` holds is not chosen for its kind when enough runs are chosen already.
 */
export function sampleOf<Run>(
  all: readonly Run[],
  { sample, seed }: Pick<CampaignOptions, 'sample' | 'seed'>,
  of: { kind(run: Run): string; isTwice(run: Run): boolean; isExtra(run: Run): boolean },
): Run[] {
  if (sample === null) return [...all]
  const shuffled = seeded(seed).shuffled(all)
  const chosen = new Set<Run>()
  const kinds = new Set<string>()
  for (const run of shuffled.toSorted((a, b) => Number(of.isTwice(a)) - Number(of.isTwice(b)))) {
    if (kinds.has(of.kind(run)) || (of.isExtra(run) && chosen.size >= sample)) continue
    kinds.add(of.kind(run))
    chosen.add(run)
  }
  for (const run of shuffled) {
    if (chosen.size >= sample) break
    chosen.add(run)
  }
  return [...chosen]
}

export const lineOf = ({ outcome, violations, tookMs }: Outcome, words: string, more = ''): string =>
  [`${outcome}  ${words}  ${Math.round(tookMs)} ms${more}`, ...violations.map((each) => `     ${each}`)].join('\n')

export function counted(results: readonly Outcome[], tookMs: number): string {
  const count = (which: Outcome['outcome']): number => results.filter(({ outcome }) => outcome === which).length
  return `${count('ok')} ok, ${count('bad')} bad, ${count('not reached')} not reached; ${(tookMs / 1000).toFixed(0)} s, ${(tookMs / Math.max(1, results.length)).toFixed(0)} ms a run`
}

/** The options on the command line of every sweep, for `parseArgs`. */
export const CAMPAIGN_ARGS = {
  sample: { type: 'string' },
  seed: { type: 'string', default: '1' },
  parallel: { type: 'string', default: '2' },
  bail: { type: 'boolean', default: false },
} as const

export const campaignOf = (values: { sample?: string | undefined; seed: string; parallel: string; bail: boolean }) => ({
  sample: values.sample === undefined ? null : Number(values.sample),
  seed: Number(values.seed),
  parallel: Number(values.parallel),
  bail: values.bail,
})

/**
 * Prints the summary and ends the process. After thousands of kills the event loop sometimes never ended by itself
 * (Node 20.20).
 */
export const endCampaign = (summary: string, results: readonly Outcome[]): void =>
  void process.stdout.write(`${summary}\n`, () =>
    process.exit(results.some(({ outcome }) => outcome === 'bad') ? 1 : 0),
  )
