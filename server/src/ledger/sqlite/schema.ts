import { sql } from 'drizzle-orm'
import { check, index, integer, primaryKey, sqliteTable, text, uniqueIndex } from 'drizzle-orm/sqlite-core'

/**
 * The ledger's tables for SQLite, for applications that manage all tables with drizzle-kit. Most call
 * `uploads.migrate()` instead, or leave it to the start; then keep drizzle-kit away from these tables, which its `push`
 * would drop: `tablesFilter: ['!landfall_*']`. drizzle-kit knows no triggers: `uploads.migrate()` adds them to tables that
 * it has made, because they hold invariants 4 and 7 against every writer.
 *
 * For `drizzle-kit generate` and `migrate` only; never `drizzle-kit push` them. Version 0.31 reads neither partial
 * indexes nor checks nor the order of a primary key back as they are, so that it would make the tables again each time, and
 * their triggers would be gone. Whoever pushes leaves these out of the schema and sets
 * `tablesFilter: ['!landfall_*']`: without it, push drops the tables.
 *
 * All times are milliseconds since 1970 by SQLite's clock.
 */
export const landfallOperations = sqliteTable(
  'landfall_operations',
  {
    owner: text('owner').notNull(),
    id: text('id').notNull(),
    kind: text('kind').notNull(),
    point: text('point').notNull(),
    stalled: integer('stalled').notNull().default(0),
    fileName: text('file_name').notNull(),
    fileSize: integer('file_size').notNull(),
    fileType: text('file_type').notNull(),
    fileLastModified: integer('file_last_modified'),
    metadata: text('metadata').notNull(),
    validated: text('validated').notNull(),
    uploadMetadata: text('upload_metadata'),
    facts: text('facts').notNull(),
    offset: integer('offset').notNull().default(0),
    digest: text('digest'),
    digestPending: integer('digest_pending').notNull().default(0),
    digestDueAt: integer('digest_due_at'),
    blobKey: text('blob_key').notNull(),
    blobState: text('blob_state').notNull().default('null'),
    receivedAt: integer('received_at'),
    tailBase: integer('tail_base'),
    prepared: text('prepared').notNull().default('{}'),
    content: text('content').notNull().default('null'),
    leaseHolder: text('lease_holder'),
    leasePurpose: text('lease_purpose'),
    leaseToken: integer('lease_token').notNull().default(0),
    leaseExpiresAt: integer('lease_expires_at'),
    uncleanHolder: text('unclean_holder'),
    attempts: integer('attempts').notNull().default(0),
    dueAt: integer('due_at'),
    problem: text('problem').notNull().default('null'),
    lastError: text('last_error'),
    cleanupDue: integer('cleanup_due').notNull().default(0),
    removedAt: integer('removed_at'),
    createdAt: integer('created_at').notNull(),
    updatedAt: integer('updated_at').notNull(),
    expiresAt: integer('expires_at').notNull(),
    owesEffects: integer('owes_effects').notNull().default(0),
    leaseAsked: integer('lease_asked').notNull().default(0),
    ownerHash: text('owner_hash'),
    forgottenAt: integer('forgotten_at'),
  },
  (table) => [
    primaryKey({ columns: [table.owner, table.id] }),
    uniqueIndex('landfall_operations_blob_key').on(table.blobKey),
    index('landfall_operations_due')
      .on(table.dueAt)
      .where(sql`due_at IS NOT NULL`),
    index('landfall_operations_open')
      .on(table.owner, table.createdAt, table.id)
      .where(sql`point IN ('declared', 'received', 'sealed', 'verified')`),
    index('landfall_operations_incomplete')
      .on(table.updatedAt)
      .where(sql`point = 'referenced' AND owes_effects = 0`),
    index('landfall_operations_asked')
      .on(table.leaseHolder)
      .where(sql`lease_asked > 0`),
    index('landfall_operations_ended')
      .on(table.updatedAt)
      .where(
        sql`cleanup_due = 0 AND lease_holder IS NULL AND (point IN ('cancelled', 'expired', 'rejected') OR removed_at IS NOT NULL)`,
      ),
    index('landfall_operations_forgotten')
      .on(table.forgottenAt)
      .where(sql`forgotten_at IS NOT NULL`),
    check(
      'landfall_operations_point',
      sql`point IN ('declared', 'received', 'sealed', 'verified', 'referenced', 'completed', 'cancelled', 'expired', 'rejected')`,
    ),
    check('landfall_operations_offset', sql`"offset" >= 0 AND "offset" <= file_size`),
    check(
      'landfall_operations_whole',
      sql`point NOT IN ('received', 'sealed', 'verified', 'referenced', 'completed') OR "offset" = file_size`,
    ),
  ],
)

export const landfallReferences = sqliteTable(
  'landfall_references',
  {
    owner: text('owner').notNull(),
    operationId: text('operation_id').notNull(),
    blobKey: text('blob_key').notNull(),
    size: integer('size').notNull(),
    type: text('type').notNull(),
    digest: text('digest').notNull(),
    digestSource: text('digest_source').notNull(),
    storedAt: integer('stored_at').notNull(),
    data: text('data').notNull(),
  },
  (table) => [
    // At most one reference per operation, ever (invariant 2), and no blob in two of them.
    primaryKey({ columns: [table.operationId, table.owner] }),
    uniqueIndex('landfall_references_blob_key').on(table.blobKey),
  ],
)

export const landfallEffects = sqliteTable(
  'landfall_effects',
  {
    effectId: text('effect_id').primaryKey(),
    owner: text('owner').notNull(),
    operationId: text('operation_id').notNull(),
    name: text('name').notNull(),
    type: text('type').notNull(),
    payload: text('payload').notNull(),
    attempts: integer('attempts').notNull().default(0),
    dueAt: integer('due_at'),
    deliveredAt: integer('delivered_at'),
    lastError: text('last_error'),
    createdAt: integer('created_at').notNull(),
    kind: text('kind').notNull().default(''),
    holder: text('holder'),
    givenUpAt: integer('given_up_at'),
  },
  (table) => [
    uniqueIndex('landfall_effects_name').on(table.owner, table.operationId, table.name),
    index('landfall_effects_target')
      .on(table.kind, table.name, table.dueAt)
      .where(sql`due_at IS NOT NULL`),
    index('landfall_effects_given_up')
      .on(table.givenUpAt)
      .where(sql`given_up_at IS NOT NULL`),
    index('landfall_effects_delivered')
      .on(table.deliveredAt)
      .where(sql`delivered_at IS NOT NULL`),
  ],
)

/** Receivers that have answered 410: nothing is sent there until an operator asks for it. */
export const landfallDisabledTargets = sqliteTable(
  'landfall_disabled_targets',
  {
    kind: text('kind').notNull(),
    name: text('name').notNull(),
    disabledAt: integer('disabled_at').notNull(),
  },
  (table) => [primaryKey({ columns: [table.kind, table.name] })],
)

/** What an owner has open and holds, kept by triggers. */
export const landfallUsage = sqliteTable('landfall_usage', {
  owner: text('owner').primaryKey(),
  openOperations: integer('open_operations').notNull().default(0),
  reservedBytes: integer('reserved_bytes').notNull().default(0),
  storedBytes: integer('stored_bytes').notNull().default(0),
  storedReferences: integer('stored_references').notNull().default(0),
  declaredUntilUs: integer('declared_until_us').notNull().default(0),
})

/**
 * What is left of operations that ended long ago or whose owner was forgotten: their ids are never used again. `point`
 * says how each one ended; `completed` is a reference that was removed. The migrations make it WITHOUT ROWID.
 */
export const landfallTombstones = sqliteTable(
  'landfall_tombstones',
  {
    id: text('id').notNull(),
    ownerHash: text('owner_hash').notNull(),
    point: text('point').notNull(),
  },
  (table) => [
    primaryKey({ columns: [table.id, table.ownerHash] }),
    check('landfall_tombstones_point', sql`point IN ('completed', 'cancelled', 'expired', 'rejected')`),
  ],
)

/** What is true of the ledger as a whole: its identity and the version of its tables. */
export const landfallMeta = sqliteTable('landfall_meta', {
  key: text('key').primaryKey(),
  value: text('value').notNull(),
})
