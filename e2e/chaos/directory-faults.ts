import { chmod, readdir, readFile, stat, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { holdDatabase } from '../programs/story.js'
import { between, type Fault } from './fault.js'
import { LINE_FAULTS } from './line-faults.js'
import type { DirectoryStage } from './stage.js'

// The faults of one server on its own directory.

const killed: Fault<DirectoryStage> = {
  name: 'SIGKILL, restart',
  often: true,
  async strike(stage, random) {
    await stage.down('SIGKILL')
    await sleep(random.below(2_000))
    await stage.up()
  },
}

const ended: Fault<DirectoryStage> = {
  name: 'SIGTERM, restart',
  async strike(stage) {
    await stage.down('SIGTERM')
    await stage.up()
  },
}

const stopped: Fault<DirectoryStage> = {
  name: 'SIGSTOP beyond the lease, SIGCONT',
  async strike({ server, leaseMs }, random) {
    process.kill(server.pid, 'SIGSTOP')
    await sleep(leaseMs + between(random, 500, 2_500))
    process.kill(server.pid, 'SIGCONT')
  },
}

const clock: Fault<DirectoryStage> = {
  name: 'clock +8 days and back',
  needs: 'set clock',
  async strike(stage, random) {
    await stage.setClock('+8d')
    await sleep(between(random, 2_500, 6_000))
    await stage.setClock('+0')
  },
}

const databaseAway: Fault<DirectoryStage> = {
  name: 'database locked by another process',
  async strike(stage, random) {
    const holder = await holdDatabase(stage.system.databaseFile(stage.directory))
    await sleep(between(random, 2_000, 6_000))
    await holder.kill('SIGKILL')
  },
}

const full: Fault<DirectoryStage> = {
  name: 'disk full',
  needs: 'small disk',
  async strike({ disk }, random) {
    await disk?.fill()
    await sleep(between(random, 2_000, 5_000))
    await disk?.free()
  },
}

const withoutPermission = (mode: number): Fault<DirectoryStage> => ({
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

const torn: Fault<DirectoryStage> = {
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

/** The server must not start on data that it cannot be sure of, and must say why. */
async function expectRefusal(stage: DirectoryStage, words: RegExp): Promise<void> {
  const outcome = await stage.up().then(
    () => 'it started',
    (error: unknown) => (error instanceof Error ? error.message : String(error)),
  )
  if (!words.test(outcome))
    throw new Error(`the server refused a torn file with other words than ${words.source}: ${outcome}`)
}

export const DIRECTORY_FAULTS: readonly Fault<DirectoryStage>[] = [
  killed,
  ended,
  stopped,
  ...LINE_FAULTS,
  clock,
  databaseAway,
  full,
  withoutPermission(0),
  withoutPermission(0o555),
  torn,
]
