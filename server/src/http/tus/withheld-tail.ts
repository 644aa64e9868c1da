import { isOpen, isReferenced, problem } from '@landfall/shared'
import { ProblemError } from '../../lib/problem-error.js'
import type { OperationRecord } from '../../ports/operation.js'

/**
 * The withheld tail: the offset that stock tus clients are shown between the last durable byte and the reference.
 *
 * A stock client takes offset = length for success, starts the upload again after most failures of a HEAD, and renews
 * its few retries only when an offset has grown. So the offset that it sees stays below the length, and grows: at first
 * by one byte a second, later by one byte every four seconds, so that the tail lasts for 20 minutes. Found by running
 * tus-js-client 4.3.1 and Uppy 6 against finalisations of up to 180 s.
 */
export function shownOffset(operation: OperationRecord, now: number): number {
  const { size } = operation.file
  if (isReferenced(operation.point)) return size
  if (operation.offset < size || size === 0) return operation.offset
  // For a rejected operation the offset stays short permanently: PATCH tells the client why, and it must not take HEAD
  // for a success.
  const base = operation.tailBase ?? size - 1
  const seconds = Math.max(0, Math.floor((now - (operation.receivedAt ?? now)) / 1000))
  return Math.max(0, Math.min(size - 1, base + grown(seconds)))
}

const QUICK_SECONDS = 180
const grown = (seconds: number): number =>
  Math.min(seconds, QUICK_SECONDS) + Math.floor(Math.max(0, seconds - QUICK_SECONDS) / 4)

/** Whether a PATCH at this offset asks for the withheld tail, whose bytes the server has already. */
export const asksForTail = (operation: OperationRecord, offset: number): boolean =>
  operation.offset === operation.file.size && offset >= (operation.tailBase ?? 0) && offset <= operation.file.size

/** Nothing more will happen that a waiting stock client needs to know. */
export const isSettled = (operation: OperationRecord): boolean => !isOpen(operation.point)

/**
 * How long the request that brings the last byte waits for the reference before a stock client gets the withheld tail.
 */
export const COMPLETING_WAIT_MS = 2_000

/** Final without a stored file. A rejected operation still has a status, whose offset stays short. */
export const isGone = (operation: OperationRecord): boolean =>
  operation.point === 'cancelled' || operation.point === 'expired' || operation.removedAt !== null

/** tus 1.0.0, "Termination": 404 or 410 for an upload that is gone. A rejection is answered with 422 and its reason. */
export function goneAs(operation: OperationRecord): ProblemError {
  const why = operation.problem ?? problem('not-found')
  return new ProblemError({ ...why, status: operation.point === 'rejected' ? 422 : 410 })
}
