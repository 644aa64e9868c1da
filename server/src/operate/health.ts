import { faultCode } from '../lib/errors.js'
import { createLook } from '../lib/throttled.js'
import type { LedgerInventory } from '../ports/ledger/inventory.js'

/** Something without which a process must not be sent requests. `space`: the disk of the blobs takes no more bytes. */
export type HealthCheck = 'draining' | 'database' | 'tables' | 'store' | 'space' | 'completer'

export interface Health {
  /** Whether this process can take requests now. */
  readonly ready: boolean
  /** What keeps it from that. */
  readonly failed: readonly HealthCheck[]
}

/** What a process is to take requests: asked by load balancers, every second and from several sides. */
export type AskHealth = () => Promise<Health>

/** What a start has come to: the tables are as this version needs them, the blob store is open, everything is begun. */
export type Opened = 'nothing' | 'tables' | 'store' | 'all'

const ASK_EVERY_MS = 1_000
/** Below the time-outs of common probes, which begin at one second where nobody sets them; most answer at once. */
const ASK_WAIT_MS = 900

/** How long a completer may say nothing before it counts as dead: it works with pauses, and must not look dead in one. */
export const silentAfterMs = (completerIntervalMs: number): number => 3 * completerIntervalMs + 30_000

export function createHealth(deps: {
  ledger: LedgerInventory
  /** Opens what is not open yet; where that failed before, it is tried once more. */
  ready: () => Promise<void>
  opened: () => Opened
  draining: () => boolean
  /** Whether the blob store refuses bytes for want of room. */
  isFull: () => Promise<boolean>
  /** null: nobody has said how often the completer works. */
  completerIntervalMs: number | null
}): AskHealth {
  const { ledger, opened, draining, isFull, completerIntervalMs } = deps

  /** A load balancer sends nothing to a process that is not ready, so that no request would open it either. */
  async function ask(): Promise<HealthCheck[]> {
    try {
      if (opened() !== 'all') await deps.ready()
    } catch (error) {
      const failed = missing(opened())
      // What begins behind the store asks the database only.
      return failed.length === 0 || faultCode(error) === 'ledger-unavailable' ? ['database', ...failed] : failed
    }
    const { nowAt, heartbeatAt } = await ledger.pulse()
    const isSilent =
      completerIntervalMs !== null && (heartbeatAt === null || nowAt - heartbeatAt > silentAfterMs(completerIntervalMs))
    return [...((await isFull()) ? ['space' as const] : []), ...(isSilent ? ['completer' as const] : [])]
  }
  const look = createLook(ask, { everyMs: ASK_EVERY_MS, waitMs: ASK_WAIT_MS })

  return async () => {
    if (draining()) return { ready: false, failed: ['draining'] }
    // A look that hangs, or that the database has refused.
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
