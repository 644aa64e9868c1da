/** The pause between attempts is random, below a bound that doubles from `firstMs` to `mostMs` (full jitter). */
export interface Backoff {
  readonly firstMs: number
  readonly mostMs: number
}

/** The bound after `failedBefore` earlier failures. */
export const boundOf = ({ firstMs, mostMs }: Backoff, failedBefore: number): number =>
  Math.min(mostMs, firstMs * 2 ** Math.min(failedBefore, 30))
