import { randomBytes } from 'node:crypto'
import type { EffectRecord, EffectStanding } from '../ports/ledger/effects.js'
import type { Claim } from '../ports/ledger/inventory.js'
import type { Changes, Lease, Urgency } from '../ports/ledger/leases.js'
import type { Declared, Intent } from '../ports/ledger/operations.js'
import type { OperationKey, OperationRecord } from '../ports/operation.js'
import { columnName, nameOf, selection } from './columns.js'
import type { Args, SqlRow, SqlValue } from './query.js'
import { untilNextMs } from './rate.js'
import { EFFECTS, OPERATIONS, REFERENCES } from './tables.js'

// Rows and records: what is made of rows, and what is written into them.

export const OPEN = `('declared', 'received', 'sealed', 'verified')`

/** Random, and as long as the output of the hash that it keys (RFC 2104 section 3). */
export const newOwnerKey = (): string => randomBytes(32).toString('base64url')

const OPERATION = selection(OPERATIONS)
const REFERENCE = selection(REFERENCES, undefined, 'r_')

/** What statements read, and answer, of an operation. */
export const OPERATION_COLUMNS = OPERATION.list()
export const OPERATION_WITH_REFERENCE = `SELECT ${OPERATION.list('o')}, ${REFERENCE.list('r')}
  FROM landfall_operations o LEFT JOIN landfall_references r ON r.owner = o.owner AND r.operation_id = o.id`

/** An operation's columns, and those of its reference under `r_…` where they were joined. */
export function toOperation(row: SqlRow): OperationRecord {
  const { fileName, fileSize, fileType, fileLastModified, ...operation } = OPERATION.read(row)
  return {
    ...operation,
    file: {
      name: fileName,
      size: fileSize,
      type: fileType,
      ...(fileLastModified === null ? {} : { lastModified: fileLastModified }),
    },
    reference: typeof row['r_blob_key'] === 'string' ? REFERENCE.read(row) : null,
  }
}

/** An operation whose lease was just granted: its row, and the lease's holder and token. */
export const LEASED_COLUMNS = `${OPERATION_COLUMNS}, lease_token`

export function toLeased(row: SqlRow): { lease: Lease; operation: OperationRecord } {
  const operation = toOperation(row)
  const { owner, id } = operation
  return { lease: { owner, id, holder: String(row['lease_holder']), token: Number(row['lease_token']) }, operation }
}

const EFFECT = selection(EFFECTS)
export const EFFECT_COLUMNS = EFFECT.list()

export function toEffect(row: SqlRow): EffectRecord {
  const { effectId, owner, operationId, kind, name, type, payload, attempts } = EFFECT.read(row)
  const disabled = Number(row['disabled']) === 1
  return { effectId, owner, id: operationId, kind, name, type, payload, attempts, disabled }
}

const STANDING = selection(EFFECTS, [
  'effectId',
  'kind',
  'name',
  'type',
  'attempts',
  'dueAt',
  'deliveredAt',
  'givenUpAt',
  'lastError',
])
export const STANDING_COLUMNS = STANDING.list()
export const toEffectStanding = (row: SqlRow): EffectStanding => STANDING.read(row)

const CLAIM = selection(OPERATIONS, [
  'owner',
  'id',
  'blobKey',
  'point',
  'fileSize',
  'offset',
  'leaseHolder',
  'cleanupDue',
  'removedAt',
])
/** Of an operation `o`; `toClaim` also looks at its reference's `r_blob_key`, and at `removal_due`. */
export const CLAIM_COLUMNS = CLAIM.list('o')

export function toClaim(row: SqlRow): Claim {
  const { owner, id, blobKey, point, fileSize, offset, leaseHolder, cleanupDue, removedAt } = CLAIM.read(row)
  return {
    owner,
    id,
    blobKey,
    point,
    sizeBytes: fileSize,
    offset,
    leased: leaseHolder !== null,
    cleanupDue: cleanupDue || Number(row['removal_due']) === 1,
    removed: removedAt !== null,
    referenced: row['r_blob_key'] !== null,
  }
}

const text = (row: SqlRow, name: string): string => row[name] as string

/** Another one after each change that anybody can see. */
export const toVersion = (row: SqlRow): string =>
  `${text(row, 'point')} ${Number(row['offset'])} ${Number(row['updated_at'])}`

/** What `refusal` looks at. */
export const usageWords = (now: string): string =>
  `SELECT open_operations, reserved_bytes + stored_bytes AS used_bytes, open_operations + stored_references AS used_files,
     declared_until_us, ${now} AS now FROM landfall_usage WHERE owner = :owner`

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

/** As `lease_asked` says it. */
const URGENCIES = { 'when-silent': 1, 'at-once': 2 } as const
export const levelOf = (urgency: Urgency): number => URGENCIES[urgency]

export const toAsked = (row: SqlRow): { key: OperationKey; urgency: Urgency } => ({
  key: { owner: text(row, 'owner'), id: text(row, 'id') },
  urgency: Number(row['lease_asked']) === URGENCIES['at-once'] ? 'at-once' : 'when-silent',
})

const MOMENTS = { expiry: 'expires_at', 'digest-due': 'digest_due_at' } as const

/** Changes that say what their column then holds. */
const PLAIN = [
  'point',
  'offset',
  'blobState',
  'prepared',
  'content',
  'uncleanHolder',
  'attempts',
  'stalled',
  'problem',
  'lastError',
  'cleanupDue',
] as const satisfies readonly (keyof Changes & keyof typeof OPERATIONS.columns)[]

/** The SET list of an UPDATE. Its text depends only on which changes are given, so that statements are kept. */
export function assignments(changes: Changes, now: string): { sql: string; args: Args } {
  const parts: string[] = []
  const args: Record<string, SqlValue> = {}
  const set = (column: string, argument: string, value: SqlValue): void => {
    parts.push(`${column} = :new_${argument}`)
    args[`new_${argument}`] = value
  }
  const setAfter = (column: string, ms: number | null): void => {
    parts.push(ms === null ? `${column} = NULL` : `${column} = ${now} + :new_${column}`)
    if (ms !== null) args[`new_${column}`] = Math.round(ms)
  }
  for (const property of PLAIN)
    if (changes[property] !== undefined)
      set(columnName(property), nameOf(property), OPERATIONS.columns[property].write(changes[property] as never))
  if (changes.tailBase !== undefined) {
    // Once: stock clients have been shown an offset that counts from it.
    parts.push(`tail_base = COALESCE(tail_base, :new_tail_base)`, `received_at = COALESCE(received_at, ${now})`)
    args['new_tail_base'] = changes.tailBase
  }
  if (changes.digestDueInMs !== undefined) setAfter('digest_due_at', changes.digestDueInMs)
  if (changes.dueInMs !== undefined) setAfter('due_at', changes.dueInMs)
  if (changes.dueAt !== undefined) parts.push(`due_at = ${MOMENTS[changes.dueAt]}`)
  if (changes.expiresInMs !== undefined) setAfter('expires_at', changes.expiresInMs)
  if (changes.purpose !== undefined) set('lease_purpose', 'lease_purpose', changes.purpose)
  if (changes.release === true) parts.push(NO_LEASE)
  parts.push(`updated_at = ${now}`)
  return { sql: parts.join(', '), args }
}

/** Sets that nobody has the lease. */
export const NO_LEASE = `lease_holder = NULL, lease_purpose = NULL, lease_expires_at = NULL, lease_asked = 0`
