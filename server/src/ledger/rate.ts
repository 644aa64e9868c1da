import type { DeclarationRate } from '../ports/ledger/operations.js'
import type { Args } from './query.js'

// How often an owner may declare: the generic cell rate algorithm (ITU-T I.371), which needs one number for an owner.
// `until` is when all that was declared so far would have been declared one by one, each after its interval. It may be
// ahead of now by `perMs`. In microseconds, because an interval may be shorter than a millisecond.

/** The clock of one statement may be behind that of another which came before it; by more than this it was set back. */
const SET_BACK_US = 60_000_000

const limitsOf = ({ count, perMs }: DeclarationRate): { intervalUs: number; mostAheadUs: number } => {
  const [intervalUs, mostAheadUs] = [Math.ceil((perMs * 1_000) / count), perMs * 1_000]
  if (![intervalUs, mostAheadUs].every((number) => Number.isSafeInteger(number) && number > 0))
    throw new RangeError('a rate of declarations has a count and a time of at least 1')
  return { intervalUs, mostAheadUs }
}

/**
 * The condition under which one more may be declared, and what `until` becomes then, as SQL.
 *
 * @param until The column, or 0 where there is none yet.
 * @param greater The database's function for the greater one of two numbers.
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

/** How long until one more may be declared. In milliseconds; not above 0: now. */
export function untilNextMs(rate: DeclarationRate, untilUs: number, nowUs: number): number {
  const { intervalUs, mostAheadUs } = limitsOf(rate)
  const fromUs = untilUs > nowUs + mostAheadUs + SET_BACK_US ? nowUs : Math.max(untilUs, nowUs)
  return Math.ceil((fromUs + intervalUs - mostAheadUs - nowUs) / 1_000)
}
