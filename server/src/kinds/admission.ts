import { createHash, randomUUID } from 'node:crypto'
import {
  type DeclareRequest,
  type FileFacts,
  type JsonObject,
  type JsonValue,
  type Problem,
  problem,
} from '@landfall/shared'
import { unlessAnswered } from '../lib/answered.js'
import type { BlobStore } from '../ports/blob-store.js'
import type { DeclarationRate, Intent, LedgerOperations } from '../ports/ledger/operations.js'
import type { OperationKey, OperationRecord } from '../ports/operation.js'
import { forgottenProblem } from './gone.js'
import { accepts, type Kind } from './kind.js'

export interface Limits {
  /** The largest size of one file, in bytes. Default 1 TiB. */
  readonly maxSizeBytes: number
  /** The largest size of the metadata as JSON, in bytes. Default 16 KiB. */
  readonly maxMetadataBytes: number
  /** How many open operations an owner may have at the same time. Default 1,000. */
  readonly maxOpenPerOwner: number
  /**
   * How many bytes an owner's references and open operations may hold together. They are reserved when an upload is
   * declared, and given back when it ends without a reference or its reference is removed. Default null: no limit.
   */
  readonly quotaBytes: (owner: string) => number | null | Promise<number | null>
  /**
   * How many references and open operations an owner may have together, including empty files. Default null: no limit.
   */
  readonly quotaFiles: (owner: string) => number | null | Promise<number | null>
  /**
   * How often an owner may declare an upload: `count` at once, and after that one more each time a `count`-th of
   * `perMs` has passed, on all nodes together. More is 429 `too-many-declared`. It limits how fast the database can
   * grow by uploads that are declared and cancelled. A repeated declaration does not count; one that another limit
   * refuses may count. Default 36,000 an hour. Null: no limit.
   */
  readonly declarationsPerOwner: DeclarationRate | null
}

/** The result of checking a declaration against everything the server knows. */
export type Admission =
  | { readonly outcome: 'created' | 'existing'; readonly operation: OperationRecord }
  | { readonly outcome: 'refused'; readonly problem: Problem }

export type Admit = (key: OperationKey, request: DeclareRequest, uploadMetadata: string | null) => Promise<Admission>

export interface AdmitDeps {
  readonly ledger: LedgerOperations
  readonly blobs: Pick<BlobStore, 'room'>
  readonly kinds: Readonly<Record<string, Kind<never>>>
  readonly limits: Limits
  readonly expiresAfterMs: number
}

/**
 * Step 0: who may declare what, and how much. The same id with the same facts is the same operation, whatever the rules
 * say now. With other facts it is refused and changes nothing.
 */
export function createAdmit({ ledger, blobs, kinds, limits, expiresAfterMs }: AdmitDeps): Admit {
  const refused = (why: Problem): Admission => ({ outcome: 'refused', problem: why })
  /** Refuses by the rules, which may have changed since the id was used. */
  const refusedNow = async (key: OperationKey, why: Problem): Promise<Admission> => {
    const point = await ledger.tombstone(key)
    return refused(point === null ? why : forgottenProblem(point))
  }

  return async function admit(key, request, uploadMetadata) {
    const metadata = request.metadata ?? {}
    const existing = await ledger.find(key)
    if (existing !== null)
      // If it was declared without a kind because there was only one, it may be repeated without a kind.
      return factsDigest(existing.kind, existing.file, existing.metadata) ===
        factsDigest(request.kind ?? existing.kind, request.file, metadata)
        ? { outcome: 'existing', operation: existing }
        : refused(problem('operation-mismatch'))

    const kindName = request.kind ?? onlyKindOf(kinds)
    if (kindName === null)
      return refusedNow(key, problem('unknown-kind', { detail: 'name the kind: the server has several' }))
    const facts = factsDigest(kindName, request.file, metadata)
    const kind = Object.hasOwn(kinds, kindName) ? kinds[kindName] : undefined
    if (kind === undefined) return refusedNow(key, problem('unknown-kind'))
    const checked = await check(kind, key.owner, request, metadata, limits)
    if ('problem' in checked) return refusedNow(key, checked.problem)
    // Its row would use up space that is reserved for cancellations and removals, and its bytes would be refused
    // anyway.
    if ((await blobs.room?.())?.isFull === true)
      return refusedNow(key, problem('storage-full', { retryAfterSeconds: 30 }))
    const [quotaBytes, quotaFiles] = [await limits.quotaBytes(key.owner), await limits.quotaFiles(key.owner)]
    const declared = await ledger.declare({
      ...key,
      kind: kindName,
      file: request.file,
      metadata,
      validated: checked.validated,
      uploadMetadata,
      facts,
      digest: (request.digest ?? null) as Intent['digest'],
      blobKey: newBlobKey(),
      expiresAfterMs,
      maxOpenPerOwner: limits.maxOpenPerOwner,
      quotaBytes,
      quotaFiles,
      rate: limits.declarationsPerOwner,
    } satisfies Intent)
    switch (declared.outcome) {
      case 'mismatch':
        return refused(problem('operation-mismatch'))
      case 'too-many-open':
        return refused(
          problem('too-many-open', {
            retryAfterSeconds: 30,
            detail: `at most ${limits.maxOpenPerOwner} at the same time`,
          }),
        )
      case 'over-quota':
        return refused(
          problem('quota-exceeded', {
            detail: `${declared.usedBytes} of ${quotaBytes ?? 0} bytes are in use or reserved`,
          }),
        )
      case 'over-file-quota':
        return refused(problem('quota-exceeded', { detail: `${declared.usedFiles} of ${quotaFiles ?? 0} files` }))
      case 'too-many-declared':
        return refused(problem('too-many-declared', { retryAfterSeconds: Math.ceil(declared.retryInMs / 1000) }))
      case 'forgotten':
        return refused(forgottenProblem(declared.point))
      default:
        return declared
    }
  }
}

async function check(
  kind: Kind<never>,
  owner: string,
  request: DeclareRequest,
  metadata: JsonObject,
  limits: Limits,
): Promise<{ validated: JsonValue } | { problem: Problem }> {
  const maxSizeBytes = Math.min(kind.maxSizeBytes ?? limits.maxSizeBytes, limits.maxSizeBytes)
  if (request.file.size > maxSizeBytes)
    return { problem: problem('too-large', { detail: `at most ${maxSizeBytes} bytes` }) }
  if (Buffer.byteLength(JSON.stringify(metadata)) > limits.maxMetadataBytes)
    return { problem: problem('metadata-too-large', { detail: `at most ${limits.maxMetadataBytes} bytes` }) }
  // A browser declares no type for files that it does not know. The content is checked once the bytes have arrived.
  if (request.file.type !== '' && !accepts(kind.accept, request.file.type))
    return { problem: problem('type-not-accepted') }
  if (kind.requireDigest && request.digest === undefined)
    return { problem: problem('invalid-request', { detail: 'digest: this kind requires it' }) }
  const validated = await validate(kind, metadata)
  if ('problem' in validated) return validated
  const { authorize } = kind
  const metadataOfKind = validated.validated as never
  if (
    authorize !== null &&
    !(await unlessAnswered(() => authorize({ owner, metadata: metadataOfKind, file: request.file })))
  )
    return { problem: problem('forbidden') }
  return validated
}

async function validate(
  kind: Kind<never>,
  metadata: JsonObject,
): Promise<{ validated: JsonValue } | { problem: Problem }> {
  if (kind.metadata === null) return { validated: metadata }
  const result = await kind.metadata['~standard'].validate(metadata)
  if (result.issues === undefined) return { validated: JSON.parse(JSON.stringify(result.value) ?? 'null') as JsonValue }
  const issue = result.issues[0]
  const path = issue?.path?.map((part) => String(typeof part === 'object' ? part.key : part)).join('.') ?? ''
  return {
    problem: problem('invalid-metadata', {
      detail: `${path === '' ? 'metadata' : path}: ${issue?.message ?? 'invalid'}`,
    }),
  }
}

/** 48 bits of time and 80 random bits: blobs that arrive together sort together, and nobody can guess a key. */
const newBlobKey = (): string => Date.now().toString(16).padStart(12, '0') + randomUUID().replaceAll('-', '').slice(-20)

function onlyKindOf(kinds: Readonly<Record<string, unknown>>): string | null {
  const [only, another] = Object.keys(kinds)
  return only === undefined || another !== undefined ? null : only
}

/** "The same facts": kind, size, name, type and metadata. `lastModified` and the digest are not part of them. */
function factsDigest(kind: string, file: FileFacts, metadata: JsonObject): string {
  return createHash('sha256')
    .update(JSON.stringify([kind, file.size, file.name, file.type, canonical(metadata)]))
    .digest('hex')
}

/** Puts keys into one order, so that equal objects have equal texts. */
function canonical(value: JsonValue): JsonValue {
  if (Array.isArray(value)) return value.map(canonical)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.keys(value)
      .toSorted()
      .map((key) => [key, canonical(value[key] ?? null)]),
  )
}
