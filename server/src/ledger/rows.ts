import { randomBytes } from 'node:crypto'
import type { EffectRecord, EffectStanding } from '../ports/ledger/effects.js'
import type { Claim } from '../ports/ledger/inventory.js'
import type { Lease, Urgency } from '../ports/ledger/leases.js'
import type { Declared, Intent } from '../ports/ledger/operations.js'
import type { OperationKey, OperationRecord } from '../ports/operation.js'
import { selection, shown } from './columns.js'
import type { SqlRow } from './query.js'
import { untilNextMs } from './rate.js'
import { EFFECTS, OPERATIONS, REFERENCES } from './tables.js'

// The records that are made from rows, and the values that are written into rows.

export const OPEN = `('declared', 'received', 'sealed', 'verified')`

/** A random key, as long as the output of the hash that uses it (RFC 2104 section 3). */
export const newOwnerKey = (): string => randomBytes(32).toString('base64url')

const OF_FILE = ['fileName', 'fileSize', 'fileType', 'fileLastModified'] as const
const OPERATION = selection(OPERATIONS, shown(OPERATIONS, OF_FILE))
const FILE = selection(OPERATIONS, OF_FILE)
const REFERENCE = selection(REFERENCES, shown(REFERENCES), 'r_')

/** The columns of an operation that statements read and return. */
export const OPERATION_COLUMNS = `${OPERATION.list()}, ${FILE.list()}`
export const OPERATION_WITH_REFERENCE = `SELECT ${OPERATION.list('o')}, ${FILE.list('o')}, ${REFERENCE.list('r')}
  FROM landfall_operations o LEFT JOIN landfall_references r ON r.owner = o.owner AND r.operation_id = o.id`

/** Makes a record from an operation's columns, and from those of its reference (`r_…`) if they were joined. */
export function toOperation(row: SqlRow): OperationRecord {
  const { fileName, fileSize, fileType, fileLastModified } = FILE.read(row)
  // The columns come last, because V8 is much slower when properties are added to a copy of a large object.
  return {
    file: {
      name: fileName,
      size: fileSize,
      type: fileType,
      ...(fileLastModified === null ? {} : { lastModified: fileLastModified }),
    },
    reference: typeof row['r_blob_key'] === 'string' ? REFERENCE.read(row) : null,
    ...OPERATION.read(row),
  }
}

/** The columns of an operation whose lease was just granted, with the lease's holder and token. */
export const LEASED_COLUMNS = `${OPERATION_COLUMNS}, lease_token`

export function toLeased(row: SqlRow): { lease: Lease; operation: OperationRecord } {
  const operation = toOperation(row)
  const { owner, id } = operation
  return { lease: { owner, id, holder: String(row['lease_holder']), token: Number(row['lease_token']) }, operation }
}

const EFFECT = selection(EFFECTS, shown(EFFECTS))
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
/** Columns of an operation `o`. `toClaim` also reads `r_blob_key`, which is of its reference, and `removal_due`. */
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

/** A text that is different after every visible change. */
export const toVersion = (row: SqlRow): string =>
  `${text(row, 'point')} ${Number(row['offset'])} ${Number(row['updated_at'])}`

/** Reads what `refusal` needs. */
export const usageWords = (now: string): string =>
  `SELECT open_operations, reserved_bytes + stored_bytes AS used_bytes, open_operations + stored_references AS used_files,
     declared_until_us, ${now} AS now FROM landfall_usage WHERE owner = :owner`

/**
 * Why an operation could not be declared, judged by what its owner uses now. That may have changed since the attempt.
 */
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

/** The values of `lease_asked`. */
const URGENCIES = { 'when-silent': 1, 'at-once': 2 } as const
export const levelOf = (urgency: Urgency): number => URGENCIES[urgency]

export const toAsked = (row: SqlRow): { key: OperationKey; urgency: Urgency } => ({
  key: { owner: text(row, 'owner'), id: text(row, 'id') },
  urgency: Number(row['lease_asked']) === URGENCIES['at-once'] ? 'at-once' : 'when-silent',
})
