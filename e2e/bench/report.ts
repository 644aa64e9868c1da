import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { cpus, loadavg, release, totalmem } from 'node:os'
import { temporaryDirectory } from '../ground/files.js'
import { repository } from '../ground/repository.js'

/** Prints a line of the report. */
export type Say = (text: string) => void

const MIB = 1_048_576

export const seconds = (ms: number, digits = 2): string => `${(ms / 1000).toFixed(digits)} s`
export const mebibytes = (bytes: number): string => `${(bytes / MIB).toFixed(0)} MiB`
export const many = (count: number): string => count.toLocaleString('en')

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  const upper = sorted[middle] ?? Number.NaN
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2
}

/** Prints what is wrong, by the names in `wrong`. Returns whether nothing is wrong. */
export function verdict(say: Say, wrong: Readonly<Record<string, boolean>>): boolean {
  const words = Object.entries(wrong).flatMap(([what, isWrong]) => (isWrong ? [what] : []))
  if (words.length > 0) say(`WRONG: ${words.join('; ')}`)
  return words.length === 0
}

/**
 * A directory inside the repository. So all servers use the same file system, and not a file system in memory by
 * accident.
 */
export async function dataDirectory(prefix = 'bench-'): Promise<{ path: string; remove(): Promise<void> }> {
  const parent = `${repository}data`
  await mkdir(parent, { recursive: true })
  return temporaryDirectory(prefix, parent)
}

/** The last results of each measurement, by its name. */
const RESULTS = `${repository}e2e/bench/results.json`

/**
 * Where and when something is measured. It is called before the measurement, because other work on the machine changes
 * absolute figures.
 */
export function machineNow() {
  const loadBefore = loadavg()[0] ?? 0
  return {
    node: process.version,
    cpus: cpus().length,
    model: cpus()[0]?.model ?? 'unknown',
    memoryBytes: totalmem(),
    kernel: release(),
    loadBefore,
    measuredAt: new Date().toISOString(),
  }
}

/** Writes results in place of earlier results with the same names. All others stay. */
export async function keep(say: Say, results: Readonly<Record<string, unknown>>): Promise<void> {
  const before = JSON.parse(await readFile(RESULTS, 'utf8').catch(() => '{}')) as Record<string, unknown>
  await writeFile(RESULTS, `${JSON.stringify({ ...before, ...results }, null, 2)}\n`)
  say(`Written to ${RESULTS}`)
}
