import { mkdir, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { openPageSite } from '../clients/page.js'
import { type Disk, mountDisk } from './disk.js'
import { type Ground, openGround } from '../ground/ground.js'
import type { Machine } from './machine.js'
import { openPlace } from '../ground/place.js'
import type { RunningProcess } from '../ground/processes.js'
import type { Proxy } from '../ground/proxy.js'
import type { Site } from '../ground/site.js'
import { type Nodes, openNodes } from '../programs/nodes.js'
import { openNodesReader } from '../truth/nodes-reader.js'
import { type Looked, lookedAt, progressOf } from './looked.js'
import { type DirectorySystem, type NodesSystem, type Reconciled, settingsFor } from './system.js'

/** What is served, behind a proxy that breaks its line. */
export interface Stage {
  readonly proxy: Proxy
  /** The site of the page, in front of the proxy. */
  readonly site: Site
  readonly leaseMs: number
  /** Starts again what is down. The proxy then uses the new port. */
  up(): Promise<void>
  /** Null: nothing can be read while the server is down. */
  look(): Promise<Looked | null>
  /** The part of `look` that costs least. */
  progress(): Promise<Looked['progress'] | null>
  /** Null: the system has no command for it. */
  reconcile(): Promise<Reconciled | null>
  /** The output of its servers, for messages. */
  output(): string
  close(): Promise<void>
}

/** A server with its own data, and everything that faults need. */
export interface DirectoryStage extends Stage {
  readonly system: DirectorySystem
  readonly server: RunningProcess
  readonly directory: string
  /** Null: no tmpfs could be mounted. */
  readonly disk: Disk | null
  /** Ends the server. After that, this process does not have the server's database open any more. */
  down(signal: 'SIGKILL' | 'SIGTERM'): Promise<void>
  /** Sets the server's wall clock relative to the true one, for example `+0` or `+8d`. */
  setClock(offset: string): Promise<void>
}

/** Several nodes behind a balancer, and everything that faults need. */
export interface NodesStage extends Stage {
  readonly nodes: Nodes
  readonly ground: Ground
}

const LEASE_MS = 2_000
/** A limit only for starts that hang. */
const READY_WITHIN_MS = 300_000

export async function openStage(system: DirectorySystem, machine: Machine): Promise<DirectoryStage> {
  const mounted: { disk: Disk | null } = { disk: null }
  let clock = ''
  async function setClock(offset: string): Promise<void> {
    // The file is replaced as a whole, because the server reads it each time that it needs the time.
    await writeFile(`${clock}.new`, `${offset}\n`)
    await rename(`${clock}.new`, clock)
  }
  const place = await openPlace(async ({ path, directory }) => {
    await mkdir(directory)
    if (!machine.missing.has('small disk')) mounted.disk = await mountDisk(directory)
    clock = join(path, 'clock')
    await setClock('+0')
    const data = join(directory, 'data')
    await mkdir(data)
    const program = system.program(data, LEASE_MS)
    const [command, ...before] = [...machine.prefix, program.command]
    return {
      ...program,
      command,
      readyWithinMs: READY_WITHIN_MS,
      args: [...before, ...(program.args ?? [])],
      env: {
        ...program.env,
        NODE_ENV: 'production',
        ...(machine.faketime === null ? {} : fakedBy(machine.faketime, clock)),
      },
    }
  })
  const { server, proxy } = place
  const directory = join(place.directory, 'data')
  const site = await openPageSite(proxy.port)
  const reader = system.openReader(directory)
  /**
   * If this process closed the database as the last one, SQLite would tidy it up. A server that was killed must find it
   * as it was.
   */
  let isDown = false
  place.defer(async () => {
    isDown = true
    await reader.end()
    await server.kill('SIGKILL')
    // A disk is busy for a moment after the death of a process that used it.
    await sleep(0)
    await mounted.disk?.unmount()
  })
  place.defer(site.close)

  const isUp = (): boolean => !isDown && server.running

  return {
    system,
    server,
    proxy,
    site,
    directory,
    disk: mounted.disk,
    leaseMs: LEASE_MS,
    setClock,
    async up() {
      if (server.running) proxy.retarget(Number(server.ready[2]))
      else await place.restart()
      isDown = false
    },
    async down(signal) {
      isDown = true
      await reader.end()
      await server.kill(signal)
    },
    look: async () => (isUp() ? lookedAt(await reader.read()) : null),
    progress: async () => (isUp() ? progressOf(await reader.readLedger()) : null),
    reconcile: async () => (await system.reconcile?.(directory)) ?? null,
    output: server.output,
    close: place.close,
  }
}

const fakedBy = (library: string, clock: string): Record<string, string> => ({
  LD_PRELOAD: library,
  FAKETIME_TIMESTAMP_FILE: clock,
  FAKETIME_NO_CACHE: '1',
  // Monotonic time inside the process is not changed.
  DONT_FAKE_MONOTONIC: '1',
  FAKETIME_DONT_FAKE_MONOTONIC: '1',
})

export async function openNodesStage(system: NodesSystem): Promise<NodesStage> {
  const ground = await openGround('bluestore')
  const nodes = await openNodes(ground, { env: settingsFor(LEASE_MS) })
  const reader = openNodesReader(ground)
  ground.defer(reader.end)
  const site = await openPageSite(nodes.front.port)
  ground.defer(site.close)
  return {
    nodes,
    ground,
    proxy: nodes.front,
    site,
    leaseMs: LEASE_MS,
    async up() {
      for (const { database, store } of nodes.all) for (const line of [database, store]) line.heal()
      await ground.mendGateway()
      await Promise.all(nodes.all.map(nodes.start))
    },
    look: async () => lookedAt(await reader.read()),
    progress: async () => progressOf(await reader.readLedger()),
    reconcile: async () => (await system.reconcile?.(nodes.all[0]?.directory ?? '')) ?? null,
    output: nodes.output,
    close: ground.close,
  }
}
