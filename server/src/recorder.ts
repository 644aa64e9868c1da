import { UploadError } from './errors.js'
import type { Held } from './leases.js'
import type { Changes, Clock, Ledger, OperationRecord } from './ports.js'

/** Writes under one lease: the only writer of an operation while it is held. */
export interface Recorder {
  /** As the ledger has it, with what was noted. */
  view(): OperationRecord
  /** What is true already, and goes into the next write. */
  noted(): Changes
  note(changes: Changes): void
  /**
   * Records what was noted and `changes`, by compare-and-set.
   *
   * @throws UploadError `lease-lost`: somebody else has taken over, and nothing changed.
   * @throws DigestArrived: nothing was recorded, because the client's digest has arrived and a verdict was noted
   *   without it. The view is without the verdict then: go on from there.
   */
  write(changes: Changes): Promise<OperationRecord>
  /** The same, patiently: a ledger that is away is waited for, because what is to be recorded is already true. */
  writePatiently(changes: Changes, patienceMs: number): Promise<OperationRecord>
  /** Reads again after a write was refused. @throws as `write`. */
  refused(): Promise<void>
}

/** The client's digest came while its operation was being verified. */
export class DigestArrived extends Error {
  override readonly name = 'DigestArrived'
}

const RETRY_MS = 250

export function createRecorder(ledger: Ledger<unknown>, clock: Clock, held: Held): Recorder {
  let current = held.operation
  let noted: Changes = {}

  async function refused(): Promise<void> {
    const fresh = await ledger.find(held.lease)
    if (fresh?.leaseHolder !== held.lease.holder || fresh.point !== current.point || fresh.digest === current.digest)
      throw new UploadError('lease-lost', 'another holder has taken over the operation')
    current = fresh
    const { point: _point, content: _content, ...bytes } = noted
    const judged = noted.point !== undefined || noted.content !== undefined
    noted = bytes
    if (judged) throw new DigestArrived()
  }

  async function write(changes: Changes): Promise<OperationRecord> {
    const written = await ledger.record(held.lease, current, { ...noted, ...changes })
    if (written !== null) {
      noted = {}
      return (current = written)
    }
    if (changes.point !== undefined) noted = { ...noted, point: changes.point }
    await refused()
    return write(changes)
  }

  return {
    view: () => ({ ...current, ...visible(noted) }),
    noted: () => noted,
    note: (changes) => void (noted = { ...noted, ...changes }),
    write,
    refused,
    async writePatiently(changes, patienceMs) {
      for (const deadline = clock.monotonicMs() + patienceMs; ;) {
        try {
          return await write(changes)
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

/** Which of the changes can be seen in a record before they are recorded. */
function visible({ point, offset, content, tailBase }: Changes): Partial<OperationRecord> {
  return {
    ...(point === undefined ? {} : { point }),
    ...(offset === undefined ? {} : { offset }),
    ...(content === undefined ? {} : { content }),
    ...(tailBase === undefined ? {} : { tailBase }),
  }
}
