import { execFile } from 'node:child_process'
import { mkdir } from 'node:fs/promises'
import { promisify } from 'node:util'
import { temporaryDirectory } from '../ground/files.js'
import { repository } from '../ground/landfall.js'
import { startProcess } from '../ground/processes.js'
import type { LoadReport } from '../clients/load.js'
import { runLoad } from '../clients/run-load.js'
import type { System } from './systems.js'

export interface Workload {
  readonly name: 'big' | 'small'
  readonly title: string
  readonly count: number
  readonly sizeBytes: number
  readonly parallel: number
}

export const WORKLOADS: readonly Workload[] = [
  { name: 'big', title: '1 GiB in one upload', count: 1, sizeBytes: 1_073_741_824, parallel: 1 },
  { name: 'small', title: '2,000 uploads of 10 KiB, 16 at a time', count: 2000, sizeBytes: 10_240, parallel: 16 },
]

/** One run of one workload against one server in a fresh process on an empty directory. */
export interface Measurement extends LoadReport {
  readonly round: number
  /** User and system time of the server, all threads, from its ready line to the last success. */
  readonly serverCpuMs: number
  readonly peakResidentBytes: number
}

const execute = promisify(execFile)

/** @param parent Where its directory is made. */
export async function measure(system: System, workload: Workload, round: number, parent: string): Promise<Measurement> {
  const directory = await temporaryDirectory('bench-', parent)
  try {
    // What the run before left to be written must not be paid by this one.
    await execute('sync')
    const server = await startProcess(system.start(directory.path))
    try {
      const before = server.usage()
      const report = await load(system, workload, server.ready[1] ?? '')
      const after = server.usage()
      const serverCpuMs = after.cpuMs - before.cpuMs
      return { ...report, round, serverCpuMs, peakResidentBytes: after.peakResidentBytes }
    } catch (error) {
      throw new Error(`${system.name}, ${workload.name}: ${String(error)}\n${server.output().slice(-4000)}`, {
        cause: error,
      })
    } finally {
      await server.kill()
    }
  } finally {
    // ext4 makes a new file more slowly after many were removed: it passes over each inode that was freed in the last
    // minutes (up to 1 ms of CPU time a file after 2,000). Many files stay until all runs have been measured.
    if (workload.count === 1) await directory.remove()
  }
}

/** Inside the repository: the same file system for all, and no memory file system by accident. */
export async function directoryOfRuns(): Promise<{ path: string; remove(): Promise<void> }> {
  const parent = `${repository}data`
  await mkdir(parent, { recursive: true })
  return temporaryDirectory('bench-', parent)
}

async function load(system: System, workload: Workload, origin: string): Promise<LoadReport> {
  const { speak } = system
  const { count, sizeBytes: size, parallel } = workload
  return runLoad({ speak, origin, count, size, parallel })
}
