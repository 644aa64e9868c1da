import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import type { LoadReport } from '../clients/load.js'
import { runLoad } from '../clients/run-load.js'
import { besideStalled } from '../clients/stalled.js'
import { temporaryDirectory } from '../ground/files.js'
import { originOf, startProcess } from '../ground/processes.js'
import { gatewayEnv, gatewayPlace, startGateway, stopGateway } from '../ground/s3.js'
import { dataDirectory, mebibytes, type Say, seconds } from './report.js'
import type { System, SystemName } from './systems.js'

export interface Workload {
  readonly name: string
  readonly title: string
  readonly count: number
  readonly sizeBytes: number
  readonly parallel: number
  readonly chunkBytes?: number
  /** Measured while 60 clients with silent lines are connected. */
  readonly besideStalled?: true
  /** Where the bytes are stored. */
  readonly on: 'disk' | 's3'
  readonly systems: readonly SystemName[]
}

const MIB = 1_048_576
const DISK = { on: 'disk', systems: ['landfall', 'tus', 'tus-sync', 'pipe'] } as const
const S3 = { on: 's3', systems: ['landfall', 'tus-s3'] } as const
const ONE = { count: 1, parallel: 1 } as const

export const WORKLOADS: readonly Workload[] = [
  { ...DISK, ...ONE, name: 'big', title: '1 GiB in one upload', sizeBytes: 1024 * MIB },
  {
    ...DISK,
    name: 'small',
    title: '2,000 uploads of 10 KiB, 16 at a time',
    count: 2000,
    sizeBytes: 10_240,
    parallel: 16,
  },
  {
    ...ONE,
    on: 's3',
    systems: ['landfall', 'tus-s3', 'raw-s3'],
    name: 'big',
    title: 'one PATCH of 512 MiB',
    sizeBytes: 512 * MIB,
  },
  { ...S3, ...ONE, name: 'chunks', title: '256 MiB in PATCHes of 8 MiB', sizeBytes: 256 * MIB, chunkBytes: 8 * MIB },
  { ...S3, name: 'small', title: '300 uploads of 1 MiB, 8 at a time', count: 300, sizeBytes: MIB, parallel: 8 },
  {
    ...S3,
    ...ONE,
    name: 'stalled',
    title: 'a new upload of 1 MiB beside 60 that send nothing more; given up after 20 s',
    sizeBytes: MIB,
    besideStalled: true,
  },
  { ...S3, name: 'many', title: '16 × 64 MiB at once', count: 16, sizeBytes: 64 * MIB, parallel: 16 },
]

/** One run of one workload against one server, in a new process on an empty directory. */
export interface Measurement extends LoadReport {
  readonly round: number
  /** User and system time of all threads of the server, from its ready line to the last success. */
  readonly serverCpuMs: number
  /** The same time, up to the moment at which all bytes were acknowledged. */
  readonly acknowledgedCpuMs: number
  readonly peakResidentBytes: number
  /** The peak memory minus the memory of the idle server. */
  readonly memoryBytes: number
}

/** All measurements of one workload, by server. The nth measurement of each server belongs to the same round. */
export interface Series {
  readonly workload: Workload
  readonly systems: readonly System[]
  readonly measurements: Readonly<Partial<Record<SystemName, readonly Measurement[]>>>
}

const execute = promisify(execFile)
/** Longer than any user would wait. */
const STALLED_MS = 20_000

async function load(
  system: System,
  { count, sizeBytes, parallel, chunkBytes = sizeBytes, on, ...workload }: Workload,
  origin: string,
  onAcknowledged: () => void,
): Promise<LoadReport> {
  const until = on === 's3' ? ('acknowledged' as const) : ('success' as const)
  const values = { speak: system.speak, origin, count, size: sizeBytes, parallel, chunk: chunkBytes, until }
  if (workload.besideStalled === undefined) return runLoad(values, onAcknowledged)
  const [wallMs, successMs, p50Ms, p99Ms] = Array<number>(4).fill(STALLED_MS) as [number, number, number, number]
  const never = { uploads: count, sizeBytes, wallMs, successMs, p50Ms, p99Ms, requests: 0, loadCpuMs: 0 }
  return besideStalled(origin, system.speak === 'landfall' ? 'landfall' : 'tus', () =>
    runLoad(values, onAcknowledged, STALLED_MS).catch(() => never),
  )
}

type Env = Readonly<Record<string, string>>

async function measure(
  system: System,
  workload: Workload,
  { round, parent, env }: { round: number; parent: string; env: Env },
): Promise<Measurement> {
  const directory = await temporaryDirectory('bench-', parent)
  try {
    // What the previous run left to be written must not cost this run time.
    await execute('sync')
    const server = await startProcess(system.start(directory.path, env))
    try {
      const before = server.usage()
      const cpuMs = (): number => server.usage().cpuMs - before.cpuMs
      let acknowledgedCpuMs = 0
      const report = await load(system, workload, originOf(server), () => (acknowledgedCpuMs = cpuMs()))
      const { peakResidentBytes } = server.usage()
      const memoryBytes = peakResidentBytes - before.residentBytes
      return { ...report, round, serverCpuMs: cpuMs(), acknowledgedCpuMs, peakResidentBytes, memoryBytes }
    } catch (error) {
      const said = server.output().slice(-4000)
      throw new Error(`${system.name}, ${workload.name}: ${String(error)}\n${said}`, { cause: error })
    } finally {
      await server.kill()
    }
  } finally {
    // ext4 makes a new file more slowly after many files were removed, because it passes over each inode that was freed
    // in the last minutes (up to 1 ms of CPU time a file after 2,000). So the files of such a workload stay until all
    // runs have been measured.
    if (workload.count === 1) await directory.remove()
  }
}

/**
 * Provides what a round needs. A store has its data in memory, whose 8 GiB are soon full, so each round has a new
 * store.
 */
async function withStore<T>({ on }: Workload, work: (env: Env) => Promise<T>): Promise<T> {
  if (on === 'disk') return work({})
  const place = await gatewayPlace('memstore')
  try {
    return await work(gatewayEnv(await startGateway(place)))
  } finally {
    await stopGateway(place)
  }
}

/** Measures one server at a time, in rounds in which each server has its turn. */
export async function runWorkload(
  workload: Workload,
  systems: readonly System[],
  rounds: number,
  say: Say,
): Promise<Series> {
  const measurements: Partial<Record<SystemName, Measurement[]>> = {}
  const directory = await dataDirectory()
  try {
    for (let round = 0; round < rounds; round += 1)
      await withStore(workload, async (env) => {
        // The order changes, so that no server always runs on the disk that the same other server has just filled.
        for (const system of systems.map((_, i) => systems[(i + round) % systems.length])) {
          if (system === undefined) continue
          const measured = await measure(system, workload, { round, parent: directory.path, env })
          ;(measurements[system.name] ??= []).push(measured)
          say(
            `${workload.name} ${round + 1}/${rounds} ${system.name.padEnd(9)} ${seconds(measured.wallMs)}; success ` +
              `${seconds(measured.successMs)}, CPU ${seconds(measured.serverCpuMs)}; peak ` +
              `${mebibytes(measured.peakResidentBytes)}, +${mebibytes(measured.memoryBytes)}`,
          )
        }
      })
  } finally {
    await directory.remove()
  }
  return { workload, systems, measurements }
}
