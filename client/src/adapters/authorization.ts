import { VERSION, VERSION_HEADER } from '@landfall/shared'
import { unlessEnded } from '../live.js'

/** The headers of all requests of ours, credentials among them. */
export interface Authorization {
  /**
   * `asked` names the state of the credentials, for `refused`. Rejects where the application has none at the moment, or
   * `signal` ends first: a request without them could be somebody else's.
   */
  read(signal: AbortSignal): Promise<{ headers: [string, string][]; asked: number }>
  /** A 401 came. Answers true when fresh credentials have not been tried yet: again at once. */
  refused(asked: number): boolean
  accepted(): void
  /** They were somebody else's: the application is asked again. */
  renew(): void
}

/** Asks the application for headers once, and again after each 401. */
export function createAuthorization(
  source: (() => HeadersInit | Promise<HeadersInit>) | undefined,
  onUnauthenticated: () => void,
): Authorization {
  let known: Promise<HeadersInit> | null = null
  let asked = 0
  /** Since the last answer that was no 401. */
  let refusals = 0
  return {
    async read(signal) {
      const own = (known ??= (async () => source?.() ?? {})())
      const now = asked
      const given = await unlessEnded(
        own.catch(() => null),
        signal,
      )
      if (!given) {
        if (known === own) known = null
        throw new Error('no credentials')
      }
      const headers = new Headers(given)
      headers.set(VERSION_HEADER, VERSION)
      return { headers: [...headers], asked: now }
    },
    refused(of) {
      const last = source === undefined ? 1 : 2
      // Requests that went out together share one refusal.
      if (of === asked) {
        known = null
        asked += 1
        refusals += 1
        if (refusals === last) onUnauthenticated()
      }
      return refusals < last
    },
    accepted() {
      refusals = 0
    },
    renew() {
      known = null
    },
  }
}
