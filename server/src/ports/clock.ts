/** Times are milliseconds since 1970 by the ledger's clock, unless a name says otherwise. */
export interface Clock {
  /** Wall clock, in milliseconds since 1970. */
  now(): number
  /** A clock that never jumps, for durations within this process. */
  monotonicMs(): number
  sleep(ms: number, signal?: AbortSignal): Promise<void>
}
