import { afterEach, expect, test } from 'vitest'
import { intentOf } from '../src/contract/ledger.js'
import { kind } from '../src/kinds/kind.js'
import { photos, type Tx } from './fixtures.js'
import { eventually, startServer, type TestServer } from './harness.js'

let server: TestServer
afterEach(() => server.close())

// There are several times as many operations as workers, and the completer searches by itself only once a minute.
test('due operations beyond the number of workers are taken as soon as a worker is free', async () => {
  const file = kind({
    onReference: async (tx: Tx, { operation }) => {
      await tx.insert(photos).values({ name: operation.id })
      return null
    },
  })
  server = await startServer({ photo: file }, { completer: 'automatic', completerIntervalMs: 60_000 })
  const intents = Array.from({ length: 50 }, () => intentOf({ file: { name: 'empty', size: 0, type: '' } }))
  await Promise.all(intents.map((intent) => server.ledger.declare(intent)))
  await server.restart()
  await eventually(server.photos, (written) => written.length === intents.length)
  expect((await server.photos()).toSorted()).toEqual(intents.map(({ id }) => id).toSorted())
})
