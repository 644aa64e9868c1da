import { readFile, writeFile } from 'node:fs/promises'
import { cpus, loadavg, release, totalmem } from 'node:os'
import { repository } from '../ground/landfall.js'

/** All that was measured last, by what was measured. */
const RESULTS = `${repository}e2e/bench/results.json`

/** Where and when something was measured. */
export const machineOf = (loadBefore: number) => ({
  node: process.version,
  cpus: cpus().length,
  model: cpus()[0]?.model ?? 'unknown',
  memoryBytes: totalmem(),
  kernel: release(),
  // Somebody else's work on the machine spoils absolute figures, and ratios less.
  loadBefore,
  measuredAt: new Date().toISOString(),
})

export const loadNow = (): number => loadavg()[0] ?? 0

/** Writes what was measured over what was measured of it before; anything else stays. Answers the file's path. */
export async function keep(results: Readonly<Record<string, unknown>>): Promise<string> {
  const before = JSON.parse(await readFile(RESULTS, 'utf8').catch(() => '{}')) as Record<string, unknown>
  await writeFile(RESULTS, `${JSON.stringify({ ...before, ...results }, null, 2)}\n`)
  return RESULTS
}
