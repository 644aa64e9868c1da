import type { OperationKey } from '../../ports/operation.js'
import { NOW } from './query.js'
import { OPEN } from '../rows.js'
import type { SqlValue } from '../sqlite/client/connection.js'

// What is picked. Rows that another node is taking just now are passed over: it has them.

const DRIVABLE = `((o.point IN ${OPEN} AND o.stalled = 0) OR o.cleanup_due = 1)`

/**
 * Oldest first. A lease of our own that looks expired is one whose clock has jumped if it is in use; else it is one that
 * could not be given back, and nobody prolongs it.
 */
export const DUE_OPERATIONS = `SELECT o.owner, o.id FROM landfall_operations o WHERE o.due_at IS NOT NULL AND o.due_at <= ${NOW}
  AND (o.lease_holder IS NULL OR (o.lease_expires_at <= ${NOW} AND (o.lease_holder <> ? OR NOT EXISTS (
    SELECT 1 FROM json_array_elements(CAST(CAST(? AS text) AS json)) AS used WHERE used ->> 0 = o.owner AND used ->> 1 = o.id))))
  AND ${DRIVABLE}
  ORDER BY o.due_at LIMIT ? FOR UPDATE OF o SKIP LOCKED`

/** When there is something to take, leases that may expire included. */
export const NEXT_DUE = `SELECT o.due_at FROM landfall_operations o WHERE o.due_at IS NOT NULL AND ${DRIVABLE} ORDER BY o.due_at LIMIT 1`

export const dueArgs = ({ holder, inUse }: { holder: string; inUse: readonly OperationKey[] }): SqlValue[] => [
  holder,
  JSON.stringify(inUse.map(({ owner, id }) => [owner, id])),
]

/** Of one target, oldest first. */
export const DUE_EFFECTS = `SELECT effect_id FROM landfall_effects
  WHERE kind = ? AND name = ? AND due_at IS NOT NULL AND due_at <= ${NOW} ORDER BY due_at LIMIT ? FOR UPDATE SKIP LOCKED`

/** Referenced, and nothing is owed any more. */
export const COMPLETABLE = `SELECT o.owner, o.id FROM landfall_operations o
  WHERE o.point = 'referenced' AND o.owed_effects = 0 ORDER BY o.updated_at LIMIT ? FOR UPDATE OF o SKIP LOCKED`
