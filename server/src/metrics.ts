import { collectDefaultMetrics, Counter, Gauge, Histogram, type OpenMetricsContentType, Registry } from 'prom-client'
import { optional, readOptions, yesOrNo } from './lib/options.js'
import { createThrottledCheck, type ThrottledCheck } from './lib/throttled.js'
import type { LedgerBacklog, LedgerPulse } from './ports/ledger/inventory.js'
import type { MetricEvent, Metrics } from './ports/metrics.js'

export interface OpenMetricsOptions {
  /** Also exposes numbers of the Node process: memory, CPU, the event loop's delay. Default false. */
  process?: boolean
}

export interface OpenMetrics extends Metrics {
  /**
   * All numbers of this process and of the ledger, for a scrape. Never rejects because of the ledger: unknown numbers
   * are `NaN`, and `landfall_ledger_up` is 0.
   *
   * @see https://prometheus.io/docs/specs/om/open_metrics_spec/
   */
  expose(): Promise<{ contentType: string; text: string }>
}

/** One query of the ledger serves all scrapes within this time. */
const LOOK_EVERY_MS = 5_000
/** Shorter than a scrape's usual ten seconds: the other numbers must be delivered even if the ledger hangs. */
const LOOK_WAIT_MS = 3_000
/** From a small file in one commit to a hook that hangs and a night without a server. */
const LAG_SECONDS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1_800, 7_200, 43_200]
const CALL_SECONDS = [0.001, 0.005, 0.025, 0.1, 0.25, 1, 2.5, 10, 60, 600]

type Standing = LedgerPulse & LedgerBacklog

/**
 * Numbers for an operator, in the OpenMetrics text format. Pass it to `createUploads`, and serve the result of `expose`
 * where only your scraper can reach it.
 *
 * ```ts
 * const metrics = openMetrics()
 * const uploads = createUploads({ …, metrics })
 * internal.get('/metrics', async (c) => {
 *   const { contentType, text } = await metrics.expose()
 *   return c.body(text, 200, { 'Content-Type': contentType })
 * })
 * ```
 */
export function openMetrics(options: OpenMetricsOptions = {}): OpenMetrics {
  const { process } = readOptions('openMetrics', { process: optional(yesOrNo, false) }, options)
  const register = new Registry<OpenMetricsContentType>()
  register.setContentType(Registry.OPENMETRICS_CONTENT_TYPE)
  const registers = [register]
  if (process) collectDefaultMetrics({ register })
  const counters = createCounters(registers)
  const standing = createStanding(registers)
  return {
    count: counters,
    observe: standing.observe,
    async expose() {
      await standing.look()
      return { contentType: register.contentType, text: await register.metrics() }
    },
  }
}

type Registers = Registry<OpenMetricsContentType>[]

/** What this process has done. The scraper adds up the numbers of all nodes. */
function createCounters(registers: Registers): (event: MetricEvent) => void {
  const counter = <Label extends string>(name: string, help: string, labelNames: readonly Label[] = []) =>
    new Counter({ name, help, labelNames: [...labelNames], registers })
  const histogram = <Label extends string>(name: string, help: string, buckets: number[], labelNames: Label[] = []) =>
    new Histogram({ name, help, buckets, labelNames, registers })

  const reached = counter('landfall_operations_reached_total', 'Operations that this process brought to a point', [
    'point',
  ])
  const lag = histogram(
    'landfall_finalise_lag_seconds',
    'From the last durable byte to the committed reference',
    LAG_SECONDS,
  )
  const lost = counter('landfall_leases_lost_total', 'Leases in use here that another holder has taken over')
  const fenced = counter('landfall_writes_fenced_total', 'Writes that were refused because their lease was lost', [
    'by',
  ])
  const bytes = counter('landfall_bytes_accepted_total', 'Bytes that were made durable')
  const effects = counter('landfall_effect_attempts_total', 'Attempts to deliver an effect, by their result', [
    'outcome',
  ])
  const calls = counter('landfall_store_calls_total', 'Calls of the blob store, by their result', ['call', 'outcome'])
  const callTimes = histogram('landfall_store_call_seconds', 'How long calls of the blob store took', CALL_SECONDS, [
    'call',
  ])
  const requests = counter('landfall_store_requests_total', 'Requests to S3, by their result; includes repeated ones', [
    'request',
    'outcome',
  ])
  const requestTimes = histogram('landfall_store_request_seconds', 'How long requests to S3 took', CALL_SECONDS, [
    'request',
  ])
  // They start at 0 before the first event. Otherwise an alarm on their rate would miss the first event.
  for (const point of ['declared', 'referenced', 'cancelled', 'expired', 'rejected']) reached.inc({ point }, 0)
  for (const by of ['holder', 'cancel']) fenced.inc({ by }, 0)
  for (const outcome of ['delivered', 'again', 'untried', 'given-up']) effects.inc({ outcome }, 0)

  return (event) => {
    switch (event.type) {
      case 'reached':
        return reached.inc({ point: event.point })
      case 'finalised':
        return lag.observe(event.lagMs / 1000)
      case 'lease-lost':
        return lost.inc()
      case 'write-fenced':
        return fenced.inc({ by: event.by })
      case 'bytes-accepted':
        return bytes.inc(event.bytes)
      case 'effect-settled':
        return effects.inc({ outcome: event.outcome })
      case 'store-call':
        calls.inc({ call: event.call, outcome: event.outcome })
        return callTimes.observe({ call: event.call }, event.tookMs / 1000)
      case 'store-request':
        requests.inc({ request: event.name, outcome: event.outcome })
        return requestTimes.observe({ request: event.name }, event.tookMs / 1000)
      default:
        return event satisfies never
    }
  }
}

/** The state of the ledger. It is the same from every node, so a scraper takes the maximum and never the sum. */
function createStanding(registers: Registers) {
  let look: ThrottledCheck<Standing> | null = null
  const gauge = <Label extends string>(name: string, help: string, labelNames: Label[] = []) =>
    new Gauge({ name, help, labelNames, registers })

  const up = gauge('landfall_ledger_up', '1: the ledger has answered this scrape')
  const operations = gauge('landfall_operations', 'Operations that are not finished, by recovery point', ['point'])
  const stalled = gauge('landfall_operations_stalled', 'Open operations whose attempts ran out')
  const oldest = gauge('landfall_oldest_unfinished_seconds', 'Age of the oldest open operation, by what it waits for', [
    'waits_for',
  ])
  const effects = gauge('landfall_effects', 'Effects that are not delivered', ['state'])
  const heartbeat = gauge('landfall_completer_heartbeat_age_seconds', 'Time since a completer of any process was alive')

  function show(now: Standing | null): void {
    const seconds = (sinceAt: number | null, none: number): number =>
      now === null ? Number.NaN : sinceAt === null ? none : Math.max(0, now.nowAt - sinceAt) / 1000
    up.set(now === null ? 0 : 1)
    for (const point of ['declared', 'received', 'sealed', 'verified', 'referenced'] as const)
      operations.set({ point }, now?.points[point] ?? Number.NaN)
    stalled.set(now?.stalled ?? Number.NaN)
    oldest.set({ waits_for: 'client' }, seconds(now?.oldestUnreceivedAt ?? null, 0))
    oldest.set({ waits_for: 'server' }, seconds(now?.oldestReceivedAt ?? null, 0))
    effects.set({ state: 'due' }, now?.dueEffects ?? Number.NaN)
    effects.set({ state: 'given-up' }, now?.givenUpEffects ?? Number.NaN)
    heartbeat.set(seconds(now?.heartbeatAt ?? null, Number.POSITIVE_INFINITY))
  }
  show(null)

  return {
    observe: (ask: () => Promise<Standing>): void =>
      void (look = createThrottledCheck(ask, { everyMs: LOOK_EVERY_MS, waitMs: LOOK_WAIT_MS })),
    look: async (): Promise<void> => show((await look?.())?.answer ?? null),
  }
}
