import assert from 'node:assert/strict'
import { v7 as uuidv7 } from 'uuid'
import type { Ledger } from '../../ports/ledger.js'
import type { OwedEffect } from '../../ports/ledger/effects.js'
import type { Changes, Lease } from '../../ports/ledger/leases.js'
import type { Intent } from '../../ports/ledger/operations.js'
import type { OperationKey, OperationRecord } from '../../ports/operation.js'

/** A ledger on an empty database, which also has a table of the application's own. */
export interface LedgerFixture<Tx> {
  readonly ledger: Ledger<Tx>
  /** Another ledger on the same database, as another process would have it. */
  another(): Promise<Ledger<Tx>>
  /** Writes a row of the application through its transaction. */
  write(tx: Tx, text: string): Promise<void>
  /** The committed rows of the application. */
  written(): Promise<string[]>
  /** Runs `body` in a transaction of the application. */
  transaction<T>(body: (tx: Tx) => Promise<T>): Promise<T>
  dispose(): Promise<void>
}

/** Registers a case. The case gets a fixture whose ledger is migrated. */
export type On<Tx> = (name: string, body: (fixture: LedgerFixture<Tx>) => Promise<void>) => void

export const later = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

export const intentOf = (changes: Partial<Intent> = {}): Intent => ({
  owner: 'ann',
  id: uuidv7(),
  kind: 'photo',
  file: { name: 'a.png', size: 100, type: 'image/png' },
  metadata: { album: '1' },
  validated: { album: '1' },
  uploadMetadata: null,
  facts: 'facts',
  digest: null,
  blobKey: uuidv7().replaceAll('-', ''),
  expiresAfterMs: 60_000,
  maxOpenPerOwner: 100,
  quotaBytes: null,
  quotaFiles: null,
  rate: null,
  ...changes,
})

export const LEASE_MS = 30_000
export const TAKING = { holder: 'n1', leaseMs: LEASE_MS, limit: 10 }
/** What a process that has just started passes to `settleClock`. */
export const LOOK = { passedMs: 0, disturbed: false, leaseMs: LEASE_MS, effectLeaseMs: LEASE_MS, longestPauses: null }
export const DELIVERED = { outcome: 'delivered' } as const
export const DIGEST = 'sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:' as const
export const OTHER_DIGEST = 'sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:' as const
export const CONTENT = { digest: DIGEST, type: 'image/png' }

export const accept = async (): Promise<{ outcome: 'accepted'; data: null }> => ({ outcome: 'accepted', data: null })
export const reference = (changes: Changes) => ({
  changes,
  content: CONTENT,
  digestSource: 'server' as const,
  timeLimitMs: 5_000,
  effects: [],
})
export const request = (holder: string, purpose: 'receive' | 'drive', leaseMs = LEASE_MS) => ({
  holder,
  purpose,
  leaseMs,
})

export function pick<T extends object, K extends keyof T>(from: T, keys: readonly K[]): Pick<T, K> {
  return Object.fromEntries(keys.map((key) => [key, from[key]])) as Pick<T, K>
}

export async function get(ledger: Ledger<unknown>, { owner, id }: OperationKey): Promise<OperationRecord> {
  return (await ledger.find({ owner, id })) ?? assert.fail('no such operation')
}

export async function declared(ledger: Ledger<unknown>, changes: Partial<Intent> = {}): Promise<{ key: OperationKey }> {
  const intent = intentOf(changes)
  const { outcome } = await ledger.declare(intent)
  assert.equal(outcome, 'created')
  return { key: { owner: intent.owner, id: intent.id } }
}

export async function take(
  ledger: Ledger<unknown>,
  key: OperationKey,
  holder: string,
  purpose: 'receive' | 'drive' = 'receive',
  leaseMs = LEASE_MS,
): Promise<Lease> {
  const taken = await ledger.lease(key, request(holder, purpose, leaseMs))
  if (taken.outcome !== 'granted') return assert.fail(`the lease was ${taken.outcome}`)
  return taken.lease
}

export async function dueIn(ledger: Ledger<unknown>, ms: number, changes: Changes = {}): Promise<OperationKey> {
  const { key } = await declared(ledger)
  const lease = await take(ledger, key, 'setup')
  await ledger.record(lease, await get(ledger, key), { ...changes, dueInMs: ms, release: true })
  return key
}

export async function referenced(ledger: Ledger<unknown>, changes: Partial<Intent> = {}): Promise<OperationRecord> {
  const { key } = await declared(ledger, changes)
  const lease = await take(ledger, key, 'setup', 'drive')
  await ledger.refer(lease, await get(ledger, key), reference({ offset: 100, tailBase: 0, point: 'verified' }), accept)
  return get(ledger, key)
}

export const owed = (name: string): OwedEffect => ({
  effectId: uuidv7(),
  name,
  type: 'function',
  payload: ({ digest }) => ({ digest }),
})

/** Makes a reference that owes these effects. */
export async function owing(ledger: Ledger<unknown>, names: readonly string[]): Promise<OperationRecord> {
  const { key } = await declared(ledger)
  const lease = await take(ledger, key, 'setup', 'drive')
  const intent = { ...reference({ offset: 100, tailBase: 0, point: 'verified' }), effects: names.map(owed) }
  await ledger.refer(lease, await get(ledger, key), intent, accept)
  return get(ledger, key)
}
