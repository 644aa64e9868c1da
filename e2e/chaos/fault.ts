import type { Seeded } from '../ground/seeded.js'
import type { Machine, Means } from './machine.js'
import type { Stage } from './stage.js'

export interface Fault<S extends Stage = Stage> {
  readonly name: string
  readonly needs?: Means
  /** The fault strikes twice in each round. */
  readonly often?: true
  /** Begins the fault, waits, and ends it. After that everything is as it was before. */
  strike(stage: S, random: Seeded): Promise<void>
}

export const between = (random: Seeded, fromMs: number, toMs: number): number => fromMs + random.below(toMs - fromMs)

/** The faults that this machine can make and that were not left out, and for each of the others the reason. */
export function possibleFaults<S extends Stage>(
  all: readonly Fault<S>[],
  machine: Machine,
  without: readonly string[],
): { possible: readonly Fault<S>[]; left: readonly string[] } {
  const left: string[] = []
  const possible = all.filter(({ name, needs }) => {
    const reason = without.some((word) => name.includes(word))
      ? 'left out as asked'
      : needs === undefined
        ? undefined
        : machine.missing.get(needs)
    if (reason !== undefined) left.push(`${name}: ${reason}`)
    return reason === undefined
  })
  return { possible, left }
}

/** Yields rounds of all faults. Each round has another order. */
export function* schedule<S extends Stage>(possible: readonly Fault<S>[], random: Seeded): Generator<Fault<S>> {
  while (possible.length > 0) yield* random.shuffled([...possible, ...possible.filter(({ often }) => often === true)])
}
