import { VERSION, VERSION_HEADER } from '@landfall/shared'

/** The headers of all requests of ours, credentials among them. */
export interface Authorization {
  /** `asked` names the state of the credentials, for `refused`. */
  read(): Promise<{ headers: [string, string][]; asked: number }>
  /** A 401 came. Answers true when fresh credentials have not been tried yet: again at once. */
  refused(asked: number): boolean
  accepted(): void
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
    async read() {
      known ??= Promise.resolve(source?.() ?? {})
      const now = asked
      const headers = new Headers(await known.catch(() => ({})))
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
  }
}
