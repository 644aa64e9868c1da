import { faultCode, UploadError } from '../lib/errors.js'
import type { Clock } from '../ports/clock.js'
import type { Changes, LedgerLeases } from '../ports/ledger/leases.js'
import type { LedgerOperations } from '../ports/ledger/operations.js'
import { type Metrics, NO_METRICS } from '../ports/metrics.js'
import type { OperationRecord } from '../ports/operation.js'
import type { Held } from './leases.js'

/** Writes under one lease. It is the only writer of an operation while the lease is held. */
export interface Recorder {
  /** The operation as the ledger has it, plus what was noted. */
  view(): OperationRecord
  /** Changes that are already true and go into the next write. */
  noted(): Changes
  note(changes: Changes): void
  /** The operation as the ledger has it and nothing else: only this may be shown to others. */
  recorded(): OperationRecord
  /**
   * Records what was noted together with `changes`, by compare-and-set.
   *
   * The client's digest may arrive between the decision and the write. Then a noted verdict that was reached without
   * the digest is dropped. A `fact` is recorded all the same, a `decision` is not.
   *
   * @throws UploadError `lease-lost`: another holder has taken over, and nothing changed.
   * @throws DigestArrived: the decision was made without the digest and was not recorded. Decide again from the view.
   */
  write(changes: Changes, basis: Basis): Promise<OperationRecord>
  /** The same, with retries while the ledger is unavailable, because what is to be recorded is already true. */
  writeWithRetries(changes: Changes, basis: Basis, patienceMs: number): Promise<OperationRecord>
  /**
   * Reads the operation again after a write was refused, and drops verdicts that were reached without the digest.
   * @throws `lease-lost`
   */
  refused(): Promise<void>
}

/** What a write is based on: on something that has happened, or on the operation as it was seen. */
export type Basis = 'fact' | 'decision'

/** The client's digest arrived after a decision that was made without it. */
export class DigestArrived extends Error {
  override readonly name = 'DigestArrived'
}

const RETRY_MS = 250

export function createRecorder(
  ledger: LedgerOperations & LedgerLeases,
  clock: Clock,
  held: Held,
  metrics: Metrics = NO_METRICS,
): Recorder {
  let current = held.operation
  let noted: Changes = {}

  async function refused(): Promise<void> {
    const fresh = await ledger.find(held.lease)
    if (fresh?.leaseHolder !== held.lease.holder || fresh.point !== current.point || fresh.digest === current.digest) {
      metrics.count({ type: 'write-fenced', by: fresh?.point === 'cancelled' ? 'cancel' : 'holder' })
      throw new UploadError('lease-lost', 'another holder has taken over the operation')
    }
    current = fresh
    const { point: _point, content: _content, problem: _problem, cleanupDue: _cleanup, ...bytes } = noted
    noted = bytes
  }

  async function write(changes: Changes, basis: Basis): Promise<OperationRecord> {
    const written = await ledger.record(held.lease, current, { ...noted, ...changes })
    if (written !== null) {
      noted = {}
      return (current = written)
    }
    await refused()
    if (basis === 'decision') throw new DigestArrived()
    return write(changes, basis)
  }

  return {
    view: () => ({ ...current, ...visible(noted) }),
    noted: () => noted,
    recorded: () => current,
    note: (changes) => void (noted = { ...noted, ...changes }),
    write,
    refused,
    async writeWithRetries(changes, basis, patienceMs) {
      for (const deadline = clock.monotonicMs() + patienceMs; ;) {
        try {
          return await write(changes, basis)
        } catch (error) {
          if (error instanceof DigestArrived || (error instanceof UploadError && error.code === 'lease-lost'))
            throw error
          if (clock.monotonicMs() > deadline) throw error
          await clock.sleep(RETRY_MS)
        }
      }
    },
  }
}

/**
 * Asks again while the ledger is unavailable, for a limited time: a late answer costs less than sending the bytes
 * again.
 */
export async function askWithRetries<T>(ask: () => Promise<T>, clock: Clock, patienceMs: number): Promise<T> {
  for (const deadline = clock.monotonicMs() + patienceMs; ; await clock.sleep(RETRY_MS)) {
    try {
      return await ask()
    } catch (error) {
      if (faultCode(error) !== 'ledger-unavailable' || clock.monotonicMs() > deadline) throw error
    }
  }
}

/** Those of the changes that can be seen in a record before they are recorded. */
function visible({ point, offset, blobState, content, tailBase, cleanupDue }: Changes): Partial<OperationRecord> {
  return {
    ...(point === undefined ? {} : { point }),
    ...(offset === undefined ? {} : { offset }),
    ...(blobState === undefined ? {} : { blobState }),
    ...(content === undefined ? {} : { content }),
    ...(tailBase === undefined ? {} : { tailBase }),
    ...(cleanupDue === undefined ? {} : { cleanupDue }),
  }
}
