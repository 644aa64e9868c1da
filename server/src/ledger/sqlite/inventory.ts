import {
  BACKLOG_MOST,
  type Claim,
  type LedgerBacklog,
  type LedgerHealth,
  type LedgerPulse,
} from '../../ports/ledger/inventory.js'
import type { OperationRecord } from '../../ports/operation.js'
import { OPEN_BACKLOG, toBacklog } from '../backlog.js'
import { claimsIn, listed } from '../inventory.js'
import { toClaim, toOperation } from '../rows.js'
import { type Connection, NOW } from './client/connection.js'

// What reconcile, lists, doctor, health checks and metrics ask.

export const claims = (on: Connection, range: Parameters<typeof claimsIn>[0]): Claim[] => {
  const { sql, args } = claimsIn(range)
  return on.all(sql, args).map(toClaim)
}

export const list = (on: Connection, page: Parameters<typeof listed>[0]): OperationRecord[] => {
  const { sql, args } = listed(page)
  return on.all(sql, args).map(toOperation)
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
    operations: count('landfall_operations'),
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
  open: OPEN_BACKLOG,
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
  const count = (sql: string): number =>
    Number(on.get(`SELECT COUNT(*) AS n FROM (${sql} LIMIT ${BACKLOG_MOST}) AS counted`)?.['n'])
  return toBacklog(on.all(BACKLOG.open), {
    nowAt: nowOf(on),
    referenced: count(BACKLOG.owingNothing) + count(BACKLOG.owing),
    dueEffects: count(BACKLOG.dueEffects),
    givenUpEffects: count(BACKLOG.givenUpEffects),
  })
}
