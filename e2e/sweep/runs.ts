import { type CampaignOptions, type Outcome, sampleOf } from './campaign.js'
import type { Losses } from './power.js'
import type { Program, Scenario } from './scenarios.js'
import type { Kill, Point } from './world.js'

/** What the client does, and what else happens to the machine. */
export interface Variant {
  /** `retries`: the client stays and continues. `gone`: it never comes back, and only the completer works. */
  readonly client: 'retries' | 'gone'
  /** The power is lost at the first kill. `zero` and `cut` are explained at `losePower`. */
  readonly power?: 'cut' | 'zero'
  /** The power is lost at the second kill. */
  readonly powerAgain?: 'cut' | 'zero'
  /** The server is killed once more, while it starts again and recovers. */
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

/** The call that writes the reference, or the first step towards an end without one. */
export const STAKES =
  /INSERT INTO landfall_references|COMMIT after INSERT INTO landfall_effects|SET point = .*problem|unlink blobs/

// The runs that exist, and those that a sample contains.

/** Later calls of the same name in one run find nothing new. */
const MOST_OF_A_NAME = 2
const MOST_OF_A_START = 1

const VARIANTS: readonly Variant[] = [
  { client: 'retries' },
  { client: 'gone' },
  { client: 'retries', power: 'cut' },
  { client: 'gone', power: 'zero' },
]
/** Every second moment has these variants, in which `cut` and `zero` are exchanged. */
const OTHER_VARIANTS: readonly Variant[] = [
  { client: 'retries' },
  { client: 'gone' },
  { client: 'retries', power: 'zero' },
  { client: 'gone', power: 'cut' },
]
/** The variants of runs with two kills. The next process must not rely on what the first one left unsynced. */
const TWICE: readonly Omit<Variant, 'again'>[] = [
  { client: 'retries', powerAgain: 'cut' },
  { client: 'gone' },
  { client: 'retries', power: 'cut' },
  { client: 'gone', power: 'zero', powerAgain: 'zero' },
]
/**
 * A first kill right after a name was removed. The next process finds that the name is gone, but the removal was not
 * synced.
 */
const REMOVES = /^unlink blobs/
const TWICE_REMOVED: readonly Omit<Variant, 'again'>[] = [
  { client: 'gone', powerAgain: 'zero' },
  { client: 'retries', powerAgain: 'cut' },
]

/** Every moment of an undisturbed run, and of the start after a kill. */
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
  // The server is killed where most is at stake, and killed again at each moment of the recovery.
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

/** A loss of power takes away what a machine has on its disk. Nodes have nothing there. */
const keepsPower = ({ power, powerAgain }: Omit<Variant, 'again'>): boolean =>
  power === undefined && powerAgain === undefined

const variantsOf = (program: Program, index: number): readonly Variant[] =>
  program === 'nodes' ? VARIANTS.filter(keepsPower) : index % 2 === 0 ? VARIANTS : OTHER_VARIANTS

/** The kind of a call, whatever its place is. */
export const kindOf = ({ name }: Point): string =>
  name
    .split(' ')
    .slice(0, !name.startsWith('sql') ? 2 : name.startsWith('sql UPDATE') ? 5 : 3)
    .join(' ')
export const kindOfRun = ({ kill, variant: { again } }: Run): string =>
  again === undefined ? kindOf(kill) : `again ${kindOf(again)}`

/** A sample has each kind of call once. The rest of the sample is each kind of second kill, and then other runs. */
export const sampleOfRuns = (all: readonly Run[], options: Pick<CampaignOptions, 'sample' | 'seed'>): Run[] =>
  sampleOf(all, options, { kind: kindOfRun, isTwice, isExtra: isTwice })

const isTwice = ({ variant }: Run): boolean => variant.again !== undefined
