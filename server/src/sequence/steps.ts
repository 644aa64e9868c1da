import { type JsonValue, type Problem, problem } from '@landfall/shared'
import { v7 as uuidv7 } from 'uuid'
import type { Effect, OwedPayload } from '../kinds/effect.js'
import type { BlobFacts, OperationFacts } from '../kinds/facts.js'
import { type Kind, rejectionOf } from '../kinds/kind.js'
import { judgeType } from '../kinds/media-type.js'
import { deadline, type Limit } from '../lib/deadline.js'
import { UploadError } from '../lib/errors.js'
import type { BlobRef, BlobStore } from '../ports/blob-store.js'
import type { OwedEffect } from '../ports/ledger/effects.js'
import type { Changes } from '../ports/ledger/leases.js'
import type { HookOutcome, Referred, LedgerReferences } from '../ports/ledger/references.js'
import type { OperationRecord } from '../ports/operation.js'
import type { Held } from './leases.js'

/**
 * The steps of the sequence. A step asks before it acts, returns what to record, records nothing itself and calls no
 * other step.
 */
export interface Steps {
  recover(operation: OperationRecord): Promise<Changes>
  expire(operation: OperationRecord): Promise<Changes>
  seal(operation: OperationRecord): Promise<Changes>
  verify(operation: OperationRecord, signal: AbortSignal): Promise<Changes>
  prepare(operation: OperationRecord, name: string, signal: AbortSignal): Promise<Changes>
  refer(held: Held, operation: OperationRecord, noted: Changes): Promise<Referred>
}

export interface StepDeps<Tx> {
  readonly ledger: LedgerReferences<Tx>
  readonly blobs: BlobStore
  readonly kinds: Readonly<Record<string, Kind<Tx>>>
}

/** A final "no": the intent is recorded first, and the bytes are deleted after that. */
export const rejected = (why: Problem): Changes => ({ point: 'rejected', problem: why, cleanupDue: true })

export const blobOf = (operation: OperationRecord): BlobRef => ({
  key: operation.blobKey,
  size: operation.file.size,
  state: operation.blobState,
})

/**
 * Stock tus clients see a tail that is withheld until the reference exists. It is at most as long as what the last
 * request brought. Each request for the tail sends it again. While a reference takes three minutes, a tail of 1,024
 * bytes costs 20 KB, or 32 KB on connections that are reset every 10 s. A tail of 448 bytes costs 8 and 13 KB.
 */
const TAIL_BYTES = 448
export const tailBase = (sizeBytes: number, lastAcceptedBytes: number): number =>
  sizeBytes - Math.min(TAIL_BYTES, lastAcceptedBytes)

/** What is true once the bytes up to `offset` are durable, with the blob store's notes about where they are. */
export function arrived(operation: OperationRecord, offset: number, blobState?: JsonValue): Changes {
  const { size } = operation.file
  return {
    offset,
    ...(blobState === undefined ? {} : { blobState }),
    ...(offset === size ? { tailBase: tailBase(size, size - operation.offset) } : {}),
  }
}

export function createSteps<Tx>({ ledger, blobs, kinds }: StepDeps<Tx>): Steps {
  return {
    async recover(operation) {
      const found = await blobs.recover(blobOf(operation), {
        offset: operation.offset,
        writtenBy: operation.uncleanHolder,
      })
      if (found.outcome === 'lost') return { ...rejected(problem('bytes-lost')), uncleanHolder: null }
      return { ...arrived(operation, found.offset, found.state), uncleanHolder: null }
    },

    async expire(operation) {
      const found = await blobs.recover(blobOf(operation), {
        offset: operation.offset,
        writtenBy: operation.uncleanHolder,
      })
      if (found.outcome === 'kept' && found.offset === operation.file.size)
        return arrived(operation, found.offset, found.state)
      return { point: 'expired', problem: problem('expired'), cleanupDue: true }
    },

    async seal(operation) {
      const found = await blobs.seal(blobOf(operation))
      // An operation is never "complete" because something is gone: all acknowledged bytes must exist.
      if (found !== 'sealed') return rejected(problem('bytes-lost'))
      if (blobs.sealedState === undefined || operation.blobState === null) return { point: 'sealed' }
      return { point: 'sealed', blobState: blobs.sealedState(operation.blobState) }
    },

    async verify(operation, signal) {
      const { digest, head } = await blobs.inspect(blobOf(operation), signal)
      if (operation.digest !== null && operation.digest !== digest) return rejected(problem('digest-mismatch'))
      const verdict = await judgeType(head, operation.file.type, kinds[operation.kind]?.accept ?? null)
      if (!verdict.ok) return rejected(problem('not-acceptable', { detail: verdict.detail }))
      return { point: 'verified', content: { digest, type: verdict.type } }
    },

    async prepare(operation, name, signal) {
      const kind = kindOf(operation)
      const step = kind.prepare[name]
      if (step === undefined) throw new UploadError('setup', 'the kind has no such prepare step')
      const result = await deadline(
        (limit) =>
          step({
            operation: factsOf(operation) as OperationFacts<never>,
            blob: blobFacts(operation),
            signal: limit.signal,
            idempotencyKey: `${operation.blobKey}:${name}`,
          }),
        kind.prepareTimeoutMs,
        signal,
        () => new UploadError('hook-timeout', `the prepare step took longer than ${kind.prepareTimeoutMs} ms`),
      )
      const rejection = rejectionOf(result)
      if (rejection !== null) return rejected(rejection)
      return { prepared: { ...operation.prepared, [name]: asJson(result) }, attempts: 0, lastError: null }
    },

    refer(held, operation, noted) {
      const kind = kindOf(operation)
      const { content } = operation
      if (content === null) throw new UploadError('setup', 'only a verified operation can be referenced')
      const facts = {
        operation: factsOf(operation) as OperationFacts<never>,
        blob: blobFacts(operation),
        prepared: operation.prepared,
      }
      const { onReference } = kind
      const hook =
        onReference === null
          ? null
          : async (tx: Tx, limit: Limit): Promise<HookOutcome> => {
              let signal: AbortSignal | null = null
              const result = await onReference(tx, {
                ...facts,
                // Made only for hooks that ask for it: few do, and each costs more than a statement. A hook that asks
                // twice gets the same signal, so that it can remove a listener again.
                get signal() {
                  return (signal ??= AbortSignal.any([held.signal, limit.signal]))
                },
              })
              const rejection = rejectionOf(result)
              return rejection === null
                ? { outcome: 'accepted', data: asJson(result) }
                : { outcome: 'rejected', problem: rejection }
            }
      const intent = {
        changes: noted,
        content,
        digestSource: operation.digest === null ? ('server' as const) : ('client' as const),
        timeLimitMs: kind.onReferenceTimeoutMs,
        effects: Object.entries(kind.effects).map(([name, effect]) => owed(operation, name, effect)),
      }
      return ledger.refer(held.lease, operation, intent, hook)
    },
  }

  function kindOf(operation: OperationRecord): Kind<Tx> {
    const kind = kinds[operation.kind]
    if (kind === undefined) throw new UploadError('setup', 'the application does not declare this kind')
    return kind
  }

  function blobFacts(operation: OperationRecord): BlobFacts {
    const { digest, type } = operation.content ?? { digest: '', type: operation.file.type }
    const { size } = operation.file
    return {
      key: operation.blobKey,
      size,
      type,
      digest,
      read: ({ start = 0, end = size } = {}) => blobs.read(operation.blobKey, { start, end: Math.min(end, size) }),
    }
  }
}

export const factsOf = (operation: OperationRecord): OperationFacts<unknown> => ({
  id: operation.id,
  owner: operation.owner,
  kind: operation.kind,
  file: operation.file,
  metadata: operation.validated,
  createdAt: new Date(operation.createdAt),
})

/** Each effect has an id of its own, made once for the transaction that commits it. */
function owed(operation: OperationRecord, name: string, effect: Effect<never, never>): OwedEffect {
  const { id, owner, kind, file, validated, createdAt } = operation
  return {
    effectId: uuidv7(),
    name,
    type: typeof effect === 'function' ? 'function' : effect.type,
    payload: ({ size, type, digest, storedAt, data }) =>
      ({
        operation: { id, owner, kind, file, metadata: validated, createdAt },
        reference: { size, type, digest, storedAt, data },
      }) satisfies OwedPayload as unknown as JsonValue,
  }
}

/** What a hook returns is stored as JSON: a Date becomes its text, undefined becomes null. */
const asJson = (value: unknown): JsonValue => JSON.parse(JSON.stringify(value) ?? 'null') as JsonValue
