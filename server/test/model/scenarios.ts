/** What one user does with one file, and what the application has declared for it. */
export interface Scenario {
  readonly name: string
  readonly sizes: readonly number[]
  /** How and when the client sends the digest. */
  readonly digest: 'none' | 'right' | 'wrong' | 'pending' | 'pending-wrong' | 'pending-never'
  /** All chunks are sent in one request, and the store acknowledges bytes while it runs. */
  readonly oneRequest?: boolean
  /** What the application declares: only the reference, a step before it, an effect after it, or a rejection. */
  readonly kind?: 'plain' | 'prepared' | 'notified' | 'refused'
  /** Cancels after this number of chunks. */
  readonly cancelAfter?: number
  readonly remove?: boolean
  /** Forgets the owner when some of the bytes are stored, or when there is a reference. */
  readonly forget?: 'half way' | 'stored'
  /** The client repeats its requests at once, while the lease of a dead process has not yet ended. */
  readonly impatient?: boolean
  /** The client does not return after the first answer that it did not get. */
  readonly leaves?: boolean
  /** A store that belongs to one process at a time. */
  readonly exclusive?: boolean
}

export const SCENARIOS: readonly Scenario[] = [
  { name: 'a small file', sizes: [40], digest: 'none' },
  { name: 'a small file, its client leaves', sizes: [40], digest: 'none', leaves: true },
  { name: 'an empty file', sizes: [], digest: 'none' },
  { name: 'two chunks', sizes: [32, 33], digest: 'right', impatient: true },
  { name: 'two chunks, its client leaves', sizes: [32, 33], digest: 'none', leaves: true, exclusive: true },
  { name: 'two chunks in one request, acknowledged on the way', sizes: [32, 33], digest: 'none', oneRequest: true },
  { name: 'a digest that follows', sizes: [40], digest: 'pending' },
  { name: 'a digest that never follows', sizes: [40], digest: 'pending-never', leaves: true },
  { name: 'another digest', sizes: [40], digest: 'wrong' },
  { name: 'another digest that follows', sizes: [40], digest: 'pending-wrong', exclusive: true },
  { name: 'a prepare step', sizes: [40], digest: 'none', kind: 'prepared' },
  { name: 'a hook that rejects', sizes: [40], digest: 'none', kind: 'refused' },
  { name: 'cancelled half way', sizes: [32, 33], digest: 'none', cancelAfter: 1 },
  { name: 'cancelled with all bytes there', sizes: [40], digest: 'none', cancelAfter: 1, exclusive: true },
  { name: 'removed', sizes: [40], digest: 'none', remove: true },
  { name: 'its owner is forgotten half way', sizes: [32, 33], digest: 'none', forget: 'half way' },
  { name: 'its owner is forgotten', sizes: [40], digest: 'none', kind: 'notified', forget: 'stored' },
  { name: 'an effect', sizes: [40], digest: 'none', kind: 'notified' },
]

export const sizeOf = ({ sizes }: Scenario): number => sizes.reduce((sum, size) => sum + size, 0)

/** Each place has different bytes, so that a mixture is noticed. */
export const contentOf = (size: number, seed: number): Uint8Array<ArrayBuffer> =>
  Uint8Array.from({ length: size }, (_, n) => (n * 37 + seed * 101 + 11) & 0xff)
