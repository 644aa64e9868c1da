import type { Problem } from '@landfall/shared'
import { v7 as uuidv7 } from 'uuid'
import type { Changes, Lease, LeaseOutcome, LeaseRequest, Urgency } from '../../ports/ledger/leases.js'
import type { Declared, Intent } from '../../ports/ledger/operations.js'
import type { HookOutcome, ReferenceIntent } from '../../ports/ledger/references.js'
import type { OperationKey, OperationRecord } from '../../ports/operation.js'
import type { UploadError } from '../../lib/errors.js'
import { Lost } from '../hook.js'
import { COMPLETABLE, DUE_OPERATIONS, dueArgs } from './due.js'
import { owe } from './effects.js'
import { isReady, notReady, partsOf, RECOUNT, refuseLostTables, type Standing } from '../parts.js'
import { POSTGRES_MIGRATIONS } from './migrations.js'
import { NOW, type Queries } from './query.js'
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
import { tombstoneKey } from './retention.js'
import { rateWords } from '../rate.js'
import { TOMBSTONE, toTombstone } from '../tombstones.js'
import type { SqlRow, SqlValue } from '../sqlite/client/connection.js'

/** Of `pg_advisory_xact_lock`: one process migrates at a time. Any number would do that nobody else uses. */
const MIGRATION_LOCK = 7_203_155_221
/** So long a change of the tables waits for those who use them just now: a long transaction, a dump. */
const LOCK_MS = 2_000

const PARTS = partsOf(POSTGRES_MIGRATIONS)
const namesOf = (kind: 'INDEX' | 'TRIGGER' | 'FUNCTION'): string[] =>
  [...PARTS.others].filter(([, part]) => part.kind === kind).map(([name]) => name)
const NAMES = { TRIGGER: namesOf('TRIGGER'), FUNCTION: namesOf('FUNCTION') }
const RELATIONS = [...PARTS.tables, ...namesOf('INDEX')]
const NAMED = `json_array_elements_text(CAST(CAST(? AS text) AS json))`

/** How the tables stand, by reading only. A trigger that is disabled is none. */
export async function standing(on: Queries): Promise<Standing> {
  const there = await on.get(`SELECT to_regclass('landfall_meta') IS NOT NULL AS there`)
  if (String(there?.['there']) !== 'true') return { version: 0, identity: null, missing: [] }
  const rows = await on.all(`SELECT key, value FROM landfall_meta WHERE key IN ('version', 'identity')`)
  const meta = new Map(rows.map(({ key, value }) => [key, String(value)]))
  const version = Number(meta.get('version') ?? 0)
  const identity = meta.get('identity') ?? null
  if (version !== POSTGRES_MIGRATIONS.length) return { version, identity, missing: [] }
  const missing = await on.all(
    `SELECT name FROM ${NAMED} AS given(name) WHERE to_regclass(name) IS NULL
     UNION ALL SELECT name FROM ${NAMED} AS given(name) WHERE to_regproc(name) IS NULL
     UNION ALL SELECT name FROM ${NAMED} AS given(name) WHERE NOT EXISTS (
       SELECT 1 FROM pg_trigger t JOIN ${NAMED} AS tables(of) ON t.tgrelid = to_regclass(of)
       WHERE t.tgname = name AND t.tgenabled IN ('O', 'A'))`,
    [RELATIONS, NAMES.FUNCTION, NAMES.TRIGGER, PARTS.tables].map((names) => JSON.stringify(names)),
  )
  return { version, identity, missing: missing.map(({ name }) => String(name)) }
}

const storeOf = async (on: Queries): Promise<'new' | 'known'> =>
  (await on.get(`SELECT 1 AS known FROM landfall_meta WHERE key = 'store'`)) === undefined ? 'new' : 'known'

/** Null: there is something to migrate. */
export async function migrated(on: Queries): Promise<{ identity: string; store: 'new' | 'known' } | null> {
  const now = await standing(on)
  return now.identity !== null && isReady(now, POSTGRES_MIGRATIONS.length)
    ? { identity: now.identity, store: await storeOf(on) }
    : null
}

export const unready = async (on: Queries): Promise<UploadError> =>
  notReady(await standing(on), POSTGRES_MIGRATIONS.length)

/** In a transaction. Fails with `lock_not_available` (55P03) where somebody uses a table for longer than `LOCK_MS`. */
export async function migrate(on: Queries): Promise<{ identity: string; store: 'new' | 'known' }> {
  await on.all(`SELECT pg_advisory_xact_lock(${MIGRATION_LOCK})`)
  // Whoever asks for a table behind this one waits for it, readers too: better to give way, and to come again.
  await on.all(`SELECT set_config('lock_timeout', ?, true)`, [String(LOCK_MS)])
  // Another process may have been here while this one waited.
  const ready = await migrated(on)
  if (ready !== null) return ready
  await on.run(`CREATE TABLE IF NOT EXISTS landfall_meta (key text PRIMARY KEY, value text NOT NULL)`)
  const version = Number((await on.get(`SELECT value FROM landfall_meta WHERE key = 'version'`))?.['value'] ?? 0)
  for (const statement of POSTGRES_MIGRATIONS.slice(version).flat()) await on.run(ifMissing(statement))
  // A newer version of the server may have been here: its tables are its own to count.
  if (version < POSTGRES_MIGRATIONS.length)
    await on.run(
      `INSERT INTO landfall_meta (key, value) VALUES ('version', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value`,
      [String(POSTGRES_MIGRATIONS.length)],
    )
  await mend(on)
  await on.run(`INSERT INTO landfall_meta (key, value) VALUES ('identity', ?) ON CONFLICT (key) DO NOTHING`, [uuidv7()])
  await tombstoneKey(on)
  const identity = String((await on.get(`SELECT value FROM landfall_meta WHERE key = 'identity'`))?.['value'])
  return { identity, store: await storeOf(on) }
}

/** Makes again what of this version somebody has dropped. */
async function mend(on: Queries): Promise<void> {
  const { missing } = await standing(on)
  refuseLostTables(PARTS.tables, missing)
  const parts = missing.map((name) => PARTS.others.get(name)).filter((part) => part !== undefined)
  if (parts.length === 0) return
  // What other processes write meanwhile would be counted by nobody, or twice.
  await on.all(`LOCK TABLE landfall_operations, landfall_references, landfall_usage IN SHARE ROW EXCLUSIVE MODE`)
  // A trigger needs its function, whichever of them is missing.
  for (const { kind, statement } of PARTS.others.values()) if (kind === 'FUNCTION') await on.run(ifMissing(statement))
  for (const { kind, statement } of parts) if (kind !== 'FUNCTION') await on.run(ifMissing(statement))
  const triggers = parts.filter(({ kind }) => kind === 'TRIGGER')
  for (const { statement } of triggers) {
    // One that somebody has disabled is there, and stays disabled.
    const [, name, table] = /^CREATE TRIGGER (\w+)[^]*? ON (\w+)/.exec(statement) ?? []
    await on.run(`ALTER TABLE ${table} ENABLE TRIGGER ${name}`)
  }
  if (triggers.length > 0) for (const statement of RECOUNT) await on.run(statement)
}

/** The application's drizzle-kit may have made tables before. */
const ifMissing = (statement: string): string =>
  statement
    .replace(/^CREATE (UNIQUE )?(TABLE|INDEX) /, 'CREATE $1$2 IF NOT EXISTS ')
    .replace(/^CREATE (FUNCTION|TRIGGER) /, 'CREATE OR REPLACE $1 ')
    .replace(/^ALTER TABLE (\w+) ADD COLUMN /, 'ALTER TABLE $1 ADD COLUMN IF NOT EXISTS ')

export const rememberStore = (on: Queries): Promise<number> =>
  on.run(`INSERT INTO landfall_meta (key, value) VALUES ('store', 'known') ON CONFLICT (key) DO NOTHING`)

/** Of two who insert at once, the second waits for the first one's commit, and reads what that has made. */
export async function ownerKey(on: Queries): Promise<string> {
  await on.run(`INSERT INTO landfall_meta (key, value) VALUES ('owner_key', ?) ON CONFLICT (key) DO NOTHING`, [
    newOwnerKey(),
  ])
  return String((await on.get(`SELECT value FROM landfall_meta WHERE key = 'owner_key'`))?.['value'])
}

export async function find(on: Queries, key: OperationKey): Promise<OperationRecord | null> {
  const row = await on.get(`${OPERATION_WITH_REFERENCE} WHERE o.owner = ? AND o.id = ?`, [key.owner, key.id])
  return row === undefined ? null : toOperation(row)
}

export async function findMany(on: Queries, owner: string, ids: readonly string[]): Promise<OperationRecord[]> {
  const rows = await on.all(
    `${OPERATION_WITH_REFERENCE} WHERE o.owner = ? AND o.id IN (SELECT json_array_elements_text(CAST(CAST(? AS text) AS json)))`,
    [owner, JSON.stringify(ids)],
  )
  const found = new Map(rows.map((row) => [row['id'], toOperation(row)]))
  return ids.map((id) => found.get(id)).filter((operation) => operation !== undefined)
}

export async function versions(on: Queries, keys: readonly OperationKey[]): Promise<(string | null)[]> {
  const rows = await on.all(
    `SELECT o.owner, o.id, o.point, o.updated_at, o."offset" FROM json_array_elements(CAST(CAST(? AS text) AS json)) AS wanted
       JOIN landfall_operations o ON o.owner = wanted ->> 0 AND o.id = wanted ->> 1`,
    [JSON.stringify(keys.map(({ owner, id }) => [owner, id]))],
  )
  const found = new Map(rows.map((row) => [JSON.stringify([row['owner'], row['id']]), toVersion(row)]))
  return keys.map(({ owner, id }) => found.get(JSON.stringify([owner, id])) ?? null)
}

/**
 * One statement where the operation is new, which is nearly always. The owner's row is locked first, so that declares of
 * several nodes follow each other and each sees what the others have counted.
 *
 * @param hash Of the owner, as tombstones name it.
 */
export async function declare(on: Queries, intent: Intent, hash: string): Promise<Declared> {
  const { rate } = intent
  // Decided in the owner's row, where only one declaration at a time can be.
  const first = rate && rateWords(rate, { until: '0', now: NOW, greater: 'GREATEST' })
  const next = rate && rateWords(rate, { until: 'u.declared_until_us', now: NOW, greater: 'GREATEST' })
  const row = await on.get(
    `WITH own AS (
       INSERT INTO landfall_usage AS u (owner${first === null ? '' : ', declared_until_us'})
       SELECT CAST(? AS text)${first === null ? '' : `, ${first.next}`} WHERE NOT EXISTS (SELECT 1 FROM landfall_operations WHERE owner = ? AND id = ?)
         AND NOT EXISTS (SELECT 1 FROM landfall_tombstones WHERE id = ? AND owner_hash = ?)
       ON CONFLICT (owner) DO UPDATE SET ${
         next === null
           ? 'owner = excluded.owner, declaration_refused = 0'
           : `declared_until_us = CASE WHEN ${next.allowed} THEN ${next.next} ELSE u.declared_until_us END,
              declaration_refused = CASE WHEN ${next.allowed} THEN 0 ELSE 1 END`
       }
       RETURNING open_operations, reserved_bytes + stored_bytes AS used_bytes, open_operations + stored_references AS used_files,
         declaration_refused
     )
     INSERT INTO landfall_operations (owner, id, kind, point, file_name, file_size, file_type, file_last_modified, metadata,
       validated, upload_metadata, facts, digest, digest_pending, blob_key, created_at, updated_at, expires_at, due_at, owner_hash)
     SELECT CAST(? AS text), CAST(? AS text), CAST(? AS text), 'declared', CAST(? AS text), CAST(? AS bigint), CAST(? AS text),
       CAST(? AS bigint), CAST(? AS text), CAST(? AS text), CAST(? AS text), CAST(? AS text), CAST(? AS text),
       CAST(? AS smallint), CAST(? AS text), ${NOW}, ${NOW}, ${NOW} + CAST(? AS bigint), ${NOW} + CAST(? AS bigint), CAST(? AS text)
     FROM own WHERE open_operations < CAST(? AS bigint) AND (CAST(? AS bigint) IS NULL OR used_bytes + CAST(? AS bigint) <= CAST(? AS bigint))
       AND (CAST(? AS bigint) IS NULL OR used_files < CAST(? AS bigint)) AND declaration_refused = 0
     ON CONFLICT (owner, id) DO NOTHING RETURNING *`,
    [
      intent.owner,
      intent.owner,
      intent.id,
      intent.id,
      hash,
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
      hash,
      intent.maxOpenPerOwner,
      intent.quotaBytes,
      intent.file.size,
      intent.quotaBytes,
      intent.quotaFiles,
      intent.quotaFiles,
    ],
  )
  if (row !== undefined) return { outcome: 'created', operation: toOperation(row) }
  const existing = await on.get(`SELECT facts FROM landfall_operations WHERE owner = ? AND id = ?`, [
    intent.owner,
    intent.id,
  ])
  if (existing !== undefined && existing['facts'] !== intent.facts) return { outcome: 'mismatch' }
  const operation = existing === undefined ? null : await find(on, intent)
  if (operation !== null) return { outcome: 'existing', operation }
  const point = toTombstone(await on.get(TOMBSTONE, [intent.id, hash]))
  if (point !== null) return { outcome: 'forgotten', point }
  return refusal(await on.get(usageWords(NOW), [intent.owner]), intent)
}

export async function listOpen(
  on: Queries,
  owner: string,
  after: string | null,
  limit: number,
): Promise<OperationRecord[]> {
  const from =
    after === null
      ? undefined
      : await on.get(`SELECT created_at FROM landfall_operations WHERE owner = ? AND id = ?`, [owner, after])
  const rows =
    from === undefined || after === null
      ? await on.all(
          `SELECT * FROM landfall_operations WHERE owner = ? AND point IN ${OPEN} ORDER BY created_at, id LIMIT ?`,
          [owner, limit],
        )
      : await on.all(
          `SELECT * FROM landfall_operations WHERE owner = ? AND point IN ${OPEN} AND (created_at, id) > (?, ?) ORDER BY created_at, id LIMIT ?`,
          [owner, from['created_at'] as SqlValue, after, limit],
        )
  return rows.map(toOperation)
}

export async function setDigest(
  on: Queries,
  key: OperationKey,
  digest: string,
): Promise<{ outcome: 'set' | 'conflict' | 'closed'; operation: OperationRecord | null }> {
  const row = await on.get(
    `UPDATE landfall_operations SET digest = ?, digest_pending = 0, digest_due_at = NULL, updated_at = ${NOW},
       due_at = CASE WHEN point = 'received' AND lease_holder IS NULL THEN ${NOW} ELSE due_at END
     WHERE owner = ? AND id = ? AND digest IS NULL AND point IN ${OPEN} AND content = 'null' RETURNING *`,
    [digest, key.owner, key.id],
  )
  if (row !== undefined) return { outcome: 'set', operation: toOperation(row) }
  const operation = await find(on, key)
  const known = operation?.digest ?? operation?.reference?.digest ?? operation?.content?.digest ?? null
  if (known === digest) return { outcome: 'set', operation: null }
  return { outcome: known === null ? 'closed' : 'conflict', operation: null }
}

/** What a lease sets. It is due when it expires: whoever dies with it is found by the completer. */
const GRANT = `lease_token = o.lease_token + 1,
  unclean_holder = COALESCE(o.unclean_holder, CASE o.lease_purpose WHEN 'receive' THEN o.lease_holder END),
  lease_holder = ?, lease_purpose = ?, lease_expires_at = ${NOW} + ?, lease_asked = 0, due_at = ${NOW} + ?`

/** A holder that asks again has lost its own memory of the lease, never its process: it is not in use. */
const FREE = `(o.lease_holder IS NULL OR o.lease_holder = ? OR o.lease_expires_at <= ${NOW})`

export async function takeLease(
  on: Queries,
  key: OperationKey,
  request: LeaseRequest & { purpose: 'receive' | 'drive' },
): Promise<LeaseOutcome> {
  const useful =
    request.purpose === 'receive'
      ? `o.point = 'declared' AND o."offset" < o.file_size`
      : `(o.point IN ${OPEN} OR o.cleanup_due = 1)`
  const row = await on.get(
    `UPDATE landfall_operations o SET ${GRANT} WHERE o.owner = ? AND o.id = ? AND ${useful} AND ${FREE} RETURNING o.*`,
    [request.holder, request.purpose, request.leaseMs, request.leaseMs, key.owner, key.id, request.holder],
  )
  if (row !== undefined) return { outcome: 'granted', ...granted(row) }
  const held = await on.get(
    `SELECT 1 AS held FROM landfall_operations o WHERE o.owner = ? AND o.id = ? AND ${useful}`,
    [key.owner, key.id],
  )
  return { outcome: held === undefined ? 'closed' : 'held' }
}

function granted(row: SqlRow): { lease: Lease; operation: OperationRecord } {
  const operation = toOperation(row)
  const { owner, id } = operation
  return { lease: { owner, id, holder: String(row['lease_holder']), token: Number(row['lease_token']) }, operation }
}

export async function leaseDue(
  on: Queries,
  request: LeaseRequest & { limit: number; inUse: readonly OperationKey[] },
): Promise<{ lease: Lease; operation: OperationRecord }[]> {
  const { holder, leaseMs, limit } = request
  const rows = await on.all(
    `WITH due AS MATERIALIZED (${DUE_OPERATIONS})
     UPDATE landfall_operations o SET ${GRANT} FROM due WHERE o.owner = due.owner AND o.id = due.id RETURNING o.*`,
    [...dueArgs(request), limit, holder, 'drive', leaseMs, leaseMs],
  )
  return rows.map(granted)
}

/** Somebody else that receives bytes now. */
const RECEIVES = `owner = ? AND id = ? AND lease_purpose = 'receive' AND lease_holder <> ? AND lease_expires_at > ${NOW}`

export async function ask(
  on: Queries,
  { owner, id }: OperationKey,
  { holder, urgency }: { holder: string; urgency: Urgency },
): Promise<boolean> {
  const level = levelOf(urgency)
  const asked = await on.run(
    `UPDATE landfall_operations SET lease_asked = ? WHERE ${RECEIVES} AND lease_asked < CAST(? AS smallint)`,
    [level, owner, id, holder, level],
  )
  return (
    asked > 0 ||
    (await on.get(`SELECT 1 AS receives FROM landfall_operations WHERE ${RECEIVES}`, [owner, id, holder])) !== undefined
  )
}

export async function askedOf(on: Queries, holder: string): Promise<{ key: OperationKey; urgency: Urgency }[]> {
  const rows = await on.all(
    `SELECT owner, id, lease_asked FROM landfall_operations WHERE lease_holder = ? AND lease_asked > 0`,
    [holder],
  )
  return rows.map(toAsked)
}

/**
 * In one statement, which waits for nobody: a row that somebody has locked (the application forgets its owner in a long
 * transaction) must not keep all others of this process from being prolonged. Such a lease counts as kept, and is
 * prolonged the next time; whoever takes it has to wait for that lock, too.
 */
export async function renew(on: Queries, leases: readonly Lease[], leaseMs: number): Promise<Lease[]> {
  if (leases.length === 0) return []
  const rows = await on.all(
    `WITH held AS MATERIALIZED (
       SELECT o.owner, o.id, o.lease_token FROM json_array_elements(CAST(CAST(? AS text) AS json)) AS held
         JOIN landfall_operations o ON o.owner = held ->> 0 AND o.id = held ->> 1
           AND o.lease_token = CAST(held ->> 2 AS bigint) AND o.lease_holder = held ->> 3
     ), wanted AS MATERIALIZED (
       SELECT o.owner, o.id FROM held JOIN landfall_operations o
         ON o.owner = held.owner AND o.id = held.id AND o.lease_token = held.lease_token
       ORDER BY o.owner, o.id FOR UPDATE OF o SKIP LOCKED
     ), prolonged AS (
       UPDATE landfall_operations o SET lease_expires_at = ${NOW} + ?, due_at = ${NOW} + ?
       FROM wanted WHERE o.owner = wanted.owner AND o.id = wanted.id
     )
     SELECT owner, id, lease_token FROM held`,
    [JSON.stringify(leases.map(({ owner, id, token, holder }) => [owner, id, token, holder])), leaseMs, leaseMs],
  )
  const kept = new Set(rows.map((row) => JSON.stringify([row['owner'], row['id'], Number(row['lease_token'])])))
  return leases.filter(({ owner, id, token }) => kept.has(JSON.stringify([owner, id, token])))
}

/** The fence of every later write: who lost the lease changes nothing (invariant 8). */
const FENCE = `owner = ? AND id = ? AND lease_token = ? AND lease_holder = ? AND digest IS NOT DISTINCT FROM ?`
const fence = (lease: Lease, from: OperationRecord): SqlValue[] => [
  lease.owner,
  lease.id,
  lease.token,
  lease.holder,
  from.digest,
]

export async function record(
  on: Queries,
  lease: Lease,
  from: OperationRecord,
  changes: Changes,
): Promise<OperationRecord | null> {
  const { sql: set, args } = assignments(changes, NOW)
  const row = await on.get(`UPDATE landfall_operations SET ${set} WHERE ${FENCE} AND point = ? RETURNING *`, [
    ...args,
    ...fence(lease, from),
    from.point,
  ])
  return row === undefined ? null : toOperation(row)
}

/** The last statements of the application's transaction. @throws Lost */
export async function referIn(
  on: Queries,
  lease: Lease,
  from: OperationRecord,
  intent: ReferenceIntent,
  accepted: Extract<HookOutcome, { outcome: 'accepted' }>,
): Promise<OperationRecord> {
  const { sql: set, args } = assignments(
    {
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
    },
    NOW,
  )
  // Any open point: the same holder may have recorded an earlier one while the hook ran. The primary key of the
  // references is invariant 2, whatever else may fail.
  const row = await on.get(
    `WITH operation AS (
       UPDATE landfall_operations SET ${set}, owed_effects = ? WHERE ${FENCE} AND point IN ${OPEN} RETURNING *
     ), reference AS (
       INSERT INTO landfall_references (owner, operation_id, blob_key, size, type, digest, digest_source, stored_at, data)
       SELECT owner, id, blob_key, file_size, CAST(? AS text), CAST(? AS text), CAST(? AS text), updated_at, CAST(? AS text) FROM operation
     )
     SELECT * FROM operation`,
    [
      ...args,
      intent.effects.length,
      ...fence(lease, from),
      intent.content.type,
      intent.content.digest,
      intent.digestSource,
      JSON.stringify(accepted.data),
    ],
  )
  if (row === undefined) throw new Lost()
  const operation = toOperation(row)
  const { blobKey, file, updatedAt } = operation
  const { digestSource } = intent
  const reference = {
    blobKey,
    size: file.size,
    ...intent.content,
    digestSource,
    storedAt: updatedAt,
    data: accepted.data,
  }
  await owe(on, operation, reference, intent.effects)
  return { ...operation, reference }
}

export async function cancel(on: Queries, key: OperationKey, why: Problem): Promise<OperationRecord | null> {
  const row = await on.get(
    `UPDATE landfall_operations SET point = 'cancelled', problem = ?, stalled = 0, lease_token = lease_token + 1, lease_holder = NULL,
       lease_purpose = NULL, lease_expires_at = NULL, lease_asked = 0, cleanup_due = 1, attempts = 0, due_at = ${NOW}, updated_at = ${NOW}
     WHERE owner = ? AND id = ? AND point IN ${OPEN} RETURNING *`,
    [JSON.stringify(why), key.owner, key.id],
  )
  return row === undefined ? null : toOperation(row)
}

export const clearStall = (on: Queries, key: OperationKey): Promise<number> =>
  on.run(
    `UPDATE landfall_operations SET stalled = 0, attempts = 0, problem = 'null', due_at = ${NOW}, updated_at = ${NOW}
     WHERE owner = ? AND id = ? AND stalled = 1`,
    [key.owner, key.id],
  )

export const complete = (on: Queries, limit: number): Promise<number> =>
  on.run(
    `WITH done AS MATERIALIZED (${COMPLETABLE})
     UPDATE landfall_operations o SET point = 'completed', updated_at = ${NOW} FROM done WHERE o.owner = done.owner AND o.id = done.id`,
    [limit],
  )

export const forgetOtherHolders = (on: Queries, holder: string): Promise<number> =>
  // A lease always has a due time: the index of due operations finds them without a scan.
  on.run(
    `UPDATE landfall_operations SET
       unclean_holder = COALESCE(unclean_holder, CASE lease_purpose WHEN 'receive' THEN lease_holder END),
       lease_holder = NULL, lease_purpose = NULL, lease_expires_at = NULL, lease_asked = 0, lease_token = lease_token + 1, due_at = ${NOW}
     WHERE due_at IS NOT NULL AND lease_holder IS NOT NULL AND lease_holder <> ?`,
    [holder],
  )
