import type { Dialect } from '../dialect.js'
import { rateWords } from '../rate.js'
import { BACKLOG_MOST } from '../../ports/ledger/inventory.js'

/** SQLite's clock in milliseconds since 1970. It is the same everywhere within one statement. */
export const NOW = `CAST(unixepoch('subsec') * 1000 AS INTEGER)`

const RATE = rateWords('declared_until_us', { now: NOW, greater: 'MAX' })
const UNDELIVERED = `SELECT 1 FROM landfall_effects e WHERE e.owner = o.owner AND e.operation_id = o.id AND e.delivered_at IS NULL`

export const SQLITE: Dialect = {
  hasOneWriter: true,
  now: NOW,
  greater: 'MAX',
  eachJson: (argument, alias) => `json_each(${argument}) AS ${alias}`,
  lock: () => '',
  lockDue: () => '',
  newId: 'lower(hex(randomblob(16)))',
  removalOf: (blobKey) => `json_object('blobKey', ${blobKey})`,
  usage: (isRated) => ({
    before: '',
    // This gives a row also for an owner that has none yet.
    from: `(SELECT COALESCE(MAX(open_operations), 0) AS open_operations, COALESCE(MAX(reserved_bytes + stored_bytes), 0) AS used_bytes,
        COALESCE(MAX(open_operations + stored_references), 0) AS used_files, COALESCE(MAX(declared_until_us), 0) AS declared_until_us
      FROM landfall_usage WHERE owner = :owner) AS own`,
    allowed: `NOT EXISTS (SELECT 1 FROM landfall_tombstones WHERE id = :id AND owner_hash = :owner_hash)${isRated ? ` AND ${RATE.allowed}` : ''}`,
    // By then the trigger has made the owner's row.
    after: isRated ? `UPDATE landfall_usage SET declared_until_us = ${RATE.next} WHERE owner = :owner` : null,
  }),
  // The row only says whether the operation owes anything. The one connection that writes looks up which effects are
  // not delivered yet.
  owed: {
    column: 'owes_effects',
    of: (effects) => (effects > 0 ? 1 : 0),
    nothing: `o.owes_effects = 0 AND NOT EXISTS (${UNDELIVERED})`,
    oneMore: '',
    // The operation completes as soon as nothing is owed, so nothing has to be counted.
    recount: 'owes_effects = 0',
    referenced: [
      `SELECT 1 FROM landfall_operations WHERE point = 'referenced' AND owes_effects = 0`,
      // These operations are in no index of their own, so they are found through the effects that they owe. CROSS JOIN
      // keeps SQLite from beginning with all operations.
      `SELECT 1 FROM (
          SELECT owner, operation_id FROM landfall_effects WHERE due_at IS NOT NULL
          UNION SELECT owner, operation_id FROM landfall_effects WHERE given_up_at IS NOT NULL LIMIT ${BACKLOG_MOST}) AS e
        CROSS JOIN landfall_operations o
        WHERE o.owner = e.owner AND o.id = e.operation_id AND o.point = 'referenced' AND o.owes_effects = 1`,
    ],
    delivered: (from) => `UPDATE landfall_operations AS o SET point = 'completed', updated_at = ${NOW}
      FROM ${from} WHERE o.owner = delivered.owner AND o.id = delivered.operation_id AND o.point = 'referenced' AND NOT EXISTS (${UNDELIVERED})`,
  },
  renewal: `UPDATE landfall_operations AS o SET lease_expires_at = ${NOW} + :lease_ms, due_at = ${NOW} + :lease_ms
    FROM json_each(:leases) AS held
    WHERE o.owner = held.value ->> 0 AND o.id = held.value ->> 1 AND o.lease_token = held.value ->> 2 AND o.lease_holder = held.value ->> 3
    RETURNING owner, id, lease_token`,
}
