import type { Problem } from '@landfall/shared'
import { problem } from '@landfall/shared'
import { sql } from 'drizzle-orm'
import type { LibSQLDatabase } from 'drizzle-orm/libsql'
import { v7 as uuidv7 } from 'uuid'
import { UploadError } from '../errors.js'
import type {
  Changes,
  Declared,
  HookOutcome,
  Intent,
  Lease,
  LeaseOutcome,
  Ledger,
  OperationKey,
  OperationRecord,
  ReferenceIntent,
  Referred,
} from '../ports.js'
import { MIGRATIONS } from './migrations.js'
import { hooks, type HookScope, openTransaction, sqliteAccess } from './serialized-libsql.js'
import { assignments, NOW, OPERATION_WITH_REFERENCE, toEffect, toOperation } from './sqlite-rows.js'
import type { Connection, SqlValue } from './statements.js'

type AnySchema = Record<string, unknown>
/** The transaction that Drizzle hands to the callback of `db.transaction`. */
export type SqliteTx<Schema extends AnySchema> = Parameters<Parameters<LibSQLDatabase<Schema>['transaction']>[0]>[0]

const OPEN = `('declared', 'received', 'sealed', 'verified')`

/**
 * The ledger in the application's own SQLite database, through the application's own Drizzle.
 *
 * `db` must be made on a client from `serializedLibsql`, so that all writes go through one queue.
 *
 * @throws UploadError `setup` where it is not.
 */
export function sqliteLedger<Schema extends AnySchema>(db: LibSQLDatabase<Schema>): Ledger<SqliteTx<Schema>> {
  const { writer, reader, intMode } = sqliteAccess((db as unknown as { $client: unknown }).$client)
  const listeners = new Set<(operation: OperationRecord) => void>()
  const changed = <T extends OperationRecord | null>(operation: T): T => {
    if (operation !== null) for (const listener of listeners) listener(operation)
    return operation
  }
  const read = async <T>(query: (connection: Connection) => T): Promise<T> => query(await reader())

  return {
    migrate: () => writer.write(migrate),

    async declare(intent) {
      const declared = await writer.write((on) => declare(on, intent))
      if (declared.outcome === 'created') changed(declared.operation)
      return declared
    },

    find: (key) => read((on) => find(on, key)),

    findMany: (owner, ids) =>
      read((on) => ids.map((id) => find(on, { owner, id })).filter((operation) => operation !== null)),

    listOpen: (owner, { after, limit }) => read((on) => listOpen(on, owner, after, limit)),

    async setDigest(key, digest) {
      const { outcome, operation } = await writer.write((on) => setDigest(on, key, digest))
      changed(operation)
      return outcome
    },

    lease: (key, request) => writer.write((on) => takeLease(on, key, request)),

    leaseDue: (request) => writer.write((on) => leaseDue(on, request)),

    renew: (leases, leaseMs) => writer.write((on) => leases.filter((lease) => renewLease(on, lease, leaseMs))),

    async record(lease, from, changes) {
      return changed(await writer.write((on) => record(on, lease, from, changes)))
    },

    async refer(lease, from, intent, hook) {
      const referred = await refer(lease, from, intent, hook)
      if (referred.outcome === 'referenced') changed(referred.operation)
      return referred
    },

    async cancel(key, why) {
      return changed(await writer.write((on) => cancel(on, key, why)))
    },

    retry: (key) =>
      writer.write(
        (on) =>
          on.run(
            `UPDATE landfall_operations SET stalled = 0, attempts = 0, problem = 'null', due_at = ${NOW}, updated_at = ${NOW}
             WHERE owner = ? AND id = ? AND stalled = 1`,
            [key.owner, key.id],
          ) > 0,
      ),

    remove: (tx, id, owner) => remove(tx, id, owner),

    complete: (limit) => writer.write((on) => complete(on, limit)),

    takeEffects: ({ leaseMs, limit }) =>
      writer.write((on) =>
        on
          .all(
            `UPDATE landfall_effects SET attempts = attempts + 1, due_at = ${NOW} + ?
             WHERE effect_id IN (SELECT effect_id FROM landfall_effects WHERE due_at IS NOT NULL AND due_at <= ${NOW} ORDER BY due_at LIMIT ?)
             RETURNING *`,
            [leaseMs, limit],
          )
          .map(toEffect),
      ),

    async settleEffect(effectId, result) {
      await writer.write((on) =>
        result.delivered
          ? on.run(
              `UPDATE landfall_effects SET delivered_at = ${NOW}, due_at = NULL, last_error = NULL WHERE effect_id = ?`,
              [effectId],
            )
          : on.run(
              `UPDATE landfall_effects SET due_at = ${NOW} + ?, last_error = ? WHERE effect_id = ? AND delivered_at IS NULL`,
              [Math.round(result.retryInMs), result.error, effectId],
            ),
      )
    },

    forgetOtherHolders: (holder) =>
      writer.write((on) =>
        on.run(
          // A lease always has a due time: the index of due operations finds them without a scan.
          `UPDATE landfall_operations SET
             unclean_holder = COALESCE(unclean_holder, CASE lease_purpose WHEN 'receive' THEN lease_holder END),
             lease_holder = NULL, lease_purpose = NULL, lease_expires_at = NULL, lease_token = lease_token + 1, due_at = ${NOW}
           WHERE due_at IS NOT NULL AND lease_holder IS NOT NULL AND lease_holder <> ?`,
          [holder],
        ),
      ),

    nextDueInMs: () =>
      read((on) => {
        const row = on.get(
          `SELECT MIN(due) - ${NOW} AS in_ms FROM (
             SELECT MIN(due_at) AS due FROM landfall_operations WHERE due_at IS NOT NULL
             UNION ALL SELECT MIN(due_at) FROM landfall_effects WHERE due_at IS NOT NULL)`,
        )
        const inMs = row?.['in_ms']
        return inMs === null || inMs === undefined ? null : Math.max(0, Number(inMs))
      }),

    onChange(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
  }

  /**
   * The hook runs in Drizzle's own `db.transaction`, so that the application has its schema and its types. The
   * transaction begins in truth with the hook's first statement: a hook that waits for something else first keeps
   * nobody from writing. What we add is its last statements.
   */
  async function refer(
    lease: Lease,
    from: OperationRecord,
    intent: ReferenceIntent,
    hook: (tx: SqliteTx<Schema>) => Promise<HookOutcome>,
  ): Promise<Referred> {
    const mode = await intMode()
    let accepted: Extract<HookOutcome, { outcome: 'accepted' }> | null = null
    let operation: OperationRecord | null = null
    const last = (on: Connection): void => {
      if (accepted === null)
        throw new UploadError('transaction-closed', 'the transaction was committed before its hook had answered')
      operation = referIn(on, lease, from, intent, accepted)
    }
    let opened = false
    const patience = createPatience(intent.timeLimitMs)
    const scope: HookScope = {
      active: true,
      open: async () => {
        if (opened)
          throw new UploadError(
            'write-past-tx',
            'onReference began a transaction of its own: use tx.transaction, which is a part of the one that it is given',
          )
        opened = true
        return openTransaction(
          () => writer.hold({ label: from.kind, repeatable: true, onTakenAway: patience.giveUp }),
          mode,
          (hold) => (hold === null ? writer.write(last) : hold.commit(last)),
        )
      },
    }
    try {
      await hooks.run(scope, () =>
        db.transaction(async (tx) => {
          const outcome = await patience.wait(hook(tx)).finally(() => (scope.active = false))
          if (outcome.outcome === 'rejected') throw new Rejected(outcome.problem)
          accepted = outcome
        }),
      )
    } catch (error) {
      if (error instanceof Rejected) return { outcome: 'rejected', problem: error.problem }
      if (error instanceof Lost) return { outcome: 'lost' }
      throw error
    }
    if (operation === null) throw new UploadError('ledger-unavailable', 'the transaction ended without the reference')
    return { outcome: 'referenced', operation }
  }
}

/** Rolls the application's transaction back; never seen outside. */
class Rejected extends Error {
  readonly problem: Problem
  constructor(why: Problem) {
    super(why.title)
    this.problem = why
  }
}
class Lost extends Error {}

/** Ends the waiting for a hook from outside; what the hook does later is nobody's any more. */
function createPatience(limitMs: number) {
  let giveUp = (_why: UploadError): void => {}
  const given = new Promise<never>((_resolve, reject) => (giveUp = reject))
  given.catch(() => {})
  const timer = setTimeout(
    () => giveUp(new UploadError('hook-timeout', `onReference took longer than ${limitMs} ms`)),
    limitMs,
  )
  return {
    giveUp: (why: UploadError): void => giveUp(why),
    wait<T>(work: Promise<T>): Promise<T> {
      work.catch(() => {})
      return Promise.race([work, given]).finally(() => clearTimeout(timer))
    },
  }
}

function migrate(on: Connection): { identity: string } {
  on.run(`CREATE TABLE IF NOT EXISTS landfall_meta (key TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL)`)
  const version = Number(on.get(`SELECT value FROM landfall_meta WHERE key = 'version'`)?.['value'] ?? 0)
  // Tables that came by the application's drizzle-kit have no version yet.
  const tables = on.get(`SELECT 1 AS there FROM sqlite_master WHERE type = 'table' AND name = 'landfall_operations'`)
  for (const statement of MIGRATIONS.slice(version).flat())
    on.run(tables === undefined || version > 0 ? statement : ifMissing(statement))
  if (version < MIGRATIONS.length)
    on.run(
      `INSERT INTO landfall_meta (key, value) VALUES ('version', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value`,
      [String(MIGRATIONS.length)],
    )
  on.run(`INSERT INTO landfall_meta (key, value) VALUES ('identity', ?) ON CONFLICT (key) DO NOTHING`, [uuidv7()])
  return { identity: String(on.get(`SELECT value FROM landfall_meta WHERE key = 'identity'`)?.['value']) }
}

const ifMissing = (statement: string): string =>
  statement.replace(/^CREATE (UNIQUE )?(TABLE|INDEX|TRIGGER) /, 'CREATE $1$2 IF NOT EXISTS ')

function find(on: Connection, key: OperationKey): OperationRecord | null {
  const row = on.get(`${OPERATION_WITH_REFERENCE} WHERE o.owner = ? AND o.id = ?`, [key.owner, key.id])
  return row === undefined ? null : toOperation(row)
}

/** One statement where the operation is new, which is nearly always. */
function declare(on: Connection, intent: Intent): Declared {
  const row = on.get(
    `INSERT INTO landfall_operations (owner, id, kind, point, file_name, file_size, file_type, file_last_modified, metadata,
       validated, upload_metadata, facts, digest, digest_pending, blob_key, created_at, updated_at, expires_at, due_at)
     SELECT ?1, ?2, ?3, 'declared', ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ${NOW}, ${NOW}, ${NOW} + ?15, ${NOW} + ?16
     WHERE (SELECT COUNT(*) FROM landfall_operations WHERE owner = ?1 AND point IN ${OPEN}) < ?17
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
    ],
  )
  if (row !== undefined) return { outcome: 'created', operation: toOperation(row) }
  const existing = on.get(`SELECT facts FROM landfall_operations WHERE owner = ? AND id = ?`, [intent.owner, intent.id])
  if (existing === undefined) return { outcome: 'too-many-open' }
  const operation = existing['facts'] === intent.facts ? find(on, intent) : null
  return operation === null ? { outcome: 'mismatch' } : { outcome: 'existing', operation }
}

function listOpen(on: Connection, owner: string, after: string | null, limit: number): OperationRecord[] {
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

function setDigest(
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
  lease_holder = ?, lease_purpose = ?, lease_expires_at = ${NOW} + ?, due_at = ${NOW} + ?`

/** A holder that asks again has lost its own memory of the lease, never its process: it is not in use. */
const FREE = `(lease_holder IS NULL OR lease_holder = ? OR lease_expires_at <= ${NOW})`

function takeLease(
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

function leaseDue(
  on: Connection,
  request: { holder: string; leaseMs: number; limit: number },
): { lease: Lease; operation: OperationRecord }[] {
  return on
    .all(
      // A lease of our own that looks expired is one whose clock has jumped: we are alive, and it is in use.
      `UPDATE landfall_operations SET ${GRANT} WHERE rowid IN (
         SELECT rowid FROM landfall_operations WHERE due_at IS NOT NULL AND due_at <= ${NOW}
           AND (lease_holder IS NULL OR (lease_holder <> ? AND lease_expires_at <= ${NOW}))
           AND ((point IN ${OPEN} AND stalled = 0) OR cleanup_due = 1)
         ORDER BY due_at LIMIT ?) RETURNING *`,
      [request.holder, 'drive', request.leaseMs, request.leaseMs, request.holder, request.limit],
    )
    .map(granted)
}

const renewLease = (on: Connection, lease: Lease, leaseMs: number): boolean =>
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

function record(on: Connection, lease: Lease, from: OperationRecord, changes: Changes): OperationRecord | null {
  const { sql: set, args } = assignments(changes)
  const row = on.get(`UPDATE landfall_operations SET ${set} WHERE ${FENCE} AND point = ? RETURNING *`, [
    ...args,
    ...fence(lease, from),
    from.point,
  ])
  return row === undefined ? null : toOperation(row)
}

function referIn(
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
  const { sql: set, args } = assignments(changes)
  // Any open point: the same holder may have recorded an earlier one while the hook ran.
  const row = on.get(`UPDATE landfall_operations SET ${set} WHERE ${FENCE} AND point IN ${OPEN} RETURNING *`, [
    ...args,
    ...fence(lease, from),
  ])
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
  const reference = {
    blobKey,
    size: file.size,
    ...intent.content,
    digestSource,
    storedAt: updatedAt,
    data: accepted.data,
  }
  return { ...operation, reference }
}

function cancel(on: Connection, key: OperationKey, why: Problem): OperationRecord | null {
  const row = on.get(
    `UPDATE landfall_operations SET point = 'cancelled', problem = ?, stalled = 0, lease_token = lease_token + 1, lease_holder = NULL,
       lease_purpose = NULL, lease_expires_at = NULL, cleanup_due = 1, attempts = 0, due_at = ${NOW}, updated_at = ${NOW}
     WHERE owner = ? AND id = ? AND point IN ${OPEN} RETURNING *`,
    [JSON.stringify(why), key.owner, key.id],
  )
  return row === undefined ? null : toOperation(row)
}

function complete(on: Connection, limit: number): number {
  return on.run(
    `UPDATE landfall_operations SET point = 'completed', updated_at = ${NOW} WHERE rowid IN (
       SELECT o.rowid FROM landfall_operations o WHERE o.point = 'referenced' AND NOT EXISTS (
         SELECT 1 FROM landfall_effects e WHERE e.owner = o.owner AND e.operation_id = o.id AND e.delivered_at IS NULL)
       ORDER BY o.updated_at LIMIT ?)`,
    [limit],
  )
}

/** In the application's own transaction: the reference goes and the removal of its bytes is owed, or neither. */
async function remove<Schema extends AnySchema>(
  tx: SqliteTx<Schema>,
  id: string,
  owner: string | null,
): Promise<boolean> {
  const found = await tx.all<{ owner: string; blob_key: string }>(
    owner === null
      ? sql`SELECT owner, blob_key FROM landfall_references WHERE operation_id = ${id}`
      : sql`SELECT owner, blob_key FROM landfall_references WHERE operation_id = ${id} AND owner = ${owner}`,
  )
  const [reference, another] = found
  if (reference === undefined) return false
  if (another !== undefined)
    throw new UploadError('ambiguous-operation', 'several owners use this operation id: name the owner')
  const now = sql.raw(NOW)
  await tx.run(sql`DELETE FROM landfall_references WHERE owner = ${reference.owner} AND operation_id = ${id}`)
  await tx.run(sql`INSERT INTO landfall_effects (effect_id, owner, operation_id, name, type, payload, due_at, created_at)
    VALUES (${uuidv7()}, ${reference.owner}, ${id}, 'landfall:remove-bytes', 'remove-bytes', ${JSON.stringify({ blobKey: reference.blob_key })}, ${now}, ${now})`)
  await tx.run(sql`UPDATE landfall_operations SET removed_at = ${now}, problem = ${JSON.stringify(problem('removed'))}, updated_at = ${now}
    WHERE owner = ${reference.owner} AND id = ${id}`)
  return true
}
