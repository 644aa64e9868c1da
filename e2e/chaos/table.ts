import { tableOf } from '../ground/figures.js'
import type { ChaosReport } from './chaos.js'

type Line = readonly [string, (report: ChaosReport) => string]

const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`
const orNothing = (value: number | null): string => (value === null ? '–' : String(value))

const LINES: readonly Line[] = [
  ['operations', ({ operations }) => String(operations)],
  ['told success', ({ toldSuccess }) => String(toldSuccess)],
  ['references of those', ({ referencesOfSuccesses }) => String(referencesOfSuccesses)],
  ['told success, no reference', ({ successWithoutReference }) => String(successWithoutReference)],
  ['told failure or cancelled, reference', ({ failureWithReference }) => String(failureWithReference)],
  ['operations with several references', ({ duplicates }) => String(duplicates)],
  ['references to wrong bytes', ({ wrongBytes }) => String(wrongBytes)],
  ['told failure', ({ failures }) => String(failures)],
  ['still waiting to be told', ({ toldNothing }) => String(toldNothing)],
  ['orphans before reconcile', ({ orphansBefore }) => String(orphansBefore)],
  ['orphans after', ({ orphansAfter }) => orNothing(orphansAfter)],
  [
    'difference of reconcile, before / after',
    (r) => `${orNothing(r.differenceBefore)} / ${orNothing(r.differenceAfter)}`,
  ],
  ['abandoned, open within their expiry', ({ open }) => String(open)],
  ['stalled', ({ stalled }) => String(stalled)],
  ['neither final, open nor stalled', ({ unfinished }) => String(unfinished)],
  ['bytes sent ÷ bytes of files', ({ sentBytes, fileBytes }) => (sentBytes / Math.max(1, fileBytes)).toFixed(3)],
  ['bytes of finished files', ({ fileBytes }) => `${(fileBytes / 1_048_576).toFixed(0)} MiB`],
  ['recovery p50 / p99', (r) => `${seconds(r.recoveryP50Ms)} / ${seconds(r.recoveryP99Ms)} (${r.recoveries})`],
  ['at rest after the last fault', ({ settledMs }) => seconds(settledMs)],
]

/** A table with a column for each run. */
export function markdown(reports: readonly ChaosReport[]): string {
  const names = [...new Set(reports.flatMap(({ faults }) => Object.keys(faults)))].toSorted()
  const faults: Line[] = names.map((name) => [`*${name}*`, (report) => String(report.faults[name] ?? 0)])
  const heads = reports.map(
    ({ system, seed, durationMs }) => `${system}, seed ${seed}, ${(durationMs / 60_000).toFixed(1)} min`,
  )
  return tableOf(
    ['', ...heads],
    [...LINES, ...faults].map(([title, cell]) => [title, ...reports.map(cell)]),
  )
}
