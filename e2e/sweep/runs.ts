import { type CampaignOptions, type Outcome, sampleOf } from './campaign.js'
import type { Losses } from './power.js'
import type { Program, Scenario } from './scenarios.js'
import type { Kill, Point } from './world.js'

/** What becomes of the client, and what else happens to the machine. */
export interface Variant {
  /** `retries`: it stays and goes on. `gone`: it never comes back, and only the completer works. */
  readonly client: 'retries' | 'gone'
  /** The power is lost with the first kill; `zero` and `cut` as in `losePower`. */
  readonly power?: 'cut' | 'zero'
  /** The power is lost with the second kill. */
  readonly powerAgain?: 'cut' | 'zero'
  /** Killed once more, while it starts again and recovers. */
  readonly again?: Kill
}

export interface Run {
  readonly program: Program
  readonly scenario: Scenario
  readonly kill: Kill
  readonly variant: Variant
}

export interface Result extends Run, Outcome {
  readonly losses: Losses | null
}

/** The reference, or the first step towards an end without one. */
export const STAKES =
  /INSERT INTO landfall_references|COMMIT after INSERT INTO landfall_effects|SET point = .*problem|unlink blobs/

// Which runs there are, and which of them a sample has.

/** The same call again and again in one run says nothing new. */
const MOST_OF_A_NAME = 2
const MOST_OF_A_START = 1

const VARIANTS: readonly Variant[] = [
  { client: 'retries' },
  { client: 'gone' },
  { client: 'retries', power: 'cut' },
  { client: 'gone', power: 'zero' },
]
/** At every other moment the other way round. */
const OTHER_VARIANTS: readonly Variant[] = [
  { client: 'retries' },
  { client: 'gone' },
  { client: 'retries', power: 'zero' },
  { client: 'gone', power: 'cut' },
]
/** Of two kills. The next process must not rely on what the first one left unsynced. */
const TWICE: readonly Omit<Variant, 'again'>[] = [
  { client: 'retries', powerAgain: 'cut' },
  { client: 'gone' },
  { client: 'retries', power: 'cut' },
  { client: 'gone', power: 'zero', powerAgain: 'zero' },
]
/** Of a first kill right after a name was removed: the next process finds it gone, and that was not synced. */
const REMOVES = /^unlink blobs/
const TWICE_REMOVED: readonly Omit<Variant, 'again'>[] = [
  { client: 'gone', powerAgain: 'zero' },
  { client: 'retries', powerAgain: 'cut' },
]

/** Every moment of an undisturbed run, and of what followed a kill. */
export function runsOf(
  program: Program,
  scenario: Scenario,
  points: readonly Point[],
  starting: readonly Point[],
): Run[] {
  const moments = (list: readonly Point[], most: number): Kill[] =>
    list
      .filter(({ nth }) => nth <= most)
      .flatMap((point) => [
        { ...point, when: 'before' as const },
        { ...point, when: 'after' as const },
      ])
  const kills = moments(points, MOST_OF_A_NAME)
  const once = kills.flatMap((kill, index) =>
    variantsOf(program, index).map((variant) => ({ program, scenario, kill, variant })),
  )
  // Killed where most is at stake, and then again at each moment of the recovery.
  const twice = (when: Kill['when'], names: RegExp, ways: readonly Omit<Variant, 'again'>[]): Run[] => {
    const base = kills.find((kill) => kill.when === when && names.test(kill.name))
    if (base === undefined) return []
    return moments(starting, MOST_OF_A_START).map((again, index) => ({
      program,
      scenario,
      kill: base,
      variant: { ...(ways[index % ways.length] ?? { client: 'gone' as const }), again },
    }))
  }
  return program === 'nodes'
    ? [...once, ...twice('before', STAKES, VARIANTS.filter(keepsPower))]
    : [...once, ...twice('before', STAKES, TWICE), ...twice('after', REMOVES, TWICE_REMOVED)]
}

/** Power is lost by a machine with its disk, and nodes have none. */
const keepsPower = ({ power, powerAgain }: Omit<Variant, 'again'>): boolean =>
  power === undefined && powerAgain === undefined

const variantsOf = (program: Program, index: number): readonly Variant[] =>
  program === 'nodes' ? VARIANTS.filter(keepsPower) : index % 2 === 0 ? VARIANTS : OTHER_VARIANTS

/** Of what sort a call is, whatever its place. */
export const kindOf = ({ name }: Point): string =>
  name
    .split(' ')
    .slice(0, !name.startsWith('sql') ? 2 : name.startsWith('sql UPDATE') ? 5 : 3)
    .join(' ')
export const kindOfRun = ({ kill, variant: { again } }: Run): string =>
  again === undefined ? kindOf(kill) : `again ${kindOf(again)}`

/** Each kind of call; what is left of the number goes to second kills, each kind of call again, and then to others. */
export const sampleOfRuns = (all: readonly Run[], options: Pick<CampaignOptions, 'sample' | 'seed'>): Run[] =>
  sampleOf(all, options, { kind: kindOfRun, isTwice, isExtra: isTwice })

const isTwice = ({ variant }: Run): boolean => variant.again !== undefined
