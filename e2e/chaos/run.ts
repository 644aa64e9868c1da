/**
 * `npm run chaos -- [--minutes 10] [--seed 1] [--system landfall|peer|both|nodes] [--without clock,disk] [--mutant
 * NAME] [--json]`
 *
 * The exit status is 1 if Landfall breaks a promise. What its peer breaks is only counted.
 */
import { parseArgs } from 'node:util'
import { chromium } from '@playwright/test'
import { launchOptions } from '../ground/chromium.js'
import { mutate } from '../mutants/mutate.js'
import { MUTATIONS } from '../mutants/mutations.js'
import { type ChaosReport, runChaos } from './chaos.js'
import { lookAtMachine } from './machine.js'
import { landfallSystem, nodesSystem, peerSystem, type System } from './system.js'
import { markdown } from './table.js'

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '10' },
    seed: { type: 'string', default: '1' },
    system: { type: 'string', default: 'both' },
    without: { type: 'string', default: '' },
    mutant: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
})

async function systems(): Promise<readonly System[]> {
  if (values.mutant !== undefined) {
    const mutation = MUTATIONS.find(({ name }) => name.includes(values.mutant ?? ''))
    if (mutation === undefined) throw new Error(`--mutant ${values.mutant}: there is none of that name`)
    return [landfallSystem(await mutate(mutation))]
  }
  const landfall = landfallSystem()
  const peers = [peerSystem('tus'), peerSystem('tus-sync')]
  switch (values.system) {
    case 'landfall':
      return [landfall]
    case 'peer':
      return peers
    case 'nodes':
      return [nodesSystem()]
    case 'both':
      return [landfall, ...peers]
    default:
      return peers.filter(({ name }) => name === values.system)
  }
}

const say = (line: string): void => void (values.json ? process.stderr : process.stdout).write(`${line}\n`)

async function main(): Promise<void> {
  const durationMs = Number(values.minutes) * 60_000
  const seed = Number(values.seed)
  if (!(durationMs > 0) || !Number.isInteger(seed)) throw new Error('--minutes and --seed are numbers')
  const machine = await lookAtMachine()
  const browser = await chromium.launch(launchOptions())
  const reports: ChaosReport[] = []
  const without = values.without.split(',').filter((word) => word !== '')
  for (const system of await systems()) {
    say(`── ${system.title} ──`)
    reports.push(await runChaos({ system, seed, durationMs, machine, browser, without, say }))
  }
  await browser.close()
  if (values.json) process.stdout.write(`${JSON.stringify(reports, null, 2)}\n`)
  else say(`\n${markdown(reports)}\n`)
  for (const reason of new Set(reports.flatMap(({ left }) => left))) say(`left out: ${reason}`)
  for (const { system, sentAgain } of reports) for (const line of sentAgain) say(`${system}: ${line}`)
  for (const { system, violations } of reports) for (const violation of violations) say(`${system}: ${violation}`)
  const isBroken = reports.some(({ system, violations }) => isOurs(system) && violations.length > 0)
  // After many kills the event loop sometimes never ended by itself (Node 20.20).
  process.stdout.write('', () => process.exit(isBroken ? 1 : 0))
}

const isOurs = (system: string): boolean => system === 'landfall' || system === 'nodes'

// A signal ends the process through `exit`, so that disks are unmounted.
for (const [signal, status] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
  ['SIGHUP', 129],
] as const)
  process.on(signal, () => process.exit(status))
await main()
