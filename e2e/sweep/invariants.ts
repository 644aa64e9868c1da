import { wireDigest } from '../ground/files.js'
import { DONE_POINTS, FINAL_POINTS, type Stored } from '../truth/stored.js'

const ORDER = ['declared', 'received', 'sealed', 'verified', 'referenced', 'completed']

/** What the harness knows of an upload that it made. */
export interface Known {
  readonly id: string
  readonly sizeBytes: number
  /** In lower-case hexadecimal, of the file as it was picked. */
  readonly sha256: string
  /** What the user was told; null if nothing yet, or if the user was away. */
  readonly told: 'success' | 'failure' | 'removed' | null
  /** The highest offset that an answer acknowledged. */
  readonly acknowledged: number
  /** Whether a client is still there that would continue the upload. */
  readonly attended: boolean
  /** The upload must end without a reference and with this problem. */
  readonly doomed?: string
  /** The user takes the reference back. */
  readonly removable?: boolean
}

/** What earlier checks of the same place have seen. It is kept from one check to the next. */
export interface History {
  readonly points: Map<string, string>
  readonly offsets: Map<string, number>
}
export const newHistory = (): History => ({ points: new Map(), offsets: new Map() })

/**
 * Checks the invariants of the design, by their numbers. An empty result means that all hold. `quiet`: nothing changes
 * any more, so invariants 6 and 10 must hold too. `received`: the ids of effects that the receiver has had, by
 * operation.
 */
export async function violations(
  stored: Stored,
  known: readonly Known[],
  {
    quiet,
    history,
    received,
  }: { quiet: boolean; history: History; received: ReadonlyMap<string, ReadonlySet<string>> | null },
): Promise<string[]> {
  const found: string[] = []
  const operations = new Map(stored.operations.map((operation) => [operation.id, operation]))
  const say = (invariant: number, id: string, words: string): void =>
    void found.push(`invariant ${invariant}: ${words} (${id} ${operations.get(id)?.point ?? 'no row'})`)

  for (const upload of known) {
    const { id } = upload
    const operation = operations.get(id)
    const references = stored.references.filter((reference) => reference.id === id)
    const [reference] = references
    const mayBeGone = upload.removable === true && operation?.removed === true
    if (upload.told === 'success' && reference === undefined && !mayBeGone)
      say(1, id, 'told success without a reference')
    if (upload.told === 'removed' && (reference !== undefined || operation?.removed !== true))
      say(5, id, 'told that it was taken back, and it was not')
    if (operation?.removed === true && upload.removable !== true)
      say(5, id, 'its reference was taken back without a request')
    const rows = stored.rows?.filter((row) => row.id === id).length
    if (rows !== undefined && rows !== references.length)
      say(3, id, `${rows} rows of the application for ${references.length} references`)
    if (upload.told === 'failure' && reference !== undefined) say(1, id, 'told failure with a reference')
    if (upload.doomed !== undefined && reference !== undefined) say(1, id, 'a reference to what must have none')
    if (upload.told === 'failure' && upload.doomed === undefined)
      say(1, id, `told failure: ${operation?.problem ?? ''}`)
    if (references.length > 1) say(2, id, `${references.length} references`)
    if (reference !== undefined) {
      const blob = stored.blobs.get(reference.blobKey)
      if (operation?.removed !== true) {
        if (blob === undefined) say(1, id, 'a reference without its blob')
        else if ((await blob.digest()) !== upload.sha256) say(1, id, 'a reference to wrong bytes')
      }
      if (reference.digest !== wireDigest(upload.sha256)) say(1, id, 'a reference with a wrong digest')
      if (reference.size !== upload.sizeBytes) say(1, id, 'a reference with a wrong size')
      if (operation === undefined || !DONE_POINTS.has(operation.point)) say(3, id, 'a reference before its point')
    }
    if (operation === undefined) {
      if (upload.acknowledged > 0 || upload.told === 'success') say(4, id, 'acknowledged bytes without a row')
      continue
    }
    if (operation.offset < upload.acknowledged)
      say(4, id, `acknowledged ${upload.acknowledged} bytes, the row says ${operation.offset}`)
    if (DONE_POINTS.has(operation.point) && (reference === undefined) !== operation.removed)
      say(3, id, 'referenced without a reference')
    if (quiet && upload.doomed === undefined && FINAL_POINTS.has(operation.point) && upload.told !== 'failure')
      say(6, id, `ended without being told: ${operation.problem ?? ''}`)
  }

  for (const operation of stored.operations) {
    const { id, point, offset, blobKey } = operation
    const before = history.points.get(id)
    if (before !== undefined && before !== point && !mayFollow(before, point)) say(7, id, `${before} became ${point}`)
    history.points.set(id, point)
    if (offset < (history.offsets.get(id) ?? 0)) say(4, id, `the offset fell to ${offset}`)
    history.offsets.set(id, offset)
    const doomed = known.find((upload) => upload.id === id)?.doomed
    if (FINAL_POINTS.has(point) && doomed !== undefined && !(operation.problem ?? '').includes(`"code":"${doomed}"`))
      say(6, id, `ended with another problem than ${doomed}: ${operation.problem ?? ''}`)
    const isGone = FINAL_POINTS.has(point) || operation.removed
    if (quiet && isGone && stored.blobs.has(blobKey)) say(6, id, 'bytes are left')
    if (quiet && operation.stalled) say(6, id, `stalled: ${operation.lastError ?? ''}`)
    if (quiet && point === 'declared' && operation.dueAt === null) say(6, id, 'it will never be due again')
    if (quiet && received !== null) {
      const owed = stored.effects.filter((effect) => effect.id === id)
      const had = received.get(id) ?? new Set()
      for (const { effectId, name } of owed)
        if (name === 'webhook' && !had.has(effectId)) say(10, id, 'an effect that its receiver never had')
      if (had.size > 1) say(10, id, `${had.size} ids of one effect`)
      if (had.size > 0 && owed.length === 0) say(10, id, 'an effect that was not owed')
      if (DONE_POINTS.has(point) && !owed.some(({ name }) => name === 'webhook'))
        say(10, id, 'a reference that owes nothing')
    }
  }

  const claimed = new Set(stored.operations.map(({ blobKey }) => blobKey))
  for (const key of stored.blobs.keys()) if (!claimed.has(key)) say(6, key, 'a blob without a row')
  if (quiet) for (const name of stored.leftovers) say(6, name, 'a tail or multipart that nothing needs')
  return found
}

function mayFollow(before: string, after: string): boolean {
  if (FINAL_POINTS.has(before)) return false
  if (FINAL_POINTS.has(after)) return !DONE_POINTS.has(before)
  return ORDER.indexOf(after) > ORDER.indexOf(before)
}
