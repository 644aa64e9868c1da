import {
  type DeclareRequest,
  isFinal,
  isOpen,
  isReferenced,
  MAX_IDS_PER_REQUEST,
  MAX_WAIT_SECONDS,
  OPERATIONS,
  operationPath,
  parseDeclareRequest,
  parseOperationId,
  type Prefix,
  prefixPath,
  problem,
} from '@landfall/shared'
import { type Context, Hono } from 'hono'
import type { Admit } from '../kinds/admission.js'
import { absent } from '../kinds/gone.js'
import { ProblemError, refuse } from '../lib/problem-error.js'
import type { BlobStore } from '../ports/blob-store.js'
import type { Clock } from '../ports/clock.js'
import type { LedgerOperations } from '../ports/ledger/operations.js'
import type { OperationKey, OperationRecord } from '../ports/operation.js'
import type { Cancel } from '../sequence/cancel.js'
import type { Drive } from '../sequence/drive.js'
import type { Leases } from '../sequence/leases.js'
import { drivable } from '../sequence/rules.js'
import { blobOf } from '../sequence/steps.js'
import type { Watch } from '../sequence/watch.js'
import { bodyOf, refuseEncoded } from './body.js'
import { baseOf, type Env, keyOf } from './context.js'
import { entityTag, toResource } from './resource.js'
import { createWaiters } from './waiters.js'

export interface OperationRouteDeps {
  readonly ledger: LedgerOperations
  readonly blobs: BlobStore
  readonly leases: Leases
  readonly drive: Drive
  readonly watch: Watch
  readonly clock: Clock
  readonly admit: Admit
  readonly cancel: Cancel
  readonly maxBodyBytes: number
}

/** How long `PUT` waits for the drive, which continues without the request. */
const DRIVE_WAIT_MS = 5_000
/** A receiver of an older connection: how long its client counts as alive, and how long to wait for its end. */
const RECEIVER = { patienceMs: 2_000, waitMs: 5_000 }
const PAGE = 100
/** How long a request waits that no change wakes. Seldom enough that many such requests cost little. */
const UNWOKEN_MS = 5_000
/** The time for the body of a declaration, which is a few kilobytes. */
const BODY_MS = 30_000

export function operationRoutes(deps: OperationRouteDeps): Hono<Env> {
  const { ledger, blobs, leases, drive, watch, clock, admit, cancel } = deps
  const app = new Hono<Env>()
  const waiters = createWaiters(clock)

  app.put(operationPath(':id'), async (c) => {
    const key = keyOf(c, 'invalid-operation-id')
    refuseEncoded(c)
    const request = await readDeclaration(c, deps.maxBodyBytes, clock)
    const admission = await admit(key, request, null)
    if (admission.outcome === 'refused') throw new ProblemError(admission.problem)
    if (admission.outcome === 'existing') await takeDigest(key, admission.operation, request)
    const operation = await forward(key, admission.outcome === 'created' ? admission.operation : null)
    return c.json(toResource(operation, baseOf(c)), admission.outcome === 'created' ? 201 : 200, {
      'Cache-Control': 'no-store',
    })
  })

  app.get(operationPath(':id'), async (c) => {
    const key = keyOf(c, 'invalid-operation-id')
    return answer(c, key.owner, [key.id], async () => {
      const operation = await ledger.find(key)
      if (operation === null) throw await absent(ledger, key)
      return { operations: [operation], body: toResource(operation, baseOf(c)) }
    })
  })

  app.get(OPERATIONS, async (c) => {
    const owner = c.get('owner')
    const asked = c.req.query('ids')
    if (asked === undefined) return listOpen(c, owner)
    const ids = [...new Set(asked.split(',').map(parseOperationId))]
    if (ids.includes(null)) throw refuse('invalid-operation-id')
    if (ids.length > MAX_IDS_PER_REQUEST)
      throw refuse('invalid-request', { detail: `ids: at most ${MAX_IDS_PER_REQUEST}` })
    return answer(c, owner, ids as string[], async () => {
      const operations = await ledger.findMany(owner, ids as string[])
      return { operations, body: { operations: operations.map((operation) => toResource(operation, baseOf(c))) } }
    })
  })

  app.get(prefixPath(':id'), async (c) => {
    const operation = await existing(keyOf(c, 'invalid-operation-id'))
    if (!isOpen(operation.point) && !isReferenced(operation.point))
      throw new ProblemError(operation.problem ?? problem('not-found'))
    const prefix: Prefix = {
      offset: operation.offset,
      ...(await blobs.digestOf(blobOf(operation), operation.offset, c.req.raw.signal)),
    }
    return c.json(prefix, 200, { 'Cache-Control': 'no-store' })
  })

  app.delete(operationPath(':id'), async (c) => {
    const operation = await cancel(keyOf(c, 'invalid-operation-id'))
    return c.json(toResource(operation, baseOf(c)), 200, { 'Cache-Control': 'no-store' })
  })

  return app

  async function existing(key: OperationKey): Promise<OperationRecord> {
    const operation = await ledger.find(key)
    if (operation === null) throw await absent(ledger, key)
    return operation
  }

  /** Null becomes a value once. Another value is a conflict. */
  async function takeDigest(key: OperationKey, operation: OperationRecord, { digest }: DeclareRequest): Promise<void> {
    if (digest === undefined || digest === 'pending' || isFinal(operation.point)) return
    if ((await ledger.setDigest(key, digest)) === 'conflict') throw refuse('digest-conflict')
  }

  /**
   * Drives the operation as far as the server can without the client.
   *
   * @throws ProblemError `locked` while another request may still record bytes of it.
   */
  async function forward(key: OperationKey, created: OperationRecord | null): Promise<OperationRecord> {
    if (created !== null && !drivable(created)) return created
    const settled = created !== null || (await leases.settleReceiver(key, RECEIVER))
    const operation = await existing(key)
    // How far a receiver came that is dead or cut off is not known yet. Bytes that the client sent now might be sent in
    // vain.
    if (!settled && operation.point === 'declared' && operation.offset < operation.file.size)
      throw refuse('locked', { retryAfterSeconds: 1 })
    if (!drivable(operation)) return operation
    const taken = await leases.take(key, 'drive', 0)
    const deadline = clock.monotonicMs() + DRIVE_WAIT_MS
    if (taken.outcome === 'granted') await Promise.race([drive(taken.held), clock.sleep(DRIVE_WAIT_MS)])
    // Another holder drives it: wait as long for the answer as for a drive of this request.
    if (taken.outcome === 'held')
      await watch.until(key, (now) => !drivable(now) || now.stalled, deadline - clock.monotonicMs(), undefined)
    return existing(key)
  }

  async function listOpen(c: Context<Env>, owner: string): Promise<Response> {
    if (c.req.query('open') === undefined) throw refuse('invalid-request', { detail: 'ask for ids=… or for open' })
    const cursor = c.req.query('after')
    const after = cursor === undefined ? null : parseOperationId(cursor)
    if (cursor !== undefined && after === null) throw refuse('invalid-request', { detail: 'after: not a cursor' })
    const operations = await ledger.listOpen(owner, { after, limit: PAGE + 1 })
    const page = operations.slice(0, PAGE)
    const last = page.at(-1)
    return c.json(
      {
        operations: page.map((operation) => toResource(operation, baseOf(c))),
        ...(operations.length > PAGE && last !== undefined ? { next: last.id } : {}),
      },
      200,
      { 'Cache-Control': 'no-store' },
    )
  }

  /**
   * Answers at once if the state differs from the client's entity tag, otherwise as soon as it does, or 304 after
   * `wait` seconds.
   *
   * @throws ProblemError `too-many-waiting` if too many other requests of the owner are waiting.
   */
  async function answer(c: Context<Env>, owner: string, ids: readonly string[], look: Look): Promise<Response> {
    const waitMs = 1000 * Math.min(MAX_WAIT_SECONDS, Math.max(0, Number(c.req.query('wait') ?? 0) || 0))
    if (waitMs === 0) return tagged(c, await shown(c, look))
    const place = waiters.enter(owner)
    if (place === null) throw refuse('too-many-waiting', { retryAfterSeconds: 5 })
    try {
      return await change(c, owner, ids, look, place.woken ? waitMs : Math.min(waitMs, UNWOKEN_MS), place.woken)
    } finally {
      place.leave()
    }
  }

  /** Answers with the state as soon as it differs from the client's entity tag. */
  async function change(
    c: Context<Env>,
    owner: string,
    ids: readonly string[],
    look: Look,
    waitMs: number,
    woken: boolean,
  ): Promise<Response> {
    // Without a tag: the first change from now on.
    let seen = knownTo(c)
    const watched = new Set(woken ? ids : [])
    // Includes the path under which the routes are mounted, because the answers contain it.
    const question = `${baseOf(c)}${c.req.path}?${ids.join()}`
    const { signal } = c.req.raw
    // The time is over, the client went away, or the server stops: none of these waits for a batch of reads.
    const end = watch.change(owner, new Set(), waitMs, signal)
    const over = { yet: false }
    const ended = end.changed.then(() => (over.yet = true))
    let last: Shown | null = null
    try {
      while (!over.yet) {
        const armed = watch.change(owner, watched, waitMs, signal)
        try {
          const found = await waiters.look(owner, question, () => shown(c, look), ended)
          if (found === null) break
          last = found
          seen ??= found.open ? found.tag : ''
          if (found.tag !== seen) return tagged(c, found)
          await Promise.race([armed.changed, ended])
        } finally {
          armed.stop()
        }
      }
    } finally {
      end.stop()
    }
    if (last !== null && (signal.aborted || watch.closed())) return tagged(c, last)
    // The client is gone, so nobody gets this answer.
    if (signal.aborted) return c.body(null, 304)
    return tagged(c, await waiters.look(owner, question, () => shown(c, look)))
  }
}

/** Operations as one answer shows them. Made once for all requests that wait for the same. */
interface Shown {
  readonly tag: string
  readonly text: string
  /** Whether one of them is still open. */
  readonly open: boolean
}

type Look = () => Promise<{ readonly operations: readonly OperationRecord[]; readonly body: object }>

async function shown(c: Context<Env>, look: Look): Promise<Shown> {
  const { operations, body } = await look()
  return {
    tag: entityTag(operations.map((operation) => toResource(operation, baseOf(c)))),
    text: JSON.stringify(body),
    open: operations.some(({ point }) => isOpen(point)),
  }
}

/** A proxy that compresses the answer makes the tag a weak one, so weak comparison is used (RFC 9110, 13.1.2). */
const knownTo = (c: Context<Env>): string | undefined => c.req.header('If-None-Match')?.replace(/^W\//, '')

function tagged(c: Context<Env>, { tag, text }: Shown): Response {
  const headers = { ETag: tag, 'Cache-Control': 'no-store' }
  return tag === knownTo(c)
    ? c.body(null, 304, headers)
    : c.body(text, 200, { ...headers, 'Content-Type': 'application/json' })
}

async function readDeclaration(c: Context<Env>, maxBytes: number, clock: Clock): Promise<DeclareRequest> {
  const parsed = parseDeclareRequest(parseJson((await readWhole(bodyOf(c), maxBytes, clock)).toString()))
  if (!parsed.ok) throw refuse('invalid-request', { detail: parsed.detail })
  return parsed.value
}

/** The body is held in memory while it is read, so both its size and its time are limited. */
async function readWhole(body: AsyncIterable<Uint8Array>, maxBytes: number, clock: Clock): Promise<Buffer> {
  const chunks: Uint8Array[] = []
  const source = body[Symbol.asyncIterator]()
  const over = new AbortController()
  const late = clock.sleep(BODY_MS, over.signal).then(() => 'late' as const)
  try {
    for (let bytes = 0; ;) {
      const next = await Promise.race([source.next().catch(() => 'broken' as const), late])
      if (next === 'late') throw refuse('too-slow', { detail: `the body was not complete after ${BODY_MS / 1000} s` })
      // The client went away, so nobody gets this answer. It is no fault of the server.
      if (next === 'broken') throw refuse('invalid-request', { detail: 'the body broke off' })
      if (next.done === true) return Buffer.concat(chunks)
      bytes += next.value.length
      if (bytes > maxBytes) throw refuse('metadata-too-large', { detail: 'the request is too large' })
      chunks.push(next.value)
    }
  } finally {
    // With a reason, because without one each declaration creates a DOMException with its stack.
    over.abort('read')
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw refuse('invalid-request', { detail: 'the body is not JSON' })
  }
}
