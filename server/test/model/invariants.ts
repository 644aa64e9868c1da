import type { SqlRow } from '../../src/ledger/query.js'
import type { Told } from './client.js'
import { digestOf, type Disk } from './memory-blobs.js'

/** Everything about one operation when nothing changes any more. */
export interface Ending {
  readonly id: string
  readonly content: Uint8Array
  readonly told: Told
  readonly operation: SqlRow | null
  readonly references: readonly SqlRow[]
  readonly arrivals: readonly SqlRow[]
  readonly effects: readonly SqlRow[]
  /** Ids under which the receiver was called. */
  readonly deliveries: readonly string[]
  readonly disk: Disk
  /** Blobs on the disk that no operation of this history names. */
  readonly strays: readonly string[]
  /** Names of the effects that the kind declares. */
  readonly owed: readonly string[]
  /** The hook rejects the file. */
  readonly rejects: boolean
  /** The disk has lost acknowledged bytes before they were sealed. */
  readonly damaged: boolean
  /** The client returns, nothing ends the upload, and its bytes match its digest. */
  readonly mustArrive: boolean
  readonly nowAt: number
}

export type Invariant = (ending: Ending) => string | null

const REFERENCED: ReadonlySet<unknown> = new Set(['referenced', 'completed'])
const FINAL: ReadonlySet<unknown> = new Set(['cancelled', 'expired', 'rejected'])
const OPEN: ReadonlySet<unknown> = new Set(['declared', 'received', 'sealed', 'verified'])
const pointOf = ({ operation }: Ending): unknown => operation?.['point']
const keyOf = ({ operation }: Ending): string => String(operation?.['blob_key'])
const isRemoved = ({ operation }: Ending): boolean => operation !== null && operation['removed_at'] !== null
const problemOf = ({ operation }: Ending): unknown =>
  (JSON.parse(String(operation?.['problem'] ?? 'null')) as { code?: string } | null)?.code

/** 1. After success was reported there is one reference and a readable blob with the source's bytes, and this stays so. */
const whatWasTold: Invariant = (ending) => {
  const { told, references, content, disk } = ending
  const [reference] = references
  if (told.contradictions[0] !== undefined) return told.contradictions[0]
  if (told.success && reference === undefined && !isRemoved(ending)) return 'success was reported without a reference'
  if (told.cancelled && pointOf(ending) !== 'cancelled')
    return 'a cancellation was reported, and the operation is not cancelled'
  if (told.kept && !REFERENCED.has(pointOf(ending))) return 'a cancel was refused without a reference'
  if (told.removed && !isRemoved(ending)) return 'a removal was reported, and the reference is not removed'
  if (told.no !== null && told.no !== 'removed' && problemOf(ending) !== told.no)
    return `the answer ${told.no} was given, and the row says ${String(problemOf(ending))}`
  if (reference === undefined) return null
  const bytes = disk.stored.get(String(reference['blob_key']))?.bytes
  if (bytes === undefined) return 'a reference without its blob'
  if (!Buffer.from(bytes).equals(content)) return 'a reference to wrong bytes'
  if (disk.stored.get(String(reference['blob_key']))?.durable !== content.length)
    return 'a reference to bytes not synced'
  if (reference['digest'] !== digestOf(bytes)) return 'a reference with a wrong digest'
  if (told.digest !== null && told.digest !== reference['digest'])
    return 'a reference with another digest than the accepted one'
  return ending.rejects ? 'a reference although the hook rejected the file' : null
}

/** 2. At most one reference. */
const one: Invariant = ({ references }) => (references.length > 1 ? `${references.length} references` : null)

/** 3. What the hook wrote is committed with the reference, or not at all. */
const together: Invariant = (ending) => {
  const { references, arrivals } = ending
  const expected = references.length > 0 || isRemoved(ending) ? 1 : 0
  if (arrivals.length !== expected) return `${arrivals.length} rows of the application, ${expected} expected`
  if (REFERENCED.has(pointOf(ending)) !== (expected === 1))
    return `${references.length} references at ${String(pointOf(ending))}`
  return null
}

/** 4. An acknowledged offset never falls. */
const acknowledged: Invariant = ({ told, operation }) => {
  if (told.acknowledged > 0 && operation === null) return 'acknowledged bytes without a row'
  return Number(operation?.['offset'] ?? 0) < told.acknowledged
    ? `acknowledged ${told.acknowledged}, the row says ${String(operation?.['offset'])}`
    : null
}

/** 5. A referenced blob is not deleted (checked at each deletion, too), and a removed one is. */
const kept: Invariant = (ending) =>
  isRemoved(ending) && ending.references.length > 0 ? 'removed, and still referenced' : null

/** 6. No work is left that no completer would find. */
const atRest: Invariant = (ending) => {
  const { operation, disk, strays, nowAt, mustArrive } = ending
  if (strays.length > 0) return 'a blob without an operation'
  if (operation === null) return mustArrive ? 'never declared' : null
  const point = pointOf(ending)
  const isStalled = operation['stalled'] === 1
  if (ending.damaged && isStalled) return 'bytes are lost, and the operation stalls instead of ending with bytes-lost'
  if (OPEN.has(point)) {
    if (operation['due_at'] === null && !isStalled) return `open at ${String(point)}, and no completer will find it`
    const waits = point === 'declared' && Number(operation['offset']) < Number(operation['file_size'])
    const waitsForDigest = point === 'received' && operation['digest_pending'] === 1
    if (!waits && !waitsForDigest && !isStalled)
      return `stopped at ${String(point)}: ${String(operation['last_error'])}`
    if (Number(operation['expires_at']) <= nowAt && !isStalled) return `open after its expiry at ${String(point)}`
  }
  if (operation['lease_holder'] !== null) return 'a lease that no process holds'
  if (operation['cleanup_due'] === 1) return `bytes still to be removed at ${String(point)}`
  if ((FINAL.has(point) || isRemoved(ending)) && disk.stored.has(keyOf(ending)))
    return `bytes of an operation that is ${isRemoved(ending) ? 'removed' : String(point)}`
  if (mustArrive && !REFERENCED.has(point)) return `never arrived: ${String(point)} ${String(operation['problem'])}`
  return null
}

/** 9. Exactly the open operations count against their owner, each once. */
const quota: Invariant = (ending) =>
  OPEN.has(pointOf(ending)) && ending.references.length > 0 ? 'counted as open and as a reference' : null

/** 10. Every committed effect is delivered under one id or visibly given up, and no other effect is delivered. */
const effects: Invariant = (ending) => {
  const { references, owed, deliveries } = ending
  const own = ending.effects.filter(({ type }) => type !== 'remove-bytes')
  const expected = references.length > 0 || isRemoved(ending) ? owed.toSorted() : []
  if (
    own
      .map(({ name }) => String(name))
      .toSorted()
      .join() !== expected.join()
  )
    return `it owes ${own.length} effects, and the kind declares ${expected.length}`
  const ids = new Set(own.map(({ effect_id: id }) => String(id)))
  if (deliveries.some((id) => !ids.has(id))) return 'delivered under an id that is not committed'
  for (const { effect_id: id, delivered_at: deliveredAt, given_up_at: givenUpAt, type } of ending.effects) {
    if (deliveredAt === null && givenUpAt === null) return 'an effect that is neither delivered nor given up'
    if (type !== 'remove-bytes' && deliveredAt !== null && !deliveries.includes(String(id)))
      return 'an effect that is recorded as delivered and never was'
  }
  const isDone = ending.effects.every(({ delivered_at: deliveredAt }) => deliveredAt !== null)
  return pointOf(ending) === 'referenced' && isDone ? 'an operation that owes nothing and is not completed' : null
}

// 7 and 8 are checked while the history runs, at every boundary and at every statement under a lease.
export const INVARIANTS: ReadonlyMap<string, Invariant> = new Map([
  ['1', whatWasTold],
  ['2', one],
  ['3', together],
  ['4', acknowledged],
  ['5', kept],
  ['6', atRest],
  ['9', quota],
  ['10', effects],
])

/** What is left of an operation of which only a tombstone should be left. */
export interface Forgotten {
  readonly point: string
  readonly rows: readonly SqlRow[]
  readonly references: readonly SqlRow[]
  readonly effects: readonly SqlRow[]
  readonly arrivals: readonly SqlRow[]
}

/** When nothing changes any more, everything of the operation is gone, and it ended once. */
export function forgotten({ point, rows, references, effects: owed, arrivals }: Forgotten): string | null {
  if (rows.length > 0) return '6: a forgotten operation that is never retired'
  if (references.length > 0) return '2: a reference of a forgotten owner'
  if (owed.length > 0) return '10: an effect of a forgotten owner'
  if (arrivals.length !== (point === 'completed' ? 1 : 0))
    return `3: ${arrivals.length} rows of the application, forgotten at ${point}`
  return null
}

/** Compares two reads of one operation and finds impossible changes. `disk` is null if it has lost bytes. */
export function steps(
  before: SqlRow | null,
  after: SqlRow | null,
  content: Uint8Array,
  disk: Disk | null,
  isForgotten: boolean,
): string | null {
  if (isForgotten && after !== null) return '2: the id of a tombstone is used again'
  if (after === null) return before === null || isForgotten ? null : '6: an operation is gone'
  const point = String(after['point'])
  if (before !== null) {
    if (Number(after['offset']) < Number(before['offset'])) return '4: an acknowledged offset fell'
    if (Number(after['lease_token']) < Number(before['lease_token'])) return '8: a token fell'
    if (!isForward(String(before['point']), point)) return `7: from ${String(before['point'])} to ${point}`
    if (before['digest'] !== null && before['digest'] !== after['digest']) return '1: a digest was changed'
  }
  if (!OPEN.has(point) || disk === null) return null
  const offset = Number(after['offset'])
  const blob = disk.stored.get(String(after['blob_key']))
  if (offset > 0 && blob === undefined) return '8: acknowledged bytes are gone'
  if (blob === undefined) return null
  if (blob.durable < offset) return '4: bytes were acknowledged that are not synced'
  if (!Buffer.from(blob.bytes.slice(0, offset)).equals(content.slice(0, offset)))
    return '8: acknowledged bytes have changed'
  return null
}

const ORDER = ['declared', 'received', 'sealed', 'verified', 'referenced', 'completed']
function isForward(from: string, to: string): boolean {
  if (from === to) return true
  if (FINAL.has(from)) return false
  return FINAL.has(to) ? OPEN.has(from) : ORDER.indexOf(to) > ORDER.indexOf(from)
}
