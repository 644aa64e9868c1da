import { OPEN_BACKLOG, toBacklog } from '../backlog.js'
import type { Dialect } from '../dialect.js'
import { type Plan, row, rows, type SqlRow, type SqlValue } from '../query.js'
import { CLAIM_COLUMNS, OPEN, OPERATION_WITH_REFERENCE, toClaim, toOperation } from '../rows.js'
import {
  BACKLOG_MOST,
  type Claim,
  type LedgerBacklog,
  type LedgerHealth,
  type LedgerPulse,
  type OperationFilter,
} from '../../ports/ledger/inventory.js'
import type { OperationRecord } from '../../ports/operation.js'

// Queries for reconcile, lists, doctor, health checks and metrics.

const HEARTBEAT = `(SELECT value FROM landfall_meta WHERE key = 'heartbeat') AS heartbeat`
const toPulse = (found: SqlRow | undefined): LedgerPulse => {
  const heartbeatAt = found?.['heartbeat'] ?? null
  return { nowAt: Number(found?.['now']), heartbeatAt: heartbeatAt === null ? null : Number(heartbeatAt) }
}

const upTo = (sql: string): string => `(SELECT COUNT(*) FROM (${sql} LIMIT ${BACKLOG_MOST}) AS counted)`

/**
 * These queries use only partial indexes, which contain no finished operations and no delivered effects. A test
 * examines the query plans.
 */
export const backlogWords = ({ now, owed }: Dialect): { open: string; rest: string } => ({
  open: OPEN_BACKLOG,
  rest: `SELECT ${now} AS now, ${owed.referenced.map(upTo).join(' + ')} AS referenced,
    ${upTo(`SELECT 1 FROM landfall_effects WHERE due_at IS NOT NULL`)} AS due,
    ${upTo(`SELECT 1 FROM landfall_effects WHERE given_up_at IS NOT NULL`)} AS given_up`,
})

export function inventoryStatements(dialect: Dialect) {
  const { now } = dialect
  const BACKLOG = backlogWords(dialect)

  return {
    *claims({ after, upTo: to, limit }: { after: string; upTo: string | null; limit: number }): Plan<Claim[]> {
      const found = yield* rows(
        `SELECT ${CLAIM_COLUMNS}, r.blob_key AS r_blob_key, CASE WHEN EXISTS (SELECT 1 FROM landfall_effects e WHERE e.owner = o.owner
           AND e.operation_id = o.id AND e.type = 'remove-bytes' AND e.delivered_at IS NULL AND e.given_up_at IS NULL) THEN 1 ELSE 0 END AS removal_due
         FROM landfall_operations o LEFT JOIN landfall_references r ON r.operation_id = o.id AND r.owner = o.owner
         WHERE o.blob_key > :after ${to === null ? '' : 'AND o.blob_key <= :up_to'} ORDER BY o.blob_key LIMIT :limit`,
        { after, up_to: to, limit },
      )
      return found.map(toClaim)
    },

    /** Ordered by the key of the blob. The key is made with the row, in the order of time. */
    *list({
      id,
      owner,
      point,
      stalled,
      givenUp,
      after,
      limit,
    }: OperationFilter & { readonly after: string | null; readonly limit: number }): Plan<OperationRecord[]> {
      const where: string[] = []
      const args: Record<string, SqlValue> = { limit }
      const equal = (name: string, value: string | undefined): void => {
        if (value === undefined) return
        where.push(`o.${name} = :${name}`)
        args[name] = value
      }
      if (after !== null) {
        where.push('o.blob_key < :after')
        args['after'] = after
      }
      equal('id', id)
      equal('owner', owner)
      equal('point', point)
      if (stalled === true) where.push('o.stalled = 1')
      if (givenUp === true)
        where.push(
          `EXISTS (SELECT 1 FROM landfall_effects e WHERE e.owner = o.owner AND e.operation_id = o.id AND e.given_up_at IS NOT NULL)`,
        )
      const condition = where.length === 0 ? '' : `WHERE ${where.join(' AND ')}`
      const found = yield* rows(`${OPERATION_WITH_REFERENCE} ${condition} ORDER BY o.blob_key DESC LIMIT :limit`, args)
      return found.map(toOperation)
    },

    *health(): Plan<LedgerHealth> {
      const found = yield* row(
        `SELECT ${now} AS now, ${HEARTBEAT},
           (SELECT value FROM landfall_meta WHERE key = 'identity') AS identity,
           (SELECT COUNT(*) FROM landfall_operations) AS operations,
           (SELECT COUNT(*) FROM landfall_operations WHERE point IN ${OPEN}) AS open,
           (SELECT COUNT(*) FROM landfall_operations WHERE point IN ${OPEN} AND stalled = 1) AS stalled,
           (SELECT COUNT(*) FROM landfall_effects WHERE due_at IS NOT NULL) AS due,
           (SELECT COUNT(*) FROM landfall_effects WHERE given_up_at IS NOT NULL) AS given_up`,
      )
      return {
        identity: String(found?.['identity'] ?? ''),
        ...toPulse(found),
        operations: Number(found?.['operations']),
        openOperations: Number(found?.['open']),
        stalledOperations: Number(found?.['stalled']),
        dueEffects: Number(found?.['due']),
        givenUpEffects: Number(found?.['given_up']),
      }
    },

    *pulse(): Plan<LedgerPulse> {
      return toPulse(yield* row(`SELECT ${now} AS now, ${HEARTBEAT}`))
    },

    *backlog(): Plan<LedgerBacklog> {
      const [open, rest] = [yield* rows(BACKLOG.open), yield* row(BACKLOG.rest)]
      return toBacklog(open, {
        nowAt: Number(rest?.['now']),
        referenced: Number(rest?.['referenced']),
        dueEffects: Number(rest?.['due']),
        givenUpEffects: Number(rest?.['given_up']),
      })
    },
  }
}
