/**
 * The benchmark.
 *
 * - `npm run bench -- [--rounds 7] [--only big|small] [--systems landfall,tus-sync] [--before CHECKOUT]`: with
 *   `--before` the built server of another checkout takes its turn in each round, and the results are only printed.
 * - `npm run bench -- --only s3 [--rounds 5] [--workload big|chunks|small|stalled|many]`: uploads to S3, compared with
 *   others.
 * - `npm run bench -- --only effects|reconcile|due|nodes|idle|huge|retention [--count …]`: see the file with that name.
 *
 * It measures Landfall and the usual stack (see `programs/tus-peer.ts`), one server at a time, in rounds in which each
 * server has its turn. So other work of the machine affects all of them, and ratios are taken within a round. It prints
 * a table and writes all measurements to `e2e/bench/results.json`.
 */
import { resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { benchDue } from './due.js'
import { benchEffects } from './effects.js'
import { benchHuge } from './huge.js'
import { benchIdle } from './idle.js'
import { runWorkload, type Series, WORKLOADS } from './measure.js'
import { benchNodes } from './nodes.js'
import { benchReconcile } from './reconcile.js'
import { keep, machineNow, type Say } from './report.js'
import { benchRetention } from './retention.js'
import { earlier, systemsOf } from './systems.js'
import { markdown, summarise } from './table.js'

/** Measurements of Landfall alone, without rounds with other servers. Each runs only when it is named. */
const ALONE: Readonly<Record<string, { count: number; bench: (count: number, say: Say) => Promise<boolean> }>> = {
  effects: { count: 10_000, bench: benchEffects },
  reconcile: { count: 1_000_000, bench: benchReconcile },
  due: { count: 1_000_000, bench: benchDue },
  nodes: { count: 3_000, bench: benchNodes },
  idle: { count: 100_000, bench: benchIdle },
  huge: { count: 5_120, bench: benchHuge },
  retention: { count: 100_000, bench: benchRetention },
}

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '7' },
    only: { type: 'string' },
    systems: { type: 'string' },
    before: { type: 'string' },
    count: { type: 'string' },
    workload: { type: 'string' },
  },
})
const say: Say = (text) => void process.stdout.write(`${text}\n`)

async function beside(on: 'disk' | 's3', only: string | undefined): Promise<void> {
  const rounds = Number(values.rounds)
  if (!Number.isInteger(rounds) || rounds < 1) throw new Error(`--rounds ${values.rounds}: not a number of rounds`)
  const workloads = WORKLOADS.filter((one) => one.on === on && (only === undefined || one.name === only))
  if (workloads.length === 0) throw new Error(`there is no ${only}: big, small, s3, ${Object.keys(ALONE).join(', ')}`)
  const machine = machineNow()
  const results: Series[] = []
  for (const workload of workloads) {
    const wanted = values.systems?.split(',') ?? workload.systems
    const systems = systemsOf(workload.systems.filter((name) => wanted.includes(name)))
    if (values.before !== undefined) systems.push(earlier(resolve(values.before)))
    if (systems.length === 0) throw new Error(`--systems ${values.systems}: none of these can be measured here`)
    if (!systems.some(({ name }) => name === 'landfall')) say('Landfall is not measured. Only other servers are.')
    results.push(await runWorkload(workload, systems, rounds, say))
  }
  const { cpus, model, node, kernel, loadBefore } = machine
  say(`\n${cpus} × ${model}, Node ${node}, Linux ${kernel}; load before: ${loadBefore.toFixed(1)}\n`)
  for (const series of results) say(`${markdown(series)}\n`)
  const found = results.map((series) => ({
    workload: series.workload,
    summary: summarise(series),
    measurements: series.measurements,
  }))
  // A comparison with another checkout, or a single workload of S3, does not replace results.
  if (values.before !== undefined || (on === 's3' && only !== undefined)) return
  await keep(say, on === 'disk' ? { machine, workloads: found } : { s3: { machine, workloads: found } })
}

async function runAlone({ count, bench }: (typeof ALONE)[string]): Promise<void> {
  const wanted = values.count === undefined ? count : Number(values.count)
  if (!Number.isInteger(wanted) || wanted < 1000) throw new Error(`--count ${values.count}: at least 1000`)
  if (!(await bench(wanted, say))) process.exitCode = 1
}

const alone = ALONE[values.only ?? '']
if (alone !== undefined) await runAlone(alone)
else if (values.only === 's3') await beside('s3', values.workload)
else await beside('disk', values.only)
