import type { RecordedRequest } from './record.js'

/** What happens to the connection to the server when the client's connection is broken. */
export type UpstreamEnd =
  /** The server sees a reset, as when a router has lost its table. */
  | 'reset'
  /** The server sees the connection closed in the middle of the body. */
  | 'fin'
  /** The server sees nothing. To the server, the client is still there and silent, until the fault is released. */
  | 'keep'

/**
 * `afterBodyBytes`: the head and exactly so many bytes of the body reach the server, then the fault strikes. If it is
 * left out, nothing of the request reaches the server. A request with a shorter body is not struck.
 */
export type Fault =
  | { readonly kind: 'reset' | 'fin'; readonly afterBodyBytes?: number; readonly upstream?: UpstreamEnd }
  /**
   * The connection goes silent both ways and stays open, for the server too, until the fault is released; then it is
   * reset. With `reading` the client's bytes are still read and dropped; without it the client's window fills up.
   */
  | { readonly kind: 'black-hole'; readonly afterBodyBytes?: number; readonly reading?: boolean }
  /**
   * The whole request reaches the server, and the client sees nothing of the answer. `ending` is what the client sees
   * instead; default `reset`.
   */
  | { readonly kind: 'swallow-answer'; readonly ending?: 'reset' | 'fin' | 'black-hole' }
  /**
   * The proxy reads the whole request and answers it itself. The connection stays usable, and nothing reaches the
   * server.
   */
  | {
      readonly kind: 'answer'
      readonly status: number
      readonly headers?: Readonly<Record<string, string>>
      readonly body?: string
    }
  /** The request waits before it is passed on to the server. */
  | { readonly kind: 'delay'; readonly ms: number }

/**
 * For a protocol that the proxy does not know: what happens when a client sends bytes, or when the server has begun to
 * answer them.
 */
export interface Interception {
  readonly at: 'request' | 'answer'
  /**
   * Called when the fault strikes. Neither these bytes nor the answer pass. With `silence` nothing passes until the
   * client ends the connection, which the server sees as a reset.
   */
  strike(): 'reset' | 'silence'
}

export interface Arming {
  /** Called once for each request, when its head is complete. Default: every request matches. */
  readonly match?: (request: RecordedRequest) => boolean
  /** How many matching requests are struck. Default 1; with Infinity, all until the fault is released. */
  readonly times?: number
}

export interface ArmedFault {
  readonly fault: Fault
  /** The requests that the fault was applied to, oldest first. */
  readonly matched: readonly RecordedRequest[]
  /** No further request is struck. Connections that the fault holds silent are reset. */
  release(): void
}

/** The armed faults, as the connections see them. */
export interface FaultBook {
  arm(fault: Fault, arming?: Arming): ArmedFault
  /** Which fault this request meets. If several match, it is the one that was armed first. */
  meet(request: RecordedRequest): MetFault | null
  releaseAll(): void
}

export interface MetFault {
  readonly fault: Fault
  /** Calls back when the fault is released. */
  onRelease(release: () => void): void
}

export function createFaultBook(): FaultBook {
  const armed: { met: MetFault; left: number; matched: RecordedRequest[]; match: (r: RecordedRequest) => boolean }[] =
    []
  const releases = new Set<() => void>()

  return {
    arm(fault, { match = () => true, times = 1 } = {}) {
      const held: (() => void)[] = []
      const entry = {
        met: { fault, onRelease: (release: () => void) => void held.push(release) },
        left: times,
        matched: [] as RecordedRequest[],
        match,
      }
      const release = (): void => {
        entry.left = 0
        for (const call of held.splice(0)) call()
      }
      armed.push(entry)
      releases.add(release)
      return { fault, matched: entry.matched, release }
    },
    meet(request) {
      const entry = armed.find(({ left, match }) => left > 0 && match(request))
      if (entry === undefined) return null
      entry.left -= 1
      entry.matched.push(request)
      return entry.met
    },
    releaseAll() {
      for (const release of releases) release()
    },
  }
}
