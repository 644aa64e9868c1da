import { deadline, endsWithin } from '../lib/deadline.js'
import type { Logger } from '../lib/log.js'
import { NO_METRICS } from '../operate/metering.js'
import type { Clock } from '../ports/clock.js'
import type { Lease, LeaseOutcome, LeasePurpose, LedgerLeases } from '../ports/ledger/leases.js'
import type { Metrics } from '../ports/metrics.js'
import type { OperationKey, OperationRecord } from '../ports/operation.js'

/** A lease that this process holds and uses. */
export interface Held {
  readonly lease: Lease
  /** As it was when the lease was taken. */
  readonly operation: OperationRecord
  readonly purpose: LeasePurpose
  /** Fires when the lease was lost, or when somebody asks a receiver to let go. */
  readonly signal: AbortSignal
  /** From now on nobody may ask it to let go. */
  toDrive(): void
  /** Bytes arrived: a receiver with a live client is not in the way. */
  touch(): void
  /** This process is done with it. Giving the lease back in the ledger is the caller's last `record`. */
  end(): void
}

export type Taken = { readonly outcome: 'granted'; readonly held: Held } | Exclude<LeaseOutcome, { outcome: 'granted' }>

/**
 * The leases of this process: taken one after the other for each operation, prolonged while they are in use, and taken
 * away from receivers that are in somebody's way.
 */
export interface Leases {
  readonly holder: string
  /**
   * Takes the lease. A receiver of this process that has it is asked to let go, one that drives never is; waits at
   * most `waitMs` for it.
   */
  take(key: OperationKey, purpose: LeasePurpose, waitMs: number): Promise<Taken>
  /** Takes over leases that `leaseDue` granted. */
  adopt(granted: { lease: Lease; operation: OperationRecord }): Held
  /** All operations that this process has under a lease and works with. */
  used(): OperationKey[]
  /** What this process does with the operation right now. */
  inUse(key: OperationKey): LeasePurpose | null
  /**
   * Waits until a receiver, here or on another node, has ended: one whose client sends is given `patienceMs`, one that has gone
   * silent is asked to let go at once. False when it still runs after `waitMs`.
   */
  settleReceiver(key: OperationKey, limits: { patienceMs: number; waitMs: number }): Promise<boolean>
  /** The lease was taken away (a cancel): stops whoever uses it here. */
  drop(key: OperationKey): void
  /**
   * From now on nothing is taken (`held`). Asks all receivers to let go, waits until nothing is in use, and stops what
   * is after that time.
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

/** No bytes for this long: the client of a receiver that is in somebody's way is taken for gone. */
const SILENT_MS = 400
/** And so long without anybody waiting: it vanished without a word, and its lease would be prolonged for ever. */
const VANISHED_MS = 120_000
const POLL_MS = 25
/** How late a busy process may hear of its own commit. */
const HEARD_MS = 1_000
/** A ledger that does not answer is not waited for longer than a lease lasts: the others are to be prolonged, too. */
const LEAST_RENEWAL_MS = 1_000
const RENEW_AGAIN_MS = 500
/** How often it is looked whether another process has let go, and whether one asks: a turn within a second. */
const REMOTE_POLL_MS = 100
const LOOK_MS = 400
/** What was stopped at the end of a drain still says how far it came. */
const LAST_RECORD_MS = 1_000

const nameOf = ({ owner, id }: OperationKey): string => JSON.stringify([owner, id])

export function createLeases(deps: {
  ledger: LedgerLeases
  clock: Clock
  log: Logger
  holder: string
  leaseMs: number
  /** No other process can have a lease. */
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

  /** Three chances to prolong before a lease expires; what has failed is tried again sooner. */
  const renewLater = (inMs = leaseMs / 3): void => {
    if (renewal !== null || uses.size === 0) return
    renewal = setTimeout(() => void renew(), inMs)
    renewal.unref()
  }

  const letGoOfTheVanished = (): void => {
    for (const { purpose, touchedAtMs, controller } of uses.values())
      if (purpose === 'receive' && clock.monotonicMs() - touchedAtMs > vanishedMs) controller.abort()
  }

  async function renew(): Promise<void> {
    letGoOfTheVanished()
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
      // Whoever has just given its lease back ends its use as soon as it hears of that: it is no loss. A true one may be
      // told a little later, for no write passes without the lease's token.
      if (gone.length > 0) await endsWithin(Promise.all(gone.map(({ entry }) => entry.ended)), HEARD_MS)
      for (const { name, entry } of gone) if (uses.get(name) === entry) lose(entry)
    } catch (error) {
      // The token decides, not the time: a lease that could not be prolonged is good until somebody takes it.
      log.warn({ err: error }, 'leases could not be prolonged')
      renewal = null
      return renewLater(Math.min(RENEW_AGAIN_MS, leaseMs / 3))
    }
    renewal = null
    renewLater()
  }

  /** Others cannot reach a receiver of this process but through the ledger. */
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
      log.warn({ err: error }, 'it could not be looked who asks for leases')
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
        // Asked to let go of receiving, it has: that is no reason to stop what follows. A lost lease its next write tells.
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
      // Whoever asks a process that drains is to ask another one.
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
      // Held by another process: it is asked to let go, and its lease expires if it is dead.
      if (purpose === 'receive' && !alone()) await ledger.ask(key, { holder, urgency: 'at-once' })
      await clock.sleep(Math.min(REMOTE_POLL_MS, left()))
    }
  }

  return {
    holder,
    // One taker at a time for each operation: between the look at `uses` and the ledger's answer lies an await.
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
