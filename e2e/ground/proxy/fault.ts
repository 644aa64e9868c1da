import type { RecordedRequest } from './record.js'

/** What the connection to the server does when the client's is broken. */
export type UpstreamEnd =
  /** The server sees a reset, as with a router that lost its table. */
  | 'reset'
  /** The server sees the connection closed in the middle of the body. */
  | 'fin'
  /** The server sees nothing at all: for it the client is still there, silent. Until the fault is released. */
  | 'keep'

/**
 * `afterBodyBytes`: the head and exactly so many bytes of the body reach the server, then it strikes. Left out: nothing
 * of the request reaches the server. A body that is shorter is not struck.
 */
export type Fault =
  | { readonly kind: 'reset' | 'fin'; readonly afterBodyBytes?: number; readonly upstream?: UpstreamEnd }
  /**
   * The connection goes silent both ways and stays open, for the server too, until the fault is released (then it is
   * reset). `reading`: the client's bytes are still taken, and lost; else its window fills up.
   */
  | { readonly kind: 'black-hole'; readonly afterBodyBytes?: number; readonly reading?: boolean }
  /** The request reaches the server whole; of the answer the client sees nothing. `ending`: what it sees instead, `reset` by default. */
  | { readonly kind: 'swallow-answer'; readonly ending?: 'reset' | 'fin' | 'black-hole' }
  /** The proxy takes the whole request and answers itself; the connection stays usable. Nothing reaches the server. */
  | {
      readonly kind: 'answer'
      readonly status: number
      readonly headers?: Readonly<Record<string, string>>
      readonly body?: string
    }
  /** The request waits before it is passed on. */
  | { readonly kind: 'delay'; readonly ms: number }

/** Of a protocol that is not known: what happens when bytes of a client come, or when the server has begun to answer them. */
export interface Interception {
  readonly at: 'request' | 'answer'
  /** Neither these bytes nor the answer pass: `silence`: until the client ends, which the server sees as a reset. */
  strike(): 'reset' | 'silence'
}

export interface Arming {
  /** Asked once for each request, when its head is whole. Default: every request. */
  readonly match?: (request: RecordedRequest) => boolean
  /** How many matching requests it strikes: 1 by default; Infinity until released. */
  readonly times?: number
}

export interface ArmedFault {
  readonly fault: Fault
  /** The requests that it was applied to, oldest first. */
  readonly matched: readonly RecordedRequest[]
  /** Strikes no further request; connections that it holds silent are reset. */
  release(): void
}

/** What the connections see of the armed faults. */
export interface FaultBook {
  arm(fault: Fault, arming?: Arming): ArmedFault
  /** Which fault this request meets: of those that match the one that was armed first. */
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
