import type { Problem } from '@landfall/shared'
import { NO_LEASE } from '../changes.js'
import { type Columns, insertOf, type Table } from '../columns.js'
import type { Dialect } from '../dialect.js'
import { changes, type Plan, row, rows, type SqlValue } from '../query.js'
import { rateArgs } from '../rate.js'
import {
  OPEN,
  OPERATION_COLUMNS,
  OPERATION_WITH_REFERENCE,
  refusal,
  toOperation,
  toVersion,
  usageWords,
} from '../rows.js'
import { type Declaration, OPERATIONS } from '../tables.js'
import { TOMBSTONE, toTombstone } from '../tombstones.js'
import type { Declared, Intent, TombstonePoint } from '../../ports/ledger/operations.js'
import type { OperationKey, OperationRecord } from '../../ports/operation.js'
import { pairs } from './due.js'

const ONE = `owner = :owner AND id = :id`
const FIND = `${OPERATION_WITH_REFERENCE} WHERE o.owner = :owner AND o.id = :id`

export function* find({ owner, id }: OperationKey): Plan<OperationRecord | null> {
  const found = yield* row(FIND, { owner, id })
  return found === undefined ? null : toOperation(found)
}

/** For a SET list: ends an open operation. A process that has its lease loses it. */
export const cancelled = (now: string): string =>
  `point = 'cancelled', stalled = 0, lease_token = lease_token + 1, ${NO_LEASE}, cleanup_due = 1, attempts = 0, due_at = ${now}`

export function operationStatements(dialect: Dialect, table: Table<string, Columns, Declaration> = OPERATIONS) {
  const { now, eachJson } = dialect
  const { into, values, args } = insertOf(table, now)
  const declaring = (isRated: boolean): { insert: string; after: string | null } => {
    const { before, from, allowed, after } = dialect.usage(isRated)
    return {
      insert: `${before} ${into} SELECT ${values} FROM ${from}
        WHERE open_operations < CAST(:max_open AS bigint)
          AND (CAST(:quota_bytes AS bigint) IS NULL OR used_bytes + CAST(:file_size AS bigint) <= CAST(:quota_bytes AS bigint))
          AND (CAST(:quota_files AS bigint) IS NULL OR used_files < CAST(:quota_files AS bigint)) AND ${allowed}
        ON CONFLICT (owner, id) DO NOTHING RETURNING ${OPERATION_COLUMNS}`,
      after,
    }
  }
  const [unrated, rated] = [declaring(false), declaring(true)]

  return {
    find,

    /**
     * Takes one statement if the operation is new, which is nearly always so, and on SQLite one more for its owner's
     * rate.
     *
     * @param ownerHash The owner as tombstones name it.
     */
    *declare(intent: Intent, ownerHash: string): Plan<Declared> {
      const { owner, id, rate } = intent
      const { insert, after } = rate === null ? unrated : rated
      const limits = {
        max_open: intent.maxOpenPerOwner,
        quota_bytes: intent.quotaBytes,
        quota_files: intent.quotaFiles,
        ...(rate === null ? {} : rateArgs(rate)),
      }
      const inserted = yield* row(insert, args({ ownerHash, ...intent }), limits)
      if (inserted !== undefined) {
        if (after !== null) yield* changes(after, { owner }, limits)
        return { outcome: 'created', operation: toOperation(inserted) }
      }
      const existing = yield* row(`SELECT facts FROM landfall_operations WHERE ${ONE}`, { owner, id })
      if (existing !== undefined && existing['facts'] !== intent.facts) return { outcome: 'mismatch' }
      const operation = existing === undefined ? null : yield* find(intent)
      if (operation !== null) return { outcome: 'existing', operation }
      const point = toTombstone(yield* row(TOMBSTONE, { id, owner_hash: ownerHash }))
      if (point !== null) return { outcome: 'forgotten', point }
      return refusal(yield* row(usageWords(now), { owner }), intent)
    },

    *findMany(owner: string, ids: readonly string[]): Plan<OperationRecord[]> {
      const all = yield* rows(
        `${OPERATION_WITH_REFERENCE} WHERE o.owner = :owner AND o.id IN (SELECT wanted.value ->> 0 FROM ${eachJson(':ids', 'wanted')})`,
        { owner, ids: JSON.stringify(ids.map((id) => [id])) },
      )
      const found = new Map(all.map((each) => [each['id'], toOperation(each)]))
      return ids.map((id) => found.get(id)).filter((operation) => operation !== undefined)
    },

    *tombstone(id: string, ownerHash: string): Plan<TombstonePoint | null> {
      return toTombstone(yield* row(TOMBSTONE, { id, owner_hash: ownerHash }))
    },

    *versions(keys: readonly OperationKey[]): Plan<(string | null)[]> {
      const all = yield* rows(
        `SELECT o.owner, o.id, o.point, o.updated_at, o."offset" FROM ${eachJson(':keys', 'wanted')}
           CROSS JOIN landfall_operations o WHERE o.owner = wanted.value ->> 0 AND o.id = wanted.value ->> 1`,
        { keys: pairs(keys) },
      )
      const found = new Map(all.map((each) => [JSON.stringify([each['owner'], each['id']]), toVersion(each)]))
      return keys.map(({ owner, id }) => found.get(JSON.stringify([owner, id])) ?? null)
    },

    *listOpen(owner: string, { after, limit }: { after: string | null; limit: number }): Plan<OperationRecord[]> {
      const from =
        after === null
          ? undefined
          : yield* row(`SELECT created_at FROM landfall_operations WHERE ${ONE}`, { owner, id: after })
      const behind = from === undefined || after === null ? null : { created_at: from['created_at'] as SqlValue, after }
      const all = yield* rows(
        `SELECT ${OPERATION_COLUMNS} FROM landfall_operations WHERE owner = :owner AND point IN ${OPEN}
           ${behind === null ? '' : 'AND (created_at, id) > (:created_at, :after)'} ORDER BY created_at, id LIMIT :limit`,
        { owner, limit, ...behind },
      )
      return all.map(toOperation)
    },

    *setDigest(
      { owner, id }: OperationKey,
      digest: string,
    ): Plan<{ outcome: 'set' | 'conflict' | 'closed'; operation: OperationRecord | null }> {
      const set = yield* row(
        `UPDATE landfall_operations SET digest = :digest, digest_pending = 0, digest_due_at = NULL, updated_at = ${now},
           due_at = CASE WHEN point = 'received' AND lease_holder IS NULL THEN ${now} ELSE due_at END
         WHERE ${ONE} AND digest IS NULL AND point IN ${OPEN} AND content = 'null' RETURNING ${OPERATION_COLUMNS}`,
        { digest, owner, id },
      )
      if (set !== undefined) return { outcome: 'set', operation: toOperation(set) }
      const operation = yield* find({ owner, id })
      const known = operation?.digest ?? operation?.reference?.digest ?? operation?.content?.digest ?? null
      if (known === digest) return { outcome: 'set', operation: null }
      return { outcome: known === null ? 'closed' : 'conflict', operation: null }
    },

    *cancel({ owner, id }: OperationKey, why: Problem): Plan<OperationRecord | null> {
      const ended = yield* row(
        `UPDATE landfall_operations SET ${cancelled(now)}, problem = :problem, updated_at = ${now}
         WHERE ${ONE} AND point IN ${OPEN} RETURNING ${OPERATION_COLUMNS}`,
        { problem: JSON.stringify(why), owner, id },
      )
      return ended === undefined ? null : toOperation(ended)
    },
  }
}
