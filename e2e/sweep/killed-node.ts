import { within } from '../ground/patience.js'
import type { Course } from './lane.js'
import { type NodesWorld, openNodesWorld } from './nodes-world.js'
import { STAKES } from './runs.js'
import { SETTLE_MS } from './upload.js'

/** One of three nodes is killed, or two of them one after the other, while the others continue to work. */
export const killedNode: Course<NodesWorld> = {
  open: openNodesWorld,

  async startingOf({ world, begin, check }, scenario, points) {
    const base = points.find(({ name }) => STAKES.test(name))
    if (base === undefined) return []
    await world.plan({ ...base, when: 'before' })
    const half = await begin(scenario)
    await within(world.struck(), SETTLE_MS, `${scenario.name}, one kill`)
    await world.plan(null)
    await check(half.upload, await within(half.told, SETTLE_MS, `${scenario.name}, one kill`))
    const starting = world.calls()
    await world.mend()
    return starting
  },

  async play({ world, begin, leave, comeBack, check }, { scenario, variant }) {
    const begun = await within(begin(scenario), SETTLE_MS, 'the beginning')
    const { upload, told } = begun
    const died = world.struck().then(() => 'died' as const)
    // What follows the answer: effects and completion.
    const over = told.then(() => world.untilQuiet()).then(() => 'quiet' as const)
    over.catch(() => {})
    if ((await within(Promise.race([died, over]), SETTLE_MS, 'the run')) === 'quiet') {
      const found = await check(upload, await told)
      await world.mend()
      return { found, isReached: false }
    }
    if (variant.again !== undefined) await world.plan(variant.again)
    if (variant.client === 'gone') await leave(begun)
    const said = variant.client === 'gone' ? null : await within(told, SETTLE_MS, 'what the user is told')
    const look = (): Promise<string[]> => check({ ...upload, attended: variant.client === 'retries' }, said)
    const found = await look()
    await world.mend()
    // The second node may have been killed only now, while it started.
    if (variant.again !== undefined && found.length === 0) found.push(...(await look()))
    if (variant.client === 'gone') await comeBack()
    return { found, isReached: true }
  },
}
