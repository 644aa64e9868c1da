import type { Browser, BrowserContext, Page } from '@playwright/test'
import { type History, type Known, newHistory, violations } from './invariants.js'
import type { Losses } from './power.js'
import type { Begun, Scenario } from './scenarios.js'
import { beginUpload, type BegunUpload, knownOf, SETTLE_MS, within } from './upload.js'
import { type Kill, openWorld, type Point, type World, type WorldOptions } from './world.js'

/** What becomes of the client, and what else happens to the machine. */
export interface Variant {
  /** `retries`: it stays and goes on. `gone`: it never comes back, and only the completer works. */
  readonly client: 'retries' | 'gone'
  /** The power is lost with the first kill; `zero` and `cut` as in `losePower`. */
  readonly power?: 'cut' | 'zero'
  /** The power is lost with the second kill. */
  readonly powerAgain?: 'cut' | 'zero'
  /** Killed once more, while it starts again and recovers. */
  readonly again?: Kill
}

/** Of what is swept: `landfall serve`, an application that embeds, or three nodes on PostgreSQL and S3. */
export type Program = 'serve' | 'app' | 'nodes'

export interface Run {
  readonly program: Program
  readonly scenario: Scenario
  readonly kill: Kill
  readonly variant: Variant
}

export interface Result extends Run {
  /** `not reached`: the call did not come in this run. */
  readonly outcome: 'ok' | 'bad' | 'not reached'
  readonly violations: readonly string[]
  readonly losses: Losses | null
  readonly tookMs: number
}

/** The reference, or the first step towards an end without one. */
export const STAKES =
  /INSERT INTO landfall_references|COMMIT after INSERT INTO landfall_effects|SET point = .*problem|unlink blobs/

/** Calls that come with the first file of a store, or of some minutes. */
const ONLY_AT_FIRST = /^mkdir|^sync blobs(\/blobs(\/#)?)?$/

/** Of one world: what is looked at grows with each. */
const MOST_OF_A_WORLD = 60

/** Runs one after the other on one server and its data, which grow old together. */
export interface Lane {
  /** The calls of a run that nothing disturbs, and those of a start after it was killed. */
  record(scenario: Scenario): Promise<{ points: Point[]; starting: Point[] }>
  run(run: Run): Promise<Result>
  close(): Promise<void>
}

export async function openLane(browser: Browser, firstSeed: number, options: WorldOptions = {}): Promise<Lane> {
  let world: World = await openWorld(options)
  let visited: { page: Page; context: BrowserContext } = await world.visit(browser)
  let history: History = newHistory()
  let known: Known[] = []
  let runs = 0
  let seed = firstSeed

  const begin = (scenario: Scenario): Promise<BegunUpload> =>
    beginUpload(scenario, { page: visited.page, origin: world.proxy.origin }, (seed += 1))

  async function leave(begun?: Begun): Promise<void> {
    begun?.leave?.()
    await visited.context.close()
  }

  /** After a failure nothing of the old world is trusted; and some calls come only in a new one. */
  async function renew(): Promise<void> {
    await leave().catch(() => {})
    await world.close().catch(() => {})
    world = await openWorld(options)
    visited = await world.visit(browser)
    history = newHistory()
    known = []
    runs = 0
  }

  async function check(upload: Known, told: Known['told']): Promise<string[]> {
    const stored = await world.untilQuiet()
    known.push(knownOf(upload, told, world.proxy))
    // Earlier ones are looked at again now and then: whoever breaks them is not far.
    const looked = known.slice(-5)
    return violations(stored, looked, { quiet: true, history, received: world.received })
  }

  return {
    async record(scenario) {
      await world.plan(null)
      const { upload, told } = await begin(scenario)
      const said = await within(told, SETTLE_MS, 'an undisturbed run')
      const found = await check(upload, said)
      if (found.length > 0) throw new Error(`without any kill:\n${found.join('\n')}`)
      const points = world.calls()
      const half = await begin(scenario)
      await world.server.kill('SIGKILL')
      await world.restart({ name: 'never', nth: 1, when: 'before' })
      const saidLater = await within(half.told, SETTLE_MS, 'a run with one kill')
      const starting = world.calls()
      await check(half.upload, saidLater)
      return { points, starting }
    },

    async run(run) {
      const { scenario, kill, variant } = run
      const startMs = performance.now()
      let losses: Losses | null = null
      const result = (outcome: Result['outcome'], found: readonly string[] = []): Result => ({
        ...run,
        outcome,
        violations: found,
        losses,
        tookMs: performance.now() - startMs,
      })
      try {
        if (ONLY_AT_FIRST.test(kill.name) || runs >= MOST_OF_A_WORLD) await renew()
        runs += 1
        world.proxy.forget()
        await world.plan(kill)
        const { server } = world
        const beginning = begin(scenario)
        beginning.catch(() => {})
        const ended = server.exited.then(() => 'died' as const)
        const first = await within(
          Promise.race([ended, beginning.then(({ told }) => told).then(() => 'told' as const)]),
          SETTLE_MS,
          'the run',
        )
        if (first === 'told' && server.running) {
          // What comes after the answer: effects, completion.
          const stored = world.untilQuiet().then(() => 'quiet' as const)
          const second = await Promise.race([ended, stored.catch(() => 'quiet' as const)])
          // Killed after its last call, it may look quiet before its end is known here.
          if (second === 'quiet' && server.running && (await world.plan(null)) === 'planned') {
            const { upload, told } = await beginning
            const found = await check(upload, await told)
            return result(found.length > 0 ? 'bad' : 'not reached', found)
          }
        }
        await server.exited
        const begun = await within(beginning, SETTLE_MS, 'the beginning')
        const { upload, told } = begun
        let said: Known['told'] = null
        void told.then(
          (value) => (said = value),
          () => {},
        )
        if (variant.client === 'gone') await leave(begun)
        if (variant.power !== undefined) losses = await world.losePower(variant.power)
        if (variant.again !== undefined && (await world.restart(variant.again)) === 'ready') {
          await Promise.race([world.server.exited, world.untilQuiet().catch(() => {})])
          await world.server.kill('SIGKILL')
        }
        if (variant.powerAgain !== undefined) losses = await world.losePower(variant.powerAgain)
        await world.restart()
        if (variant.client === 'retries') said = await within(told, SETTLE_MS, 'what the user is told')
        const found = await check({ ...upload, attended: variant.client === 'retries' }, said)
        if (variant.client === 'gone') visited = await world.visit(browser)
        if (found.length > 0) await renew()
        return result(found.length > 0 ? 'bad' : 'ok', found)
      } catch (error) {
        const output = world.server.output().slice(-1_500)
        await renew()
        return result('bad', [`${error instanceof Error ? error.message : String(error)}\n${output}`])
      }
    },

    async close() {
      await leave()
      await world.close()
    },
  }
}
