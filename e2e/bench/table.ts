import type { Measurement, Series } from './measure.js'
import { tableOf } from '../ground/figures.js'
import { mebibytes, median, seconds } from './report.js'
import type { SystemName } from './systems.js'

/** What the other servers are compared with on a disk: the peer whose success is as durable as Landfall's. */
const BASE: SystemName = 'tus-sync'

const FIGURES = {
  wall: (m: Measurement) => m.wallMs,
  cpu: (m: Measurement) => m.serverCpuMs,
  acknowledgedCpu: (m: Measurement) => m.acknowledgedCpuMs,
  memory: (m: Measurement) => m.peakResidentBytes,
} as const
type Ratios = Readonly<Record<keyof typeof FIGURES, number>>

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

/** The medians of a server's measurements, and those of its paired ratios to each server. */
export function summarise(series: Series) {
  return series.systems.map(({ name }) => {
    const found = series.measurements[name] ?? []
    const of = (figure: (measurement: Measurement) => number): number => median(found.map(figure))
    const ratiosTo = (other: SystemName): Ratios =>
      Object.fromEntries(
        Object.entries(FIGURES).map(([figure, read]) => [figure, medianRatio(series, name, other, read)]),
      ) as Ratios
    return {
      system: name,
      rounds: found.length,
      wallMs: of(FIGURES.wall),
      successMs: of((m) => m.successMs),
      p50Ms: of((m) => m.p50Ms),
      p99Ms: of((m) => m.p99Ms),
      serverCpuMs: of(FIGURES.cpu),
      acknowledgedCpuMs: of(FIGURES.acknowledgedCpu),
      peakResidentBytes: of(FIGURES.memory),
      memoryBytes: of((m) => m.memoryBytes),
      ratios: Object.fromEntries(series.systems.map((other) => [other.name, ratiosTo(other.name)])),
    }
  })
}
type Summary = ReturnType<typeof summarise>[number]

const or = (ratio: number | undefined): string => ratio?.toFixed(2) ?? '–'

/** For uploads to a disk: each server's figures divided by those of the durable peer. */
function onDisk({ workload }: Series, all: readonly Summary[], titles: readonly string[]): string {
  const isBig = workload.count === 1
  const rows = all.map((of, i) => {
    const { wall, cpu, memory } = of.ratios[BASE] ?? {}
    const rate = isBig
      ? `${(workload.sizeBytes / 1_048_576 / (of.wallMs / 1000)).toFixed(0)} MiB/s`
      : `${(workload.count / (of.wallMs / 1000)).toFixed(0)} files/s`
    const quantiles = isBig ? [] : [`${of.p50Ms.toFixed(0)} / ${of.p99Ms.toFixed(0)} ms`]
    const figures = [seconds(of.wallMs), rate, ...quantiles, seconds(of.serverCpuMs), mebibytes(of.peakResidentBytes)]
    return [titles[i] ?? '', ...figures, or(wall), or(cpu), or(memory)]
  })
  const heads = ['server', 'time', 'rate', ...(isBig ? [] : ['p50 / p99']), 'CPU', 'peak memory']
  return tableOf([...heads, 'time ÷', 'CPU ÷', 'memory ÷'], rows)
}

/** For uploads to an object store: Landfall's figures divided by those of each server. */
function onS3(all: readonly Summary[], titles: readonly string[]): string {
  const landfall = all.find(({ system }) => system === 'landfall')
  const rows = all.map((of, i) => {
    const { wall, cpu, acknowledgedCpu } = landfall?.ratios[of.system] ?? {}
    const ratios = of.system === 'landfall' ? ['', '', ''] : [or(wall), or(acknowledgedCpu), or(cpu)]
    const times = [of.wallMs, of.acknowledgedCpuMs, of.successMs, of.serverCpuMs].map((ms) => seconds(ms))
    return [titles[i] ?? '', ...times, mebibytes(of.memoryBytes), ...ratios]
  })
  const heads = ['server', 'acknowledged', 'CPU', 'success', 'CPU', 'memory', 'time ÷', 'CPU ÷', 'CPU to success ÷']
  return tableOf(heads, rows)
}

export function markdown(series: Series): string {
  const { workload, systems, measurements } = series
  const titles = systems.map(({ title }) => title)
  const rounds = Math.max(0, ...systems.map(({ name }) => measurements[name]?.length ?? 0))
  const base = systems.find(({ name }) => name === BASE)?.title ?? BASE
  const divided = workload.on === 'disk' ? `to "${base}"` : 'of Landfall to it'
  const table = workload.on === 'disk' ? onDisk(series, summarise(series), titles) : onS3(summarise(series), titles)
  return `${workload.title} (${rounds} rounds; ÷: median of the ratios ${divided} in the same round)\n\n${table}`
}
