/** `close` ends within its time limit, whatever hangs. */
import { expect, test } from 'vitest'
import { kind } from '../src/kinds/kind.js'
import type { Ledger } from '../src/ports/ledger.js'
import { content, later, newId, startServer, type TestServer } from './harness.js'
import type { Tx } from './fixtures.js'

const WITHIN_MS = 500
/** Extra time for a busy machine. */
const MARGIN_MS = 1_000

async function closing(server: TestServer): Promise<number> {
  const fromMs = performance.now()
  await server.uploads.close({ withinMs: WITHIN_MS })
  return performance.now() - fromMs
}

let held: (() => void)[] = []
const never = <T>(): Promise<T> =>
  new Promise<T>((_resolve, reject) => held.push(() => reject(new Error('the test is over'))))
/** Releases what hangs, so that the next test does not wait for it. */
async function end(server: TestServer): Promise<void> {
  for (const release of held) release()
  held = []
  await server.close()
}

test.each(['leaseDue', 'nextDueInMs', 'complete', 'heartbeat', 'advanceMark', 'renew'] as const)(
  'close ends in time while %s of the ledger hangs',
  async (call) => {
    let hangs = false
    const server = await startServer(
      { file: kind({ onReference: async () => null }) },
      {
        completer: 'automatic',
        completerIntervalMs: 20,
        leaseMs: 1_000,
        ledgerOf: (ledger: Ledger<Tx>): Ledger<Tx> => ({
          ...ledger,
          [call]: (...args: never[]) => (hangs ? never() : Reflect.apply(ledger[call], ledger, args)),
        }),
      },
    )
    hangs = true
    await later(100)
    expect(await closing(server)).toBeLessThan(WITHIN_MS + MARGIN_MS)
    hangs = false
    await end(server)
  },
)

test('close ends in time while a hook, a prepare step and an effect hang and ignore their signal', async () => {
  const hooks = { prepare: 0, onReference: 0, effect: 0 }
  const hang = (which: keyof typeof hooks) => (): Promise<never> => {
    hooks[which] += 1
    return never()
  }
  const server = await startServer(
    {
      prepared: kind({ prepare: { scan: hang('prepare') }, onReference: async () => null }),
      hooked: kind({ onReference: hang('onReference') }),
      effective: kind({ onReference: async () => null, effects: { tell: hang('effect') } }),
    },
    { completer: 'automatic', completerIntervalMs: 20 },
  )
  for (const name of ['prepared', 'hooked', 'effective']) {
    const id = newId()
    await server.declare(id, { size: 10 }, { kind: name })
    void server.patch(id, 0, content(10))
  }
  for (const deadline = Date.now() + 5_000; Object.values(hooks).includes(0) && Date.now() < deadline;) await later(20)
  expect(Object.values(hooks)).not.toContain(0)
  expect(await closing(server)).toBeLessThan(WITHIN_MS + MARGIN_MS)
  await end(server)
})

test('close ends in time while a client waits for the digest of a long prefix, and that client gets 503', async () => {
  const size = 400 * 1024 * 1024
  const server = await startServer({ file: kind({ onReference: async () => null }) })
  const id = newId()
  await server.declare(id, { size: size + 1 })
  const chunk = content(4 * 1024 * 1024)
  let sent = 0
  const body = new ReadableStream<Uint8Array>({
    pull(controller) {
      if (sent >= size) return controller.close()
      sent += chunk.length
      controller.enqueue(chunk)
    },
  })
  expect((await server.patch(id, 0, body)).status).toBe(204)
  // Bytes are hashed while they arrive. After a restart this hash is gone, so the prefix must be read again.
  await server.restart()
  const asked = server.request('GET', `/operations/${id}/prefix`)
  await later(50)
  expect(await closing(server)).toBeLessThan(WITHIN_MS + MARGIN_MS)
  expect((await asked).status).toBe(503)
  await server.close()
}, 120_000)
