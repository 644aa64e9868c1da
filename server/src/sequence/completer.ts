import type { Effects } from '../effects/effects.js'
import { endsWithin } from '../lib/deadline.js'
import type { Logger } from '../lib/log.js'
import type { Clock } from '../ports/clock.js'
import type { Retention, LedgerInventory } from '../ports/ledger/inventory.js'
import type { LedgerLeases } from '../ports/ledger/leases.js'
import type { LedgerMarks } from '../ports/ledger/marks.js'
import type { LedgerReferences } from '../ports/ledger/references.js'
import type { Drive } from './drive.js'
import type { Leases } from './leases.js'

/** What one pass of the completer did. */
export interface Pass {
  readonly driven: number
  readonly completed: number
  readonly effects: number
  /** Operations that were replaced by tombstones, and delivered effects that were deleted. */
  readonly retired: number
}

/** Finds operations that make no progress because their client or their server went away, and drives them on. */
export interface Completer {
  start(): void
  /** Something becomes due in `inMs` milliseconds: the completer is awake by then. */
  wake(inMs: number): void
  /** Works until nothing is due, for at most `maxMs` (default one minute). For cron jobs and for tests. */
  runOnce(options?: { maxMs?: number }): Promise<Pass>
  /**
   * Takes nothing new, and waits at most `withinMs` for the work in progress. Work that is cut off is found again after
   * a start.
   */
  stop(withinMs: number): Promise<void>
}

export interface CompleterDeps {
  readonly ledger: LedgerLeases & LedgerReferences<unknown> & LedgerInventory & LedgerMarks
  readonly leases: Leases
  readonly drive: Drive
  readonly effects: Effects
  readonly clock: Clock
  readonly log: Logger
  readonly settings: {
    /** The longest pause between two passes. */
    readonly intervalMs: number
    readonly leaseMs: number
    readonly retention: Retention
  }
  /** False when the clock was set: then nothing may be ended because of its age. */
  readonly clockTrusted: () => boolean
}

/** How many operations one process drives at once. */
const CONCURRENCY = 8
/** How many operations one statement completes. */
const COMPLETE_BATCH = 500
const COMPLETE_EVERY_MS = 1_000
/**
 * How many operations, and how many effects, one transaction retires. On SQLite no other connection can write during
 * these few milliseconds.
 */
const RETIRE_BATCH = 100
const RETIRE_EVERY_MS = 60_000
const HEARTBEAT_EVERY_MS = 10_000
/** The shortest pause between two passes, so that work which is due again and again does not make the loop spin. */
const SHORTEST_SLEEP_MS = 20

export function createCompleter(deps: CompleterDeps): Completer {
  const { ledger, leases, drive, effects, clock, log, settings } = deps
  const stopping = new AbortController()
  let loop: Promise<void> | null = null
  let alarm = new AbortController()
  let wakeAtMs = Number.POSITIVE_INFINITY
  let heartbeatAtMs = Number.NEGATIVE_INFINITY
  let completedAtMs = Number.NEGATIVE_INFINITY
  let retiredAtMs = Number.NEGATIVE_INFINITY
  const busy = new Set<Promise<unknown>>()
  let isOver = false

  /** Drives due operations with the workers that are free, and returns how many it took. */
  async function driveDue(): Promise<number> {
    const limit = CONCURRENCY - busy.size
    if (limit <= 0) return 0
    const { holder } = leases
    const due = await ledger.leaseDue({ holder, leaseMs: settings.leaseMs, limit, inUse: leases.used() })
    // `stop` no longer waits for these. Other processes drive them when their leases have expired.
    if (isOver) return 0
    for (const granted of due) {
      const driving = drive(leases.adopt(granted)).finally(() => {
        // More operations may be due than there were free workers.
        if (busy.size >= CONCURRENCY) wake(0)
        busy.delete(driving)
      })
      busy.add(driving)
    }
    return due.length
  }

  /** No client waits for this, so many operations are completed at once, and seldom. */
  async function completeMany(everyMs: number): Promise<number> {
    const now = clock.monotonicMs()
    if (now - completedAtMs < everyMs) return 0
    const completed = await ledger.complete(COMPLETE_BATCH)
    if (completed < COMPLETE_BATCH) completedAtMs = now
    return completed
  }

  /** No client waits for this either. One batch a pass, so that it never keeps others from writing for long. */
  async function retireSome(everyMs: number): Promise<number> {
    const now = clock.monotonicMs()
    if (now - retiredAtMs < everyMs || !deps.clockTrusted()) return 0
    const retired = await ledger.retire(settings.retention, RETIRE_BATCH)
    if (Math.max(retired.operations, retired.effects) < RETIRE_BATCH) retiredAtMs = now
    return retired.operations + retired.effects
  }

  /** For `doctor` and for health checks: a completer that hangs stops sending heartbeats. */
  async function sendHeartbeat(): Promise<void> {
    const now = clock.monotonicMs()
    if (now - heartbeatAtMs < HEARTBEAT_EVERY_MS) return
    heartbeatAtMs = now
    await ledger.heartbeat()
  }

  const pass = async (completeEveryMs: number, retireEveryMs: number): Promise<Pass> => ({
    driven: await driveDue(),
    effects: await effects.deliverDue(),
    completed: await completeMany(completeEveryMs),
    retired: await retireSome(retireEveryMs),
  })

  async function run(): Promise<void> {
    while (!stopping.signal.aborted) {
      alarm = new AbortController()
      wakeAtMs = Number.POSITIVE_INFINITY
      let sleepMs = settings.intervalMs
      try {
        const done = await pass(COMPLETE_EVERY_MS, RETIRE_EVERY_MS)
        await sendHeartbeat()
        const nextMs =
          done.driven + done.effects + done.completed + done.retired > 0
            ? SHORTEST_SLEEP_MS
            : await ledger.nextDueInMs(effects.free())
        if (nextMs !== null)
          sleepMs = Math.min(
            sleepMs,
            Math.max(nextMs, busy.size >= CONCURRENCY ? settings.intervalMs : SHORTEST_SLEEP_MS),
          )
      } catch (error) {
        log.warn({ err: error }, 'the completer could not find the work that is due')
      }
      await clock.sleep(Math.min(sleepMs, Math.max(SHORTEST_SLEEP_MS, wakeAtMs - clock.monotonicMs())), alarm.signal)
    }
  }

  function wake(inMs: number): void {
    const at = clock.monotonicMs() + inMs
    if (at >= wakeAtMs) return
    wakeAtMs = at
    // Ends the current sleep, so that the loop sleeps again with the shorter time.
    alarm.abort()
  }

  return {
    start() {
      loop ??= run()
    },
    wake,
    async runOnce({ maxMs = 60_000 } = {}) {
      const total = { driven: 0, completed: 0, effects: 0, retired: 0 }
      await sendHeartbeat()
      for (const deadline = clock.monotonicMs() + maxMs; clock.monotonicMs() < deadline;) {
        const done = await pass(0, 0)
        total.driven += done.driven
        total.completed += done.completed
        total.effects += done.effects
        total.retired += done.retired
        if (done.driven + done.completed + done.effects + done.retired === 0 && busy.size + effects.running() === 0)
          break
        if (busy.size + effects.running() > 0) await Promise.race([...busy, effects.oneEnds()])
      }
      return total
    },
    async stop(withinMs) {
      stopping.abort()
      alarm.abort()
      const effectsStopped = effects.stop(withinMs)
      const ended = async (): Promise<void> => {
        await loop
        await Promise.all([...busy, effectsStopped])
      }
      // The loop may be waiting for a ledger that does not answer.
      isOver = !(await endsWithin(ended(), withinMs))
    },
  }
}
