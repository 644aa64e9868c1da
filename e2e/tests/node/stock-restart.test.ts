/**
 * The same clients while the server is killed and restarted. This is a file of its own, because their retries end after
 * nine seconds: the machine must have time to start a server.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, test } from 'vitest'
import { CLIENTS, openStage, type Stage } from '../../clients/stock.js'
import { expectSuccess, isPatch, nothing } from './stock-course.js'

let stage: Stage
beforeAll(async () => {
  stage = await openStage()
}, 120_000)
afterAll(() => stage.close())

describe.concurrent.each(CLIENTS)('%s', (_name, client) => {
  test(
    'if the server is killed and restarted while it prepares, success is reported once, and not before the reference',
    { timeout: 180_000 },
    () =>
      expectSuccess(stage, client, {
        name: 'restart',
        settings: { prepareMs: 20_000 },
        async disturb({ proxy, kill, restart }) {
          // Chromium would repeat a PATCH without an answer completely, whatever the server does.
          await proxy.waitFor((request) => isPatch(request) && request.status !== null, 60_000)
          await sleep(5000)
          await kill()
          await restart()
          return nothing
        },
      }),
  )
})
