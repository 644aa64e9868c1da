import { randomUUID } from 'node:crypto'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { openPageSite } from '../clients/page.js'
import { openPlace } from '../ground/place.js'
import type { ProcessOptions, RunningProcess } from '../ground/processes.js'
import type { Proxy } from '../ground/proxy.js'
import { repository } from '../ground/repository.js'
import type { Site } from '../ground/site.js'
import type { ApplicationSettings } from '../programs/application.js'
import { landfallServe, OWNER_HEADER, SERVER_FOLDER } from '../programs/landfall.js'
import { startReceiver } from '../programs/receiver.js'
import { openReader } from '../truth/reader.js'
import { isQuiet, type Reader, type Stored } from '../truth/stored.js'
import { type Losses, losePower, readLog, unsyncedOf } from './power.js'
import { programsOf } from './programs.js'

/** A call of a server process: its name, and its number among the calls with that name since the plan was made. */
export interface Point {
  readonly name: string
  readonly nth: number
}
export interface Kill extends Point {
  readonly when: 'before' | 'after'
}

/** What is swept, with everything that it needs: a proxy that stays, the site of a page, and a receiver of webhooks. */
export interface World {
  readonly proxy: Proxy
  readonly site: Site
  /** The ids of the effects that the receiver has had, by operation. */
  readonly received: ReadonlyMap<string, ReadonlySet<string>>
  /**
   * Numbers calls from 1 again and plans a kill, or none if null. `died`: the server ended before it confirmed the
   * plan.
   */
  plan(kill: Kill | null): Promise<'planned' | 'died'>
  /** The calls since the last plan. */
  calls(): Point[]
  /** @throws when something still changes after `withinMs` */
  untilQuiet(withinMs?: number): Promise<Stored>
  output(): string
  close(): Promise<void>
}

/** One server on its own directory. */
export interface ServerWorld extends World {
  readonly server: RunningProcess
  /** Starts the server again on the same directory. `kill` is planned before its first call. */
  restart(kill?: Kill | null): Promise<'ready' | 'killed'>
  /** Only to be called while no server runs. */
  losePower(how: 'cut' | 'zero'): Promise<Losses>
  stored(): Promise<Stored>
}

export interface WorldOptions {
  /** Default: `serve`. */
  readonly program?: 'serve' | 'app'
  /** The server's folder. Default: this repository's server. Each mutation has a folder of its own. */
  readonly serverFolder?: string
}

const PRELOAD = join(repository, 'e2e/sweep/preload.cjs')
export const LEASE_MS = 1_000
export const INTERVAL_MS = 200

export async function openWorld({
  program = 'serve',
  serverFolder = SERVER_FOLDER,
}: WorldOptions = {}): Promise<ServerWorld> {
  const files = await programsOf(serverFolder)
  const receiver = await startReceiver()
  /** After a loss of power the machine boots another kernel, so it has another boot id, and another log begins. */
  const life = { boot: randomUUID(), log: '', logs: 0 }
  let own: ProcessOptions['env'] = {}
  const envOf = (kill: Kill | null) => ({
    ...own,
    SWEEP_LOG: life.log,
    SWEEP_BOOT: life.boot,
    SWEEP_KILL: kill === null ? undefined : JSON.stringify(kill),
  })
  let logOf = (_n: number): string => ''
  const place = await openPlace(({ path, directory }) => {
    logOf = (n) => join(path, `calls.${n}`)
    life.log = logOf(0)
    const serving = landfallServe(directory, {
      LANDFALL_COMPLETER_INTERVAL_MS: String(INTERVAL_MS),
      LANDFALL_LEASE_MS: String(LEASE_MS),
      ...receiver.settings,
      LANDFALL_LOG_LEVEL: 'warn',
      SWEEP_DIRECTORY: directory,
      SWEEP_LIBSQL: createRequire(files.cli).resolve('libsql'),
    })
    own = serving.env
    const settings: ApplicationSettings = {
      directory,
      ownerHeader: OWNER_HEADER,
      receivers: { webhook: receiver.url },
      leaseMs: LEASE_MS,
      completerIntervalMs: INTERVAL_MS,
      // Long enough for the lease to be prolonged. Otherwise that would happen by chance only, on a busy machine.
      prepareMs: LEASE_MS / 2,
    }
    const args = program === 'serve' ? [files.cli, 'serve'] : [files.app, JSON.stringify(settings)]
    return { ...serving, args: ['--require', PRELOAD, ...args], channel: true, env: envOf(null) }
  })
  const { server, proxy, directory } = place
  const site = await openPageSite(proxy.port)
  const reader = openReader(directory)
  place.defer(receiver.close)
  place.defer(async () => {
    await server.kill('SIGKILL')
    await reader.end()
  })
  place.defer(site.close)
  /**
   * The reader may be used only while the server runs. The last connection that closes would tidy up the database, and
   * a kill must leave the database as it is.
   */
  function whileItRuns(): Reader {
    if (!server.running) throw new Error(`the server does not run:\n${server.output().slice(-3_000)}`)
    return reader
  }
  let planned = (): void => {}
  server.onMessage(() => planned())

  return {
    server,
    proxy,
    site,
    received: receiver.received,
    plan(kill) {
      const { exited } = server
      const said = new Promise<'planned'>((resolve) => {
        planned = () => resolve('planned')
        server.send({ type: 'plan', plan: kill })
      })
      return Promise.race([said, exited.then(() => 'died' as const)])
    },
    calls() {
      const lines = readLog(life.log)
      const from = lines.findLastIndex((line) => 'plan' in line)
      return lines.slice(from + 1).flatMap((line) => ('call' in line ? [{ name: line.call, nth: line.nth }] : []))
    },
    async restart(kill = null) {
      await server.kill('SIGKILL')
      await reader.end()
      try {
        await place.restart({ env: envOf(kill) })
      } catch (error) {
        if (kill !== null && String(error).includes('SIGKILL')) return 'killed'
        throw error
      }
      return 'ready'
    },
    async losePower(how) {
      if (server.running) throw new Error('the server still runs')
      await reader.end()
      const losses = await losePower(unsyncedOf(readLog(life.log)), how)
      // What is on the disk now is durable.
      life.log = logOf((life.logs += 1))
      life.boot = randomUUID()
      return losses
    },
    stored: async () => whileItRuns().read(),
    async untilQuiet(withinMs) {
      const { pid } = server
      return untilQuiet(
        () => {
          if (server.pid !== pid) throw new Error('the server was started again during the check')
          return whileItRuns()
        },
        { withinMs, everyMs: 25, output: () => server.output().slice(-3_000) },
      )
    },
    output: () => server.output().slice(-1_500),
    close: place.close,
  }
}

/**
 * Resolves when nothing changes any more. What a server deletes after the end of an upload may take a moment longer.
 */
export async function untilQuiet(
  readerNow: () => Reader | Promise<Reader>,
  options: { readonly withinMs: number | undefined; readonly everyMs: number; output(): string },
): Promise<Stored> {
  const { withinMs = 20_000, everyMs, output } = options
  for (const deadline = performance.now() + withinMs; ; await sleep(everyMs)) {
    const isLate = performance.now() > deadline
    const now = await (await readerNow()).readMoving()
    const stored = isQuiet(now) ? await (await readerNow()).read() : null
    if (stored !== null && isQuiet(stored) && (stored.leftovers.length === 0 || isLate)) return stored
    if (!isLate) continue
    const moving = now.operations.filter(({ point }) => point !== 'completed')
    throw new Error(`something still moves after ${withinMs} ms:\n${JSON.stringify(moving, null, 1)}\n${output()}`)
  }
}
