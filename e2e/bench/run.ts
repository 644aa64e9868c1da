/**
 * `npm run bench -- [--rounds 7] [--only big|small] [--systems landfall,tus-sync] [--before CHECKOUT]`: with
 *   `--before` the built server of another checkout takes its turn in each round, and the results are only printed.
 * `npm run bench -- --only s3 [--rounds 5] [--workload big|chunks|small|stalled|many]`: uploads to S3 beside others.
 * `npm run bench -- --only effects|reconcile|due|nodes|idle|huge|retention [--count …]`: see the file of that name.
 *
 * Landfall beside the usual stack (see `programs/tus-peer.ts`), one server at a time, in rounds in which each has its turn:
 * what the machine does meanwhile hits all of them, and ratios are taken within a round. Prints a table and writes all
 * measurements to `e2e/bench/results.json`.
 */
import { resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { benchDue } from './due.js'
import { benchEffects } from './effects.js'
import { benchHuge } from './huge.js'
import { benchIdle } from './idle.js'
import { keep, loadNow, machineOf } from './kept.js'
import { directoryOfRuns, type Measurement, measure, type Workload, WORKLOADS } from './measure.js'
import { benchNodes } from './nodes.js'
import { benchReconcile } from './reconcile.js'
import { benchRetention } from './retention.js'
import { benchS3 } from './s3.js'
import { availableSystems, earlier, type System, type SystemName } from './systems.js'
import { markdown, type Series, summarise } from './table.js'

const DEFAULT_ROUNDS = 7

/** What measures Landfall by itself, and not beside others in rounds; each only when it is asked for. */
const ALONE: Readonly<Record<string, { count: number; bench: (count: number, say: Say) => Promise<boolean> }>> = {
  effects: { count: 10_000, bench: benchEffects },
  reconcile: { count: 1_000_000, bench: benchReconcile },
  due: { count: 1_000_000, bench: benchDue },
  nodes: { count: 3_000, bench: benchNodes },
  idle: { count: 100_000, bench: benchIdle },
  huge: { count: 5_120, bench: benchHuge },
  retention: { count: 100_000, bench: benchRetention },
}
type Say = (text: string) => void

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: String(DEFAULT_ROUNDS) },
    only: { type: 'string' },
    systems: { type: 'string' },
    before: { type: 'string' },
    count: { type: 'string' },
    workload: { type: 'string' },
  },
})

function roundsWanted(): number {
  const rounds = Number(values.rounds)
  if (!Number.isInteger(rounds) || rounds < 1) throw new Error(`--rounds ${values.rounds}: not a number of rounds`)
  return rounds
}

function options(): { rounds: number; workloads: Workload[]; systems: System[] } {
  const rounds = roundsWanted()
  const available = availableSystems()
  const wanted = values.systems?.split(',') ?? available.map(({ name }) => name)
  const systems = available.filter(({ name }) => wanted.includes(name))
  if (values.before !== undefined) systems.push(earlier(resolve(values.before)))
  const workloads = WORKLOADS.filter(({ name }) => values.only === undefined || name === values.only)
  if (workloads.length === 0)
    throw new Error(`--only ${values.only}: the workloads are big, small, s3, ${Object.keys(ALONE).join(', ')}`)
  if (systems.length === 0) throw new Error(`--systems ${values.systems}: nothing of that is there`)
  return { rounds, workloads, systems }
}

async function runWorkload(workload: Workload, systems: readonly System[], rounds: number): Promise<Series> {
  const measurements: Partial<Record<SystemName, Measurement[]>> = {}
  const directory = await directoryOfRuns()
  try {
    for (let round = 0; round < rounds; round += 1) {
      // Who begins changes: nobody always runs on the disk that the same neighbour has just filled.
      const order = systems
        .map((_, i) => systems[(i + round) % systems.length])
        .filter((system) => system !== undefined)
      for (const system of order) {
        const measurement = await measure(system, workload, round, directory.path)
        ;(measurements[system.name] ??= []).push(measurement)
        say(
          `${workload.name} ${round + 1}/${rounds} ${system.name.padEnd(9)} ${(measurement.wallMs / 1000).toFixed(2)} s, ` +
            `CPU ${(measurement.serverCpuMs / 1000).toFixed(2)} s, peak ${(measurement.peakResidentBytes / 1_048_576).toFixed(0)} MiB`,
        )
      }
    }
  } finally {
    await directory.remove()
  }
  return { workload, systems, measurements }
}

const say = (text: string): void => void process.stdout.write(`${text}\n`)

async function main(): Promise<void> {
  const { rounds, workloads, systems } = options()
  if (!availableSystems().some(({ name }) => name === 'landfall'))
    say('Landfall is not built: measuring its peers only.')
  const loadBefore = loadNow()
  const results = []
  for (const workload of workloads) results.push(await runWorkload(workload, systems, rounds))
  const machine = machineOf(loadBefore)
  const path =
    values.before === undefined
      ? await keep({
          machine,
          workloads: results.map((series) => ({
            workload: series.workload,
            summary: summarise(series),
            measurements: series.measurements,
          })),
        })
      : null
  say(
    `\n${machine.cpus} × ${machine.model}, Node ${machine.node}, Linux ${machine.kernel}; load before: ${loadBefore.toFixed(1)}\n`,
  )
  for (const series of results) say(`${markdown(series)}\n`)
  if (path !== null) say(`Written to ${path}`)
}

async function runAlone({ count, bench }: (typeof ALONE)[string]): Promise<void> {
  const wanted = values.count === undefined ? count : Number(values.count)
  if (!Number.isInteger(wanted) || wanted < 1000) throw new Error(`--count ${values.count}: at least 1000`)
  if (!(await bench(wanted, say))) process.exitCode = 1
}

async function runS3(): Promise<void> {
  const machine = machineOf(loadNow())
  const workloads = await benchS3(roundsWanted(), values.workload, say)
  // A single one is a look, and replaces no results.
  if (values.workload === undefined) say(`Written to ${await keep({ s3: { machine, workloads } })}`)
}

const alone = ALONE[values.only ?? '']
await (values.only === 's3' ? runS3() : alone === undefined ? main() : runAlone(alone))
