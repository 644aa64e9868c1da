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
import type { Admit } from '../access.js'
import { baseOf, bodyOf, type Env, keyOf, ProblemError, refuse, refuseEncoded } from '../context.js'
import type { Cancel } from '../cancel.js'
import type { Drive } from '../drive.js'
import { absent } from '../forgotten.js'
import type { Leases } from '../leases.js'
import type { BlobStore, Clock, Ledger, OperationKey, OperationRecord } from '../ports.js'
import { entityTag, toResource } from '../resource.js'
import { drivable } from '../rules.js'
import { blobOf } from '../steps.js'
import type { Watch } from '../watch.js'

export interface OperationRouteDeps {
  readonly ledger: Ledger<unknown>
  readonly blobs: BlobStore
  readonly leases: Leases
  readonly drive: Drive
  readonly watch: Watch
  readonly clock: Clock
  readonly admit: Admit
  readonly cancel: Cancel
  readonly maxBodyBytes: number
}

/** How long `PUT` waits for driving, which goes on without the request. */
const DRIVE_WAIT_MS = 5_000
/** A receiver of an older connection: how long its client is believed to be alive, and how long it is waited for. */
const RECEIVER = { patienceMs: 2_000, waitMs: 5_000 }
const PAGE = 100

export function operationRoutes(deps: OperationRouteDeps): Hono<Env> {
  const { ledger, blobs, leases, drive, watch, clock, admit, cancel } = deps
  const app = new Hono<Env>()

  app.put(operationPath(':id'), async (c) => {
    const key = keyOf(c, 'invalid-operation-id')
    refuseEncoded(c)
    const request = await readDeclaration(c, deps.maxBodyBytes)
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

  /** null → value once; another value is a conflict. */
  async function takeDigest(key: OperationKey, operation: OperationRecord, { digest }: DeclareRequest): Promise<void> {
    if (digest === undefined || digest === 'pending' || isFinal(operation.point)) return
    if ((await ledger.setDigest(key, digest)) === 'conflict') throw refuse('digest-conflict')
  }

  /**
   * Drives the operation as far as the server can without the client.
   *
   * @throws ProblemError `locked` while somebody else may still record bytes of it.
   */
  async function forward(key: OperationKey, created: OperationRecord | null): Promise<OperationRecord> {
    if (created !== null && !drivable(created)) return created
    const settled = created !== null || (await leases.settleReceiver(key, RECEIVER))
    const operation = await existing(key)
    // How far a receiver came that is dead or cut off is not known yet: bytes sent from here would be sent in vain.
    if (!settled && operation.point === 'declared' && operation.offset < operation.file.size)
      throw refuse('locked', { retryAfterSeconds: 1 })
    if (!drivable(operation)) return operation
    const taken = await leases.take(key, 'drive', 0)
    const deadline = clock.monotonicMs() + DRIVE_WAIT_MS
    if (taken.outcome === 'granted') await Promise.race([drive(taken.held), clock.sleep(DRIVE_WAIT_MS)])
    // Somebody else drives it: the answer is worth the same wait.
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

  /** Answers at once what differs from the client's entity tag, else as soon as it does, or 304 after `wait` seconds. */
  async function answer(
    c: Context<Env>,
    owner: string,
    ids: readonly string[],
    look: () => Promise<{ operations: readonly OperationRecord[]; body: object }>,
  ): Promise<Response> {
    const waitMs = 1000 * Math.min(MAX_WAIT_SECONDS, Math.max(0, Number(c.req.query('wait') ?? 0) || 0))
    // A proxy that compresses makes the tag a weak one; it is compared as such (RFC 9110, 13.1.2).
    const known = c.req.header('If-None-Match')?.replace(/^W\//, '')
    // Without a tag: a change from now on.
    let seen = known
    const watched = new Set(ids)
    for (const deadline = clock.monotonicMs() + waitMs; ;) {
      const armed = watch.change(owner, watched, Math.max(0, deadline - clock.monotonicMs()), c.req.raw.signal)
      const { operations, body } = await look().catch((error: unknown) => {
        armed.stop()
        throw error
      })
      const tag = entityTag(operations.map((operation) => toResource(operation, baseOf(c))))
      const headers = { ETag: tag, 'Cache-Control': 'no-store' }
      seen ??= operations.some(({ point }) => isOpen(point)) ? tag : ''
      const over = waitMs === 0 || clock.monotonicMs() >= deadline || watch.closed() || c.req.raw.signal.aborted
      if (tag === seen && !over) {
        await armed.changed
        continue
      }
      armed.stop()
      return tag === known ? c.body(null, 304, headers) : c.json(body, 200, headers)
    }
  }
}

async function readDeclaration(c: Context<Env>, maxBytes: number): Promise<DeclareRequest> {
  const chunks: Uint8Array[] = []
  let bytes = 0
  for await (const chunk of bodyOf(c)) {
    bytes += chunk.length
    if (bytes > maxBytes) throw refuse('metadata-too-large', { detail: 'the request is too large' })
    chunks.push(chunk)
  }
  const parsed = parseDeclareRequest(parseJson(Buffer.concat(chunks).toString()))
  if (!parsed.ok) throw refuse('invalid-request', { detail: parsed.detail })
  return parsed.value
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw refuse('invalid-request', { detail: 'the body is not JSON' })
  }
}
