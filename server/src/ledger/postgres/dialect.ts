import type { Dialect } from '../dialect.js'
import { rateWords } from '../rate.js'

/**
 * PostgreSQL's clock in milliseconds since 1970. `clock_timestamp()` would differ between two places of one statement,
 * and no index can serve a condition on it. `statement_timestamp()` does not change within a statement, and advances
 * between the statements of a transaction. A statement that had to wait for a row judges by the time at which it began,
 * so it ends no lease too early.
 */
export const NOW = `CAST(FLOOR(EXTRACT(EPOCH FROM statement_timestamp()) * 1000) AS bigint)`

const eachJson = (argument: string, alias: string): string =>
  `json_array_elements(CAST(CAST(${argument} AS text) AS json)) AS ${alias}`

// The rate is decided in the owner's row, which only one declaration at a time can change.
const FIRST = rateWords('0', { now: NOW, greater: 'GREATEST' })
const NEXT = rateWords('u.declared_until_us', { now: NOW, greater: 'GREATEST' })

/**
 * The owner's row is locked first, so that declarations on several nodes run one after the other and each sees what the
 * others have counted. `declaration_refused` says whether this one came too soon, because a statement can only return
 * the row's new values.
 */
const usage = (isRated: boolean): string => `WITH own AS (
    INSERT INTO landfall_usage AS u (owner${isRated ? ', declared_until_us' : ''})
    SELECT CAST(:owner AS text)${isRated ? `, ${FIRST.next}` : ''}
    WHERE NOT EXISTS (SELECT 1 FROM landfall_operations WHERE owner = :owner AND id = :id)
      AND NOT EXISTS (SELECT 1 FROM landfall_tombstones WHERE id = :id AND owner_hash = :owner_hash)
    ON CONFLICT (owner) DO UPDATE SET ${
      isRated
        ? `declared_until_us = CASE WHEN ${NEXT.allowed} THEN ${NEXT.next} ELSE u.declared_until_us END,
           declaration_refused = CASE WHEN ${NEXT.allowed} THEN 0 ELSE 1 END`
        : 'owner = excluded.owner, declaration_refused = 0'
    }
    RETURNING open_operations, reserved_bytes + stored_bytes AS used_bytes, open_operations + stored_references AS used_files,
      declaration_refused
  )`

export const POSTGRES: Dialect = {
  hasOneWriter: false,
  now: NOW,
  greater: 'GREATEST',
  eachJson,
  lock: (of) => `FOR UPDATE OF ${of}`,
  lockDue: (of) => `FOR UPDATE OF ${of} SKIP LOCKED`,
  newId: 'CAST(gen_random_uuid() AS text)',
  removalOf: (blobKey) => `CAST(json_build_object('blobKey', ${blobKey}) AS text)`,
  usage: (isRated) => ({ before: usage(isRated), from: 'own', allowed: 'declaration_refused = 0', after: null }),
  // The row counts them. Two nodes that deliver the last two effects change it one after the other.
  owed: {
    column: 'owed_effects',
    of: (effects) => effects,
    nothing: 'o.owed_effects = 0',
    oneMore: 'owed_effects = owed_effects + 1,',
    recount: `owed_effects = (SELECT COUNT(*) FROM landfall_effects e
      WHERE e.owner = :alias AND e.operation_id = landfall_operations.id AND e.delivered_at IS NULL)`,
    referenced: [`SELECT 1 FROM landfall_operations WHERE point = 'referenced'`],
    delivered: (from) => `UPDATE landfall_operations AS o SET owed_effects = o.owed_effects - 1,
        point = CASE WHEN o.point = 'referenced' AND o.owed_effects = 1 THEN 'completed' ELSE o.point END,
        updated_at = CASE WHEN o.point = 'referenced' AND o.owed_effects = 1 THEN ${NOW} ELSE o.updated_at END
      FROM ${from} WHERE o.owner = delivered.owner AND o.id = delivered.operation_id`,
  },
  /**
   * It waits for no other transaction. A row may be locked for long, for example because the application forgets its
   * owner in a long transaction. That must not keep this process from prolonging all its other leases. The lease of
   * such a row counts as kept, and is prolonged the next time. A node that wants to take it has to wait for the same
   * lock.
   */
  renewal: `WITH held AS MATERIALIZED (
      SELECT o.owner, o.id, o.lease_token FROM ${eachJson(':leases', 'held')}
        JOIN landfall_operations o ON o.owner = held.value ->> 0 AND o.id = held.value ->> 1
          AND o.lease_token = CAST(held.value ->> 2 AS bigint) AND o.lease_holder = held.value ->> 3
    ), wanted AS MATERIALIZED (
      SELECT o.owner, o.id FROM held JOIN landfall_operations o
        ON o.owner = held.owner AND o.id = held.id AND o.lease_token = held.lease_token
      ORDER BY o.owner, o.id FOR UPDATE OF o SKIP LOCKED
    ), prolonged AS (
      UPDATE landfall_operations o SET lease_expires_at = ${NOW} + :lease_ms, due_at = ${NOW} + :lease_ms
      FROM wanted WHERE o.owner = wanted.owner AND o.id = wanted.id
    )
    SELECT owner, id, lease_token FROM held`,
}
