/**
 * Unmodified clients of the tus ecosystem, with their default settings, against a server that finishes slowly or badly.
 *
 * All run at the same time, each with a server and a proxy of its own: most of the time they wait.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, test } from 'vitest'
import { CLIENTS, openStage, type Stage } from '../../clients/stock.js'
import { expectRejection, expectSuccess, nothing, type Situation } from './stock-course.js'

let stage: Stage
beforeAll(async () => {
  stage = await openStage()
}, 120_000)
afterAll(() => stage.close())

const resetEach10s: Situation['disturb'] = async ({ proxy }) => {
  const timer = setInterval(() => proxy.resetConnections(), 10_000)
  return () => clearInterval(timer)
}

/** The longest first: they begin in turn. */
const SITUATIONS: readonly Situation[] = [
  { name: 'prepare takes 180 s', settings: { prepareMs: 180_000 } },
  {
    name: 'prepare takes 180 s, connections are reset each 10 s',
    settings: { prepareMs: 180_000 },
    disturb: resetEach10s,
  },
  { name: 'prepare takes 60 s', settings: { prepareMs: 60_000 } },
  {
    name: 'prepare takes 60 s, connections are reset each 10 s',
    settings: { prepareMs: 60_000 },
    disturb: resetEach10s,
  },
  {
    name: 'the database is away for 20 s after the last byte',
    settings: { prepareMs: 1000 },
    async disturb(scenario) {
      const away = await scenario.takeDatabaseAway()
      await sleep(20_000)
      await away.release()
      return nothing
    },
  },
  { name: 'prepare takes 20 s', settings: { prepareMs: 20_000 } },
  { name: 'onReference throws twice', settings: { throws: 2 } },
  { name: 'the file is empty', settings: {}, sizeBytes: 0 },
  { name: 'the file is empty and prepare takes 3 s', settings: { prepareMs: 3000 }, sizeBytes: 0 },
]

const REJECTIONS: readonly Situation[] = [
  { name: 'after 20 s', settings: { reject: 'infected', prepareMs: 20_000 } },
  { name: 'at once', settings: { reject: 'infected' } },
  { name: 'of an empty file', settings: { reject: 'infected' }, sizeBytes: 0 },
]

const PATIENCE = { timeout: 480_000 }

describe.concurrent.each(CLIENTS)('%s', (_name, client) => {
  test.concurrent.each(SITUATIONS)('$name: success, not early, and once', PATIENCE, (situation) =>
    expectSuccess(stage, client, situation),
  )

  test.concurrent.each(REJECTIONS)('a rejection $name: an error, once, and nothing is kept', PATIENCE, (situation) =>
    expectRejection(stage, client, situation),
  )
})
