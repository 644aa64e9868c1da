import { BACKLOG_MOST, type LedgerBacklog } from '../ports/ledger/inventory.js'
import type { SqlRow } from './query.js'
import { OPEN } from './rows.js'

/** Counts the open operations, with one row for each point. */
export const OPEN_BACKLOG = `SELECT point, COUNT(*) AS n, SUM(stalled) AS stalled,
    MIN(CASE WHEN received_at IS NULL THEN created_at END) AS unreceived, MIN(received_at) AS received
  FROM (SELECT point, stalled, created_at, received_at FROM landfall_operations WHERE point IN ${OPEN} LIMIT ${BACKLOG_MOST}) AS counted
  GROUP BY point`

export function toBacklog(
  open: readonly SqlRow[],
  rest: Pick<LedgerBacklog, 'nowAt' | 'dueEffects' | 'givenUpEffects'> & { readonly referenced: number },
): LedgerBacklog {
  const of = (point: string): number => Number(open.find((row) => row['point'] === point)?.['n'] ?? 0)
  const oldest = (column: string): number | null => {
    const times = open.flatMap((row) => (row[column] === null ? [] : [Number(row[column])]))
    return times.length === 0 ? null : Math.min(...times)
  }
  const { referenced, ...others } = rest
  return {
    ...others,
    points: {
      declared: of('declared'),
      received: of('received'),
      sealed: of('sealed'),
      verified: of('verified'),
      referenced,
    },
    stalled: open.reduce((total, row) => total + Number(row['stalled']), 0),
    oldestUnreceivedAt: oldest('unreceived'),
    oldestReceivedAt: oldest('received'),
  }
}
