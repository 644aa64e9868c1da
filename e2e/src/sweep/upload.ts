import type { Proxy } from '../proxy.js'
import type { Known } from './invariants.js'
import { type Begun, digestOf, type Place, type Scenario } from './scenarios.js'

// The upload of one run, and what is known of it.

export const SETTLE_MS = 30_000

export type BegunUpload = Begun & { readonly upload: Known }

export async function beginUpload(scenario: Scenario, place: Place, seed: number): Promise<BegunUpload> {
  const begun = await scenario.begin(place, seed)
  begun.told.catch(() => {})
  const upload: Known = {
    id: begun.id,
    sizeBytes: scenario.sizeBytes,
    sha256: digestOf(scenario.sizeBytes, seed),
    told: null,
    acknowledged: 0,
    attended: true,
    ...(scenario.doomed === undefined ? {} : { doomed: scenario.doomed }),
    removable: scenario.removable === true,
  }
  return { ...begun, upload }
}

/** The highest offset that an answer has told. */
export const acknowledgedOf = ({ requests }: Proxy, id: string): number =>
  requests
    .filter(({ path, status }) => path.includes(id) && status === 204)
    .reduce((most, { answerHeaders }) => Math.max(most, Number(answerHeaders['upload-offset'] ?? 0)), 0)

export async function within<T>(work: Promise<T>, ms: number, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${ms} ms`)), ms)
  })
  return Promise.race([work, late]).finally(() => clearTimeout(timer))
}
