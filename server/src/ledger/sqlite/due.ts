import type { OperationKey } from '../../ports/operation.js'
import { OPEN } from '../rows.js'
import { NOW, type SqlValue } from './client/connection.js'

// What is picked: by a reader that looks whether there is anything, and then by the statement that takes it. Most looks
// find nothing, and must not keep the application from its one writer.

const DRIVABLE = `((point IN ${OPEN} AND stalled = 0) OR cleanup_due = 1)`

/**
 * Oldest first. A lease of our own that looks expired is one whose clock has jumped if it is in use; else it is one that
 * could not be given back, and nobody prolongs it.
 */
export const DUE_OPERATIONS = `SELECT rowid FROM landfall_operations WHERE due_at IS NOT NULL AND due_at <= ${NOW}
  AND (lease_holder IS NULL OR (lease_expires_at <= ${NOW} AND (lease_holder <> ? OR NOT EXISTS (
    SELECT 1 FROM json_each(?) WHERE value ->> 0 = owner AND value ->> 1 = landfall_operations.id))))
  AND ${DRIVABLE}
  ORDER BY due_at LIMIT ?`

/** When there is something to take, leases that may expire included. */
export const NEXT_DUE = `SELECT due_at FROM landfall_operations WHERE due_at IS NOT NULL AND ${DRIVABLE} ORDER BY due_at LIMIT 1`

export const dueArgs = ({ holder, inUse }: { holder: string; inUse: readonly OperationKey[] }): SqlValue[] => [
  holder,
  JSON.stringify(inUse.map(({ owner, id }) => [owner, id])),
]

/** Of one target, oldest first. */
export const DUE_EFFECTS = `SELECT effect_id FROM landfall_effects
  WHERE kind = ? AND name = ? AND due_at IS NOT NULL AND due_at <= ${NOW} ORDER BY due_at LIMIT ?`

/** Referenced, and nothing is owed any more. */
export const COMPLETABLE = `SELECT o.rowid FROM landfall_operations o
  WHERE o.point = 'referenced' AND o.owes_effects = 0 AND NOT EXISTS (
    SELECT 1 FROM landfall_effects e WHERE e.owner = o.owner AND e.operation_id = o.id AND e.delivered_at IS NULL)
  ORDER BY o.updated_at LIMIT ?`
