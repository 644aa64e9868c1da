import { temporaryDirectory } from '../ground/files.js'
import { landfallServe } from '../ground/landfall.js'
import type { LoadReport } from '../clients/load.js'
import { type ProcessOptions, startProcess } from '../ground/processes.js'
import { type Gateway, gatewayPlace, startGateway, stopGateway } from '../ground/s3.js'
import { runLoad } from '../clients/run-load.js'
import { besideStalled } from '../clients/stalled.js'
import { compiled } from './systems.js'
import { median } from './table.js'

// Landfall on S3 beside the unmodified @tus/s3-store and the SDK's own multipart upload, on the same gateway, one server
// at a time, in rounds in which each has its turn.

const MIB = 1024 * 1024

interface Workload {
  readonly name: string
  readonly title: string
  readonly count: number
  readonly sizeBytes: number
  readonly parallel: number
  readonly chunkBytes?: number
  /** Beside 60 clients whose lines went silent. */
  readonly besideStalled?: true
  readonly beside: readonly SystemName[]
}
type SystemName = 'landfall' | 'tus' | 'raw'

const WORKLOADS: readonly Workload[] = [
  { name: 'big', title: 'one PATCH of 512 MiB', count: 1, sizeBytes: 512 * MIB, parallel: 1, beside: ['tus', 'raw'] },
  {
    name: 'chunks',
    title: '256 MiB in PATCHes of 8 MiB',
    count: 1,
    sizeBytes: 256 * MIB,
    parallel: 1,
    chunkBytes: 8 * MIB,
    beside: ['tus'],
  },
  {
    name: 'small',
    title: '300 uploads of 1 MiB, 8 at a time',
    count: 300,
    sizeBytes: MIB,
    parallel: 8,
    beside: ['tus'],
  },
  {
    name: 'stalled',
    title: 'a new upload of 1 MiB beside 60 that send nothing more; given up after 20 s',
    count: 1,
    sizeBytes: MIB,
    parallel: 1,
    besideStalled: true,
    beside: ['tus'],
  },
  { name: 'many', title: '16 × 64 MiB at once', count: 16, sizeBytes: 64 * MIB, parallel: 16, beside: ['tus'] },
]

interface Measured extends LoadReport {
  readonly cpuMs: number
  /** Until the last success. */
  readonly successCpuMs: number
  /** The peak, above what the idle server had. */
  readonly memoryBytes: number
  readonly round: number
}

const READY = /(http:\/\/[\w.:[\]]+)/

function environment(gateway: Gateway): Record<string, string> {
  return {
    NODE_ENV: 'production',
    LANDFALL_S3_ENDPOINT: gateway.endpoint,
    LANDFALL_S3_REGION: gateway.region,
    LANDFALL_S3_BUCKET: gateway.bucket,
    LANDFALL_S3_ACCESS_KEY_ID: gateway.accessKeyId,
    LANDFALL_S3_SECRET_ACCESS_KEY: gateway.secretAccessKey,
  }
}

function start(system: SystemName, directory: string, gateway: Gateway): ProcessOptions {
  const env = environment(gateway)
  if (system === 'landfall') return landfallServe(directory, env)
  return {
    name: system,
    command: process.execPath,
    args: [compiled('programs/s3-peer.js'), system, directory],
    env,
    ready: READY,
  }
}

const SPEAK = { landfall: 'landfall', tus: 'tus', raw: 'put' } as const

async function measure(system: SystemName, workload: Workload, round: number, gateway: Gateway): Promise<Measured> {
  const directory = await temporaryDirectory('bench-s3-')
  const server = await startProcess(start(system, directory.path, gateway))
  try {
    const speak = SPEAK[system]
    const values = {
      speak,
      origin: server.ready[1] ?? '',
      count: workload.count,
      size: workload.sizeBytes,
      parallel: workload.parallel,
      chunk: workload.chunkBytes ?? workload.sizeBytes,
      until: 'acknowledged',
    }
    const before = server.usage()
    let cpuMs = 0
    const onAcknowledged = (): void => void (cpuMs = server.usage().cpuMs - before.cpuMs)
    const report = !workload.besideStalled
      ? await runLoad(values, onAcknowledged)
      : await besideStalled(values.origin, speak === 'put' ? 'tus' : speak, () =>
          runLoad(values, onAcknowledged, STALLED_MS).catch(() => neverDone(workload)),
        )
    const after = server.usage()
    return {
      ...report,
      cpuMs,
      successCpuMs: after.cpuMs - before.cpuMs,
      memoryBytes: after.peakResidentBytes - before.residentBytes,
      round,
    }
  } catch (error) {
    throw new Error(`${system}, ${workload.name}: ${String(error)}\n${server.output().slice(-4_000)}`, { cause: error })
  } finally {
    await server.kill()
    await directory.remove()
  }
}

/** It has waited for as long as anybody would. */
const STALLED_MS = 20_000
const neverDone = ({ count, sizeBytes }: Workload): LoadReport => ({
  uploads: count,
  sizeBytes,
  wallMs: STALLED_MS,
  successMs: STALLED_MS,
  p50Ms: STALLED_MS,
  p99Ms: STALLED_MS,
  requests: 0,
  loadCpuMs: 0,
})

const FIGURES = {
  time: ({ wallMs }: Measured) => wallMs,
  cpu: ({ cpuMs }: Measured) => cpuMs,
  successCpu: ({ successCpuMs }: Measured) => successCpuMs,
} as const

type Found = Map<SystemName, Measured[]>

/** The median over the rounds of Landfall's figure divided by the other's in the same round. */
const ratio = (found: Found, to: SystemName, figure: keyof typeof FIGURES): number =>
  median(
    (found.get('landfall') ?? []).map((own, i) => FIGURES[figure](own) / FIGURES[figure](found.get(to)?.[i] ?? own)),
  )

async function runWorkload(workload: Workload, rounds: number, say: Say) {
  const found: Found = new Map()
  const systems: SystemName[] = ['landfall', ...workload.beside]
  for (let round = 0; round < rounds; round += 1) {
    // It has its data in memory, of which 8 GiB are full soon: then it waits without a word.
    const place = await gatewayPlace('memstore')
    try {
      const gateway = await startGateway(place)
      for (const system of systems.map((_, i) => systems[(i + round) % systems.length] ?? 'landfall')) {
        const measured = await measure(system, workload, round, gateway)
        found.set(system, [...(found.get(system) ?? []), measured])
        say(
          `${workload.name} ${round + 1}/${rounds} ${system.padEnd(9)} ${seconds(measured.wallMs)}, CPU ${seconds(measured.cpuMs)}; ` +
            `success ${seconds(measured.successMs)}, CPU ${seconds(measured.successCpuMs)}; +${mib(measured.memoryBytes)}`,
        )
      }
    } finally {
      await stopGateway(place)
    }
  }
  const summary = systems.map((system) => {
    const of = (figure: (measured: Measured) => number): number => median((found.get(system) ?? []).map(figure))
    return {
      system,
      wallMs: of(FIGURES.time),
      successMs: of(({ successMs }) => successMs),
      p50Ms: of(({ p50Ms }) => p50Ms),
      cpuMs: of(FIGURES.cpu),
      successCpuMs: of(FIGURES.successCpu),
      memoryBytes: of(({ memoryBytes }) => memoryBytes),
      /** Landfall's figure divided by this one's, in the same round. */
      ratio: {
        time: ratio(found, system, 'time'),
        cpu: ratio(found, system, 'cpu'),
        successCpu: ratio(found, system, 'successCpu'),
      },
    }
  })
  return { workload, rounds, summary, measurements: Object.fromEntries(found) }
}

const seconds = (ms: number): string => `${(ms / 1000).toFixed(2)} s`
const mib = (bytes: number): string => `${(bytes / MIB).toFixed(0)} MiB`
const TITLES = { landfall: 'Landfall', tus: '@tus/server, @tus/s3-store', raw: 'the SDK alone' } as const

function table({ workload, summary, rounds }: Awaited<ReturnType<typeof runWorkload>>): string {
  const rows = summary.map(({ system, ratio: { time, cpu, successCpu }, ...of }) => [
    TITLES[system],
    seconds(of.wallMs),
    seconds(of.cpuMs),
    seconds(of.successMs),
    seconds(of.successCpuMs),
    mib(of.memoryBytes),
    ...(system === 'landfall' ? ['', '', ''] : [time, cpu, successCpu].map((value) => value.toFixed(2))),
  ])
  const heads = ['server', 'acknowledged', 'CPU', 'success', 'CPU', 'memory', 'time ÷', 'CPU ÷', 'CPU to success ÷']
  return [
    `${workload.title} (${rounds} rounds; ÷: median of the ratios of Landfall to it in the same round)`,
    '',
    ...[heads, heads.map((_, i) => (i === 0 ? '---' : '---:')), ...rows].map((cells) => `| ${cells.join(' | ')} |`),
  ].join('\n')
}

type Say = (text: string) => void

export async function benchS3(rounds: number, only: string | undefined, say: Say): Promise<readonly object[]> {
  const results = []
  for (const workload of WORKLOADS.filter(({ name }) => only === undefined || name === only))
    results.push(await runWorkload(workload, rounds, say))
  for (const result of results) say(`\n${table(result)}`)
  return results
}
