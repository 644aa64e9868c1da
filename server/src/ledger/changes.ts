import type { Changes } from '../ports/ledger/leases.js'
import { columnName, nameOf } from './columns.js'
import type { Args, SqlValue } from './query.js'
import { OPERATIONS } from './tables.js'

// SET lists for the changes that a holder of a lease records.

/** For a SET list: there is no lease any more. */
export const NO_LEASE = `lease_holder = NULL, lease_purpose = NULL, lease_expires_at = NULL, lease_asked = 0`

/** How one kind of change is written. */
interface Assignment {
  readonly isGiven: (changes: Changes) => boolean
  readonly set: string
  readonly argument: string | null
  readonly value: (changes: Changes) => SqlValue
}

/** Changes whose value becomes the value of their column. */
const PLAIN = [
  'point',
  'offset',
  'blobState',
  'prepared',
  'content',
  'uncleanHolder',
  'attempts',
  'stalled',
  'problem',
  'lastError',
  'cleanupDue',
] as const satisfies readonly (keyof Changes & keyof typeof OPERATIONS.columns)[]

const plain = (property: (typeof PLAIN)[number]): Assignment => {
  const column: { write(value: unknown): SqlValue } = OPERATIONS.columns[property]
  const argument = `new_${nameOf(property)}`
  return {
    isGiven: (changes) => changes[property] !== undefined,
    set: `${columnName(property)} = :${argument}`,
    argument,
    value: (changes) => column.write(changes[property]),
  }
}

const fixed = (isGiven: Assignment['isGiven'], set: string): Assignment => ({
  isGiven,
  set,
  argument: null,
  value: () => null,
})

/** A time that is this many milliseconds from now, or no time (null). */
const after = (property: 'digestDueInMs' | 'dueInMs' | 'expiresInMs', column: string, now: string): Assignment[] => [
  fixed((changes) => changes[property] === null, `${column} = NULL`),
  {
    isGiven: (changes) => typeof changes[property] === 'number',
    set: `${column} = ${now} + :new_${column}`,
    argument: `new_${column}`,
    value: (changes) => Math.round(changes[property] ?? 0),
  },
]

const assignmentsOf = (now: string): readonly Assignment[] => [
  ...PLAIN.map(plain),
  {
    // This is set only once, because stock clients have already seen an offset that counts from it.
    isGiven: ({ tailBase }) => tailBase !== undefined,
    set: `tail_base = COALESCE(tail_base, :new_tail_base), received_at = COALESCE(received_at, ${now})`,
    argument: 'new_tail_base',
    value: ({ tailBase = null }) => tailBase,
  },
  ...after('digestDueInMs', 'digest_due_at', now),
  ...after('dueInMs', 'due_at', now),
  fixed(({ dueAt }) => dueAt === 'expiry', 'due_at = expires_at'),
  fixed(({ dueAt }) => dueAt === 'digest-due', 'due_at = digest_due_at'),
  ...after('expiresInMs', 'expires_at', now),
  {
    isGiven: ({ purpose }) => purpose !== undefined,
    set: 'lease_purpose = :new_lease_purpose',
    argument: 'new_lease_purpose',
    value: ({ purpose = null }) => purpose,
  },
  fixed(({ release }) => release === true, NO_LEASE),
  fixed(() => true, `updated_at = ${now}`),
]

/**
 * Makes statements with a SET list for changes. Each text is made once for a combination of kinds of changes, and kept.
 * If it were made for each call, that would take half as long as SQLite then needs to run it.
 */
export function statementsFor<T>(now: string, make: (set: string) => T): (changes: Changes) => { made: T; args: Args } {
  const assignments = assignmentsOf(now)
  const known = new Map<number, T>()
  return (changes) => {
    let sorts = 0
    const args: Record<string, SqlValue> = {}
    for (const [index, { isGiven, argument, value }] of assignments.entries()) {
      if (!isGiven(changes)) continue
      sorts |= 1 << index
      if (argument !== null) args[argument] = value(changes)
    }
    let made = known.get(sorts)
    if (made === undefined) {
      made = make(
        assignments
          .filter((_, index) => (sorts & (1 << index)) !== 0)
          .map(({ set }) => set)
          .join(', '),
      )
      known.set(sorts, made)
    }
    return { made, args }
  }
}
