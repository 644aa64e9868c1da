import { isOpen } from '@landfall/shared'
import type { OperationRecord } from '../ports/operation.js'

/**
 * The next step of an operation: one step of the table in ARCHITECTURE.md. A step asks before it acts, so it can be
 * repeated after a crash at any moment.
 */
export type Next =
  /** A receiver went away without saying how far it came: ask the blob store. */
  | { readonly step: 'recover' }
  /** Nothing to do until the client sends bytes or the operation expires. */
  | { readonly step: 'await-bytes'; readonly untilAt: number }
  /** The client abandoned it: check the blob once more, then end it. */
  | { readonly step: 'expire' }
  /** All bytes are durable: record that, because the digest is still awaited. */
  | { readonly step: 'receive' }
  | { readonly step: 'await-digest'; readonly untilAt: number }
  /** The kind requires the client's digest, and it never came. */
  | { readonly step: 'give-up-digest' }
  | { readonly step: 'seal' }
  | { readonly step: 'verify' }
  | { readonly step: 'prepare'; readonly name: string }
  | { readonly step: 'refer' }
  /** The bytes of a final operation still exist. */
  | { readonly step: 'clean' }
  /**
   * The application does not declare this kind (any more, or not yet in this version): another version has to drive it.
   */
  | { readonly step: 'leave' }
  /** Nothing is owed here. */
  | { readonly step: 'rest' }

/** What the rules need to know of the operation. */
export type Situation = Pick<
  OperationRecord,
  | 'point'
  | 'stalled'
  | 'offset'
  | 'digest'
  | 'digestPending'
  | 'digestDueAt'
  | 'uncleanHolder'
  | 'prepared'
  | 'cleanupDue'
  | 'expiresAt'
> & { readonly file: { readonly size: number } }

/** What the rules need to know of the world. */
export interface Surroundings {
  readonly now: number
  /** What matters of the kind. Null for a kind that the application does not declare. */
  readonly kind: { readonly prepareSteps: readonly string[]; readonly requiresDigest: boolean } | null
  /** The wall clock and the monotonic clock agree, so time is a reason to end something. */
  readonly clockTrusted: boolean
}

/** Pure: point × observation → next step. */
export function rules(operation: Situation, world: Surroundings): Next {
  // Only an operator's `retry` resumes a stalled operation. Otherwise each client that asks would run again what failed
  // so often.
  if (operation.stalled && isOpen(operation.point)) return { step: 'rest' }
  switch (operation.point) {
    case 'declared':
      return declared(operation, world)
    case 'received':
      return received(operation, world)
    case 'sealed':
      return world.kind === null ? { step: 'leave' } : { step: 'verify' }
    case 'verified':
      return verified(operation, world)
    case 'referenced':
    case 'completed':
      return { step: 'rest' }
    case 'cancelled':
    case 'expired':
    case 'rejected':
      return operation.cleanupDue ? { step: 'clean' } : { step: 'rest' }
  }
  return operation.point satisfies never
}

function declared(operation: Situation, { now, clockTrusted }: Surroundings): Next {
  if (operation.offset === operation.file.size) return operation.digestPending ? { step: 'receive' } : { step: 'seal' }
  if (operation.uncleanHolder !== null) return { step: 'recover' }
  if (now >= operation.expiresAt && clockTrusted) return { step: 'expire' }
  return { step: 'await-bytes', untilAt: operation.expiresAt }
}

/** A promised digest is awaited. If it does not come, the digest is taken from the stored bytes. */
function received(operation: Situation, { now, kind, clockTrusted }: Surroundings): Next {
  if (!operation.digestPending) return { step: 'seal' }
  const untilAt = operation.digestDueAt ?? now
  if (now < untilAt) return { step: 'await-digest', untilAt }
  if (kind?.requiresDigest !== true) return { step: 'seal' }
  return clockTrusted ? { step: 'give-up-digest' } : { step: 'await-digest', untilAt }
}

function verified(operation: Situation, { kind }: Surroundings): Next {
  if (kind === null) return { step: 'leave' }
  const name = kind.prepareSteps.find((step) => !Object.hasOwn(operation.prepared, step))
  return name === undefined ? { step: 'refer' } : { step: 'prepare', name }
}

/** Whether a drive has something to do without the client. */
export const drivable = ({ point, stalled, offset, file, uncleanHolder, cleanupDue }: Situation): boolean =>
  isOpen(point) ? !stalled && (point !== 'declared' || offset === file.size || uncleanHolder !== null) : cleanupDue
