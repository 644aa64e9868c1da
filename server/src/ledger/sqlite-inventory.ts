import {
  BACKLOG_MOST,
  type Claim,
  type LedgerBacklog,
  type LedgerHealth,
  type LedgerPulse,
  type OperationFilter,
  type OperationRecord,
} from '../ports.js'
import { NOW, OPEN, OPERATION_WITH_REFERENCE, toOperation } from './sqlite-rows.js'
import type { Connection, SqlRow, SqlValue } from './statements.js'

// What reconcile, lists, doctor, health checks and metrics ask.

export function claims(
  on: Connection,
  { after, upTo, limit }: { after: string; upTo: string | null; limit: number },
): Claim[] {
  const bound = upTo === null ? '' : 'AND o.blob_key <= ?'
  return on
    .all(
      `SELECT o.owner, o.id, o.blob_key, o.point, o.file_size, o."offset", o.lease_holder, o.cleanup_due, o.removed_at,
         r.blob_key AS r_blob_key, EXISTS (SELECT 1 FROM landfall_effects e WHERE e.owner = o.owner
           AND e.operation_id = o.id AND e.type = 'remove-bytes' AND e.delivered_at IS NULL AND e.given_up_at IS NULL) AS removal_due
       FROM landfall_operations o LEFT JOIN landfall_references r ON r.operation_id = o.id AND r.owner = o.owner
       WHERE o.blob_key > ? ${bound} ORDER BY o.blob_key LIMIT ?`,
      [after, ...(upTo === null ? [] : [upTo]), limit],
    )
    .map(toClaim)
}

function toClaim(row: SqlRow): Claim {
  return {
    owner: row['owner'] as string,
    id: row['id'] as string,
    blobKey: row['blob_key'] as string,
    point: row['point'] as Claim['point'],
    sizeBytes: Number(row['file_size']),
    offset: Number(row['offset']),
    leased: row['lease_holder'] !== null,
    cleanupDue: row['cleanup_due'] === 1 || row['removal_due'] === 1,
    removed: row['removed_at'] !== null,
    referenced: row['r_blob_key'] !== null,
  }
}

/** By the key of the blob: it is made with the row, in the order of time. */
export function list(
  on: Connection,
  { id, owner, point, stalled, givenUp, after, limit }: OperationFilter & { after: string | null; limit: number },
): OperationRecord[] {
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
  return on
    .all(`${OPERATION_WITH_REFERENCE} ${condition} ORDER BY o.blob_key DESC LIMIT ?`, [...args, limit])
    .map(toOperation)
}

export const meta = (on: Connection, key: string): string | null => {
  const value = on.get(`SELECT value FROM landfall_meta WHERE key = ?`, [key])?.['value']
  return typeof value === 'string' ? value : null
}
export const setMeta = (on: Connection, key: string, value: string): void =>
  void on.run(
    `INSERT INTO landfall_meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value`,
    [key, value],
  )

export function mark(on: Connection): { mark: number; restoredAt: number | null } {
  const restored = meta(on, 'restored_at')
  return { mark: Number(meta(on, 'mark') ?? 0), restoredAt: restored === null ? null : Number(restored) }
}

export function advanceMark(on: Connection, to: { mark: number; restored: boolean | null }): void {
  setMeta(on, 'mark', String(Math.max(mark(on).mark, to.mark)))
  if (to.restored === true) setMeta(on, 'restored_at', String(nowOf(on)))
  if (to.restored === false) on.run(`DELETE FROM landfall_meta WHERE key = 'restored_at'`)
}

const nowOf = (on: Connection): number => Number(on.get(`SELECT ${NOW} AS now`)?.['now'])

export const heartbeat = (on: Connection): void => setMeta(on, 'heartbeat', String(nowOf(on)))

export function health(on: Connection): LedgerHealth {
  const count = (sql: string): number => Number(on.get(`SELECT COUNT(*) AS n FROM ${sql}`)?.['n'])
  const heartbeatAt = meta(on, 'heartbeat')
  return {
    identity: meta(on, 'identity') ?? '',
    nowAt: nowOf(on),
    heartbeatAt: heartbeatAt === null ? null : Number(heartbeatAt),
    // Rows are never deleted.
    operations: Number(on.get(`SELECT MAX(rowid) AS n FROM landfall_operations`)?.['n'] ?? 0),
    openOperations: count(`landfall_operations WHERE point IN ('declared', 'received', 'sealed', 'verified')`),
    stalledOperations: count(
      `landfall_operations WHERE point IN ('declared', 'received', 'sealed', 'verified') AND stalled = 1`,
    ),
    dueEffects: count(`landfall_effects WHERE due_at IS NOT NULL`),
    givenUpEffects: count(`landfall_effects WHERE given_up_at IS NOT NULL`),
  }
}

export function pulse(on: Connection): LedgerPulse {
  const heartbeatAt = meta(on, 'heartbeat')
  return { nowAt: nowOf(on), heartbeatAt: heartbeatAt === null ? null : Number(heartbeatAt) }
}

/** Only by partial indexes: finished operations and delivered effects are in none of them. A test looks at the plans. */
export const BACKLOG = {
  open: `SELECT point, COUNT(*) AS n, SUM(stalled) AS stalled,
      MIN(CASE WHEN received_at IS NULL THEN created_at END) AS unreceived, MIN(received_at) AS received
    FROM (SELECT point, stalled, created_at, received_at FROM landfall_operations WHERE point IN ${OPEN} LIMIT ${BACKLOG_MOST}) AS counted
    GROUP BY point`,
  owingNothing: `SELECT 1 FROM landfall_operations WHERE point = 'referenced' AND owes_effects = 0`,
  // In no index of their own: found by what they owe. CROSS JOIN keeps SQLite from beginning with all operations.
  owing: `SELECT 1 FROM (
      SELECT owner, operation_id FROM landfall_effects WHERE due_at IS NOT NULL
      UNION SELECT owner, operation_id FROM landfall_effects WHERE given_up_at IS NOT NULL LIMIT ${BACKLOG_MOST}) AS e
    CROSS JOIN landfall_operations o
    WHERE o.owner = e.owner AND o.id = e.operation_id AND o.point = 'referenced' AND o.owes_effects = 1`,
  dueEffects: `SELECT 1 FROM landfall_effects WHERE due_at IS NOT NULL`,
  givenUpEffects: `SELECT 1 FROM landfall_effects WHERE given_up_at IS NOT NULL`,
}

export function backlog(on: Connection): LedgerBacklog {
  const open = on.all(BACKLOG.open)
  const count = (sql: string): number =>
    Number(on.get(`SELECT COUNT(*) AS n FROM (${sql} LIMIT ${BACKLOG_MOST}) AS counted`)?.['n'])
  const of = (point: string): number => Number(open.find((row) => row['point'] === point)?.['n'] ?? 0)
  const oldest = (column: string): number | null => {
    const times = open.flatMap((row) => (row[column] === null ? [] : [Number(row[column])]))
    return times.length === 0 ? null : Math.min(...times)
  }
  return {
    nowAt: nowOf(on),
    points: {
      declared: of('declared'),
      received: of('received'),
      sealed: of('sealed'),
      verified: of('verified'),
      referenced: count(BACKLOG.owingNothing) + count(BACKLOG.owing),
    },
    stalled: open.reduce((total, row) => total + Number(row['stalled']), 0),
    oldestUnreceivedAt: oldest('unreceived'),
    oldestReceivedAt: oldest('received'),
    dueEffects: count(BACKLOG.dueEffects),
    givenUpEffects: count(BACKLOG.givenUpEffects),
  }
}
