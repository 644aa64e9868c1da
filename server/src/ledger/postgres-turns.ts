import pLimit from 'p-limit'
import { UploadError } from '../errors.js'

/** Who gets the connections of the application's pool, of those that this ledger asks for. */
export interface Turns {
  /** All but one of them: the last is for what must not come late, because others take its silence for a death. */
  take<T>(work: () => Promise<T>): Promise<T>
  /** Hooks that hang must not take all of those: others are to go on. */
  takeForHook<T>(work: () => Promise<T>): Promise<T>
}

/** Who waits longer is told so: where nothing answers any more, each before it has waited for its connection in vain. */
const TURN_MS = 20_000

export function createTurns(db: unknown): Turns {
  const max = connectionsOf(db)
  const hooksAtOnce = max === Number.POSITIVE_INFINITY ? max : Math.max(1, max - Math.max(2, Math.ceil(max / 5)))
  const hooks = pLimit(hooksAtOnce)
  const crowd = pLimit(Math.max(hooksAtOnce + 1, max - 1))

  const take: Turns['take'] = (work) => {
    const fromMs = performance.now()
    return crowd(() => {
      if (performance.now() - fromMs > TURN_MS)
        throw new UploadError('ledger-unavailable', 'too many wait for the database')
      return work()
    })
  }
  return { take, takeForHook: (work) => hooks(() => take(work)) }
}

/** As many as the application's pool may have; one that does not say so has no end. */
function connectionsOf(db: unknown): number {
  const { $client: client } = db as { $client?: { options?: { max?: unknown } } }
  const max = client?.options?.max
  return typeof max === 'number' ? max : Number.POSITIVE_INFINITY
}
