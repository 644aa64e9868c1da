import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { Client, Row } from '@libsql/client'
import { sha256Of, wireDigest } from '../files.js'

/** What the harness knows of an upload that it made. */
export interface Known {
  readonly id: string
  readonly sizeBytes: number
  /** Lower-case hexadecimal, of the file as it was picked. */
  readonly sha256: string
  /** What its user was told; null: nothing yet, or nobody was there to be told. */
  readonly told: 'success' | 'failure' | 'removed' | null
  /** The highest offset that an answer acknowledged. */
  readonly acknowledged: number
  /** A client is there that would go on. */
  readonly attended: boolean
  /** It must end without a reference, and with this problem. */
  readonly doomed?: string
  /** Its user takes the reference back. */
  readonly removable?: boolean
}

/** Everything that lies in the database and on the disk, read past the server. */
export interface Stored {
  readonly operations: readonly {
    owner: string
    id: string
    size: number
    offset: number
    point: string
    stalled: boolean
    leased: boolean
    /** Its receiver died, and nobody has looked yet how far it came. */
    unclean: boolean
    cleanupDue: boolean
    blobKey: string
    removed: boolean
    expiresAt: number
    dueAt: number | null
    problem: string | null
    lastError: string | null
  }[]
  readonly references: readonly { owner: string; id: string; blobKey: string; size: number; digest: string }[]
  readonly effects: readonly { id: string; effectId: string; name: string; delivered: boolean; givenUp: boolean }[]
  /** Rows of the application, one for each `onReference` that was committed; null: it has none. */
  readonly arrivals: readonly string[] | null
  /** Keys of the blobs, with their paths; whatever else lies there under its own name. */
  readonly blobs: ReadonlyMap<string, string>
}

export type Moving = Pick<Stored, 'operations' | 'effects'>

const FINAL_POINTS = new Set(['cancelled', 'expired', 'rejected'])
const DONE_POINTS = new Set(['referenced', 'completed'])
const ORDER = ['declared', 'received', 'sealed', 'verified', 'referenced', 'completed']

const OPERATIONS = `SELECT owner, id, file_size, "offset", point, stalled, lease_holder, unclean_holder, cleanup_due, blob_key, removed_at, expires_at, due_at, problem, last_error
  FROM landfall_operations`
const EFFECTS = 'SELECT operation_id, effect_id, name, delivered_at, given_up_at FROM landfall_effects'

/** What may still move, by far the least of it: cheap enough to be asked again and again. */
export async function readMoving(database: Client): Promise<Moving> {
  const [operations, effects] = await database.batch(
    [
      `${OPERATIONS} WHERE point NOT IN ('completed', 'cancelled', 'expired', 'rejected') OR cleanup_due = 1 OR lease_holder IS NOT NULL`,
      `${EFFECTS} WHERE delivered_at IS NULL`,
    ],
    'read',
  )
  return { operations: operationsOf(operations), effects: effectsOf(effects) }
}

export async function readStored(database: Client, blobs: string): Promise<Stored> {
  const [operations, references, effects] = await database.batch(
    [
      `${OPERATIONS} ORDER BY blob_key`,
      'SELECT owner, operation_id, blob_key, size, digest FROM landfall_references',
      EFFECTS,
    ],
    'read',
  )
  const tables = await database.execute("SELECT name FROM sqlite_master WHERE name = 'arrivals'")
  const arrivals = tables.rows.length > 0 ? await database.execute('SELECT operation_id FROM arrivals') : null
  const entries = await readdir(blobs, { recursive: true, withFileTypes: true }).catch(() => [])
  return {
    operations: operationsOf(operations),
    references: rowsOf(references).map((row) => ({
      owner: text(row, 'owner'),
      id: text(row, 'operation_id'),
      blobKey: text(row, 'blob_key'),
      size: Number(row['size']),
      digest: text(row, 'digest'),
    })),
    effects: effectsOf(effects),
    arrivals: arrivals === null ? null : rowsOf(arrivals).map((row) => text(row, 'operation_id')),
    blobs: new Map(
      entries.filter((entry) => entry.isFile()).map(({ name, parentPath }) => [name, join(parentPath, name)]),
    ),
  }
}

const operationsOf = (result: { rows: Row[] } | undefined): Stored['operations'] =>
  rowsOf(result).map((row) => ({
    owner: text(row, 'owner'),
    id: text(row, 'id'),
    size: Number(row['file_size']),
    offset: Number(row['offset']),
    point: text(row, 'point'),
    stalled: row['stalled'] === 1,
    leased: row['lease_holder'] !== null,
    unclean: row['unclean_holder'] !== null,
    cleanupDue: row['cleanup_due'] === 1,
    blobKey: text(row, 'blob_key'),
    removed: row['removed_at'] !== null,
    expiresAt: Number(row['expires_at']),
    dueAt: row['due_at'] === null ? null : Number(row['due_at']),
    problem: row['problem'] === 'null' ? null : text(row, 'problem'),
    lastError: row['last_error'] === null ? null : text(row, 'last_error'),
  }))

const effectsOf = (result: { rows: Row[] } | undefined): Stored['effects'] =>
  rowsOf(result).map((row) => ({
    id: text(row, 'operation_id'),
    effectId: text(row, 'effect_id'),
    name: text(row, 'name'),
    delivered: row['delivered_at'] !== null,
    givenUp: row['given_up_at'] !== null,
  }))

const rowsOf = (result: { rows: Row[] } | undefined): Row[] => result?.rows ?? []

function text(row: Row, column: string): string {
  const value = row[column]
  if (typeof value !== 'string') throw new TypeError(`${column} holds no text`)
  return value
}

/** Only its client can bring what is missing. */
export const waitsForClient = ({ point, offset, size, unclean }: Stored['operations'][number]): boolean =>
  point === 'declared' && offset < size && !unclean

/** Nothing moves any more, and nothing is left to be done by the server alone. */
export const isQuiet = ({ operations, effects }: Moving): boolean =>
  operations.every(
    (operation) =>
      !operation.leased &&
      !operation.cleanupDue &&
      (operation.point === 'completed' ||
        FINAL_POINTS.has(operation.point) ||
        operation.stalled ||
        waitsForClient(operation)),
  ) && effects.every(({ delivered, givenUp }) => delivered || givenUp)

/** What earlier looks at the same place have shown; kept from one check to the next. */
export interface History {
  readonly points: Map<string, string>
  readonly offsets: Map<string, number>
}
export const newHistory = (): History => ({ points: new Map(), offsets: new Map() })

/**
 * The invariants of the design, by their numbers; empty: all hold. `quiet`: nothing moves any more, so that 6 and 10
 * hold too. `received`: the ids of effects that their receiver has had, by operation.
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
    if (operation?.removed === true && upload.removable !== true) say(5, id, 'taken back by nobody')
    const rows = stored.arrivals?.filter((arrived) => arrived === id).length
    if (rows !== undefined && rows !== references.length)
      say(3, id, `${rows} rows of the application for ${references.length} references`)
    if (upload.told === 'failure' && reference !== undefined) say(1, id, 'told failure with a reference')
    if (upload.doomed !== undefined && reference !== undefined) say(1, id, 'a reference to what must have none')
    if (upload.told === 'failure' && upload.doomed === undefined)
      say(1, id, `told failure: ${operation?.problem ?? ''}`)
    if (references.length > 1) say(2, id, `${references.length} references`)
    if (reference !== undefined) {
      const path = stored.blobs.get(reference.blobKey)
      if (operation?.removed !== true) {
        if (path === undefined) say(1, id, 'a reference without its blob')
        else if ((await sha256Of(path)) !== upload.sha256) say(1, id, 'a reference to wrong bytes')
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
    if (quiet && point === 'declared' && operation.dueAt === null) say(6, id, 'nobody will ever look at it again')
    if (quiet && received !== null) {
      const owed = stored.effects.filter((effect) => effect.id === id)
      const had = received.get(id) ?? new Set()
      for (const { effectId, name } of owed)
        if (name === 'webhook' && !had.has(effectId)) say(10, id, 'an effect that its receiver never had')
      if (had.size > 1) say(10, id, `${had.size} ids of one effect`)
      if (had.size > 0 && owed.length === 0) say(10, id, 'an effect that nobody owed')
      if (DONE_POINTS.has(point) && !owed.some(({ name }) => name === 'webhook'))
        say(10, id, 'a reference that owes nothing')
    }
  }

  const claimed = new Set(stored.operations.map(({ blobKey }) => blobKey))
  for (const key of stored.blobs.keys()) if (!claimed.has(key)) say(6, key, 'a blob without a row')
  return found
}

function mayFollow(before: string, after: string): boolean {
  if (FINAL_POINTS.has(before)) return false
  if (FINAL_POINTS.has(after)) return !DONE_POINTS.has(before)
  return ORDER.indexOf(after) > ORDER.indexOf(before)
}
