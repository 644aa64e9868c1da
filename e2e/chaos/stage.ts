import { mkdir, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { temporaryDirectory } from '../src/files.js'
import { repository } from '../src/landfall.js'
import { type RunningProcess, startProcess } from '../src/processes.js'
import { type Proxy, startProxy } from '../src/proxy.js'
import { type Site, startSite } from '../src/site.js'
import { type Disk, mountDisk } from './disk.js'
import type { Machine } from './machine.js'
import type { Looked, System } from './system.js'

/** A server on data of its own, behind a proxy that breaks its line, with all that faults need. */
export interface Stage {
  readonly system: System
  readonly server: RunningProcess
  readonly proxy: Proxy
  /** The page, in front of the proxy. */
  readonly site: Site
  readonly directory: string
  /** Null: no tmpfs could be mounted. */
  readonly disk: Disk | null
  readonly leaseMs: number
  /** Starts the server again where it is down; the proxy finds it. */
  up(): Promise<void>
  /** Ends the server; nobody of ours has its database open then. */
  down(signal: 'SIGKILL' | 'SIGTERM'): Promise<void>
  /** The server's wall clock, against the true one; `+0` or `+8d`. */
  setClock(offset: string): Promise<void>
  /** Null: the server is down. */
  look(): Promise<Looked | null>
  close(): Promise<void>
}

const LEASE_MS = 2_000
/** Against hanging only. */
const READY_WITHIN_MS = 300_000
const PAGE = join(repository, 'e2e/build/sweep')

export async function openStage(system: System, machine: Machine): Promise<Stage> {
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
  const site = await startSite({
    directory: PAGE,
    forward: { path: '/uploads', port: proxy.port, headers: system.headers },
  })
  /** Whoever has the database open last when it is closed tidies it up; a server that was killed must find it as it was. */
  let isDown = false
  let looking: Promise<unknown> = Promise.resolve()

  async function setClock(offset: string): Promise<void> {
    // Whole or not at all: the server reads it each time that it asks what time it is.
    await writeFile(`${clock}.new`, `${offset}\n`)
    await rename(`${clock}.new`, clock)
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
    async look() {
      await looking
      if (isDown || !server.running) return null
      const look = system.look(directory)
      looking = look.catch(() => null)
      return look
    },
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

const fakedBy = (library: string, clock: string): Record<string, string> => ({
  LD_PRELOAD: library,
  FAKETIME_TIMESTAMP_FILE: clock,
  FAKETIME_NO_CACHE: '1',
  // Time inside the process goes on as it does.
  DONT_FAKE_MONOTONIC: '1',
  FAKETIME_DONT_FAKE_MONOTONIC: '1',
})
