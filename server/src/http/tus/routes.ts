import {
  FILES,
  filePath,
  isOpen,
  isReferenced,
  problem,
  RECOVERY_POINT_HEADER,
  TUS_CONTENT_TYPE,
  VERSION_HEADER,
} from '@landfall/shared'
import { type Context, Hono } from 'hono'
import { bodyOf, refuseEncoded } from '../body.js'
import { type Env, keyOf } from '../context.js'
import type { SendFile } from '../files.js'
import { isTusHead, methodOf, withRetries } from '../with-retries.js'
import { absent } from '../../kinds/gone.js'
import type { Logger } from '../../lib/log.js'
import { ProblemError, refuse } from '../../lib/problem-error.js'
import type { Clock } from '../../ports/clock.js'
import type { LedgerOperations } from '../../ports/ledger/operations.js'
import type { OperationKey, OperationRecord } from '../../ports/operation.js'
import type { Leases } from '../../sequence/leases.js'
import type { Receive } from '../../sequence/receive.js'
import type { Watch } from '../../sequence/watch.js'
import type { TusLibrary } from './library.js'
import { versionRefused } from './version.js'
import { asksForTail, COMPLETING_WAIT_MS, goneAs, isGone, isSettled, shownOffset } from './withheld-tail.js'

export interface TusRouteDeps {
  readonly ledger: LedgerOperations
  readonly leases: Leases
  readonly receive: Receive
  readonly watch: Watch
  readonly clock: Clock
  readonly log: Logger
  readonly library: TusLibrary
  readonly sendFile: SendFile
}

/**
 * How long a request for the withheld tail is held: below any idle time-out, and long enough that such requests are
 * rare.
 */
const TAIL_WAIT_MS = 8_000
const RECEIVER = { patienceMs: 1_000, waitMs: 4_000 }

/**
 * tus 1.0.0 under `/files`: HEAD and PATCH are implemented here; the library does creation, options and termination.
 */
export function tusRoutes(deps: TusRouteDeps): Hono<Env> {
  const { ledger, leases, receive, watch, clock, library, sendFile } = deps
  const app = new Hono<Env>()

  // Some clients append a slash to every path.
  const file = [filePath(':id'), `${filePath(':id')}/`]
  app.on(['POST', 'OPTIONS'], [FILES, `${FILES}/`], (c) => library(c, c.req.method === 'POST' ? 'POST' : 'OPTIONS'))
  app.on(['GET', 'PATCH', 'DELETE', 'POST', 'OPTIONS'], file, (c) => {
    const method = methodOf(c)
    switch (method) {
      case 'GET':
        return stored(c)
      case 'HEAD':
        return isTusHead(c) ? head(c) : stored(c)
      case 'PATCH':
        return patch(c)
      case 'DELETE':
      case 'OPTIONS':
        return library(c, method)
      default:
        throw refuse('not-found')
    }
  })
  return app

  async function stored(c: Context<Env>): Promise<Response> {
    const key = keyOf(c, 'not-found')
    const operation = await ledger.find(key)
    if (operation === null) throw await absent(ledger, key)
    // A tus client that forgets the header must not conclude that the upload is gone and begin another one.
    if (c.req.method === 'HEAD' && isOpen(operation.point)) throw versionRefused()
    return sendFile(c, operation)
  }

  /**
   * The status of an upload, on which every decision of a stock client depends: never 5xx and never 429 for a
   * well-formed id.
   */
  async function head(c: Context<Env>): Promise<Response> {
    const key = keyOf(c, 'not-found')
    return headOf(await withRetries(c, deps, () => settled(key)), isStock(c))
  }

  /**
   * A receiver that blocks this request releases its lease first. If the last byte is not in the ledger yet, the HEAD
   * waits for it.
   */
  async function settled(key: OperationKey): Promise<OperationRecord | 'not-yet'> {
    if (!(await leases.settleReceiver(key, RECEIVER))) return 'not-yet'
    const driven = leases.inUse(key) === 'drive'
    const operation = await ledger.find(key)
    if (operation === null) throw await absent(ledger, key)
    return driven && operation.point === 'declared' && operation.offset < operation.file.size ? 'not-yet' : operation
  }

  function headOf(operation: OperationRecord, stock: boolean): Response {
    if (isGone(operation)) throw goneAs(operation)
    const headers = new Headers({ 'Cache-Control': 'no-store' })
    headers.set('Upload-Offset', String(stock ? shownOffset(operation, clock.now()) : operation.offset))
    headers.set('Upload-Length', String(operation.file.size))
    if (operation.uploadMetadata !== null) headers.set('Upload-Metadata', operation.uploadMetadata)
    return new Response(null, { status: 200, headers })
  }

  async function patch(c: Context<Env>): Promise<Response> {
    const key = keyOf(c, 'not-found')
    const { offset, length } = readPatch(c)
    const received = await receive(key, { offset, length, source: bodyOf(c) })
    switch (received.outcome) {
      case 'acknowledged':
        return offsetAnswer(received.operation, received.operation.offset)
      case 'whole': {
        if (isStock(c)) return withheld(key, received.acknowledged, offset, COMPLETING_WAIT_MS)
        const acknowledged = await received.acknowledged
        if (isGone(acknowledged)) throw goneAs(acknowledged)
        return offsetAnswer(acknowledged, acknowledged.offset)
      }
      case 'conflict':
        throw offsetConflict(c, received.operation)
      case 'refused':
        throw new ProblemError(received.problem)
      // Another holder drives it, or does not release it.
      case 'locked':
      case 'closed': {
        const operation = await ledger.find(key)
        if (operation === null) throw await absent(ledger, key)
        if (operation.point === 'declared' && operation.offset < operation.file.size)
          throw refuse('locked', { retryAfterSeconds: 1 })
        return afterLastByte(c, operation, offset)
      }
    }
  }

  /** Answers a PATCH for which no bytes are taken any more. */
  async function afterLastByte(c: Context<Env>, operation: OperationRecord, offset: number): Promise<Response> {
    if (isGone(operation) || operation.point === 'rejected') throw goneAs(operation)
    if (!isStock(c)) {
      if (offset !== operation.offset) throw offsetConflict(c, operation)
      return offsetAnswer(operation, operation.offset)
    }
    if (!asksForTail(operation, offset)) throw offsetConflict(c, operation)
    await discard(bodyOf(c))
    return withheld(operation, Promise.resolve(operation), offset, TAIL_WAIT_MS)
  }

  /** Says at which offset to resume, which saves the client a HEAD. */
  function offsetConflict(c: Context<Env>, operation: OperationRecord): ProblemError {
    const offset = isStock(c) ? shownOffset(operation, clock.now()) : operation.offset
    return refuse('offset-conflict', { detail: `acknowledged: ${offset}` }, { 'Upload-Offset': String(offset) })
  }

  /** The full offset once the reference is committed. Until then a shown offset that never falls for this client. */
  async function withheld(
    key: OperationKey,
    acknowledged: Promise<OperationRecord>,
    offset: number,
    waitMs: number,
  ): Promise<Response> {
    const recorded = await Promise.race([acknowledged.catch(() => null), clock.sleep(TAIL_WAIT_MS).then(() => null)])
    // The bytes are durable but not recorded, because the ledger is unavailable. Any other answer could turn out to be
    // untrue.
    if (recorded === null) throw refuse('locked', { retryAfterSeconds: 1 })
    const operation = (await watch.until(key, isSettled, waitMs)) ?? recorded
    if (isGone(operation) || operation.point === 'rejected') throw goneAs(operation)
    const shown = shownOffset(operation, clock.now())
    return offsetAnswer(
      operation,
      isReferenced(operation.point) ? shown : Math.min(operation.file.size - 1, Math.max(shown, offset)),
    )
  }
}

export const isStock = (c: Context): boolean => c.req.header(VERSION_HEADER) === undefined

function offsetAnswer(operation: OperationRecord, offset: number): Response {
  const headers = { 'Upload-Offset': String(offset), [RECOVERY_POINT_HEADER]: operation.point }
  return new Response(null, { status: 204, headers })
}

function readPatch(c: Context): { offset: number; length: number | null } {
  refuseEncoded(c)
  if (c.req.header('Content-Type') !== TUS_CONTENT_TYPE)
    throw new ProblemError({
      ...problem('invalid-request', { detail: `Content-Type: ${TUS_CONTENT_TYPE}` }),
      status: 415,
    })
  const offset = c.req.header('Upload-Offset') ?? ''
  if (!/^\d{1,16}$/.test(offset) || !Number.isSafeInteger(Number(offset)))
    throw refuse('invalid-request', { detail: 'Upload-Offset: a number of bytes' })
  const length = c.req.header('Content-Length')
  return { offset: Number(offset), length: length === undefined ? null : Number(length) }
}

/** Reads what the client sends and discards it, so that the connection stays usable. */
async function discard(body: AsyncIterable<Uint8Array>): Promise<void> {
  const chunks = body[Symbol.asyncIterator]()
  try {
    while ((await chunks.next()).done !== true);
  } catch {
    // The client went away; there is nobody to answer.
  }
}
