import { expect, test } from 'vitest'
import type { Held, Leases } from '../src/sequence/leases.js'
import type { BlobStore } from '../src/ports/blob-store.js'
import type { Ledger } from '../src/ports/ledger.js'
import type { OperationRecord } from '../src/ports/operation.js'
import { createReceive } from '../src/sequence/receive.js'
import { systemClock } from '../src/sequence/clock.js'
import { NO_METRICS } from '../src/ports/metrics.js'
import { silent } from './harness.js'

const declared = {
  id: 'a',
  owner: 'ann',
  point: 'declared',
  offset: 0,
  file: { size: 3 },
  blobKey: 'k',
  blobState: null,
  uncleanHolder: null,
  reference: null,
  removedAt: null,
} as unknown as OperationRecord

/** A node whose bytes are stored after its operation has come to `now` by another one. */
async function receiveLate(now: OperationRecord, exclusive: boolean): Promise<string[]> {
  const removed: string[] = []
  const held = {
    lease: { owner: 'ann', id: 'a', holder: 'slow', token: 1 },
    operation: declared,
    signal: new AbortController().signal,
    touch: () => {},
    end: () => {},
  } as unknown as Held
  const receive = createReceive({
    ledger: { find: async () => now } as unknown as Ledger<unknown>,
    blobs: {
      exclusive,
      append: async () => ({ outcome: 'kept', offset: 3, ended: 'whole' }),
      remove: async (key: string) => void removed.push(key),
    } as unknown as BlobStore,
    leases: { take: async () => ({ outcome: 'granted', held }) } as unknown as Leases,
    drive: async () => now,
    steps: { recover: async () => ({}) },
    clock: systemClock,
    log: silent,
    metrics: NO_METRICS,
    settings: { expiresAfterMs: 1_000, patienceMs: 0 },
  })
  const received = await receive({ owner: 'ann', id: 'a' }, { offset: 0, length: 3, source: (async function* () {})() })
  if (received.outcome === 'whole') await received.driven
  await new Promise(setImmediate)
  return removed
}

test('what a node of several stores after its operation was ended goes again, and nothing else does', async () => {
  const cancelled = { ...declared, point: 'cancelled' } as OperationRecord
  const referenced = { ...declared, point: 'referenced' } as OperationRecord
  expect(await receiveLate(cancelled, false)).toEqual(['k'])
  expect(await receiveLate({ ...referenced, removedAt: 1 }, false)).toEqual(['k'])
  expect(await receiveLate(referenced, false)).toEqual([])
  expect(await receiveLate({ ...declared, point: 'sealed' }, false)).toEqual([])
  expect(await receiveLate(cancelled, true)).toEqual([])
})
