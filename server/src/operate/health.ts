import { faultCode } from '../lib/errors.js'
import { createThrottledCheck } from '../lib/throttled.js'
import type { LedgerInventory } from '../ports/ledger/inventory.js'

/** A reason not to send requests to a process. `space`: the disk of the blobs takes no more bytes. */
export type HealthCheck = 'draining' | 'database' | 'tables' | 'store' | 'space' | 'completer'

export interface Health {
  /** Whether this process can take requests now. */
  readonly ready: boolean
  /** The checks that failed. */
  readonly failed: readonly HealthCheck[]
}

/** Whether a process can take requests. Load balancers ask this every second and from several places. */
export type AskHealth = () => Promise<Health>

/** How far a start has come: the tables are as this version needs them, the blob store is open, everything runs. */
export type Opened = 'nothing' | 'tables' | 'store' | 'all'

const ASK_EVERY_MS = 1_000
/** Below the time-outs of common probes, whose default is one second. Most checks answer at once. */
const ASK_WAIT_MS = 900

/**
 * How long a completer may send no heartbeat before it counts as dead. It works with pauses, and must not look dead in
 * one.
 */
export const silentAfterMs = (completerIntervalMs: number): number => 3 * completerIntervalMs + 30_000

export function createHealth(deps: {
  ledger: LedgerInventory
  /** Opens what is not open yet. If that failed before, it tries again. */
  ready: () => Promise<void>
  opened: () => Opened
  draining: () => boolean
  /** Whether the blob store refuses bytes because it has no space left. */
  isFull: () => Promise<boolean>
  /** Null: it was not configured how often the completer works. */
  completerIntervalMs: number | null
}): AskHealth {
  const { ledger, opened, draining, isFull, completerIntervalMs } = deps

  /**
   * Opens the server if needed: a load balancer sends no requests to a process that is not ready, so no request would
   * open it.
   */
  async function ask(): Promise<HealthCheck[]> {
    try {
      if (opened() !== 'all') await deps.ready()
    } catch (error) {
      const failed = missing(opened())
      // Once the store is open, the rest of the start uses only the database.
      return failed.length === 0 || faultCode(error) === 'ledger-unavailable' ? ['database', ...failed] : failed
    }
    const { nowAt, heartbeatAt } = await ledger.pulse()
    const isSilent =
      completerIntervalMs !== null && (heartbeatAt === null || nowAt - heartbeatAt > silentAfterMs(completerIntervalMs))
    return [...((await isFull()) ? ['space' as const] : []), ...(isSilent ? ['completer' as const] : [])]
  }
  const look = createThrottledCheck(ask, { everyMs: ASK_EVERY_MS, waitMs: ASK_WAIT_MS })

  return async () => {
    if (draining()) return { ready: false, failed: ['draining'] }
    // Null: the check hangs, or the database has refused it.
    const failed = (await look())?.answer ?? ['database', ...missing(opened())]
    return { ready: failed.length === 0, failed }
  }
}

function missing(opened: Opened): HealthCheck[] {
  switch (opened) {
    case 'nothing':
      return ['tables', 'store']
    case 'tables':
      return ['store']
    case 'store':
    case 'all':
      return []
    default:
      return opened satisfies never
  }
}
