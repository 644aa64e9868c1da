import type { Proxy } from '../ground/proxy.js'
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

/** What is known of the upload at the end. `requests` are those of its run. */
export function knownOf(upload: Known, told: Known['told'], { requests }: Proxy): Known {
  const { doomed, ...others } = upload
  const cancels = requests.filter(({ method, path }) => method === 'DELETE' && path.includes(upload.id))
  // The upload was faster than its user's cancellation, and the server answered 409 or was never asked. So it arrives
  // like any other upload.
  const wasTooLate = doomed === 'cancelled' && told !== 'failure' && cancels.every(({ status }) => status === 409)
  return {
    ...others,
    ...(doomed === undefined || wasTooLate ? {} : { doomed }),
    told,
    acknowledged: acknowledgedOf(requests, upload.id),
  }
}

/** The highest offset that an answer reported. */
export const acknowledgedOf = (requests: Proxy['requests'], id: string): number =>
  requests
    .filter(({ path, status }) => path.includes(id) && status === 204)
    .reduce((most, { answerHeaders }) => Math.max(most, Number(answerHeaders['upload-offset'] ?? 0)), 0)
