import type { DeclarationRate } from '../ports/ledger/operations.js'
import type { Args } from './query.js'

// How often an owner may declare, by the generic cell rate algorithm (ITU-T I.371), which needs one number per owner.
// `until` is the time at which all declarations so far would have been made if each had waited for its interval. It may
// be ahead of now by `perMs`. Times are in microseconds, because an interval may be shorter than a millisecond.

/**
 * The clock of a statement may be behind that of an earlier statement. If it is behind by more than this, it was set
 * back.
 */
const SET_BACK_US = 60_000_000

const limitsOf = ({ count, perMs }: DeclarationRate): { intervalUs: number; mostAheadUs: number } => {
  const [intervalUs, mostAheadUs] = [Math.ceil((perMs * 1_000) / count), perMs * 1_000]
  if (![intervalUs, mostAheadUs].every((number) => Number.isSafeInteger(number) && number > 0))
    throw new RangeError('a rate of declarations needs a count and a time of at least 1')
  return { intervalUs, mostAheadUs }
}

/**
 * The condition under which one more declaration is allowed, and the value of `until` after it, as SQL.
 *
 * @param until The column, or 0 if there is none yet.
 * @param greater The database's function for the greater of two numbers.
 */
export function rateWords(
  until: string,
  { now, greater }: { readonly now: string; readonly greater: 'MAX' | 'GREATEST' },
): { allowed: string; next: string } {
  const nowUs = `(${now} * 1000)`
  const [interval, mostAhead] = ['CAST(:interval_us AS bigint)', 'CAST(:most_ahead_us AS bigint)']
  const from = `(CASE WHEN ${until} > ${nowUs} + ${mostAhead} + ${SET_BACK_US} THEN ${nowUs} ELSE ${greater}(${until}, ${nowUs}) END)`
  const next = `${from} + ${interval}`
  return { allowed: `${next} <= ${nowUs} + ${mostAhead}`, next }
}

/** The arguments of `rateWords`. */
export function rateArgs(rate: DeclarationRate): Args {
  const { intervalUs, mostAheadUs } = limitsOf(rate)
  return { interval_us: intervalUs, most_ahead_us: mostAheadUs }
}

/** How long until one more declaration is allowed. In milliseconds; 0 or less: now. */
export function untilNextMs(rate: DeclarationRate, untilUs: number, nowUs: number): number {
  const { intervalUs, mostAheadUs } = limitsOf(rate)
  const fromUs = untilUs > nowUs + mostAheadUs + SET_BACK_US ? nowUs : Math.max(untilUs, nowUs)
  return Math.ceil((fromUs + intervalUs - mostAheadUs - nowUs) / 1_000)
}
