import { createHmac, randomBytes } from 'node:crypto'
import { REMOVAL } from '../ports/ledger/effects.js'
import type { Holdings } from '../ports/ledger/references.js'
import type { TombstonePoint } from '../ports/ledger/operations.js'
import type { ClockStep } from './clock-marks.js'
import { OPEN } from './rows.js'
import type { SqlRow } from './sqlite/client/connection.js'

// What retention and the right to erasure leave of an operation, in words that every database understands.

/** In `landfall_meta`: made once, and then the same for ever, or ids would be used again. */
export const TOMBSTONE_KEY = 'tombstone_key'
export const newTombstoneKey = (): string => randomBytes(32).toString('hex')

/**
 * The owner as a tombstone names it. Keyed, so that who has the tombstones alone cannot even try names; whoever has the
 * key as well can only ask whether a name that he knows already was here. 128 bits, so that no two owners share one.
 */
export const ownerHash = (key: string, owner: string): string =>
  createHmac('sha256', Buffer.from(key, 'hex')).update(owner).digest().subarray(0, 16).toString('base64url')

/** What the rows of an owner say instead of it, until their bytes are removed. */
export const aliasOf = (hash: string): string => `landfall:forgotten:${hash}`

export const toTombstone = (row: SqlRow | undefined): TombstonePoint | null =>
  row === undefined ? null : (row['point'] as TombstonePoint)

export const TOMBSTONE = `SELECT point FROM landfall_tombstones WHERE id = ? AND owner_hash = ?`

/** Nothing is owed any more: no removal, no lease, no effect. In the words of the index `landfall_operations_ended`. */
const IDLE = `o.cleanup_due = 0 AND o.lease_holder IS NULL`
const OWES_NOTHING = `NOT EXISTS (SELECT 1 FROM landfall_references r WHERE r.owner = o.owner AND r.operation_id = o.id)
  AND NOT EXISTS (SELECT 1 FROM landfall_effects e WHERE e.owner = o.owner AND e.operation_id = o.id AND e.delivered_at IS NULL
    AND (e.given_up_at IS NULL OR e.type = 'remove-bytes' OR e.given_up_at > ?))`
/** A tombstone's point: one that was referenced has had its reference removed. */
const ENDED_AS = `CASE WHEN point IN ('cancelled', 'expired', 'rejected') THEN point ELSE 'completed' END`
const COLUMNS = `o.owner, o.id, o.owner_hash, ${ENDED_AS} AS ended`

/** Three arguments: until when, twice, and how many. The longest ago first. */
export const ENDED_OPERATIONS = `SELECT ${COLUMNS} FROM landfall_operations o
  WHERE o.updated_at <= ? AND ${IDLE} AND (o.point IN ('cancelled', 'expired', 'rejected') OR o.removed_at IS NOT NULL)
    AND ${OWES_NOTHING} ORDER BY o.updated_at LIMIT ?`

/** Of owners that were forgotten: as soon as their bytes are removed. Two arguments: now, and how many. */
export const FORGOTTEN_OPERATIONS = `SELECT ${COLUMNS} FROM landfall_operations o
  WHERE o.forgotten_at IS NOT NULL AND ${IDLE} AND ${OWES_NOTHING} ORDER BY o.forgotten_at LIMIT ?`

export const DELIVERED_EFFECTS = `SELECT effect_id FROM landfall_effects
  WHERE delivered_at IS NOT NULL AND delivered_at <= ? ORDER BY delivered_at LIMIT ?`

/** Nothing is left that the row of an owner counts. */
export const usesNothing = (now: string): string =>
  `open_operations = 0 AND reserved_bytes = 0 AND stored_bytes = 0 AND stored_references = 0 AND declared_until_us <= ${now} * 1000`

export interface Ended {
  readonly owner: string
  readonly id: string
  readonly hash: string
  /** The row does not say its owner's hash yet: an older version of the server made it. */
  readonly unnamed: boolean
  readonly point: TombstonePoint
}

export const toEnded =
  (key: string) =>
  (row: SqlRow): Ended => {
    const owner = row['owner'] as string
    const hash = row['owner_hash']
    return {
      owner,
      id: row['id'] as string,
      hash: typeof hash === 'string' ? hash : ownerHash(key, owner),
      unnamed: typeof hash !== 'string',
      point: row['ended'] as TombstonePoint,
    }
  }

export const stepsIn = (value: unknown): ClockStep[] =>
  typeof value === 'string' ? (JSON.parse(value) as ClockStep[]) : []

/** References are found by their operations: no index begins with their owner. */
const REFERENCES_OF = `landfall_operations o JOIN landfall_references r ON r.operation_id = o.id AND r.owner = o.owner WHERE o.owner = ?`
export const HOLDINGS = `SELECT
  (SELECT COUNT(*) FROM landfall_operations WHERE owner = ?) AS operations,
  (SELECT COUNT(*) FROM landfall_operations WHERE owner = ? AND point IN ${OPEN}) AS open_operations,
  (SELECT COUNT(*) FROM ${REFERENCES_OF}) AS refs,
  (SELECT COALESCE(SUM(r.size), 0) FROM ${REFERENCES_OF}) AS bytes`

export const toHoldings = (row: SqlRow | undefined): Holdings => ({
  operations: Number(row?.['operations'] ?? 0),
  openOperations: Number(row?.['open_operations'] ?? 0),
  references: Number(row?.['refs'] ?? 0),
  bytes: Number(row?.['bytes'] ?? 0),
})

export interface Words {
  readonly sql: string
  readonly args: readonly (string | null)[]
}

/** The owner's operations that are being forgotten. What is declared while that happens is not among them. */
const MARKED = `owner = ? AND forgotten_at IS NOT NULL`
const OF_MARKED = `owner = ? AND operation_id IN (SELECT id FROM landfall_operations WHERE ${MARKED})`

/**
 * The statements of `forgetOwner`, in order, after its rows are marked by `forgotten_at`. Each of them sees what others
 * have committed before it, so that only the marks say which rows are meant.
 *
 * @param dialect.newId How the database makes an effect's id; `dialect.payload`: the payload of a removal, as JSON.
 * @param dialect.owed Sets the column by which the database counts what an operation owes, of the one that is renamed.
 */
export function forgetting(
  { owner, hash }: { owner: string; hash: string },
  dialect: { now: string; newId: string; payload: string; owed: (alias: string) => string },
): readonly Words[] {
  const { now, newId, payload, owed } = dialect
  const alias = aliasOf(hash)
  return [
    // Open ones end as by `cancel`: whoever has a lease has lost it.
    {
      sql: `UPDATE landfall_operations SET point = 'cancelled', stalled = 0, lease_token = lease_token + 1, lease_holder = NULL, lease_purpose = NULL,
        lease_expires_at = NULL, lease_asked = 0, cleanup_due = 1, attempts = 0, due_at = ${now} WHERE ${MARKED} AND point IN ${OPEN}`,
      args: [owner],
    },
    // References go as by `remove`: their bytes by an effect after the commit.
    {
      sql: `UPDATE landfall_operations SET removed_at = ${now} WHERE ${MARKED} AND point IN ('referenced', 'completed')
        AND EXISTS (SELECT 1 FROM landfall_references r WHERE r.operation_id = landfall_operations.id AND r.owner = landfall_operations.owner)`,
      args: [owner],
    },
    {
      sql: `INSERT INTO landfall_effects (effect_id, owner, operation_id, name, type, payload, due_at, created_at)
        SELECT ${newId}, r.owner, r.operation_id, '${REMOVAL.name}', 'remove-bytes', ${payload}, ${now}, ${now}
        FROM ${REFERENCES_OF} AND o.forgotten_at IS NOT NULL`,
      args: [owner],
    },
    { sql: `DELETE FROM landfall_references WHERE ${OF_MARKED}`, args: [owner, owner] },
    // What is left to be delivered tells of the owner, except for removals.
    {
      sql: `DELETE FROM landfall_effects WHERE ${OF_MARKED} AND (type <> 'remove-bytes' OR delivered_at IS NOT NULL)`,
      args: [owner, owner],
    },
    { sql: `UPDATE landfall_effects SET owner = ? WHERE ${OF_MARKED}`, args: [alias, owner, owner] },
    {
      sql: `INSERT INTO landfall_tombstones (id, owner_hash, point) SELECT id, CAST(? AS text), ${ENDED_AS} FROM landfall_operations WHERE ${MARKED} ON CONFLICT DO NOTHING`,
      args: [hash, owner],
    },
    // The row stays until the bytes are removed: it is what drives that, and what reconcile goes by.
    {
      sql: `UPDATE landfall_operations SET owner = ?, owner_hash = ?, updated_at = ${now}, ${owed(alias)},
        file_name = '', file_type = '', file_last_modified = NULL, metadata = '{}', validated = 'null', upload_metadata = NULL, facts = '',
        digest = NULL, digest_pending = 0, blob_state = 'null', prepared = '{}', content = 'null', problem = 'null', last_error = NULL
        WHERE ${MARKED}`,
      args: [alias, hash, owner],
    },
  ]
}
