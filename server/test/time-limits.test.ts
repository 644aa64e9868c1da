import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { kind } from '../src/kinds/kind.js'
import { content, eventually, newId, startServer, type TestServer } from './harness.js'

// Objects that only a timer refers to are collected during the test. Node 20 has lost time limits in this way.

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

let server: TestServer | undefined
let collecting: NodeJS.Timeout
beforeEach(() => {
  collecting = setInterval(collect, 50)
})
afterEach(async () => {
  clearInterval(collecting)
  await server?.close()
})

/** Hangs, and records when its signal fires. */
const hanging =
  (told: () => void) =>
  ({ signal }: { signal: AbortSignal }): Promise<null> =>
    new Promise((_resolve, reject) => {
      signal.addEventListener('abort', () => {
        told()
        reject(signal.reason as Error)
      })
    })

test.each(['prepare', 'onReference'] as const)('the signal of %s fires at its time limit', async (which) => {
  let isTold = false
  const hang = hanging(() => (isTold = true))
  server = await startServer({
    file: kind({
      prepareTimeoutMs: 400,
      onReferenceTimeoutMs: 400,
      ...(which === 'prepare' ? { prepare: { hang } } : {}),
      onReference: (_tx, context) => (which === 'onReference' ? hang(context) : Promise.resolve(null)),
    }),
  })
  const id = newId()
  await server.declare(id, { size: 10 })
  await server.patch(id, 0, content(10))
  await eventually(async () => isTold, Boolean)
})

test('the signal of onReference is one signal, however often it is asked for', async () => {
  const seen = new Set<AbortSignal>()
  server = await startServer({
    file: kind({
      async onReference(_tx, context) {
        const { signal } = context
        seen.add(signal).add(context.signal).add(context.signal)
        return null
      },
    }),
  })
  const id = newId()
  await server.declare(id, { size: 10 })
  await server.patch(id, 0, content(10))
  expect(seen.size).toBe(1)
})
