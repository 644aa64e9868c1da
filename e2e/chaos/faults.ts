import { chmod, readdir, readFile, stat, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { repository } from '../src/landfall.js'
import { startProcess } from '../src/processes.js'
import type { RecordedRequest } from '../src/proxy.js'
import type { Seeded } from '../src/seeded.js'
import type { Machine, Means } from './machine.js'
import type { Stage } from './stage.js'

export interface Fault {
  readonly name: string
  readonly needs?: Means
  /** Begins it, waits, and ends it: afterwards everything is as it was. */
  strike(stage: Stage, random: Seeded): Promise<void>
}

const between = (random: Seeded, fromMs: number, toMs: number): number => fromMs + random.below(toMs - fromMs)
const hasBody = ({ method }: RecordedRequest): boolean => method === 'PATCH'
const changes = ({ method }: RecordedRequest): boolean => ['PATCH', 'POST', 'PUT'].includes(method)

const killed: Fault = {
  name: 'SIGKILL, restart',
  async strike(stage, random) {
    await stage.down('SIGKILL')
    await sleep(random.below(2_000))
    await stage.up()
  },
}

const ended: Fault = {
  name: 'SIGTERM, restart',
  async strike(stage) {
    await stage.down('SIGTERM')
    await stage.up()
  },
}

const stopped: Fault = {
  name: 'SIGSTOP beyond the lease, SIGCONT',
  async strike({ server, leaseMs }, random) {
    process.kill(server.pid, 'SIGSTOP')
    await sleep(leaseMs + between(random, 500, 2_500))
    process.kill(server.pid, 'SIGCONT')
  },
}

const reset: Fault = {
  name: 'connections reset',
  async strike({ proxy }) {
    proxy.resetConnections()
  },
}

const closed: Fault = {
  name: 'connections closed',
  async strike({ proxy }) {
    proxy.closeConnections()
  },
}

const cutBodies: Fault = {
  name: 'resets in the middle of a body',
  async strike({ proxy }, random) {
    const armed = Array.from({ length: 3 }, () =>
      proxy.arm({ kind: 'reset', afterBodyBytes: random.below(300_000) }, { match: hasBody }),
    )
    await sleep(between(random, 2_000, 4_000))
    for (const { release } of armed) release()
  },
}

const swallowed: Fault = {
  name: 'answers swallowed',
  async strike({ proxy }, random) {
    const ending = random.pick(['reset', 'fin'] as const)
    const armed = proxy.arm({ kind: 'swallow-answer', ending }, { match: changes, times: 1 + random.below(4) })
    await sleep(between(random, 2_000, 4_000))
    armed.release()
  },
}

const silent: Fault = {
  name: 'black hole for requests',
  async strike({ proxy }, random) {
    const armed = proxy.arm({ kind: 'black-hole', afterBodyBytes: random.below(100_000) }, { match: hasBody, times: 2 })
    await sleep(between(random, 3_000, 6_000))
    armed.release()
  },
}

const cut: Fault = {
  name: 'black hole for all',
  async strike({ proxy }, random) {
    proxy.cut('black-hole')
    await sleep(between(random, 1_500, 6_000))
    proxy.heal()
  },
}

const clock: Fault = {
  name: 'clock +8 days and back',
  needs: 'set clock',
  async strike(stage, random) {
    await stage.setClock('+8d')
    await sleep(between(random, 2_500, 6_000))
    await stage.setClock('+0')
  },
}

const HOLDER = join(repository, 'e2e/dist/chaos/hold-database.js')

const databaseAway: Fault = {
  name: 'database locked by another process',
  async strike(stage, random) {
    const holder = await startProcess({
      command: process.execPath,
      args: [HOLDER, stage.system.databaseFile(stage.directory)],
      ready: /locked/,
    })
    await sleep(between(random, 2_000, 6_000))
    await holder.kill('SIGKILL')
  },
}

const full: Fault = {
  name: 'disk full',
  needs: 'small disk',
  async strike({ disk }, random) {
    await disk?.fill()
    await sleep(between(random, 2_000, 5_000))
    await disk?.free()
  },
}

const withoutPermission = (mode: number): Fault => ({
  name: mode === 0 ? 'directory without permission' : 'directories read-only',
  needs: 'permissions',
  async strike({ system, directory }, random) {
    const root = system.bytesDirectory(directory)
    const directories = mode === 0 ? [root] : await directoriesIn(root)
    const modes = new Map<string, number>()
    for (const path of directories.toReversed()) {
      const found = await stat(path).catch(() => null)
      if (found === null) continue
      modes.set(path, found.mode & 0o777)
      await chmod(path, mode).catch(() => {})
    }
    await sleep(between(random, 1_500, 4_000))
    for (const [path, before] of [...modes].toReversed()) await chmod(path, before).catch(() => {})
  },
})

async function directoriesIn(root: string): Promise<string[]> {
  const entries = await readdir(root, { recursive: true, withFileTypes: true })
  return [root, ...entries.filter((entry) => entry.isDirectory()).map(({ parentPath, name }) => join(parentPath, name))]
}

const torn: Fault = {
  name: 'small file torn while the server was down',
  async strike(stage, random) {
    await stage.down('SIGKILL')
    const files = await stage.system.smallFiles(stage.directory)
    if (files.length > 0) {
      const { path, refuses } = random.pick(files)
      const whole = await readFile(path)
      await truncate(path, random.below(whole.length))
      if (refuses !== null) {
        await expectRefusal(stage, refuses)
        await writeFile(path, whole)
      }
    }
    await stage.up()
  },
}

/** It must not come up on what it cannot be sure of, and say why. */
async function expectRefusal(stage: Stage, words: RegExp): Promise<void> {
  const outcome = await stage.up().then(
    () => 'it came up',
    (error: unknown) => (error instanceof Error ? error.message : String(error)),
  )
  if (!words.test(outcome)) throw new Error(`a torn file was met with other words than ${words.source}: ${outcome}`)
}

const ALL: readonly Fault[] = [
  killed,
  ended,
  stopped,
  reset,
  closed,
  cutBodies,
  swallowed,
  silent,
  cut,
  clock,
  databaseAway,
  full,
  withoutPermission(0),
  withoutPermission(0o555),
  torn,
]
export const FAULT_NAMES = ALL.map(({ name }) => name)

/** Those that this machine can do and nobody left out, and of the others the reason why not. */
export function possibleFaults(
  machine: Machine,
  without: readonly string[],
): { possible: readonly Fault[]; left: readonly string[] } {
  const left: string[] = []
  const possible = ALL.filter(({ name, needs }) => {
    const reason = without.some((word) => name.includes(word))
      ? 'left out as asked'
      : needs === undefined
        ? undefined
        : machine.missing.get(needs)
    if (reason !== undefined) left.push(`${name}: ${reason}`)
    return reason === undefined
  })
  return { possible, left }
}

/** Rounds of all faults, each in another order; kills come twice. */
export function* schedule(possible: readonly Fault[], random: Seeded): Generator<Fault> {
  while (possible.length > 0) yield* random.shuffled([...possible, ...possible.filter((fault) => fault === killed)])
}
