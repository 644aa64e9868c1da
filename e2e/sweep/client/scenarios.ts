import type { Wanted } from '../../clients/swept-page.js'

/** What a user does, and with what kind of application and browser. */
export interface ClientScenario {
  readonly name: string
  readonly sizesBytes: readonly number[]
  readonly options: Omit<Wanted, 'files'>
  /** The browser has not stored anything yet. */
  readonly isFirstVisit?: boolean
  /**
   * The call at which the page is killed before the moments of its resumption are swept. It is matched against the
   * names of calls.
   */
  readonly base: RegExp
}

const KIB = 1024
const MIB = 1024 * KIB

const PLAIN = { cancels: false, acknowledges: true, copyBytes: null, picksWrong: false }
/** The second chunk was accepted, and the page does not know it. */
const ON_THE_WAY = /^PATCH/

export const CLIENT_SCENARIOS: readonly ClientScenario[] = [
  { name: 'a small file', sizesBytes: [10 * KIB], options: PLAIN, base: /^PUT/ },
  { name: 'an empty file on a first visit', sizesBytes: [0], options: PLAIN, isFirstVisit: true, base: /^PUT/ },
  { name: 'a file of several chunks', sizesBytes: [3 * MIB], options: PLAIN, base: ON_THE_WAY },
  {
    name: 'cancelled on the way',
    sizesBytes: [3 * MIB],
    options: { ...PLAIN, cancels: true },
    base: /^put operations cancelled/,
  },
  {
    name: 'acknowledged by a later visit',
    sizesBytes: [10 * KIB],
    options: { ...PLAIN, acknowledges: false },
    base: /^told/,
  },
  { name: 'two files at once', sizesBytes: [3 * MIB, 20 * KIB], options: PLAIN, base: ON_THE_WAY },
  {
    name: 'picked again',
    sizesBytes: [2 * MIB],
    options: { ...PLAIN, copyBytes: KIB, picksWrong: true },
    base: ON_THE_WAY,
  },
]
