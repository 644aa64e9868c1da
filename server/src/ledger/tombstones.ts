import { createHmac, randomBytes } from 'node:crypto'
import type { TombstonePoint } from '../ports/ledger/operations.js'
import type { Holdings } from '../ports/ledger/references.js'
import type { SqlRow } from './query.js'

// What retention and the right to erasure keep of an operation, in SQL that every database understands.

/**
 * The name of the key in `landfall_meta`. The key is made once and never changes, because with another key ids could be
 * used again.
 */
export const TOMBSTONE_KEY = 'tombstone_key'
export const newTombstoneKey = (): string => randomBytes(32).toString('hex')

/**
 * The owner as a tombstone names it. The hash is keyed, so that nobody can try names with the tombstones alone. With
 * the key as well, one can only find out whether a name that one already knows was here. It has 128 bits, so that no
 * two owners share a hash.
 */
export const ownerHash = (key: string, owner: string): string =>
  createHmac('sha256', Buffer.from(key, 'hex')).update(owner).digest().subarray(0, 16).toString('base64url')

/** The owner in the rows of a forgotten owner, until their bytes are removed. */
export const aliasOf = (hash: string): string => `landfall:forgotten:${hash}`

export const toTombstone = (row: SqlRow | undefined): TombstonePoint | null =>
  row === undefined ? null : (row['point'] as TombstonePoint)

export const TOMBSTONE = `SELECT point FROM landfall_tombstones WHERE id = :id AND owner_hash = :owner_hash`

/** A tombstone's point. `completed`: the operation was referenced, and its reference was removed. */
export const ENDED_AS = `CASE WHEN point IN ('cancelled', 'expired', 'rejected') THEN point ELSE 'completed' END`

export interface Ended {
  readonly owner: string
  readonly id: string
  readonly hash: string
  /** The row has no hash of its owner yet, because an older version of the server made it. */
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

export const toHoldings = (row: SqlRow | undefined): Holdings => ({
  operations: Number(row?.['operations'] ?? 0),
  openOperations: Number(row?.['open_operations'] ?? 0),
  references: Number(row?.['refs'] ?? 0),
  bytes: Number(row?.['bytes'] ?? 0),
})
