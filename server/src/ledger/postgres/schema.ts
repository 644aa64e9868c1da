import { sql } from 'drizzle-orm'
import {
  bigint,
  check,
  customType,
  index,
  integer,
  pgTable,
  primaryKey,
  smallint,
  text,
  uniqueIndex,
} from 'drizzle-orm/pg-core'

/** Keys and ids are compared byte by byte, as JavaScript and the blob stores do. */
const bytewise = customType<{ data: string }>({ dataType: () => 'text COLLATE "C"' })
const big = (name: string) => bigint(name, { mode: 'number' })

/**
 * The ledger's tables for PostgreSQL, for applications that manage all tables with drizzle-kit. Most call
 * `uploads.migrate()` instead, or leave it to the start; then keep drizzle-kit away from these tables, which its `push`
 * would drop: `tablesFilter: ['!landfall_*']`. drizzle-kit knows no triggers: `uploads.migrate()` adds them to tables that
 * it has made, because they hold invariants 4 and 7 against every writer and count what is open.
 *
 * For `drizzle-kit generate` and `migrate` only; never `drizzle-kit push` them. Version 0.31 reads neither collations nor
 * the order of a primary key back as they are, so that each push would change columns and a key again that are right.
 * Whoever pushes leaves these out of the schema and sets `tablesFilter: ['!landfall_*']`: without it, push drops the
 * tables.
 *
 * All times are milliseconds since 1970 by PostgreSQL's clock.
 */
export const landfallOperations = pgTable(
  'landfall_operations',
  {
    owner: bytewise('owner').notNull(),
    id: bytewise('id').notNull(),
    kind: text('kind').notNull(),
    point: text('point').notNull(),
    stalled: smallint('stalled').notNull().default(0),
    fileName: text('file_name').notNull(),
    fileSize: big('file_size').notNull(),
    fileType: text('file_type').notNull(),
    fileLastModified: big('file_last_modified'),
    metadata: text('metadata').notNull(),
    validated: text('validated').notNull(),
    uploadMetadata: text('upload_metadata'),
    facts: text('facts').notNull(),
    offset: big('offset').notNull().default(0),
    digest: text('digest'),
    digestPending: smallint('digest_pending').notNull().default(0),
    digestDueAt: big('digest_due_at'),
    blobKey: bytewise('blob_key').notNull(),
    blobState: text('blob_state').notNull().default('null'),
    receivedAt: big('received_at'),
    tailBase: big('tail_base'),
    prepared: text('prepared').notNull().default('{}'),
    content: text('content').notNull().default('null'),
    leaseHolder: text('lease_holder'),
    leasePurpose: text('lease_purpose'),
    leaseToken: big('lease_token').notNull().default(0),
    leaseExpiresAt: big('lease_expires_at'),
    leaseAsked: smallint('lease_asked').notNull().default(0),
    uncleanHolder: text('unclean_holder'),
    attempts: integer('attempts').notNull().default(0),
    dueAt: big('due_at'),
    problem: text('problem').notNull().default('null'),
    lastError: text('last_error'),
    cleanupDue: smallint('cleanup_due').notNull().default(0),
    removedAt: big('removed_at'),
    createdAt: big('created_at').notNull(),
    updatedAt: big('updated_at').notNull(),
    expiresAt: big('expires_at').notNull(),
    owedEffects: integer('owed_effects').notNull().default(0),
    ownerHash: text('owner_hash'),
    forgottenAt: big('forgotten_at'),
  },
  (table) => [
    primaryKey({ columns: [table.owner, table.id], name: 'landfall_operations_pkey' }),
    uniqueIndex('landfall_operations_blob_key').on(table.blobKey),
    index('landfall_operations_due')
      .on(table.dueAt)
      .where(sql`due_at IS NOT NULL`),
    index('landfall_operations_open')
      .on(table.owner, table.createdAt, table.id)
      .where(sql`point IN ('declared', 'received', 'sealed', 'verified')`),
    index('landfall_operations_incomplete')
      .on(table.owedEffects, table.updatedAt)
      .where(sql`point = 'referenced'`),
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

export const landfallReferences = pgTable(
  'landfall_references',
  {
    owner: bytewise('owner').notNull(),
    operationId: bytewise('operation_id').notNull(),
    blobKey: bytewise('blob_key').notNull(),
    size: big('size').notNull(),
    type: text('type').notNull(),
    digest: text('digest').notNull(),
    digestSource: text('digest_source').notNull(),
    storedAt: big('stored_at').notNull(),
    data: text('data').notNull(),
  },
  (table) => [
    // At most one reference per operation, ever (invariant 2), and no blob in two of them.
    primaryKey({ columns: [table.operationId, table.owner], name: 'landfall_references_pkey' }),
    uniqueIndex('landfall_references_blob_key').on(table.blobKey),
  ],
)

export const landfallEffects = pgTable(
  'landfall_effects',
  {
    effectId: bytewise('effect_id').primaryKey(),
    owner: bytewise('owner').notNull(),
    operationId: bytewise('operation_id').notNull(),
    name: text('name').notNull(),
    type: text('type').notNull(),
    payload: text('payload').notNull(),
    attempts: integer('attempts').notNull().default(0),
    dueAt: big('due_at'),
    deliveredAt: big('delivered_at'),
    lastError: text('last_error'),
    createdAt: big('created_at').notNull(),
    kind: text('kind').notNull().default(''),
    holder: text('holder'),
    givenUpAt: big('given_up_at'),
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
export const landfallDisabledTargets = pgTable(
  'landfall_disabled_targets',
  {
    kind: text('kind').notNull(),
    name: text('name').notNull(),
    disabledAt: big('disabled_at').notNull(),
  },
  (table) => [primaryKey({ columns: [table.kind, table.name], name: 'landfall_disabled_targets_pkey' })],
)

/** What an owner has open and holds, kept by triggers. */
export const landfallUsage = pgTable('landfall_usage', {
  owner: bytewise('owner').primaryKey(),
  openOperations: big('open_operations').notNull().default(0),
  reservedBytes: big('reserved_bytes').notNull().default(0),
  storedBytes: big('stored_bytes').notNull().default(0),
  storedReferences: big('stored_references').notNull().default(0),
  declaredUntilUs: big('declared_until_us').notNull().default(0),
  declarationRefused: smallint('declaration_refused').notNull().default(0),
})

/**
 * What is left of operations that ended long ago or whose owner was forgotten: their ids are never used again. `point`
 * says how each one ended; `completed` is a reference that was removed.
 */
export const landfallTombstones = pgTable(
  'landfall_tombstones',
  {
    id: bytewise('id').notNull(),
    ownerHash: bytewise('owner_hash').notNull(),
    point: text('point').notNull(),
  },
  (table) => [
    primaryKey({ columns: [table.id, table.ownerHash], name: 'landfall_tombstones_pkey' }),
    check('landfall_tombstones_point', sql`point IN ('completed', 'cancelled', 'expired', 'rejected')`),
  ],
)

/** What is true of the ledger as a whole: its identity and the version of its tables. */
export const landfallMeta = pgTable('landfall_meta', {
  key: text('key').primaryKey(),
  value: text('value').notNull(),
})
