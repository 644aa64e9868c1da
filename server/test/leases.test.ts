import { afterEach, expect, test } from 'vitest'
import { systemClock } from '../src/sequence/clock.js'
import { kind } from '../src/kinds/kind.js'
import { createLeases } from '../src/sequence/leases.js'
import type { Ledger } from '../src/ports/ledger.js'
import type { LeasePurpose } from '../src/ports/ledger/leases.js'
import type { Tx } from './fixtures.js'
import { eventually, later, newId, silent, startServer, type TestServer } from './harness.js'

const LEASE_MS = 60

let server: TestServer
afterEach(() => server.close())

/** A lease on a real ledger. The test can run code before each renewal. */
async function hold(
  beforeRenewal: (ledger: Ledger<Tx>) => Promise<unknown>,
  purpose: LeasePurpose = 'drive',
  vanishedMs = 60_000,
) {
  server = await startServer({ file: kind({ onReference: async () => null }) })
  const id = newId()
  await server.declare(id, { size: 10 })
  const { ledger } = server
  const warnings: string[] = []
  const leases = createLeases({
    ledger: {
      ...ledger,
      async renew(asked, leaseMs) {
        await beforeRenewal(ledger)
        return ledger.renew(asked, leaseMs)
      },
    },
    clock: systemClock,
    log: { ...silent, warn: (_facts: unknown, text?: string) => void warnings.push(text ?? '') },
    holder: 'here',
    alone: () => true,
    leaseMs: LEASE_MS,
    vanishedMs,
  })
  const taken = await leases.take({ owner: 'ann', id }, purpose, 0)
  if (taken.outcome !== 'granted') throw new Error(taken.outcome)
  return { held: taken.held, leases, warnings }
}

test('a holder stops when another one has taken its lease', async () => {
  const { held, warnings } = await hold(async (ledger) => {
    await later(LEASE_MS + 10)
    await ledger.lease(held.lease, { holder: 'there', leaseMs: 60_000, purpose: 'drive' })
  })
  await eventually(async () => held.signal.aborted, Boolean)
  expect(warnings).toEqual(['a lease was lost'])
})

test('a lease that is released while it is being prolonged does not count as lost', async () => {
  let renewals = 0
  const { held, warnings } = await hold(async (ledger) => {
    if ((renewals += 1) > 1) return
    await ledger.record(held.lease, held.operation, { dueInMs: null, release: true })
    // A busy process learns late that its own commit has succeeded.
    setTimeout(() => held.end(), 300)
  })
  await eventually(
    async () => renewals,
    (n) => n === 1,
  )
  await later(600)
  expect(held.signal.aborted).toBe(false)
  expect(warnings).toEqual([])
})

test('a receiver stops when its client sends nothing for too long; one with a live client and one that drives do not', async () => {
  const vanished = await hold(async () => {}, 'receive', 100)
  await eventually(async () => vanished.held.signal.aborted, Boolean)
  await server.close()

  const alive = await hold(async () => {}, 'receive', 100)
  for (let n = 0; n < 12; n += 1) {
    alive.held.touch()
    await later(25)
  }
  expect(alive.held.signal.aborted).toBe(false)
  await server.close()

  const driving = await hold(async () => {}, 'drive', 50)
  await later(200)
  expect(driving.held.signal.aborted).toBe(false)
})

test('a receiver that is asked to stop while its last bytes arrive goes over to driving and is not stopped', async () => {
  const { held, leases } = await hold(async () => {}, 'receive')
  const asking = leases.settleReceiver(held.lease, { patienceMs: 0, waitMs: 500 })
  await eventually(async () => held.signal.aborted, Boolean)
  held.toDrive()
  expect(held.signal.aborted).toBe(false)
  expect(await asking).toBe(true)
})

test('a renewal that hangs does not keep leases from being prolonged', async () => {
  let renewals = 0
  const { held, leases, warnings } = await hold(async () => {
    renewals += 1
    if (renewals === 1) await new Promise(() => {})
  })
  await eventually(
    async () => renewals,
    (asked) => asked > 2,
  )
  expect(held.signal.aborted).toBe(false)
  expect(warnings).toEqual(['leases could not be prolonged'])
  expect((await server.ledger.find(held.lease))?.leaseHolder).toBe('here')
  held.end()
  await leases.close(0)
})
