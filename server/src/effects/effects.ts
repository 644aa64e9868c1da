import type { JsonValue } from '@landfall/shared'
import pLimit, { type LimitFunction } from 'p-limit'
import * as v from 'valibot'
import { contextOf, type Delivered, type Effect } from '../kinds/effect.js'
import type { Kind } from '../kinds/kind.js'
import { type Backoff, boundOf } from '../lib/backoff.js'
import { deadline, endsWithin } from '../lib/deadline.js'
import { faultMessage } from '../lib/errors.js'
import type { Logger } from '../lib/log.js'
import type { BlobStore } from '../ports/blob-store.js'
import type { Clock } from '../ports/clock.js'
import {
  type EffectRecord,
  type EffectResult,
  type EffectTarget,
  REMOVAL,
  type LedgerEffects,
} from '../ports/ledger/effects.js'

/** Delivers effects after the commit that recorded them, at least once under a stable id. */
export interface Effects {
  /** Takes due effects, as many as there are free workers, and starts them. Returns how many were taken. */
  deliverDue(): Promise<number>
  /** The longest time for which no other process takes what this one has taken. */
  readonly leaseMs: number
  /** The targets to which effects can be sent now. */
  free(): EffectTarget[]
  /** How many deliveries are running or waiting for a worker. */
  running(): number
  /** Resolves when one of them has ended. Never resolves while there is none. */
  oneEnds(): Promise<unknown>
  /**
   * Takes nothing new, gives back at once what was taken and not begun, and waits at most `withinMs` for running
   * deliveries. A delivery that still runs then keeps its lease, because its receiver may be about to answer.
   */
  stop(withinMs: number): Promise<void>
}

export interface EffectSettings {
  /** The pause between attempts is random, below a bound that doubles from `firstMs` to `mostMs` (full jitter). */
  readonly backoff: Backoff
  /** After this many attempts an effect is given up until an operator retries it. */
  readonly maxAttempts: number
}

/**
 * 25 attempts take three days on average. The pauses are half of their bounds on average, and the bounds add up to six
 * days.
 */
export const EFFECT_SETTINGS: EffectSettings = {
  backoff: { firstMs: 5_000, mostMs: 12 * 60 * 60_000 },
  maxAttempts: 25,
}

/**
 * How many deliveries to one receiver run at once. Each receiver has its own workers, so that a slow one delays only
 * itself.
 */
const PARALLEL = 16
/** How many effects are taken in advance, so that the workers do not wait for the ledger. */
const TAKEN = 2 * PARALLEL
/** For a function of the application, and for a removal of bytes. */
const TIME_LIMIT_MS = 30_000
/** How long an effect that was taken may wait for a free worker. After that it is given back. */
const LONGEST_WAIT_MS = 60_000
/** No other process takes the effect during this time, while this process lives. */
const leaseMsOf = ({ timeLimitMs }: Target): number => LONGEST_WAIT_MS + timeLimitMs + 30_000
/** A receiver that asks for a longer pause than this is tried again sooner. */
const LONGEST_ASKED_MS = 24 * 60 * 60_000

/** No attempt is postponed for longer than this. */
export const longestPauseMs = ({ backoff }: EffectSettings): number => LONGEST_ASKED_MS + backoff.mostMs

const removalSchema = v.object({ blobKey: v.string() })

interface Target extends EffectTarget {
  readonly timeLimitMs: number
  readonly workers: LimitFunction
  /** By the monotonic clock: until then the receiver asked for a pause. */
  pausedUntilMs: number
  deliver(payload: JsonValue, attempt: { effectId: string; attempt: number; signal: AbortSignal }): Promise<Delivered>
}

export function createEffects(deps: {
  ledger: LedgerEffects
  blobs: BlobStore
  kinds: Readonly<Record<string, Kind<never>>>
  clock: Clock
  log: Logger
  holder: string
  settings: EffectSettings
  /** Called when a worker is free again. */
  onFree: () => void
}): Effects {
  const { ledger, blobs, clock, log, settings } = deps
  const targets: readonly Target[] = [
    {
      ...REMOVAL,
      timeLimitMs: TIME_LIMIT_MS,
      workers: pLimit(PARALLEL),
      pausedUntilMs: 0,
      // repeatable: absent is fine
      async deliver(payload) {
        await blobs.remove(v.parse(removalSchema, payload).blobKey)
        return { outcome: 'delivered' }
      },
    },
    ...Object.entries(deps.kinds).flatMap(([kind, { effects }]) =>
      Object.entries(effects).map(([name, effect]) => targetOf(kind, name, effect)),
    ),
  ]
  const running = new Set<Promise<void>>()
  /** Effects that were taken and wait for a worker. */
  const waiting = new Set<EffectRecord>()
  /** Running requests to the ledger for effects. Their answers may come after `stop` was called. */
  const taking = new Set<Promise<unknown>>()
  let stopped = false

  const inProgress = ({ workers }: Target): number => workers.activeCount + workers.pendingCount
  const free = (): Target[] =>
    stopped
      ? []
      : targets.filter((target) => inProgress(target) < PARALLEL && clock.monotonicMs() >= target.pausedUntilMs)

  async function attempt(target: Target, effect: EffectRecord): Promise<EffectResult> {
    if (effect.disabled)
      return { outcome: 'given-up', error: 'its receiver answered 410 before and wants no more deliveries' }
    let delivered: Delivered
    try {
      const { effectId } = effect
      delivered = await deadline(
        ({ signal }) => target.deliver(effect.payload, { effectId, attempt: effect.attempts, signal }),
        target.timeLimitMs,
        undefined,
        () => new Error('no answer within the time limit'),
      )
    } catch (error) {
      delivered = { outcome: 'again', detail: faultMessage(error) }
    }
    switch (delivered.outcome) {
      case 'delivered':
        return delivered
      case 'gone':
        return { outcome: 'given-up', error: delivered.detail, disable: true }
      case 'again': {
        const { detail, afterMs = 0 } = delivered
        if (effect.attempts >= settings.maxAttempts) return { outcome: 'given-up', error: detail }
        const asked = Math.min(LONGEST_ASKED_MS, afterMs)
        target.pausedUntilMs = Math.max(target.pausedUntilMs, clock.monotonicMs() + asked)
        return {
          outcome: 'again',
          error: detail,
          retryInMs: asked + Math.random() * boundOf(settings.backoff, effect.attempts - 1),
        }
      }
      default:
        return delivered satisfies never
    }
  }

  /** The result for an effect that was taken and whose turn has come. */
  async function resultOf(target: Target, effect: EffectRecord, takenAtMs: number): Promise<EffectResult> {
    const nowMs = clock.monotonicMs()
    if (nowMs < target.pausedUntilMs) return { outcome: 'untried', retryInMs: target.pausedUntilMs - nowMs }
    // The lease might end during the attempt.
    if (nowMs - takenAtMs > LONGEST_WAIT_MS) return { outcome: 'untried', retryInMs: 0 }
    return attempt(target, effect)
  }

  async function settle(target: Target, effect: EffectRecord, takenAtMs: number): Promise<void> {
    await record(effect, await resultOf(target, effect, takenAtMs))
  }

  async function record(effect: EffectRecord, result: EffectResult): Promise<void> {
    const { id: operationId, effectId, name, attempts } = effect
    if (result.outcome === 'again' || result.outcome === 'given-up')
      log.warn({ operationId, effectId, name, attempts, ...result }, 'an effect was not delivered')
    try {
      await ledger.settleEffect(effect, result)
    } catch (error) {
      // It is taken again when its lease is over. It may be delivered twice under the same id, but is never lost.
      log.error({ operationId, effectId, name, err: error }, 'the result of a delivery could not be recorded')
    }
  }

  function begin(target: Target, effect: EffectRecord): void {
    const takenAtMs = clock.monotonicMs()
    waiting.add(effect)
    const ended: Promise<void> = target
      .workers(async () => {
        // Otherwise it was given back while it waited.
        if (waiting.delete(effect)) await settle(target, effect, takenAtMs)
      })
      .finally(() => {
        running.delete(ended)
        if (inProgress(target) < PARALLEL) deps.onFree()
      })
    running.add(ended)
  }

  /** Another process, or the next start, takes it at once, and the attempt does not count. */
  const giveBack = (effect: EffectRecord): Promise<void> => record(effect, { outcome: 'untried', retryInMs: 0 })

  async function take(): Promise<number> {
    const wanted = free()
    // Effects that were taken for one target must not be lost when the request for another target fails.
    const asked = await Promise.allSettled(
      wanted.map((target) =>
        ledger.takeEffects(target, {
          holder: deps.holder,
          leaseMs: leaseMsOf(target),
          limit: TAKEN - inProgress(target),
        }),
      ),
    )
    const givenBack: Promise<void>[] = []
    let begun = 0
    for (const [index, answer] of asked.entries()) {
      const target = wanted[index]
      if (answer.status === 'rejected' || target === undefined) continue
      if (stopped) givenBack.push(...answer.value.map(giveBack))
      else for (const effect of answer.value) begin(target, effect)
      begun += stopped ? 0 : answer.value.length
    }
    await Promise.all(givenBack)
    for (const answer of asked) if (answer.status === 'rejected') throw answer.reason
    return begun
  }

  return {
    leaseMs: Math.max(...targets.map(leaseMsOf)),
    free,
    deliverDue() {
      const taken = take().finally(() => taking.delete(taken))
      taking.add(taken)
      return taken
    },
    running: () => running.size,
    oneEnds: () => Promise.race(running),
    async stop(withinMs) {
      stopped = true
      const given = [...waiting].map(giveBack)
      waiting.clear()
      await endsWithin(Promise.allSettled([...running, ...taking, ...given]), withinMs)
    },
  }
}

function targetOf(kind: string, name: string, effect: Effect<never, never>): Target {
  const common = { kind, name, workers: pLimit(PARALLEL), pausedUntilMs: 0 }
  if (typeof effect === 'function')
    return {
      ...common,
      timeLimitMs: TIME_LIMIT_MS,
      async deliver(payload, attempt) {
        await effect(contextOf(payload, attempt) as never)
        return { outcome: 'delivered' }
      },
    }
  return {
    ...common,
    timeLimitMs: effect.timeLimitMs,
    deliver: (payload, attempt) => effect.deliver(contextOf(payload, attempt)),
  }
}
