import { faultCode, UploadError } from '../lib/errors.js'
import type { Held } from './leases.js'
import { NO_METRICS } from '../operate/metering.js'
import type { Changes, LedgerLeases } from '../ports/ledger/leases.js'
import type { Clock } from '../ports/clock.js'
import type { Metrics } from '../ports/metrics.js'
import type { OperationRecord } from '../ports/operation.js'
import type { LedgerOperations } from '../ports/ledger/operations.js'

/** Writes under one lease: the only writer of an operation while it is held. */
export interface Recorder {
  /** As the ledger has it, with what was noted. */
  view(): OperationRecord
  /** What is true already, and goes into the next write. */
  noted(): Changes
  note(changes: Changes): void
  /** As the ledger has it, and nothing else: what may be told to others. */
  recorded(): OperationRecord
  /**
   * Records what was noted and `changes`, by compare-and-set.
   *
   * The client's digest may arrive meanwhile. Then a verdict that was noted without it is dropped; a `fact` is recorded
   * all the same, a `decision` is not.
   *
   * @throws UploadError `lease-lost`: somebody else has taken over, and nothing changed.
   * @throws DigestArrived: decided without the digest, and not recorded: decide again from the view.
   */
  write(changes: Changes, basis: Basis): Promise<OperationRecord>
  /** The same, patiently: a ledger that is away is waited for, because what is to be recorded is already true. */
  writePatiently(changes: Changes, basis: Basis, patienceMs: number): Promise<OperationRecord>
  /** Reads again after a write was refused, and drops what was judged without the digest. @throws `lease-lost` */
  refused(): Promise<void>
}

/** What a write rests on: on what has happened, or on the operation as it was seen. */
export type Basis = 'fact' | 'decision'

/** The client's digest came after something was decided without it. */
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
    async writePatiently(changes, basis, patienceMs) {
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

/** Asks again while the ledger is away, for a time: what is answered late costs less than what is sent again. */
export async function askPatiently<T>(ask: () => Promise<T>, clock: Clock, patienceMs: number): Promise<T> {
  for (const deadline = clock.monotonicMs() + patienceMs; ; await clock.sleep(RETRY_MS)) {
    try {
      return await ask()
    } catch (error) {
      if (faultCode(error) !== 'ledger-unavailable' || clock.monotonicMs() > deadline) throw error
    }
  }
}

/** Which of the changes can be seen in a record before they are recorded. */
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
