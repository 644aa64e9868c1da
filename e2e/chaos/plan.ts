import { type Seeded, seeded } from '../ground/seeded.js'

/** What happens to the client of an operation, whatever happens to the server. */
export type Fate =
  /** The client stays until it was told the outcome. */
  | 'stays'
  /** The client's tab or process ends in the middle, and comes back. */
  | 'returns'
  /** The client's tab or process ends in the middle, and never comes back. */
  | 'vanishes'

export interface PlannedOperation {
  /** Counted from 1. The content of the file is made from it and the run's seed. */
  readonly index: number
  readonly contentSeed: number
  readonly atMs: number
  readonly sizeBytes: number
  /** How long after its start the user cancels it; null: never. */
  readonly cancelAfterMs: number | null
}

/** A tab of a browser with several uploads, or a stock client with one. */
export interface PlannedClient {
  readonly via: 'tab' | 'stock'
  readonly fate: Fate
  /** How long after the start of the last of its operations the client leaves. */
  readonly leavesAfterMs: number
  readonly awayMs: number
  readonly operations: readonly PlannedOperation[]
}

const MAX_SIZE_BYTES = 32 * 1024 * 1024
const OPERATIONS_PER_MINUTE = 40
/** The rest of the time is for operations that began late. */
const STARTS_UNTIL = 0.92

/** The plan is the same for the same seed, so that every system has the same users. */
export function planClients(seed: number, durationMs: number): readonly PlannedClient[] {
  const random = seeded(seed)
  const count = Math.max(12, Math.round((durationMs / 60_000) * OPERATIONS_PER_MINUTE))
  const clients: PlannedClient[] = []
  let planned = 0
  while (planned < count) {
    const via = random.next() < 0.35 ? 'tab' : 'stock'
    const size = Math.min(count - planned, via === 'stock' ? 1 : 1 + random.below(6))
    const beginsAtMs = Math.floor((planned / count) * durationMs * STARTS_UNTIL)
    const operations = Array.from({ length: size }, (_, nth): PlannedOperation => {
      const index = planned + nth + 1
      return {
        index,
        contentSeed: seed * 100_003 + index,
        atMs: beginsAtMs + (nth === 0 ? 0 : random.below(4_000)),
        sizeBytes: sizeOf(random),
        cancelAfterMs: random.next() < 0.06 ? random.below(3_000) : null,
      }
    })
    planned += size
    clients.push({
      via,
      fate: fateOf(random),
      leavesAfterMs: random.below(4_000),
      awayMs: 500 + random.below(5_000),
      operations: operations.toSorted((a, b) => a.atMs - b.atMs),
    })
  }
  return clients
}

function fateOf(random: Seeded): Fate {
  const drawn = random.next()
  return drawn < 0.7 ? 'stays' : drawn < 0.9 ? 'returns' : 'vanishes'
}

/** A size, distributed so that there are as many between 1 and 2 KiB as between 8 and 16 MiB, and some empty files. */
function sizeOf(random: Seeded): number {
  if (random.next() < 0.04) return 0
  return Math.round(Math.exp(random.next() * Math.log(MAX_SIZE_BYTES)))
}
