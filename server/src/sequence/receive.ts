import { isOpen, isReferenced, type Problem, problem } from '@landfall/shared'
import { faultCode, UploadError } from '../lib/errors.js'
import type { Logger } from '../lib/log.js'
import type { BlobStore } from '../ports/blob-store.js'
import type { Clock } from '../ports/clock.js'
import type { Changes, LedgerLeases } from '../ports/ledger/leases.js'
import type { LedgerOperations } from '../ports/ledger/operations.js'
import type { Metrics } from '../ports/metrics.js'
import type { OperationKey, OperationRecord } from '../ports/operation.js'
import type { Drive } from './drive.js'
import type { Held, Leases } from './leases.js'
import { createRecorder, type Recorder } from './recorder.js'
import { arrived, blobOf, rejected, type Steps } from './steps.js'

/** The result of a request that brings bytes. */
export type Received =
  /** All bytes that were taken are durable and acknowledged. The operation's offset says how far. */
  | { readonly outcome: 'acknowledged'; readonly operation: OperationRecord }
  /**
   * The last byte is durable. `acknowledged` resolves when the ledger has recorded that, `driven` when the operation
   * has been driven as far as possible.
   */
  | {
      readonly outcome: 'whole'
      readonly acknowledged: Promise<OperationRecord>
      readonly driven: Promise<OperationRecord>
      /** How many bytes this request brought. */
      readonly acceptedBytes: number
    }
  /** The request's offset is not the acknowledged one; nothing was taken. */
  | { readonly outcome: 'conflict'; readonly operation: OperationRecord }
  | { readonly outcome: 'refused'; readonly problem: Problem }
  /** Another request holds the operation, and did not release it in time. */
  | { readonly outcome: 'locked' }
  /** The operation takes no bytes (any more), or none from this request: see its point. */
  | { readonly outcome: 'closed' }

export type Receive = (
  key: OperationKey,
  request: { offset: number; length: number | null; source: AsyncIterable<Uint8Array> },
) => Promise<Received>

export interface ReceiveDeps {
  readonly ledger: LedgerOperations & LedgerLeases
  readonly blobs: BlobStore
  readonly leases: Leases
  readonly clock: Clock
  readonly log: Logger
  readonly metrics: Metrics
  readonly drive: Drive
  readonly steps: Pick<Steps, 'recover'>
  readonly settings: { readonly expiresAfterMs: number; readonly patienceMs: number }
}

const excess = problem('too-large', { detail: 'the request brings more bytes than the file has' })

/** How long a request waits until another one releases the operation. */
const LET_GO_MS = 3_500

/**
 * Step 2: takes bytes under the lease to receive, and records in the ledger what the blob store has made durable. The
 * request that brings the last byte drives the operation on under the same lease.
 */
export function createReceive(deps: ReceiveDeps): Receive {
  const { ledger, blobs, leases, clock, log, settings } = deps

  /** No new bytes arrived: the operation's expiry stays as it was. */
  const giveBack = (recorder: Recorder): Promise<OperationRecord> =>
    recorder.write({ dueAt: 'expiry', release: true }, 'fact')
  /** New bytes arrived: the expiry is postponed. */
  const alive = { expiresInMs: settings.expiresAfterMs, dueInMs: settings.expiresAfterMs, release: true } as const

  return async function receive(key, request) {
    const taken = await leases.take(key, 'receive', LET_GO_MS)
    if (taken.outcome === 'held') return { outcome: 'locked' }
    if (taken.outcome === 'closed') return { outcome: 'closed' }
    const { held } = taken
    const recorder = createRecorder(ledger, clock, held, deps.metrics)
    let handedOn = false
    try {
      if (recorder.view().uncleanHolder !== null)
        await recorder.write(await deps.steps.recover(recorder.view()), 'fact')
      const before = recorder.view()
      if (before.point !== 'declared' || before.offset === before.file.size) {
        handedOn = true
        void deps.drive(held, { recorder })
        return { outcome: 'closed' }
      }
      if (before.offset !== request.offset) return { outcome: 'conflict', operation: await giveBack(recorder) }
      if (request.offset + (request.length ?? 0) > before.file.size) {
        await giveBack(recorder)
        return { outcome: 'refused', problem: excess }
      }
      const received = await take(held, recorder, request.source)
      handedOn = received.outcome === 'whole'
      return received
    } catch (error) {
      if (faultCode(error) === 'lease-lost') {
        await removeAgain(held.operation)
        return { outcome: 'closed' }
      }
      // Bytes that were written since the last acknowledgement are not acknowledged. The next request cuts them off.
      if (!handedOn)
        await giveBack(recorder).catch((again: unknown) =>
          log.warn({ operationId: key.id, err: again }, 'a lease could not be given back'),
        )
      throw error
    } finally {
      if (!handedOn) held.end()
    }
  }

  async function take(held: Held, recorder: Recorder, source: AsyncIterable<Uint8Array>): Promise<Received> {
    const before = recorder.view()
    const appended = await blobs.append(blobOf(before), {
      offset: before.offset,
      source,
      signal: held.signal,
      onBytes: held.touch,
      acknowledge: (offset, state) => acknowledge(recorder, arrived(before, offset, state)),
    })
    if (appended.outcome === 'lost') {
      await recorder.write({ ...rejected(problem('bytes-lost')), dueInMs: 0, release: true }, 'fact')
      return { outcome: 'refused', problem: problem('bytes-lost') }
    }
    if (appended.ended === 'excess') {
      await giveBack(recorder)
      return { outcome: 'refused', problem: excess }
    }
    const truths = arrived(before, appended.offset, appended.state)
    if (appended.offset < before.file.size) {
      const operation = await recorder.writeWithRetries({ ...truths, ...alive }, 'fact', settings.patienceMs)
      return { outcome: 'acknowledged', operation }
    }
    const { promise: acknowledged, settle } = firstAnswer(before.file.size)
    recorder.note(truths)
    const driven = deps.drive(held, { recorder, onRecorded: settle })
    void driven.then((left) => (isEnded(left) ? removeAgain(left) : undefined))
    return { outcome: 'whole', acknowledged, driven, acceptedBytes: appended.offset - before.offset }
  }

  /**
   * An object that is stored with one PUT exists only when that PUT ends. If this node was suspended before that,
   * another node may have ended the operation and removed its bytes. Then this object was stored after the removal, and
   * is removed too. Only for a store that several nodes share, and only for an operation that is final.
   */
  async function removeAgain(left: OperationRecord): Promise<void> {
    if (blobs.exclusive) return
    try {
      const now = await ledger.find(left)
      const ended = now === null ? (await ledger.tombstone(left)) !== null : isEnded(now)
      if (ended) await blobs.remove(left.blobKey)
    } catch (error) {
      log.warn({ operationId: left.id, err: error }, 'a late object could not be removed and is left to reconcile')
    }
  }

  /** A ledger that is unavailable for a moment does not end an upload. A lost lease does. */
  async function acknowledge(recorder: Recorder, truths: Changes): Promise<boolean> {
    try {
      await recorder.write({ ...truths, expiresInMs: settings.expiresAfterMs }, 'fact')
      return true
    } catch (error) {
      if (error instanceof UploadError && error.code === 'lease-lost') throw error
      log.warn({ operationId: recorder.view().id, err: error }, 'a checkpoint could not be recorded')
      return false
    }
  }
}

/** Ended without bytes, permanently. */
const isEnded = ({ point, removedAt }: OperationRecord): boolean =>
  removedAt !== null || !(isOpen(point) || isReferenced(point))

/**
 * Resolves with the first record that contains all bytes, or that ends the operation. If the drive ends without such a
 * record, the ledger is unavailable, and a client must not hear of bytes that the ledger does not know.
 */
function firstAnswer(size: number): {
  promise: Promise<OperationRecord>
  settle: (operation: OperationRecord) => void
} {
  let settle = (_operation: OperationRecord): void => {}
  const promise = new Promise<OperationRecord>((resolve, reject) => {
    settle = (operation) =>
      operation.offset === size || !isOpen(operation.point)
        ? resolve(operation)
        : reject(new UploadError('ledger-unavailable', 'the last bytes could not be recorded'))
  })
  // It may be that no request waits for it any more.
  promise.catch(() => {})
  return { promise, settle }
}
