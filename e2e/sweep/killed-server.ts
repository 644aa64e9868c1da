import { within } from '../ground/patience.js'
import type { Known } from './invariants.js'
import type { Course } from './lane.js'
import type { Losses } from './power.js'
import { SETTLE_MS } from './upload.js'
import { openWorld, type ServerWorld, type WorldOptions } from './world.js'

/** Calls that happen only with the first file of a store, or with the first file of some minutes. */
const ONLY_AT_FIRST = /^mkdir|^sync blobs(\/blobs(\/#)?)?$/

/** One server is killed, or its power is lost, and it starts again on what is left. In some runs this happens twice. */
export const killedServer = (options: WorldOptions): Course<ServerWorld> => ({
  open: () => openWorld(options),
  isOnlyAtFirst: ({ kill }) => ONLY_AT_FIRST.test(kill.name),

  async startingOf({ world, begin, check }, scenario) {
    const half = await begin(scenario)
    await world.server.kill('SIGKILL')
    await world.restart({ name: 'never', nth: 1, when: 'before' })
    const said = await within(half.told, SETTLE_MS, 'a run with one kill')
    const starting = world.calls()
    await check(half.upload, said)
    return starting
  },

  async play({ world, begin, leave, comeBack, check }, { scenario, variant }) {
    let losses: Losses | null = null
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
      // What follows the answer: effects and completion.
      const stored = world.untilQuiet().then(() => 'quiet' as const)
      const second = await Promise.race([ended, stored.catch(() => 'quiet' as const)])
      // If the server was killed after its last call, everything may look quiet before this process knows of the
      // server's end.
      if (second === 'quiet' && server.running && (await world.plan(null)) === 'planned') {
        const { upload, told } = await beginning
        return { found: await check(upload, await told), isReached: false }
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
    if (variant.client === 'gone') await comeBack()
    return { found, isReached: true, losses }
  },
})
