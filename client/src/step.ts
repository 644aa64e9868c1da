import type { Follower } from './follow.js'
import type { LiveOperation } from './live.js'
import type { Standing } from './operation.js'
import type { Turns } from './pace.js'
import type { Ports } from './ports.js'

export interface RunContext extends Ports {
  /** The connections for sending. An upload keeps its place until its bytes are accepted or an obstacle occurs. */
  readonly turns: Turns
  /** One more connection for requests that must not wait for a place: cancellations. */
  readonly asides: Turns
  readonly follower: Follower
  /** To be called when bytes of this upload were sent. From then on, copying does not delay a first byte. */
  readonly onSent: (live: LiveOperation) => void
}

/** One running step. `signal` ends with an interruption, `lifetime` with the run. */
export interface Step extends RunContext {
  readonly live: LiveOperation
  readonly signal: AbortSignal
  readonly lifetime: AbortSignal
}

/** Why a step could not continue. It is never stored, and no obstacle loses anything. */
export type Obstacle =
  | { readonly obstacle: 'interrupted' }
  | { readonly obstacle: 'file' }
  | { readonly obstacle: 'network' | 'server' | 'authentication' | 'other-owner'; readonly retryAfterMs: number | null }
/**
 * Where the operation stands now. `digest` is the one that the server has. The loop waits for `after` before the next
 * step.
 */
export interface Reached {
  readonly to: Standing
  readonly digest?: string | null
  readonly after?: Obstacle
}
/** `withdrawn`: the server has confirmed the cancellation, so the record can be removed. */
export type StepResult = Reached | { readonly withdrawn: true } | Obstacle
