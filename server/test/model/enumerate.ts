import type { ModelDatabase } from './database.js'
import { applies, type Fault, HOWS } from './faults.js'
import { runHistory, seeded } from './history.js'
import type { Scenario } from './scenarios.js'

export interface Found {
  readonly scenario: string
  readonly faults: readonly (Fault & { call: string })[]
  readonly violations: readonly string[]
}

export interface Tally {
  histories: number
  readonly found: Found[]
}

/** Each fault that can happen at or after a boundary of the history. */
const faultsAt = (calls: readonly string[], from: number): Fault[] =>
  calls.flatMap((call, at) => (at < from ? [] : HOWS.filter((how) => applies(how, call)).map((how) => ({ at, how }))))

async function run(
  database: ModelDatabase,
  scenario: Scenario,
  faults: readonly Fault[],
  tally: Tally,
): Promise<readonly string[]> {
  const { violations, calls } = await runHistory(database, scenario, faults)
  tally.histories++
  if (violations.length > 0)
    tally.found.push({
      scenario: scenario.name,
      faults: faults.map((fault) => ({ ...fault, call: calls[fault.at] ?? '' })),
      violations,
    })
  return calls
}

/** Runs every fault at every boundary. Answers the boundaries of each history, for the second fault. */
export async function singles(
  database: ModelDatabase,
  scenario: Scenario,
  tally: Tally,
): Promise<{ fault: Fault; calls: readonly string[] }[]> {
  const all = []
  for (const fault of faultsAt(await run(database, scenario, [], tally), 0)) {
    // For a copy with a deliberate mistake, one history that shows it is enough.
    if (process.env['LANDFALL_MODEL_DIST'] !== undefined && tally.found.length > 0) break
    all.push({ fault, calls: await run(database, scenario, [fault], tally) })
  }
  return all
}

/** Runs a second fault at every boundary after the first, including those of the recovery, or a sample of them. */
export async function pairs(
  database: ModelDatabase,
  scenario: Scenario,
  firsts: readonly { fault: Fault; calls: readonly string[] }[],
  { most, seed }: { most: number; seed: number },
  tally: Tally,
): Promise<void> {
  const all = firsts.flatMap(({ fault, calls }) =>
    faultsAt(calls, fault.at + 1).map((second) => [fault, second] as const),
  )
  const random = seeded(seed)
  const chosen = most >= all.length ? all : Array.from({ length: most }, () => all[Math.floor(random() * all.length)])
  for (const both of chosen) if (both !== undefined) await run(database, scenario, both, tally)
}

export const describeFound = ({ scenario, faults, violations }: Found): string =>
  `${scenario}: ${faults.map(({ at, how, call }) => `${how} at ${at} ${call}`).join(', ')}\n    ${violations.join('\n    ')}`
