import { deadline, endsWithin } from '../lib/deadline.js'
import type { Logger } from '../lib/log.js'
import type { Clock } from '../ports/clock.js'
import type { Lease, LeaseOutcome, LeasePurpose, LedgerLeases } from '../ports/ledger/leases.js'
import { type Metrics, NO_METRICS } from '../ports/metrics.js'
import type { OperationKey, OperationRecord } from '../ports/operation.js'

/** A lease that this process holds and uses. */
export interface Held {
  readonly lease: Lease
  /** The operation as it was when the lease was taken. */
  readonly operation: OperationRecord
  readonly purpose: LeasePurpose
  /** Fires when the lease was lost, or when another request asks a receiver to release it. */
  readonly signal: AbortSignal
  /** From now on no other request may ask for its release. */
  toDrive(): void
  /** Bytes arrived: a receiver whose client is alive does not have to release its lease. */
  touch(): void
  /** This process no longer uses the lease. The caller gives it back in the ledger with its last `record`. */
  end(): void
}

export type Taken = { readonly outcome: 'granted'; readonly held: Held } | Exclude<LeaseOutcome, { outcome: 'granted' }>

/**
 * The leases of this process. For each operation they are taken one after the other. They are prolonged while they are
 * in use, and taken away from receivers that block another request.
 */
export interface Leases {
  readonly holder: string
  /**
   * Takes the lease. A receiver of this process that holds it is asked to release it; a drive never is. Waits at most
   * `waitMs` for it.
   */
  take(key: OperationKey, purpose: LeasePurpose, waitMs: number): Promise<Taken>
  /** Takes over leases that `leaseDue` granted. */
  adopt(granted: { lease: Lease; operation: OperationRecord }): Held
  /** All operations that this process holds under a lease and works on. */
  used(): OperationKey[]
  /** What this process is doing with the operation right now. */
  inUse(key: OperationKey): LeasePurpose | null
  /**
   * Waits until a receiver, on this node or another, has ended. A receiver whose client is sending gets `patienceMs`; a
   * silent one is asked to release the lease at once. False when it is still running after `waitMs`.
   */
  settleReceiver(key: OperationKey, limits: { patienceMs: number; waitMs: number }): Promise<boolean>
  /** A cancel took the lease away: stops the work on this operation in this process. */
  drop(key: OperationKey): void
  /**
   * From now on no lease is granted (`held`). Asks all receivers to release theirs, waits until none is in use, and
   * stops what still runs after `waitMs`.
   */
  close(waitMs: number): Promise<void>
}

interface Use {
  purpose: LeasePurpose
  lease: Lease
  controller: AbortController
  readonly ended: Promise<void>
  touchedAtMs: number
}

/** When a receiver that blocks another request has got no bytes for this long, its client counts as gone. */
const SILENT_MS = 400
/**
 * When a receiver has got no bytes for this long, it is stopped even if no request waits for it. Its client vanished
 * without closing the connection, and otherwise its lease would be prolonged permanently.
 */
const VANISHED_MS = 120_000
const POLL_MS = 25
/** How late a busy process may learn of its own commit. */
const COMMIT_NOTICE_MS = 1_000
/**
 * A renewal waits for a ledger that does not answer at least this long, and otherwise only as long as a lease lasts,
 * because the other leases have to be prolonged too.
 */
const LEAST_RENEWAL_MS = 1_000
const RENEW_AGAIN_MS = 500
/**
 * How often a process checks whether another process has released a lease (`REMOTE_POLL_MS`), and whether another
 * process asks for one of its own (`LOOK_MS`). A handover then takes less than a second.
 */
const REMOTE_POLL_MS = 100
const LOOK_MS = 400
/** The time at the end of a drain in which stopped work can still record how far it came. */
const LAST_RECORD_MS = 1_000

const nameOf = ({ owner, id }: OperationKey): string => JSON.stringify([owner, id])

export function createLeases(deps: {
  ledger: LedgerLeases
  clock: Clock
  log: Logger
  holder: string
  leaseMs: number
  /** Whether no other process can hold a lease. */
  alone: () => boolean
  metrics?: Metrics
  /** Default two minutes. */
  vanishedMs?: number
}): Leases {
  const { ledger, clock, log, holder, leaseMs, alone, metrics = NO_METRICS, vanishedMs = VANISHED_MS } = deps
  const uses = new Map<string, Use>()
  let renewal: ReturnType<typeof setTimeout> | null = null
  let asking: ReturnType<typeof setTimeout> | null = null
  let closing = false

  /** There are three chances to prolong a lease before it expires. After a failure the next try comes sooner. */
  const renewLater = (inMs = leaseMs / 3): void => {
    if (renewal !== null || uses.size === 0) return
    renewal = setTimeout(() => void renew(), inMs)
    renewal.unref()
  }

  const releaseVanished = (): void => {
    for (const { purpose, touchedAtMs, controller } of uses.values())
      if (purpose === 'receive' && clock.monotonicMs() - touchedAtMs > vanishedMs) controller.abort()
  }

  async function renew(): Promise<void> {
    releaseVanished()
    const asked = [...uses.entries()].map(([name, entry]) => ({ name, entry, lease: entry.lease }))
    try {
      const kept = new Set(
        await deadline(
          () =>
            ledger.renew(
              asked.map(({ lease }) => lease),
              leaseMs,
            ),
          Math.max(leaseMs, LEAST_RENEWAL_MS),
        ),
      )
      const gone = asked.filter(({ lease }) => !kept.has(lease))
      // A worker that has just given its lease back ends its use as soon as it learns of its commit: that is no loss. A
      // real loss may be reported a little later, because no write succeeds without the lease's token.
      if (gone.length > 0) await endsWithin(Promise.all(gone.map(({ entry }) => entry.ended)), COMMIT_NOTICE_MS)
      for (const { name, entry } of gone) if (uses.get(name) === entry) lose(entry)
    } catch (error) {
      // The token decides, not the time: a lease that could not be prolonged stays valid until another process takes
      // it.
      log.warn({ err: error }, 'leases could not be prolonged')
      renewal = null
      return renewLater(Math.min(RENEW_AGAIN_MS, leaseMs / 3))
    }
    renewal = null
    renewLater()
  }

  /** Other processes can reach a receiver of this process only through the ledger. */
  const lookLater = (): void => {
    if (asking !== null || alone() || ![...uses.values()].some(({ purpose }) => purpose === 'receive')) return
    asking = setTimeout(() => void look(), LOOK_MS)
    asking.unref()
  }

  async function look(): Promise<void> {
    try {
      for (const { key, urgency } of await ledger.askedOf(holder)) {
        const entry = uses.get(nameOf(key))
        if (entry?.purpose !== 'receive') continue
        if (urgency === 'at-once' || clock.monotonicMs() - entry.touchedAtMs > SILENT_MS) entry.controller.abort()
      }
    } catch (error) {
      log.warn({ err: error }, 'could not check which processes ask for leases')
    }
    asking = null
    lookLater()
  }

  const lose = (entry: Use): void => {
    log.warn({ operationId: entry.lease.id }, 'a lease was lost')
    metrics.count({ type: 'lease-lost' })
    entry.controller.abort()
  }

  function use(granted: { lease: Lease; operation: OperationRecord }, purpose: LeasePurpose): Held {
    const name = nameOf(granted.lease)
    let finish = (): void => {}
    const ended = new Promise<void>((resolve) => (finish = resolve))
    const entry: Use = {
      purpose,
      lease: granted.lease,
      controller: new AbortController(),
      ended,
      touchedAtMs: clock.monotonicMs(),
    }
    uses.set(name, entry)
    renewLater()
    lookLater()
    return {
      ...granted,
      get purpose() {
        return entry.purpose
      },
      get signal() {
        return entry.controller.signal
      },
      toDrive() {
        entry.purpose = 'drive'
        // It was asked to stop receiving, and it has. That is no reason to stop what follows. A lost lease shows at the
        // next write.
        if (entry.controller.signal.aborted) entry.controller = new AbortController()
      },
      touch: () => void (entry.touchedAtMs = clock.monotonicMs()),
      end() {
        if (uses.get(name) === entry) uses.delete(name)
        finish()
      },
    }
  }

  async function take(key: OperationKey, purpose: LeasePurpose, waitMs: number): Promise<Taken> {
    const endsAtMs = clock.monotonicMs() + waitMs
    const left = (): number => endsAtMs - clock.monotonicMs()
    for (;;) {
      // This process is draining, so the request has to go to another one.
      if (closing) return { outcome: 'held' }
      const other = uses.get(nameOf(key))
      if (other !== undefined) {
        if (other.purpose === 'receive') other.controller.abort()
        else if (purpose === 'receive') return { outcome: 'held' }
        if (left() <= 0 || !(await endsWithin(other.ended, left()))) return { outcome: 'held' }
        continue
      }
      const taken = await ledger.lease(key, { holder, leaseMs, purpose })
      if (taken.outcome === 'granted') return { outcome: 'granted', held: use(taken, purpose) }
      if (taken.outcome === 'closed' || left() <= 0) return taken
      // Another process holds it. That process is asked to release it; if it is dead, its lease expires.
      if (purpose === 'receive' && !alone()) await ledger.ask(key, { holder, urgency: 'at-once' })
      await clock.sleep(Math.min(REMOTE_POLL_MS, left()))
    }
  }

  return {
    holder,
    // Only one request at a time takes the lease of an operation, because there is an `await` between reading `uses`
    // and the ledger's answer.
    take: serialisedByKey(take),
    adopt: (granted) => use(granted, 'drive'),
    used: () => [...uses.values()].map(({ lease: { owner, id } }) => ({ owner, id })),
    inUse: (key) => uses.get(nameOf(key))?.purpose ?? null,
    async settleReceiver(key, { patienceMs, waitMs }) {
      const from = clock.monotonicMs()
      for (;;) {
        const other = uses.get(nameOf(key))
        const now = clock.monotonicMs()
        if (other === undefined || other.purpose !== 'receive') {
          if (other !== undefined || alone()) return true
          const urgency = now - from > patienceMs ? 'at-once' : 'when-silent'
          if (!(await ledger.ask(key, { holder, urgency }))) return true
          if (now - from > waitMs) return false
          await clock.sleep(REMOTE_POLL_MS)
          continue
        }
        if (now - from > waitMs) return false
        if (now - other.touchedAtMs > SILENT_MS || now - from > patienceMs) other.controller.abort()
        await endsWithin(other.ended, POLL_MS)
      }
    },
    drop: (key) => uses.get(nameOf(key))?.controller.abort(),
    async close(waitMs) {
      closing = true
      const from = clock.monotonicMs()
      const lastRecordMs = Math.min(LAST_RECORD_MS, waitMs / 2)
      const allEnded = () => Promise.all([...uses.values()].map(({ ended }) => ended))
      while (uses.size > 0 && clock.monotonicMs() - from < waitMs - lastRecordMs) {
        for (const other of uses.values()) if (other.purpose === 'receive') other.controller.abort()
        await endsWithin(allEnded(), POLL_MS)
      }
      for (const { controller } of uses.values()) controller.abort()
      if (uses.size > 0) await endsWithin(allEnded(), lastRecordMs)
      if (renewal !== null) clearTimeout(renewal)
      if (asking !== null) clearTimeout(asking)
    },
  }
}

function serialisedByKey(take: Leases['take']): Leases['take'] {
  const tails = new Map<string, Promise<unknown>>()
  return (key, purpose, waitMs) => {
    const name = nameOf(key)
    const result = (tails.get(name) ?? Promise.resolve()).then(() => take(key, purpose, waitMs))
    const tail = result
      .catch(() => {})
      .finally(() => {
        if (tails.get(name) === tail) tails.delete(name)
      })
    tails.set(name, tail)
    return result
  }
}
