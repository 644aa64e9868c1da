/**
 * The same clients while the server is killed and restarted. Apart from the others, because their few retries end after
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
  test('the server is killed and restarted while it prepares: success, not early, and once', { timeout: 180_000 }, () =>
    expectSuccess(stage, client, {
      name: 'restart',
      settings: { prepareMs: 20_000 },
      async disturb({ proxy, kill, restart }) {
        // Chromium would send a PATCH that has no answer again whole, whatever the server does.
        await proxy.waitFor((request) => isPatch(request) && request.status !== null, 60_000)
        await sleep(5000)
        await kill()
        await restart()
        return nothing
      },
    }),
  )
})
