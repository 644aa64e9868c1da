import type { Browser } from '@playwright/test'
import { visitAlone } from '../clients/page.js'
import { within } from '../ground/patience.js'
import { type History, type Known, newHistory, violations } from './invariants.js'
import type { Losses } from './power.js'
import type { Result, Run } from './runs.js'
import type { Begun, Scenario } from './scenarios.js'
import { beginUpload, type BegunUpload, knownOf, SETTLE_MS } from './upload.js'
import type { Point, World } from './world.js'

/** Runs that follow one another in one world. The stored data grows with them. */
export interface Lane {
  /** The calls of a run that nothing disturbs, and those of a start after the server was killed. */
  record(scenario: Scenario): Promise<{ points: Point[]; starting: Point[] }>
  run(run: Run): Promise<Result>
  close(): Promise<void>
}

/** What the course of a run can use. */
export interface RunContext<W extends World> {
  readonly world: W
  begin(scenario: Scenario): Promise<BegunUpload>
  /** The client of that upload goes away permanently, and so does the page. */
  leave(begun?: Begun): Promise<void>
  /** Opens the page of another client. */
  comeBack(): Promise<void>
  /** Waits until nothing changes any more, and returns the invariants that are broken. */
  check(upload: Known, told: Known['told']): Promise<string[]>
}

/** How servers of one kind are killed and come back. */
export interface Course<W extends World> {
  open(): Promise<W>
  /**
   * The calls of a start after a kill, during one upload of this scenario. `points` are the calls of an undisturbed
   * run.
   */
  startingOf(context: RunContext<W>, scenario: Scenario, points: readonly Point[]): Promise<Point[]>
  /** Whether the call of this run happens only in a new world. */
  isOnlyAtFirst?(run: Run): boolean
  /** Plays the run. The kill is planned already. Returns what is wrong, and whether the kill happened. */
  play(
    context: RunContext<W>,
    run: Run,
  ): Promise<{ found: readonly string[]; isReached: boolean; losses?: Losses | null }>
}

/** How many runs one world has. Each check reads everything, and that grows with each run. */
const MOST_OF_A_WORLD = 60

export async function openLaneOn<W extends World>(
  browser: Browser,
  firstSeed: number,
  course: Course<W>,
): Promise<Lane> {
  let world = await course.open()
  let visited = await visitAlone(browser, world.site)
  let history: History = newHistory()
  let known: Known[] = []
  let runs = 0
  let seed = firstSeed

  const context: RunContext<W> = {
    get world() {
      return world
    },
    begin: (scenario) => beginUpload(scenario, { page: visited.page, origin: world.proxy.origin }, (seed += 1)),
    async leave(begun) {
      begun?.leave?.()
      await visited.context.close()
    },
    async comeBack() {
      visited = await visitAlone(browser, world.site)
    },
    async check(upload, told) {
      const stored = await world.untilQuiet()
      known.push(knownOf(upload, told, world.proxy))
      // Earlier uploads are checked again a few times, because what breaks them happens soon after them.
      return violations(stored, known.slice(-5), { quiet: true, history, received: world.received })
    },
  }

  /** After a failure, nothing of the old world is used. */
  async function renew(): Promise<void> {
    await context.leave().catch(() => {})
    await world.close().catch(() => {})
    world = await course.open()
    await context.comeBack()
    history = newHistory()
    known = []
    runs = 0
  }

  return {
    async record(scenario) {
      world.proxy.forget()
      await world.plan(null)
      const { upload, told } = await context.begin(scenario)
      const found = await context.check(upload, await within(told, SETTLE_MS, `${scenario.name}, undisturbed`))
      if (found.length > 0) throw new Error(`without any kill:\n${found.join('\n')}`)
      const points = world.calls()
      return { points, starting: await course.startingOf(context, scenario, points) }
    },

    async run(run) {
      const startMs = performance.now()
      const result = (outcome: Result['outcome'], found: readonly string[], losses: Losses | null): Result => ({
        ...run,
        outcome,
        violations: found,
        losses,
        tookMs: performance.now() - startMs,
      })
      try {
        if (course.isOnlyAtFirst?.(run) === true || runs >= MOST_OF_A_WORLD) await renew()
        runs += 1
        world.proxy.forget()
        await world.plan(run.kill)
        const { found, isReached, losses = null } = await course.play(context, run)
        if (found.length > 0) await renew()
        return result(found.length > 0 ? 'bad' : isReached ? 'ok' : 'not reached', found, losses)
      } catch (error) {
        const output = world.output()
        await renew()
        return result('bad', [`${error instanceof Error ? error.message : String(error)}\n${output}`], null)
      }
    },

    async close() {
      await context.leave()
      await world.close()
    },
  }
}
