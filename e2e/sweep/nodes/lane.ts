import type { Browser, BrowserContext, Page } from '@playwright/test'
import { type History, type Known, newHistory, violations } from '../invariants.js'
import { type Lane, type Result, STAKES } from '../run.js'
import type { Begun, Scenario } from '../scenarios.js'
import { beginUpload, type BegunUpload, knownOf, SETTLE_MS, within } from '../upload.js'
import { type NodesWorld, openNodesWorld } from './world.js'

/** Of one world: what is looked at grows with each. */
const MOST_OF_A_WORLD = 60

/** Runs one after the other on three nodes and their data. Of those one is killed, or two, while the others go on. */
export async function openNodesLane(browser: Browser, firstSeed: number): Promise<Lane> {
  let world: NodesWorld = await openNodesWorld()
  let visited: { page: Page; context: BrowserContext } = await world.visit(browser)
  let history: History = newHistory()
  let known: Known[] = []
  let seed = firstSeed

  const begin = (scenario: Scenario): Promise<BegunUpload> =>
    beginUpload(scenario, { page: visited.page, origin: world.proxy.origin }, (seed += 1))

  async function leave(begun?: Begun): Promise<void> {
    begun?.leave?.()
    await visited.context.close()
  }

  /** After a failure nothing of the old world is trusted. */
  async function renew(): Promise<void> {
    await leave().catch(() => {})
    await world.close().catch(() => {})
    world = await openNodesWorld()
    visited = await world.visit(browser)
    history = newHistory()
    known = []
  }

  async function check(upload: Known, told: Known['told']): Promise<string[]> {
    const stored = await world.untilQuiet()
    known.push(knownOf(upload, told, world.proxy))
    // Earlier ones are looked at again now and then: whoever breaks them is not far.
    return violations(stored, known.slice(-5), { quiet: true, history, received: world.received })
  }

  return {
    async record(scenario) {
      world.proxy.forget()
      world.plan(null)
      const { upload, told } = await begin(scenario)
      const found = await check(upload, await within(told, SETTLE_MS, `${scenario.name}, undisturbed`))
      if (found.length > 0) throw new Error(`without any kill:\n${found.join('\n')}`)
      const points = world.calls()
      const base = points.find(({ name }) => STAKES.test(name))
      if (base === undefined) return { points, starting: [] }
      world.plan({ ...base, when: 'before' })
      const half = await begin(scenario)
      await within(world.struck(), SETTLE_MS, `${scenario.name}, one kill`)
      world.plan(null)
      await check(half.upload, await within(half.told, SETTLE_MS, `${scenario.name}, one kill`))
      const starting = world.calls()
      await world.mend()
      return { points, starting }
    },

    async run(run) {
      const { scenario, kill, variant } = run
      const startMs = performance.now()
      const result = (outcome: Result['outcome'], found: readonly string[] = []): Result => ({
        ...run,
        outcome,
        violations: found,
        losses: null,
        tookMs: performance.now() - startMs,
      })
      try {
        if (known.length >= MOST_OF_A_WORLD) await renew()
        world.proxy.forget()
        world.plan(kill)
        const begun = await within(begin(scenario), SETTLE_MS, 'the beginning')
        const { upload, told } = begun
        const died = world.struck().then(() => 'died' as const)
        // What comes after the answer: effects, completion.
        const over = told.then(() => world.untilQuiet()).then(() => 'quiet' as const)
        over.catch(() => {})
        if ((await within(Promise.race([died, over]), SETTLE_MS, 'the run')) === 'quiet') {
          const found = await check(upload, await told)
          await world.mend()
          return result(found.length > 0 ? 'bad' : 'not reached', found)
        }
        if (variant.again !== undefined) world.plan(variant.again)
        if (variant.client === 'gone') await leave(begun)
        const said = variant.client === 'gone' ? null : await within(told, SETTLE_MS, 'what the user is told')
        const look = (): Promise<readonly string[]> =>
          check({ ...upload, attended: variant.client === 'retries' }, said)
        const found = [...(await look())]
        await world.mend()
        // The second one may have been killed only now, while it started.
        if (variant.again !== undefined && found.length === 0) found.push(...(await look()))
        if (variant.client === 'gone') visited = await world.visit(browser)
        if (found.length > 0) await renew()
        return result(found.length > 0 ? 'bad' : 'ok', found)
      } catch (error) {
        const output = world.output()
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
