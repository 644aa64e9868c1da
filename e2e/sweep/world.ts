import { randomUUID } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Browser, BrowserContext, Page } from '@playwright/test'
import type { SweptAppSettings } from '../programs/swept-app.js'
import { temporaryDirectory } from '../ground/files.js'
import { landfallServe, repository } from '../ground/landfall.js'
import { type RunningProcess, startProcess } from '../ground/processes.js'
import { type Proxy, startProxy } from '../ground/proxy.js'
import type { Site } from '../ground/site.js'
import { isQuiet, type Stored } from '../truth/stored.js'
import { type Losses, losePower, readLog, unsyncedOf } from './power.js'
import { programsOf } from './programs.js'
import { openReader } from '../truth/reader.js'
import { openSweptSite, startReceiver, visitSite } from '../programs/surroundings.js'

/** A call of the server process: its name, and which one of that name since the plan was made. */
export interface Point {
  readonly name: string
  readonly nth: number
}
export interface Kill extends Point {
  readonly when: 'before' | 'after'
}

/** A swept server with all that it needs: a proxy that stays, a page's site, a receiver of webhooks. */
export interface World {
  readonly server: RunningProcess
  readonly proxy: Proxy
  readonly site: Site
  readonly directory: string
  /** Ids of the effects that the receiver has had, by operation. */
  readonly received: ReadonlyMap<string, ReadonlySet<string>>
  /** Numbers calls anew, and arms a kill; null: none. `died`: the server ended before it said so. */
  plan(kill: Kill | null): Promise<'planned' | 'died'>
  /** The calls since the last plan. */
  calls(): Point[]
  /** Starts the server again on the same directory; `kill` is armed before its first call. */
  restart(kill?: Kill | null): Promise<'ready' | 'killed'>
  /** Only while no server runs. */
  losePower(how: 'cut' | 'zero'): Promise<Losses>
  stored(): Promise<Stored>
  /** @throws when something still moves after `withinMs` */
  untilQuiet(withinMs?: number): Promise<Stored>
  /** A page of its own profile, with the client started. */
  visit(browser: Browser): Promise<{ page: Page; context: BrowserContext }>
  close(): Promise<void>
}

const PRELOAD = join(repository, 'e2e/sweep/preload.cjs')
const LEASE_MS = 1_000
const INTERVAL_MS = 200

export interface WorldOptions {
  /** Default: `serve`. */
  readonly program?: 'serve' | 'app'
  /** The server's folder; default: this repository's. Mutations have one of their own. */
  readonly serverFolder?: string
}

export async function openWorld({
  program = 'serve',
  serverFolder = join(repository, 'server'),
}: WorldOptions = {}): Promise<World> {
  const files = await programsOf(serverFolder)
  const home = await temporaryDirectory('landfall-sweep-')
  const directory = join(home.path, 'data')
  await mkdir(directory)
  const log = join(home.path, 'calls.0')
  let logs = 0
  /** A machine that has lost its power starts another kernel. */
  let boot = randomUUID()
  let current = log
  const receiver = await startReceiver()
  const serving = landfallServe(directory, {
    LANDFALL_COMPLETER_INTERVAL_MS: String(INTERVAL_MS),
    LANDFALL_LEASE_MS: String(LEASE_MS),
    ...receiver.settings,
    LANDFALL_LOG_LEVEL: 'warn',
    SWEEP_DIRECTORY: directory,
    SWEEP_LIBSQL: createRequire(files.cli).resolve('libsql'),
  })
  const envOf = (kill: Kill | null) => ({
    ...serving.env,
    SWEEP_LOG: current,
    SWEEP_BOOT: boot,
    SWEEP_KILL: kill === null ? undefined : JSON.stringify(kill),
  })
  const appSettings: SweptAppSettings = {
    directory,
    receiver: receiver.url,
    leaseMs: LEASE_MS,
    completerIntervalMs: INTERVAL_MS,
  }
  const programs = {
    serve: [files.cli, 'serve'],
    app: [files.app, JSON.stringify(appSettings)],
  }
  const server = await startProcess({
    ...serving,
    args: ['--require', PRELOAD, ...programs[program]],
    channel: true,
    env: envOf(null),
  })
  const portNow = (): number => Number(server.ready[2])
  const proxy = await startProxy({ targetPort: portNow() })
  const site = await openSweptSite(proxy.port)
  const reader = openReader(directory)
  /** Only while the server runs: the last connection that closes tidies the database up, and a kill must find it as it is. */
  function whileItRuns(): typeof reader {
    if (!server.running) throw new Error(`the server does not run:\n${server.output().slice(-3_000)}`)
    return reader
  }
  let planned = (): void => {}
  server.onMessage(() => planned())

  return {
    server,
    proxy,
    site,
    directory,
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
      const lines = readLog(current)
      const from = lines.findLastIndex((line) => 'plan' in line)
      return lines.slice(from + 1).flatMap((line) => ('call' in line ? [{ name: line.call, nth: line.nth }] : []))
    },
    async restart(kill = null) {
      await server.kill('SIGKILL')
      await reader.end()
      try {
        await server.restart({ env: envOf(kill) })
      } catch (error) {
        if (kill !== null && String(error).includes('SIGKILL')) return 'killed'
        throw error
      }
      proxy.retarget(portNow())
      return 'ready'
    },
    async losePower(how) {
      if (server.running) throw new Error('the server still runs')
      await reader.end()
      const losses = await losePower(unsyncedOf(readLog(current)), how)
      // What is there now is there for good.
      current = join(home.path, `calls.${(logs += 1)}`)
      boot = randomUUID()
      return losses
    },
    stored: async () => whileItRuns().read(),
    async untilQuiet(withinMs = 20_000) {
      const { pid } = server
      for (const deadline = performance.now() + withinMs; ; await sleep(25)) {
        if (server.pid !== pid) throw new Error('the server was started again meanwhile')
        const now = await whileItRuns().readMoving()
        if (isQuiet(now)) {
          const stored = await whileItRuns().read()
          if (isQuiet(stored)) return stored
        }
        if (performance.now() > deadline)
          throw new Error(
            `something still moves after ${withinMs} ms:\n${JSON.stringify(
              now.operations.filter(({ point }) => point !== 'completed'),
              null,
              1,
            )}\n${server.output().slice(-3_000)}`,
          )
      }
    },
    visit: (browser) => visitSite(browser, site),
    async close() {
      await site.close()
      await proxy.close()
      await server.kill('SIGKILL')
      await reader.end()
      await receiver.close()
      await home.remove()
    },
  }
}
