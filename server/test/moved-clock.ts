import { sql } from 'drizzle-orm'
import { systemClock } from '../src/sequence/clock.js'
import type { Clock } from '../src/ports/clock.js'
import type { Ledger } from '../src/ports/ledger.js'
import { startServer, type TestServer } from './harness.js'

const TIMES = {
  landfall_operations: [
    'created_at',
    'updated_at',
    'expires_at',
    'due_at',
    'lease_expires_at',
    'digest_due_at',
    'received_at',
  ],
  landfall_effects: ['created_at', 'due_at', 'delivered_at', 'given_up_at'],
}

/**
 * A server whose wall clock can be set, also that of SQLite. SQLite's clock cannot be moved, so stored times are moved:
 * a clock that is ahead is the same as stored times that are earlier by this amount, which is added when they are read.
 */
export async function startWithMovedClock(
  kinds: Parameters<typeof startServer>[0],
  options: Parameters<typeof startServer>[1] = {},
) {
  let aheadMs = 0
  let passedMs = 0
  const clock: Clock = {
    ...systemClock,
    now: () => Date.now() + aheadMs,
    monotonicMs: () => performance.now() + passedMs,
  }
  const server = await startServer(kinds, {
    clock,
    ledgerOf: (ledger) => readAhead(ledger, () => aheadMs),
    ...options,
  })

  /** Sets the clock without any time passing. */
  async function jump(ms: number): Promise<void> {
    await moveBack(server, ms)
    aheadMs += ms
  }
  return {
    server,
    now: clock.now,
    jump,
    /** Lets time pass on all clocks. */
    async pass(ms: number): Promise<void> {
      await jump(ms)
      passedMs += ms
    },
  }
}

async function moveBack(server: TestServer, ms: number): Promise<void> {
  for (const [table, columns] of Object.entries(TIMES))
    await server.db.run(sql.raw(`UPDATE ${table} SET ${columns.map((name) => `${name} = ${name} - ${ms}`).join(', ')}`))
  await server.db.run(
    sql.raw(`UPDATE landfall_meta SET value = CAST(value AS INTEGER) - ${ms} WHERE key IN ('heartbeat', 'clock')`),
  )
  await server.db.run(sql`UPDATE landfall_meta SET value = (SELECT json_group_array(json_object(
    'at', value ->> 'at' - ${ms}, 'byMs', value ->> 'byMs')) FROM json_each(landfall_meta.value)) WHERE key = 'clock_steps'`)
}

/** These methods are passed on unchanged, because leases are compared by identity and contain no times. */
const AS_THEY_ARE = new Set(['renew', 'onChange'])

function readAhead<Tx>(ledger: Ledger<Tx>, aheadMs: () => number): Ledger<Tx> {
  const add = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(add)
    if (typeof value !== 'object' || value === null) return value
    return Object.fromEntries(
      Object.entries(value).map(([name, inner]) => [
        name,
        name.endsWith('At') && typeof inner === 'number' ? inner + aheadMs() : add(inner),
      ]),
    )
  }
  const methods = Object.entries(ledger).map(([name, method]: [string, (...args: unknown[]) => unknown]) => [
    name,
    AS_THEY_ARE.has(name) ? method : async (...args: unknown[]) => add(await method(...args)),
  ])
  return {
    ...(Object.fromEntries(methods) as Ledger<Tx>),
    attendedMs: (sinceAt) => ledger.attendedMs(sinceAt - aheadMs()),
  }
}
