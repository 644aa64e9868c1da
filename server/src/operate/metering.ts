import { faultCode } from '../lib/errors.js'
import type { Appended, BlobStore } from '../ports/blob-store.js'
import type { Ledger } from '../ports/ledger.js'
import { type MetricEvent, type Metrics, NO_METRICS } from '../ports/metrics.js'

// Events are counted at the ports, so that the code between the ports does not need to know about metrics.

/** The same ledger, which also counts what it has recorded. */
export function meteredLedger<Tx>(ledger: Ledger<Tx>, metrics: Metrics): Ledger<Tx> {
  if (metrics === NO_METRICS) return ledger
  const reached = (point: string | undefined): void => {
    if (isTold(point)) metrics.count({ type: 'reached', point })
  }
  return overriding(ledger, {
    async declare(intent) {
      const declared = await ledger.declare(intent)
      if (declared.outcome === 'created') reached('declared')
      return declared
    },
    async record(lease, from, changes) {
      const recorded = await ledger.record(lease, from, changes)
      if (recorded !== null && from.point !== recorded.point) reached(changes.point)
      return recorded
    },
    async refer(lease, from, intent, hook) {
      const referred = await ledger.refer(lease, from, intent, hook)
      if (referred.outcome === 'referenced') reached('referenced')
      return referred
    },
    async cancel(key, why) {
      const cancelled = await ledger.cancel(key, why)
      if (cancelled !== null) reached('cancelled')
      return cancelled
    },
    async settleEffect(effect, result) {
      await ledger.settleEffect(effect, result)
      metrics.count({ type: 'effect-settled', outcome: result.outcome })
    },
  })
}

type Told = Extract<MetricEvent, { type: 'reached' }>['point']
const TOLD: readonly string[] = ['declared', 'referenced', 'cancelled', 'expired', 'rejected'] satisfies readonly Told[]
const isTold = (point: string | undefined): point is Told => point !== undefined && TOLD.includes(point)

/** The same store, which also counts each call with its result, and the bytes that it made durable. */
export function meteredBlobs(blobs: BlobStore, metrics: Metrics): BlobStore {
  if (metrics === NO_METRICS) return blobs
  blobs.observe?.((request) => metrics.count({ type: 'store-request', ...request }))
  const counted = <T extends object>(target: T, prefix: string): T =>
    overriding(target, {}, (name, call) => countedCall(metrics, prefix + name, call))
  const store = counted(blobs, '')
  const quarantine = counted(blobs.quarantine, 'quarantine-')
  return overriding(store, {
    quarantine,
    async append(blob, request) {
      // Counted at each checkpoint. Otherwise a long request would add all its bytes at its end.
      let toldBytes = request.offset
      const tell = (offset: number): void => {
        if (offset > toldBytes) metrics.count({ type: 'bytes-accepted', bytes: offset - toldBytes })
        toldBytes = Math.max(toldBytes, offset)
      }
      const appended: Appended = await store.append(blob, {
        ...request,
        async acknowledge(offset, state) {
          const acknowledged = await request.acknowledge(offset, state)
          if (acknowledged) tell(offset)
          return acknowledged
        },
      })
      if (appended.outcome === 'kept') tell(appended.offset)
      return appended
    },
  })
}

type Call = (...args: unknown[]) => unknown

function countedCall(metrics: Metrics, call: string, made: Call): Call {
  return (...args) => {
    const startMs = performance.now()
    const ended = (outcome: string): void =>
      metrics.count({ type: 'store-call', call, outcome, tookMs: performance.now() - startMs })
    const answer = made(...args)
    // An iteration (`list`) is not counted as a call, because it takes as long as its reader.
    if (!(answer instanceof Promise)) return answer
    return answer.then(
      (value: unknown) => {
        ended('ok')
        return value
      },
      (error: unknown) => {
        ended(faultOf(error))
        throw error
      },
    )
  }
}

const faultOf = (error: unknown): string =>
  faultCode(error) ?? (error instanceof Error && error.name === 'AbortError' ? 'aborted' : 'fault')

/**
 * `target` with some methods replaced. A store or ledger of another author may be a class with private fields, so its
 * methods are called on the object itself.
 */
function overriding<T extends object>(
  target: T,
  own: Partial<T>,
  wrap: (name: string, call: Call) => Call = (_name, call) => call,
): T {
  const kept = new Map<PropertyKey, unknown>(Object.entries(own))
  // The target of the proxy is empty, because a proxy of a frozen object must return that object's own values.
  return new Proxy({} as T, {
    has: (_nothing, name) => name in target,
    get(_nothing, name) {
      if (kept.has(name)) return kept.get(name)
      const value: unknown = Reflect.get(target, name, target)
      if (typeof value !== 'function') return value
      const bound = wrap(String(name), value.bind(target) as Call)
      kept.set(name, bound)
      return bound
    },
  })
}
