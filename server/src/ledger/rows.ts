import { randomBytes } from 'node:crypto'
import type { JsonObject, JsonValue, Point, Problem } from '@landfall/shared'
import type { Changes, Urgency } from '../ports/ledger/leases.js'
import type { Claim } from '../ports/ledger/inventory.js'
import type { ContentFacts, OperationKey, OperationRecord, ReferenceRecord } from '../ports/operation.js'
import type { Declared, Intent } from '../ports/ledger/operations.js'
import type { EffectRecord, EffectStanding } from '../ports/ledger/effects.js'
import { untilNextMs } from './rate.js'
import type { SqlRow, SqlValue } from './sqlite/client/connection.js'

// What the ledgers have in common: the rows are the same in every database, and so are most words about them.

export const OPEN = `('declared', 'received', 'sealed', 'verified')`

/** For whichever process asks first; as long as what it keys (RFC 2104 section 3). */
export const newOwnerKey = (): string => randomBytes(32).toString('base64url')

const text = (row: SqlRow, name: string): string => row[name] as string
const maybeText = (row: SqlRow, name: string): string | null => row[name] as string | null
const number = (row: SqlRow, name: string): number => Number(row[name])
const maybeNumber = (row: SqlRow, name: string): number | null => (row[name] === null ? null : Number(row[name]))
const json = (row: SqlRow, name: string): JsonValue => {
  const value = row[name] as string
  // Most of these columns hold nothing most of the time.
  return value === 'null' ? null : value === '{}' ? {} : (JSON.parse(value) as JsonValue)
}

/** An operation's columns, and those of its reference under `r_…` where they were joined. */
export function toOperation(row: SqlRow): OperationRecord {
  const lastModified = maybeNumber(row, 'file_last_modified')
  return {
    owner: text(row, 'owner'),
    id: text(row, 'id'),
    kind: text(row, 'kind'),
    point: text(row, 'point') as Point,
    stalled: number(row, 'stalled') === 1,
    file: {
      name: text(row, 'file_name'),
      size: number(row, 'file_size'),
      type: text(row, 'file_type'),
      ...(lastModified === null ? {} : { lastModified }),
    },
    metadata: json(row, 'metadata') as JsonObject,
    validated: json(row, 'validated'),
    uploadMetadata: maybeText(row, 'upload_metadata'),
    offset: number(row, 'offset'),
    digest: maybeText(row, 'digest'),
    digestPending: number(row, 'digest_pending') === 1,
    digestDueAt: maybeNumber(row, 'digest_due_at'),
    blobKey: text(row, 'blob_key'),
    blobState: json(row, 'blob_state'),
    receivedAt: maybeNumber(row, 'received_at'),
    tailBase: maybeNumber(row, 'tail_base'),
    prepared: json(row, 'prepared') as JsonObject,
    content: json(row, 'content') as ContentFacts | null,
    leaseHolder: maybeText(row, 'lease_holder'),
    uncleanHolder: maybeText(row, 'unclean_holder'),
    attempts: number(row, 'attempts'),
    dueAt: maybeNumber(row, 'due_at'),
    problem: json(row, 'problem') as Problem | null,
    lastError: maybeText(row, 'last_error'),
    cleanupDue: number(row, 'cleanup_due') === 1,
    removedAt: maybeNumber(row, 'removed_at'),
    createdAt: number(row, 'created_at'),
    updatedAt: number(row, 'updated_at'),
    expiresAt: number(row, 'expires_at'),
    reference: typeof row['r_blob_key'] === 'string' ? toReference(row) : null,
  }
}

function toReference(row: SqlRow): ReferenceRecord {
  return {
    blobKey: text(row, 'r_blob_key'),
    size: number(row, 'r_size'),
    type: text(row, 'r_type'),
    digest: text(row, 'r_digest'),
    digestSource: text(row, 'r_digest_source') as 'client' | 'server',
    storedAt: number(row, 'r_stored_at'),
    data: json(row, 'r_data'),
  }
}

export const OPERATION_WITH_REFERENCE = `SELECT o.*, r.blob_key AS r_blob_key, r.size AS r_size, r.type AS r_type,
  r.digest AS r_digest, r.digest_source AS r_digest_source, r.stored_at AS r_stored_at, r.data AS r_data
  FROM landfall_operations o LEFT JOIN landfall_references r ON r.owner = o.owner AND r.operation_id = o.id`

export function toEffect(row: SqlRow): EffectRecord {
  return {
    owner: text(row, 'owner'),
    id: text(row, 'operation_id'),
    effectId: text(row, 'effect_id'),
    kind: text(row, 'kind'),
    name: text(row, 'name'),
    type: text(row, 'type') as EffectRecord['type'],
    payload: json(row, 'payload'),
    attempts: number(row, 'attempts'),
    disabled: number(row, 'disabled') === 1,
  }
}

export function toEffectStanding(row: SqlRow): EffectStanding {
  return {
    effectId: text(row, 'effect_id'),
    kind: text(row, 'kind'),
    name: text(row, 'name'),
    type: text(row, 'type') as EffectStanding['type'],
    attempts: number(row, 'attempts'),
    dueAt: maybeNumber(row, 'due_at'),
    deliveredAt: maybeNumber(row, 'delivered_at'),
    givenUpAt: maybeNumber(row, 'given_up_at'),
    lastError: maybeText(row, 'last_error'),
  }
}

export function toClaim(row: SqlRow): Claim {
  return {
    owner: text(row, 'owner'),
    id: text(row, 'id'),
    blobKey: text(row, 'blob_key'),
    point: text(row, 'point') as Point,
    sizeBytes: number(row, 'file_size'),
    offset: number(row, 'offset'),
    leased: row['lease_holder'] !== null,
    cleanupDue: number(row, 'cleanup_due') === 1 || number(row, 'removal_due') === 1,
    removed: row['removed_at'] !== null,
    referenced: row['r_blob_key'] !== null,
  }
}

/** Another one after each change that anybody can see. */
export const toVersion = (row: SqlRow): string =>
  `${text(row, 'point')} ${number(row, 'offset')} ${number(row, 'updated_at')}`

/** Why an operation could not be declared, by what its owner uses; that may have changed since. */
export function refusal(usage: SqlRow | undefined, intent: Intent): Declared {
  const of = (column: string): number => Number(usage?.[column] ?? 0)
  const [usedBytes, usedFiles] = [of('used_bytes'), of('used_files')]
  if (of('open_operations') >= intent.maxOpenPerOwner) return { outcome: 'too-many-open' }
  if (intent.quotaBytes !== null && usedBytes + intent.file.size > intent.quotaBytes)
    return { outcome: 'over-quota', usedBytes }
  if (intent.quotaFiles !== null && usedFiles >= intent.quotaFiles) return { outcome: 'over-file-quota', usedFiles }
  const retryInMs = intent.rate === null ? 0 : untilNextMs(intent.rate, of('declared_until_us'), of('now') * 1_000)
  return retryInMs > 0 ? { outcome: 'too-many-declared', retryInMs } : { outcome: 'too-many-open' }
}

/** What `refusal` looks at. */
export const usageWords = (now: string): string =>
  `SELECT open_operations, reserved_bytes + stored_bytes AS used_bytes, open_operations + stored_references AS used_files,
     declared_until_us, ${now} AS now FROM landfall_usage WHERE owner = ?`

/** As `lease_asked` says it. */
const URGENCIES = { 'when-silent': 1, 'at-once': 2 } as const
export const levelOf = (urgency: Urgency): number => URGENCIES[urgency]

export const toAsked = (row: SqlRow): { key: OperationKey; urgency: Urgency } => ({
  key: { owner: text(row, 'owner'), id: text(row, 'id') },
  urgency: number(row, 'lease_asked') === URGENCIES['at-once'] ? 'at-once' : 'when-silent',
})

const MOMENTS = { expiry: 'expires_at', 'digest-due': 'digest_due_at' } as const

/** The SET list of an UPDATE. Its text depends only on which changes are given, so that statements are kept. */
export function assignments(changes: Changes, now: string): { sql: string; args: SqlValue[] } {
  const parts: string[] = []
  const args: SqlValue[] = []
  const set = (column: string, value: SqlValue): void => {
    parts.push(`${column} = ?`)
    args.push(value)
  }
  const setAfter = (column: string, ms: number | null): void => {
    parts.push(ms === null ? `${column} = NULL` : `${column} = ${now} + ?`)
    if (ms !== null) args.push(Math.round(ms))
  }
  if (changes.point !== undefined) set('point', changes.point)
  if (changes.offset !== undefined) set('"offset"', changes.offset)
  if (changes.blobState !== undefined) set('blob_state', JSON.stringify(changes.blobState))
  if (changes.tailBase !== undefined) {
    // Once: stock clients have been shown an offset that counts from it.
    parts.push(`tail_base = COALESCE(tail_base, ?)`, `received_at = COALESCE(received_at, ${now})`)
    args.push(changes.tailBase)
  }
  if (changes.digestDueInMs !== undefined) setAfter('digest_due_at', changes.digestDueInMs)
  if (changes.prepared !== undefined) set('prepared', JSON.stringify(changes.prepared))
  if (changes.content !== undefined) set('content', JSON.stringify(changes.content))
  if (changes.uncleanHolder !== undefined) set('unclean_holder', changes.uncleanHolder)
  if (changes.attempts !== undefined) set('attempts', changes.attempts)
  if (changes.stalled !== undefined) set('stalled', changes.stalled ? 1 : 0)
  if (changes.problem !== undefined) set('problem', JSON.stringify(changes.problem))
  if (changes.lastError !== undefined) set('last_error', changes.lastError)
  if (changes.cleanupDue !== undefined) set('cleanup_due', changes.cleanupDue ? 1 : 0)
  if (changes.dueInMs !== undefined) setAfter('due_at', changes.dueInMs)
  if (changes.dueAt !== undefined) parts.push(`due_at = ${MOMENTS[changes.dueAt]}`)
  if (changes.expiresInMs !== undefined) setAfter('expires_at', changes.expiresInMs)
  if (changes.purpose !== undefined) set('lease_purpose', changes.purpose)
  if (changes.release === true)
    parts.push('lease_holder = NULL', 'lease_purpose = NULL', 'lease_expires_at = NULL', 'lease_asked = 0')
  parts.push(`updated_at = ${now}`)
  return { sql: parts.join(', '), args }
}
