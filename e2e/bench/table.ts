import type { Measurement, Workload } from './measure.js'
import type { System, SystemName } from './systems.js'

/** All measurements of one workload, by server; the nth of each belong to the same round. */
export interface Series {
  readonly workload: Workload
  readonly systems: readonly System[]
  readonly measurements: Readonly<Partial<Record<SystemName, readonly Measurement[]>>>
}

/** What the others are compared with: the peer whose success is as durable as Landfall's. */
const BASE: SystemName = 'tus-sync'

const FIGURES = {
  wall: (m: Measurement) => m.wallMs,
  cpu: (m: Measurement) => m.serverCpuMs,
  memory: (m: Measurement) => m.peakResidentBytes,
} as const

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  const upper = sorted[middle] ?? Number.NaN
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2
}

/** The median over the rounds of this server's figure divided by the other's in the same round. */
export function medianRatio(
  series: Series,
  of: SystemName,
  to: SystemName,
  figure: (measurement: Measurement) => number,
): number {
  const others = new Map(series.measurements[to]?.map((m) => [m.round, m]))
  const ratios = (series.measurements[of] ?? []).flatMap((m) => {
    const other = others.get(m.round)
    return other === undefined ? [] : [figure(m) / figure(other)]
  })
  return median(ratios)
}

export interface Summary {
  readonly system: SystemName
  readonly rounds: number
  readonly wallMs: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly serverCpuMs: number
  readonly peakResidentBytes: number
  /** Medians of the paired ratios to each server. */
  readonly ratios: Readonly<Partial<Record<SystemName, { wall: number; cpu: number; memory: number }>>>
}

export function summarise(series: Series): Summary[] {
  return series.systems.map(({ name }) => {
    const found = series.measurements[name] ?? []
    const of = (figure: (measurement: Measurement) => number): number => median(found.map(figure))
    const ratios: Partial<Record<SystemName, { wall: number; cpu: number; memory: number }>> = {}
    for (const other of series.systems) {
      ratios[other.name] = {
        wall: medianRatio(series, name, other.name, FIGURES.wall),
        cpu: medianRatio(series, name, other.name, FIGURES.cpu),
        memory: medianRatio(series, name, other.name, FIGURES.memory),
      }
    }
    return {
      system: name,
      rounds: found.length,
      wallMs: of(FIGURES.wall),
      p50Ms: of((m) => m.p50Ms),
      p99Ms: of((m) => m.p99Ms),
      serverCpuMs: of(FIGURES.cpu),
      peakResidentBytes: of(FIGURES.memory),
      ratios,
    }
  })
}

export function markdown(series: Series): string {
  const { workload, systems } = series
  const big = workload.count === 1
  const rows = summarise(series).map((summary, i) => {
    const ratio = summary.ratios[BASE]
    const rate = big
      ? `${(workload.sizeBytes / 1_048_576 / (summary.wallMs / 1000)).toFixed(0)} MiB/s`
      : `${(workload.count / (summary.wallMs / 1000)).toFixed(0)} files/s`
    return [
      systems[i]?.title ?? summary.system,
      `${(summary.wallMs / 1000).toFixed(2)} s`,
      rate,
      ...(big ? [] : [`${summary.p50Ms.toFixed(0)} / ${summary.p99Ms.toFixed(0)} ms`]),
      `${(summary.serverCpuMs / 1000).toFixed(2)} s`,
      `${(summary.peakResidentBytes / 1_048_576).toFixed(0)} MiB`,
      ...[ratio?.wall, ratio?.cpu, ratio?.memory].map((value) => value?.toFixed(2) ?? '–'),
    ]
  })
  const heads = ['server', 'time', 'rate', ...(big ? [] : ['p50 / p99']), 'CPU', 'peak memory']
  const all = [
    [...heads, 'time ÷', 'CPU ÷', 'memory ÷'],
    rows[0]?.map((_, i) => (i === 0 ? '---' : '---:')) ?? [],
    ...rows,
  ]
  const rounds = Math.max(0, ...systems.map(({ name }) => series.measurements[name]?.length ?? 0))
  return [
    `${workload.title} (${rounds} rounds; ÷: median of the ratios to "${systems.find(({ name }) => name === BASE)?.title ?? BASE}" in the same round)`,
    '',
    ...all.map((cells) => `| ${cells.join(' | ')} |`),
  ].join('\n')
}
