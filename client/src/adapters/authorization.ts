import { VERSION, VERSION_HEADER } from '@landfall/shared'
import { unlessEnded } from '../live.js'

/** The headers of all of Landfall's requests, including credentials. */
export interface Authorization {
  /**
   * Resolves with the headers. `asked` identifies this state of the credentials, for `refused`. Rejects if the
   * application has no credentials at the moment, or if `signal` ends first: a request without them could count as
   * another user's.
   */
  read(signal: AbortSignal): Promise<{ headers: [string, string][]; asked: number }>
  /**
   * To be called after a 401. Returns true if fresh credentials have not been tried yet: then the request is repeated
   * at once.
   */
  refused(asked: number): boolean
  accepted(): void
  /** To be called when the credentials belonged to another user: the application is asked again. */
  renew(): void
}

/** Asks the application for headers once, and again after each 401. */
export function createAuthorization(
  source: (() => HeadersInit | Promise<HeadersInit>) | undefined,
  onUnauthenticated: () => void,
): Authorization {
  let known: Promise<HeadersInit> | null = null
  let asked = 0
  /** How many refusals came since the last answer that was not a 401. */
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
      // Requests that were sent with the same credentials count as one refusal.
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
