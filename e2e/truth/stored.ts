/** Everything that is in the database and in the blob store, read without the server. */
export interface Stored {
  readonly operations: readonly {
    owner: string
    id: string
    /** The name of the file. */
    name: string
    size: number
    digest: string | null
    /** The number of acknowledged bytes. */
    offset: number
    point: string
    stalled: boolean
    leased: boolean
    /** Its receiver died, and how many bytes it had stored is not known yet. */
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
  /** Rows of the application, one for each committed `onReference`; null if it keeps none. */
  readonly rows: readonly ApplicationRow[] | null
  /** The number of rows that the application writes without any upload. */
  readonly notes: number
  /** The blobs, by their keys. Any other file is listed by its name. */
  readonly blobs: ReadonlyMap<string, StoredBlob>
  /** Tails and unfinished multipart uploads that no upload needs any more, by their names. */
  readonly leftovers: readonly string[]
}

/** If an application records only which operation it was, the other columns are empty. */
export interface ApplicationRow {
  readonly owner: string
  /** The id of the operation. */
  readonly id: string
  readonly name: string
  readonly size: number
  readonly digest: string
}

export interface StoredBlob {
  /** The path of a blob that is a file. */
  readonly path?: string
  /** The SHA-256 in lower-case hexadecimal; null if the blob does not exist any more. */
  digest(): Promise<string | null>
}

export type Moving = Pick<Stored, 'operations' | 'effects'>

export const FINAL_POINTS: ReadonlySet<string> = new Set(['cancelled', 'expired', 'rejected'])
export const DONE_POINTS: ReadonlySet<string> = new Set(['referenced', 'completed'])

/** The rows of each statement. All statements see the same state. */
export type ReadBatch = (statements: readonly string[]) => Promise<readonly (readonly Row[])[]>
export type Row = Readonly<Record<string, unknown>>

const OPERATIONS = `SELECT owner, id, file_name, file_size, digest, "offset", point, stalled, lease_holder, unclean_holder, cleanup_due, blob_key, removed_at, expires_at, due_at, problem, last_error
  FROM landfall_operations`
const EFFECTS = 'SELECT operation_id, effect_id, name, delivered_at, given_up_at FROM landfall_effects'

/**
 * Reads the operations and effects that may still change. They are by far the fewest, so the query is cheap enough to
 * be repeated often.
 */
export async function readMoving(batch: ReadBatch): Promise<Moving> {
  const [operations = [], effects = []] = await batch([
    `${OPERATIONS} WHERE point NOT IN ('completed', 'cancelled', 'expired', 'rejected') OR cleanup_due = 1 OR lease_holder IS NOT NULL`,
    `${EFFECTS} WHERE delivered_at IS NULL`,
  ])
  return { operations: operations.map(operationOf), effects: effects.map(effectOf) }
}

/** The content of the tables that every ledger has. */
export type StoredLedger = Pick<Stored, 'operations' | 'references' | 'effects'>

/** Reads what is stored. `end` closes what it holds open. */
export interface Reader {
  /** @throws when the database cannot be read */
  read(): Promise<Stored>
  /** Reads the database only, without the blobs. */
  readLedger(): Promise<StoredLedger>
  readMoving(): Promise<Moving>
  end(): Promise<void>
}

export async function readLedger(batch: ReadBatch): Promise<StoredLedger> {
  const [operations = [], references = [], effects = []] = await batch([
    `${OPERATIONS} ORDER BY blob_key`,
    'SELECT owner, operation_id, blob_key, size, digest FROM landfall_references',
    EFFECTS,
  ])
  return {
    operations: operations.map(operationOf),
    references: references.map((row) => ({
      owner: text(row, 'owner'),
      id: text(row, 'operation_id'),
      blobKey: text(row, 'blob_key'),
      size: Number(row['size']),
      digest: text(row, 'digest'),
    })),
    effects: effects.map(effectOf),
  }
}

const operationOf = (row: Row): Stored['operations'][number] => ({
  owner: text(row, 'owner'),
  id: text(row, 'id'),
  name: text(row, 'file_name'),
  size: Number(row['file_size']),
  digest: row['digest'] === null ? null : text(row, 'digest'),
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
})

const effectOf = (row: Row): Stored['effects'][number] => ({
  id: text(row, 'operation_id'),
  effectId: text(row, 'effect_id'),
  name: text(row, 'name'),
  delivered: row['delivered_at'] !== null,
  givenUp: row['given_up_at'] !== null,
})

export function text(row: Row, column: string): string {
  const value = row[column]
  if (typeof value !== 'string') throw new TypeError(`${column} holds no text`)
  return value
}

/** Only the client of this operation can send what is missing. */
export const waitsForClient = ({ point, offset, size, unclean }: Stored['operations'][number]): boolean =>
  point === 'declared' && offset < size && !unclean

/** Nothing changes any more, and the server alone has nothing left to do. */
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
