import type { OperationFilter } from '../ports/ledger/inventory.js'
import { OPERATION_WITH_REFERENCE } from './rows.js'
import type { SqlValue } from './sqlite/client/connection.js'

// What reconcile and lists ask, in words that every database understands.

export interface Query {
  readonly sql: string
  readonly args: readonly SqlValue[]
}

export function claimsIn({
  after,
  upTo,
  limit,
}: {
  readonly after: string
  readonly upTo: string | null
  readonly limit: number
}): Query {
  const bound = upTo === null ? '' : 'AND o.blob_key <= ?'
  return {
    sql: `SELECT o.owner, o.id, o.blob_key, o.point, o.file_size, o."offset", o.lease_holder, o.cleanup_due, o.removed_at,
         r.blob_key AS r_blob_key, CASE WHEN EXISTS (SELECT 1 FROM landfall_effects e WHERE e.owner = o.owner
           AND e.operation_id = o.id AND e.type = 'remove-bytes' AND e.delivered_at IS NULL AND e.given_up_at IS NULL) THEN 1 ELSE 0 END AS removal_due
       FROM landfall_operations o LEFT JOIN landfall_references r ON r.operation_id = o.id AND r.owner = o.owner
       WHERE o.blob_key > ? ${bound} ORDER BY o.blob_key LIMIT ?`,
    args: [after, ...(upTo === null ? [] : [upTo]), limit],
  }
}

/** By the key of the blob: it is made with the row, in the order of time. */
export function listed({
  id,
  owner,
  point,
  stalled,
  givenUp,
  after,
  limit,
}: OperationFilter & { readonly after: string | null; readonly limit: number }): Query {
  const where: string[] = []
  const args: SqlValue[] = []
  const also = (condition: string, ...values: SqlValue[]): void => {
    where.push(condition)
    args.push(...values)
  }
  if (after !== null) also('o.blob_key < ?', after)
  if (id !== undefined) also('o.id = ?', id)
  if (owner !== undefined) also('o.owner = ?', owner)
  if (point !== undefined) also('o.point = ?', point)
  if (stalled === true) also('o.stalled = 1')
  if (givenUp === true)
    also(
      `EXISTS (SELECT 1 FROM landfall_effects e WHERE e.owner = o.owner AND e.operation_id = o.id AND e.given_up_at IS NOT NULL)`,
    )
  const condition = where.length === 0 ? '' : `WHERE ${where.join(' AND ')}`
  return { sql: `${OPERATION_WITH_REFERENCE} ${condition} ORDER BY o.blob_key DESC LIMIT ?`, args: [...args, limit] }
}
