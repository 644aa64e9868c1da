import type { Follower } from './follow.js'
import type { LiveOperation } from './live.js'
import type { Standing } from './operation.js'
import type { Turns } from './pace.js'
import type { Ports } from './ports.js'

export interface RunContext extends Ports {
  /** The connections for sending; an upload keeps its place until its bytes are accepted or something is in the way. */
  readonly turns: Turns
  /** One more connection for what must not wait for a place: cancellations. */
  readonly asides: Turns
  readonly follower: Follower
  /** Bytes of this upload went out: from now on copying delays no first byte. */
  readonly onSent: (live: LiveOperation) => void
}

/** One step under way: `signal` ends with an interruption, `lifetime` with the run. */
export interface Step extends RunContext {
  readonly live: LiveOperation
  readonly signal: AbortSignal
  readonly lifetime: AbortSignal
}

/** Why a step did not get on. Never stored; nothing is lost by any of them. */
export type Obstacle =
  | { readonly obstacle: 'interrupted' }
  | { readonly obstacle: 'file' }
  | { readonly obstacle: 'network' | 'server' | 'authentication' | 'other-owner'; readonly retryAfterMs: number | null }
/** Where the operation stands now; `digest` as the server has it; `after` is to be overcome before the next step. */
export interface Reached {
  readonly to: Standing
  readonly digest?: string | null
  readonly after?: Obstacle
}
/** `withdrawn`: the server has confirmed the cancellation, the record can go. */
export type StepResult = Reached | { readonly withdrawn: true } | Obstacle
