import { mkdir, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { temporaryDirectory } from '../ground/files.js'
import { repository } from '../ground/landfall.js'
import { type RunningProcess, startProcess } from '../ground/processes.js'
import { type Proxy, startProxy } from '../ground/proxy.js'
import { type Site, startSite } from '../ground/site.js'
import { type Disk, mountDisk } from '../ground/disk.js'
import type { Machine } from '../ground/machine.js'
import type { DirectorySystem, Looked, Reconciled, Served } from './system.js'

/** What is served, behind a proxy that breaks its line. */
export interface Stage {
  readonly proxy: Proxy
  /** The page, in front of the proxy. */
  readonly site: Site
  readonly leaseMs: number
  /** Starts again what is down; the proxy finds it. */
  up(): Promise<void>
  /** Null: nothing can be read while it is down. */
  look(): Promise<Looked | null>
  /** Of `look` the cheapest part. */
  progress(): Promise<Looked['progress'] | null>
  /** Null: it has nothing that could. */
  reconcile(): Promise<Reconciled | null>
  /** Of its servers, for messages. */
  output(): string
  close(): Promise<void>
}

/** A server on data of its own, with all that faults need. */
export interface DirectoryStage extends Stage {
  readonly system: DirectorySystem
  readonly server: RunningProcess
  readonly directory: string
  /** Null: no tmpfs could be mounted. */
  readonly disk: Disk | null
  /** Ends the server; nobody of ours has its database open then. */
  down(signal: 'SIGKILL' | 'SIGTERM'): Promise<void>
  /** The server's wall clock, against the true one; `+0` or `+8d`. */
  setClock(offset: string): Promise<void>
}

const LEASE_MS = 2_000
/** Against hanging only. */
const READY_WITHIN_MS = 300_000
const PAGE = join(repository, 'e2e/build/sweep')

export async function openStage(system: DirectorySystem, machine: Machine): Promise<DirectoryStage> {
  const home = await temporaryDirectory('landfall-chaos-')
  const mount = join(home.path, 'disk')
  const directory = join(mount, 'data')
  await mkdir(mount)
  const disk = machine.missing.has('small disk') ? null : await mountDisk(mount)
  await mkdir(directory)
  const clock = join(home.path, 'clock')
  await setClock('+0')
  const program = system.program(directory, LEASE_MS)
  const [command, ...before] = [...machine.prefix, program.command]
  const server = await startProcess({
    ...program,
    command,
    readyWithinMs: READY_WITHIN_MS,
    args: [...before, ...(program.args ?? [])],
    env: {
      ...program.env,
      NODE_ENV: 'production',
      ...(machine.faketime === null ? {} : fakedBy(machine.faketime, clock)),
    },
  })
  const proxy = await startProxy({ targetPort: Number(server.ready[2]) })
  const site = await openSite(system, proxy)
  /** Whoever has the database open last when it is closed tidies it up; a server that was killed must find it as it was. */
  let isDown = false
  let looking: Promise<unknown> = Promise.resolve()

  async function setClock(offset: string): Promise<void> {
    // Whole or not at all: the server reads it each time that it asks what time it is.
    await writeFile(`${clock}.new`, `${offset}\n`)
    await rename(`${clock}.new`, clock)
  }

  async function look(): Promise<Looked | null> {
    await looking
    if (isDown || !server.running) return null
    const looked = system.look(directory)
    looking = looked.catch(() => null)
    return looked
  }

  return {
    system,
    server,
    proxy,
    site,
    directory,
    disk,
    leaseMs: LEASE_MS,
    setClock,
    async up() {
      if (!server.running) await server.restart()
      proxy.retarget(Number(server.ready[2]))
      isDown = false
    },
    async down(signal) {
      isDown = true
      await looking
      await server.kill(signal)
    },
    look,
    progress: async () => (await look())?.progress ?? null,
    reconcile: async () => (await system.reconcile?.(directory)) ?? null,
    output: server.output,
    async close() {
      await site.close()
      await proxy.close()
      isDown = true
      await looking
      await server.kill('SIGKILL')
      // A disk is busy for a moment after the death of who used it.
      await sleep(0)
      await disk?.unmount()
      await home.remove()
    },
  }
}

/** The page of our own client, in front of a proxy. */
export const openSite = ({ headers }: Served, { port }: Proxy): Promise<Site> =>
  startSite({ directory: PAGE, forward: { path: '/uploads', port, headers } })

const fakedBy = (library: string, clock: string): Record<string, string> => ({
  LD_PRELOAD: library,
  FAKETIME_TIMESTAMP_FILE: clock,
  FAKETIME_NO_CACHE: '1',
  // Time inside the process goes on as it does.
  DONT_FAKE_MONOTONIC: '1',
  FAKETIME_DONT_FAKE_MONOTONIC: '1',
})
