import type { Problem } from '@landfall/shared'
import { v7 as uuidv7 } from 'uuid'
import type { Changes, Lease, LeaseOutcome, Urgency } from '../../ports/ledger/leases.js'
import type { Declared, Intent } from '../../ports/ledger/operations.js'
import type { HookOutcome, ReferenceIntent } from '../../ports/ledger/references.js'
import type { OperationKey, OperationRecord } from '../../ports/operation.js'
import type { UploadError } from '../../lib/errors.js'
import { Lost } from '../hook.js'
import { MIGRATIONS } from './migrations.js'
import { isReady, notReady, partsOf, RECOUNT, refuseLostTables, type Standing } from '../parts.js'
import {
  assignments,
  levelOf,
  newOwnerKey,
  OPEN,
  OPERATION_WITH_REFERENCE,
  refusal,
  toAsked,
  toOperation,
  toVersion,
  usageWords,
} from '../rows.js'
import { rateWords } from '../rate.js'
import { tombstoneKey } from './retention.js'
import { TOMBSTONE, toTombstone } from '../tombstones.js'
import { owe } from './effects.js'
import { COMPLETABLE, DUE_OPERATIONS, dueArgs } from './due.js'
import { type Connection, NOW, type SqlValue } from './client/connection.js'

// What the ledger does on a connection, each within one job of the queue.

const PARTS = partsOf(MIGRATIONS)

/** How the tables stand, by reading only. */
export function standing(on: Connection): Standing {
  const there = new Set(on.all(`SELECT name FROM sqlite_schema`).map(({ name }) => String(name)))
  if (!there.has('landfall_meta')) return { version: 0, identity: null, missing: [] }
  const meta = new Map(on.all(`SELECT key, value FROM landfall_meta`).map(({ key, value }) => [key, String(value)]))
  const version = Number(meta.get('version') ?? 0)
  const missing =
    version === MIGRATIONS.length ? [...PARTS.tables, ...PARTS.others.keys()].filter((name) => !there.has(name)) : []
  return { version, identity: meta.get('identity') ?? null, missing }
}

const storeOf = (on: Connection): 'new' | 'known' =>
  on.get(`SELECT 1 AS known FROM landfall_meta WHERE key = 'store'`) === undefined ? 'new' : 'known'

/** Null: there is something to migrate. */
export function migrated(on: Connection): { identity: string; store: 'new' | 'known' } | null {
  const now = standing(on)
  return now.identity !== null && isReady(now, MIGRATIONS.length)
    ? { identity: now.identity, store: storeOf(on) }
    : null
}

export const unready = (on: Connection): UploadError => notReady(standing(on), MIGRATIONS.length)

export function migrate(on: Connection): { identity: string; store: 'new' | 'known' } {
  on.run(`CREATE TABLE IF NOT EXISTS landfall_meta (key TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL)`)
  const version = Number(on.get(`SELECT value FROM landfall_meta WHERE key = 'version'`)?.['value'] ?? 0)
  // The application's drizzle-kit may have been here before.
  for (const statement of MIGRATIONS.slice(version).flat()) if (!isDone(on, statement)) on.run(ifMissing(statement))
  if (version < MIGRATIONS.length)
    on.run(
      `INSERT INTO landfall_meta (key, value) VALUES ('version', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value`,
      [String(MIGRATIONS.length)],
    )
  mend(on)
  on.run(`INSERT INTO landfall_meta (key, value) VALUES ('identity', ?) ON CONFLICT (key) DO NOTHING`, [uuidv7()])
  tombstoneKey(on)
  const identity = String(on.get(`SELECT value FROM landfall_meta WHERE key = 'identity'`)?.['value'])
  return { identity, store: storeOf(on) }
}

/** Makes again what of this version somebody has dropped. */
function mend(on: Connection): void {
  const { missing } = standing(on)
  refuseLostTables(PARTS.tables, missing)
  const parts = missing.map((name) => PARTS.others.get(name)).filter((part) => part !== undefined)
  for (const { statement } of parts) on.run(ifMissing(statement))
  if (parts.some(({ kind }) => kind === 'TRIGGER')) for (const statement of RECOUNT) on.run(statement)
}

export function rememberStore(on: Connection): void {
  on.run(`INSERT INTO landfall_meta (key, value) VALUES ('store', 'known') ON CONFLICT (key) DO NOTHING`)
}

export function ownerKey(on: Connection): string {
  on.run(`INSERT INTO landfall_meta (key, value) VALUES ('owner_key', ?) ON CONFLICT (key) DO NOTHING`, [newOwnerKey()])
  return String(on.get(`SELECT value FROM landfall_meta WHERE key = 'owner_key'`)?.['value'])
}

/** SQLite has no IF NOT EXISTS for columns. */
function isDone(on: Connection, statement: string): boolean {
  const [, table, column] = /^ALTER TABLE (\w+) ADD COLUMN (\w+)/.exec(statement) ?? []
  if (table === undefined || column === undefined) return false
  return on.get(`SELECT 1 AS there FROM pragma_table_info(?) WHERE name = ?`, [table, column]) !== undefined
}

const ifMissing = (statement: string): string =>
  statement.replace(/^CREATE (UNIQUE )?(TABLE|INDEX|TRIGGER) /, 'CREATE $1$2 IF NOT EXISTS ')

export function find(on: Connection, key: OperationKey): OperationRecord | null {
  const row = on.get(`${OPERATION_WITH_REFERENCE} WHERE o.owner = ? AND o.id = ?`, [key.owner, key.id])
  return row === undefined ? null : toOperation(row)
}

/** One statement where the operation is new, which is nearly always, and one for its owner's rate. */
export function declare(on: Connection, intent: Intent, hash: string): Declared {
  const rate = intent.rate && rateWords(intent.rate, { until: 'declared_until_us', now: NOW, greater: 'MAX' })
  const row = on.get(
    `INSERT INTO landfall_operations (owner, id, kind, point, file_name, file_size, file_type, file_last_modified, metadata,
       validated, upload_metadata, facts, digest, digest_pending, blob_key, created_at, updated_at, expires_at, due_at, owner_hash)
     SELECT ?1, ?2, ?3, 'declared', ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ${NOW}, ${NOW}, ${NOW} + ?15, ${NOW} + ?16, ?20
     FROM (SELECT COALESCE(MAX(open_operations), 0) AS open_operations, COALESCE(MAX(reserved_bytes + stored_bytes), 0) AS used_bytes,
         COALESCE(MAX(open_operations + stored_references), 0) AS used_files, COALESCE(MAX(declared_until_us), 0) AS declared_until_us
       FROM landfall_usage WHERE owner = ?1)
     WHERE open_operations < ?17 AND (?18 IS NULL OR used_bytes + ?5 <= ?18) AND (?19 IS NULL OR used_files < ?19)
       ${rate === null ? '' : `AND ${rate.allowed}`}
       AND NOT EXISTS (SELECT 1 FROM landfall_tombstones WHERE id = ?2 AND owner_hash = ?20)
     ON CONFLICT (owner, id) DO NOTHING RETURNING *`,
    [
      intent.owner,
      intent.id,
      intent.kind,
      intent.file.name,
      intent.file.size,
      intent.file.type,
      intent.file.lastModified ?? null,
      JSON.stringify(intent.metadata),
      JSON.stringify(intent.validated),
      intent.uploadMetadata,
      intent.facts,
      intent.digest === 'pending' ? null : intent.digest,
      intent.digest === 'pending' ? 1 : 0,
      intent.blobKey,
      intent.expiresAfterMs,
      // An empty file needs no client any more.
      intent.file.size === 0 ? 0 : intent.expiresAfterMs,
      intent.maxOpenPerOwner,
      intent.quotaBytes,
      intent.quotaFiles,
      hash,
    ],
  )
  if (row !== undefined) {
    // The trigger has made the owner's row by now.
    if (rate !== null)
      on.run(`UPDATE landfall_usage SET declared_until_us = ${rate.next} WHERE owner = ?`, [intent.owner])
    return { outcome: 'created', operation: toOperation(row) }
  }
  const existing = on.get(`SELECT facts FROM landfall_operations WHERE owner = ? AND id = ?`, [intent.owner, intent.id])
  if (existing === undefined) {
    const point = toTombstone(on.get(TOMBSTONE, [intent.id, hash]))
    return point === null ? refusal(on.get(usageWords(NOW), [intent.owner]), intent) : { outcome: 'forgotten', point }
  }
  const operation = existing['facts'] === intent.facts ? find(on, intent) : null
  return operation === null ? { outcome: 'mismatch' } : { outcome: 'existing', operation }
}

export function listOpen(on: Connection, owner: string, after: string | null, limit: number): OperationRecord[] {
  const from =
    after === null
      ? undefined
      : on.get(`SELECT created_at FROM landfall_operations WHERE owner = ? AND id = ?`, [owner, after])
  const rows =
    from === undefined || after === null
      ? on.all(
          `SELECT * FROM landfall_operations WHERE owner = ? AND point IN ${OPEN} ORDER BY created_at, id LIMIT ?`,
          [owner, limit],
        )
      : on.all(
          `SELECT * FROM landfall_operations WHERE owner = ? AND point IN ${OPEN} AND (created_at, id) > (?, ?) ORDER BY created_at, id LIMIT ?`,
          [owner, from['created_at'] as SqlValue, after, limit],
        )
  return rows.map(toOperation)
}

export function setDigest(
  on: Connection,
  key: OperationKey,
  digest: string,
): { outcome: 'set' | 'conflict' | 'closed'; operation: OperationRecord | null } {
  const row = on.get(
    `UPDATE landfall_operations SET digest = ?, digest_pending = 0, digest_due_at = NULL, updated_at = ${NOW},
       due_at = CASE WHEN point = 'received' AND lease_holder IS NULL THEN ${NOW} ELSE due_at END
     WHERE owner = ? AND id = ? AND digest IS NULL AND point IN ${OPEN} AND content = 'null' RETURNING *`,
    [digest, key.owner, key.id],
  )
  if (row !== undefined) return { outcome: 'set', operation: toOperation(row) }
  const operation = find(on, key)
  const known = operation?.digest ?? operation?.reference?.digest ?? operation?.content?.digest ?? null
  if (known === digest) return { outcome: 'set', operation: null }
  return { outcome: known === null ? 'closed' : 'conflict', operation: null }
}

/** What a lease sets. It is due when it expires: whoever dies with it is found by the completer. */
const GRANT = `lease_token = lease_token + 1,
  unclean_holder = COALESCE(unclean_holder, CASE lease_purpose WHEN 'receive' THEN lease_holder END),
  lease_holder = ?, lease_purpose = ?, lease_expires_at = ${NOW} + ?, lease_asked = 0, due_at = ${NOW} + ?`

/** A holder that asks again has lost its own memory of the lease, never its process: it is not in use. */
const FREE = `(lease_holder IS NULL OR lease_holder = ? OR lease_expires_at <= ${NOW})`

export function takeLease(
  on: Connection,
  key: OperationKey,
  request: { holder: string; leaseMs: number; purpose: 'receive' | 'drive' },
): LeaseOutcome {
  const useful =
    request.purpose === 'receive'
      ? `point = 'declared' AND "offset" < file_size`
      : `(point IN ${OPEN} OR cleanup_due = 1)`
  const row = on.get(
    `UPDATE landfall_operations SET ${GRANT} WHERE owner = ? AND id = ? AND ${useful} AND ${FREE} RETURNING *`,
    [request.holder, request.purpose, request.leaseMs, request.leaseMs, key.owner, key.id, request.holder],
  )
  if (row !== undefined) return { outcome: 'granted', ...granted(row) }
  const held = on.get(`SELECT 1 AS held FROM landfall_operations WHERE owner = ? AND id = ? AND ${useful}`, [
    key.owner,
    key.id,
  ])
  return { outcome: held === undefined ? 'closed' : 'held' }
}

function granted(row: Parameters<typeof toOperation>[0]): { lease: Lease; operation: OperationRecord } {
  const operation = toOperation(row)
  const { owner, id } = operation
  return { lease: { owner, id, holder: String(row['lease_holder']), token: Number(row['lease_token']) }, operation }
}

export function leaseDue(
  on: Connection,
  request: { holder: string; leaseMs: number; limit: number; inUse: readonly OperationKey[] },
): { lease: Lease; operation: OperationRecord }[] {
  const { holder, leaseMs, limit } = request
  return on
    .all(`UPDATE landfall_operations SET ${GRANT} WHERE rowid IN (${DUE_OPERATIONS}) RETURNING *`, [
      holder,
      'drive',
      leaseMs,
      leaseMs,
      ...dueArgs(request),
      limit,
    ])
    .map(granted)
}

/** Somebody else that receives bytes now. */
const RECEIVES = `owner = ? AND id = ? AND lease_purpose = 'receive' AND lease_holder <> ? AND lease_expires_at > ${NOW}`

export function ask(
  on: Connection,
  { owner, id }: OperationKey,
  { holder, urgency }: { holder: string; urgency: Urgency },
): boolean {
  const level = levelOf(urgency)
  const asked = on.run(`UPDATE landfall_operations SET lease_asked = ? WHERE ${RECEIVES} AND lease_asked < ?`, [
    level,
    owner,
    id,
    holder,
    level,
  ])
  return (
    asked > 0 ||
    on.get(`SELECT 1 AS receives FROM landfall_operations WHERE ${RECEIVES}`, [owner, id, holder]) !== undefined
  )
}

export const askedOf = (on: Connection, holder: string): { key: OperationKey; urgency: Urgency }[] =>
  on
    .all(`SELECT owner, id, lease_asked FROM landfall_operations WHERE lease_holder = ? AND lease_asked > 0`, [holder])
    .map(toAsked)

export const versions = (on: Connection, keys: readonly OperationKey[]): (string | null)[] =>
  keys.map(({ owner, id }) => {
    const row = on.get(`SELECT point, updated_at, "offset" FROM landfall_operations WHERE owner = ? AND id = ?`, [
      owner,
      id,
    ])
    return row === undefined ? null : toVersion(row)
  })

export const renewLease = (on: Connection, lease: Lease, leaseMs: number): boolean =>
  on.run(
    `UPDATE landfall_operations SET lease_expires_at = ${NOW} + ?, due_at = ${NOW} + ?
     WHERE owner = ? AND id = ? AND lease_token = ? AND lease_holder = ?`,
    [leaseMs, leaseMs, lease.owner, lease.id, lease.token, lease.holder],
  ) > 0

/** The fence of every later write: who lost the lease changes nothing (invariant 8). */
const FENCE = `owner = ? AND id = ? AND lease_token = ? AND lease_holder = ? AND digest IS ?`
const fence = (lease: Lease, from: OperationRecord): SqlValue[] => [
  lease.owner,
  lease.id,
  lease.token,
  lease.holder,
  from.digest,
]

export function record(on: Connection, lease: Lease, from: OperationRecord, changes: Changes): OperationRecord | null {
  const { sql: set, args } = assignments(changes, NOW)
  const row = on.get(`UPDATE landfall_operations SET ${set} WHERE ${FENCE} AND point = ? RETURNING *`, [
    ...args,
    ...fence(lease, from),
    from.point,
  ])
  return row === undefined ? null : toOperation(row)
}

export function referIn(
  on: Connection,
  lease: Lease,
  from: OperationRecord,
  intent: ReferenceIntent,
  accepted: Extract<HookOutcome, { outcome: 'accepted' }>,
): OperationRecord {
  const changes: Changes = {
    ...intent.changes,
    point: 'referenced',
    content: intent.content,
    attempts: 0,
    lastError: null,
    problem: null,
    stalled: false,
    dueInMs: null,
    uncleanHolder: null,
    release: true,
  }
  const { sql: set, args } = assignments(changes, NOW)
  // Any open point: the same holder may have recorded an earlier one while the hook ran.
  const row = on.get(
    `UPDATE landfall_operations SET ${set}, owes_effects = ? WHERE ${FENCE} AND point IN ${OPEN} RETURNING *`,
    [
      ...args,
      // It completes with the last of them.
      intent.effects.length > 0 ? 1 : 0,
      ...fence(lease, from),
    ],
  )
  if (row === undefined) throw new Lost()
  const operation = toOperation(row)
  // The primary key is invariant 2, whatever else may fail.
  on.run(
    `INSERT INTO landfall_references (owner, operation_id, blob_key, size, type, digest, digest_source, stored_at, data)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    [
      operation.owner,
      operation.id,
      operation.blobKey,
      operation.file.size,
      intent.content.type,
      intent.content.digest,
      intent.digestSource,
      operation.updatedAt,
      JSON.stringify(accepted.data),
    ],
  )
  const { blobKey, file, updatedAt } = operation
  const { digestSource } = intent
  const referenced = {
    blobKey,
    size: file.size,
    ...intent.content,
    digestSource,
    storedAt: updatedAt,
    data: accepted.data,
  }
  const result = { ...operation, reference: referenced }
  owe(on, result, intent.effects)
  return result
}

export function cancel(on: Connection, key: OperationKey, why: Problem): OperationRecord | null {
  const row = on.get(
    `UPDATE landfall_operations SET point = 'cancelled', problem = ?, stalled = 0, lease_token = lease_token + 1, lease_holder = NULL,
       lease_purpose = NULL, lease_expires_at = NULL, lease_asked = 0, cleanup_due = 1, attempts = 0, due_at = ${NOW}, updated_at = ${NOW}
     WHERE owner = ? AND id = ? AND point IN ${OPEN} RETURNING *`,
    [JSON.stringify(why), key.owner, key.id],
  )
  return row === undefined ? null : toOperation(row)
}

export const complete = (on: Connection, limit: number): number =>
  on.run(`UPDATE landfall_operations SET point = 'completed', updated_at = ${NOW} WHERE rowid IN (${COMPLETABLE})`, [
    limit,
  ])
