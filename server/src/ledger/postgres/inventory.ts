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
import { NOW, type Queries } from './query.js'
import { OPEN, toClaim, toOperation } from '../rows.js'

// What reconcile, lists and doctor ask.

export async function claims(on: Queries, range: Parameters<typeof claimsIn>[0]): Promise<Claim[]> {
  const { sql, args } = claimsIn(range)
  return (await on.all(sql, args)).map(toClaim)
}

export async function list(on: Queries, page: Parameters<typeof listed>[0]): Promise<OperationRecord[]> {
  const { sql, args } = listed(page)
  return (await on.all(sql, args)).map(toOperation)
}

export async function meta(on: Queries, key: string): Promise<string | null> {
  const value = (await on.get(`SELECT value FROM landfall_meta WHERE key = ?`, [key]))?.['value']
  return typeof value === 'string' ? value : null
}
export const setMeta = (on: Queries, key: string, value: string): Promise<number> =>
  on.run(
    `INSERT INTO landfall_meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value`,
    [key, value],
  )

export async function mark(on: Queries): Promise<{ mark: number; restoredAt: number | null }> {
  const restored = await meta(on, 'restored_at')
  return { mark: Number((await meta(on, 'mark')) ?? 0), restoredAt: restored === null ? null : Number(restored) }
}

/** In a transaction. Two nodes may raise it at once: the higher one stays. */
export async function advanceMark(on: Queries, to: { mark: number; restored: boolean | null }): Promise<void> {
  await on.run(
    `INSERT INTO landfall_meta AS m (key, value) VALUES ('mark', ?) ON CONFLICT (key)
     DO UPDATE SET value = CAST(GREATEST(CAST(m.value AS bigint), CAST(excluded.value AS bigint)) AS text)`,
    [String(to.mark)],
  )
  if (to.restored === true)
    await on.run(
      `INSERT INTO landfall_meta (key, value) VALUES ('restored_at', CAST(${NOW} AS text)) ON CONFLICT (key) DO UPDATE SET value = excluded.value`,
    )
  if (to.restored === false) await on.run(`DELETE FROM landfall_meta WHERE key = 'restored_at'`)
}

export const heartbeat = (on: Queries): Promise<number> =>
  on.run(
    `INSERT INTO landfall_meta (key, value) VALUES ('heartbeat', CAST(${NOW} AS text)) ON CONFLICT (key) DO UPDATE SET value = excluded.value`,
  )

export async function health(on: Queries): Promise<LedgerHealth> {
  const row = await on.get(
    `SELECT ${NOW} AS now,
       (SELECT value FROM landfall_meta WHERE key = 'identity') AS identity,
       (SELECT value FROM landfall_meta WHERE key = 'heartbeat') AS heartbeat,
       (SELECT COUNT(*) FROM landfall_operations) AS operations,
       (SELECT COUNT(*) FROM landfall_operations WHERE point IN ${OPEN}) AS open,
       (SELECT COUNT(*) FROM landfall_operations WHERE point IN ${OPEN} AND stalled = 1) AS stalled,
       (SELECT COUNT(*) FROM landfall_effects WHERE due_at IS NOT NULL) AS due,
       (SELECT COUNT(*) FROM landfall_effects WHERE given_up_at IS NOT NULL) AS given_up`,
  )
  const heartbeatAt = row?.['heartbeat'] ?? null
  return {
    identity: String(row?.['identity'] ?? ''),
    nowAt: Number(row?.['now']),
    heartbeatAt: heartbeatAt === null ? null : Number(heartbeatAt),
    operations: Number(row?.['operations']),
    openOperations: Number(row?.['open']),
    stalledOperations: Number(row?.['stalled']),
    dueEffects: Number(row?.['due']),
    givenUpEffects: Number(row?.['given_up']),
  }
}

export async function pulse(on: Queries): Promise<LedgerPulse> {
  const row = await on.get(
    `SELECT ${NOW} AS now, (SELECT value FROM landfall_meta WHERE key = 'heartbeat') AS heartbeat`,
  )
  const heartbeatAt = row?.['heartbeat'] ?? null
  return { nowAt: Number(row?.['now']), heartbeatAt: heartbeatAt === null ? null : Number(heartbeatAt) }
}

const upTo = (sql: string): string => `(SELECT COUNT(*) FROM (${sql} LIMIT ${BACKLOG_MOST}) AS counted)`

/** Only by partial indexes: finished operations and delivered effects are in none of them. */
export const BACKLOG = {
  open: OPEN_BACKLOG,
  rest: `SELECT ${NOW} AS now,
    ${upTo(`SELECT 1 FROM landfall_operations WHERE point = 'referenced'`)} AS referenced,
    ${upTo(`SELECT 1 FROM landfall_effects WHERE due_at IS NOT NULL`)} AS due,
    ${upTo(`SELECT 1 FROM landfall_effects WHERE given_up_at IS NOT NULL`)} AS given_up`,
}

export async function backlog(on: Queries): Promise<LedgerBacklog> {
  const [open, rest] = [await on.all(BACKLOG.open), await on.get(BACKLOG.rest)]
  return toBacklog(open, {
    nowAt: Number(rest?.['now']),
    referenced: Number(rest?.['referenced']),
    dueEffects: Number(rest?.['due']),
    givenUpEffects: Number(rest?.['given_up']),
  })
}
