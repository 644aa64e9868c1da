/**
 * The history of the tables for SQLite, in order. It contains no PRAGMA and is only ever appended to, so that versions
 * N and N+1 of the server can run against one database. A test compares its result with `schema.ts`.
 */
export const MIGRATIONS: readonly (readonly string[])[] = [
  [
    `CREATE TABLE landfall_operations (
      owner TEXT NOT NULL,
      id TEXT NOT NULL,
      kind TEXT NOT NULL,
      point TEXT NOT NULL,
      stalled INTEGER NOT NULL DEFAULT 0,
      file_name TEXT NOT NULL,
      file_size INTEGER NOT NULL,
      file_type TEXT NOT NULL,
      file_last_modified INTEGER,
      metadata TEXT NOT NULL,
      validated TEXT NOT NULL,
      upload_metadata TEXT,
      facts TEXT NOT NULL,
      "offset" INTEGER NOT NULL DEFAULT 0,
      digest TEXT,
      digest_pending INTEGER NOT NULL DEFAULT 0,
      digest_due_at INTEGER,
      blob_key TEXT NOT NULL,
      blob_state TEXT NOT NULL DEFAULT 'null',
      received_at INTEGER,
      tail_base INTEGER,
      prepared TEXT NOT NULL DEFAULT '{}',
      content TEXT NOT NULL DEFAULT 'null',
      lease_holder TEXT,
      lease_purpose TEXT,
      lease_token INTEGER NOT NULL DEFAULT 0,
      lease_expires_at INTEGER,
      unclean_holder TEXT,
      attempts INTEGER NOT NULL DEFAULT 0,
      due_at INTEGER,
      problem TEXT NOT NULL DEFAULT 'null',
      last_error TEXT,
      cleanup_due INTEGER NOT NULL DEFAULT 0,
      removed_at INTEGER,
      created_at INTEGER NOT NULL,
      updated_at INTEGER NOT NULL,
      expires_at INTEGER NOT NULL,
      PRIMARY KEY (owner, id),
      CONSTRAINT landfall_operations_point CHECK (point IN ('declared', 'received', 'sealed', 'verified', 'referenced', 'completed', 'cancelled', 'expired', 'rejected')),
      CONSTRAINT landfall_operations_offset CHECK ("offset" >= 0 AND "offset" <= file_size),
      CONSTRAINT landfall_operations_whole CHECK (point NOT IN ('received', 'sealed', 'verified', 'referenced', 'completed') OR "offset" = file_size)
    )`,
    `CREATE UNIQUE INDEX landfall_operations_blob_key ON landfall_operations (blob_key)`,
    `CREATE INDEX landfall_operations_due ON landfall_operations (due_at) WHERE due_at IS NOT NULL`,
    `CREATE INDEX landfall_operations_open ON landfall_operations (owner, created_at, id) WHERE point IN ('declared', 'received', 'sealed', 'verified')`,
    `CREATE INDEX landfall_operations_referenced ON landfall_operations (updated_at) WHERE point = 'referenced'`,
    `CREATE TABLE landfall_references (
      owner TEXT NOT NULL,
      operation_id TEXT NOT NULL,
      blob_key TEXT NOT NULL,
      size INTEGER NOT NULL,
      type TEXT NOT NULL,
      digest TEXT NOT NULL,
      digest_source TEXT NOT NULL,
      stored_at INTEGER NOT NULL,
      data TEXT NOT NULL,
      PRIMARY KEY (operation_id, owner)
    )`,
    `CREATE UNIQUE INDEX landfall_references_blob_key ON landfall_references (blob_key)`,
    `CREATE TABLE landfall_effects (
      effect_id TEXT PRIMARY KEY NOT NULL,
      owner TEXT NOT NULL,
      operation_id TEXT NOT NULL,
      name TEXT NOT NULL,
      type TEXT NOT NULL,
      payload TEXT NOT NULL,
      attempts INTEGER NOT NULL DEFAULT 0,
      due_at INTEGER,
      delivered_at INTEGER,
      last_error TEXT,
      created_at INTEGER NOT NULL
    )`,
    `CREATE UNIQUE INDEX landfall_effects_name ON landfall_effects (owner, operation_id, name)`,
    `CREATE INDEX landfall_effects_due ON landfall_effects (due_at) WHERE due_at IS NOT NULL`,
    // This enforces invariant 4 against every writer.
    `CREATE TRIGGER landfall_offset_never_falls BEFORE UPDATE OF "offset" ON landfall_operations
      WHEN NEW."offset" < OLD."offset"
      BEGIN SELECT RAISE(ABORT, 'landfall: an acknowledged offset never falls'); END`,
    // This enforces invariant 7 against every writer.
    `CREATE TRIGGER landfall_point_never_moves_back BEFORE UPDATE OF point ON landfall_operations
      WHEN NEW.point <> OLD.point AND (
        OLD.point IN ('completed', 'cancelled', 'expired', 'rejected')
        OR (OLD.point = 'referenced' AND NEW.point <> 'completed')
        OR (OLD.point = 'verified' AND NEW.point IN ('declared', 'received', 'sealed', 'expired', 'completed'))
        OR (OLD.point = 'sealed' AND NEW.point IN ('declared', 'received', 'expired', 'completed'))
        OR (OLD.point = 'received' AND NEW.point IN ('declared', 'expired', 'completed'))
        OR (OLD.point = 'declared' AND NEW.point = 'completed'))
      BEGIN SELECT RAISE(ABORT, 'landfall: a recovery point never moves back'); END`,
    // An id is never used again, not even after a deletion, because its row stays.
    `CREATE TRIGGER landfall_operation_stays BEFORE DELETE ON landfall_operations
      BEGIN SELECT RAISE(ABORT, 'landfall: an operation is never deleted, because its id is never used again'); END`,
  ],
  // The application's own effects. Each target's effects are delivered separately from those of other targets.
  [
    `ALTER TABLE landfall_effects ADD COLUMN kind TEXT NOT NULL DEFAULT ''`,
    `ALTER TABLE landfall_effects ADD COLUMN holder TEXT`,
    `ALTER TABLE landfall_effects ADD COLUMN given_up_at INTEGER`,
    `DROP INDEX IF EXISTS landfall_effects_due`,
    `CREATE INDEX landfall_effects_target ON landfall_effects (kind, name, due_at) WHERE due_at IS NOT NULL`,
    `CREATE INDEX landfall_effects_given_up ON landfall_effects (given_up_at) WHERE given_up_at IS NOT NULL`,
    `CREATE TABLE landfall_disabled_targets (kind TEXT NOT NULL, name TEXT NOT NULL, disabled_at INTEGER NOT NULL, PRIMARY KEY (kind, name))`,
    `ALTER TABLE landfall_operations ADD COLUMN owes_effects INTEGER NOT NULL DEFAULT 0`,
    `DROP INDEX IF EXISTS landfall_operations_referenced`,
    `CREATE INDEX landfall_operations_incomplete ON landfall_operations (updated_at) WHERE point = 'referenced' AND owes_effects = 0`,
  ],
  // For several processes on one store: a process asks the receiver in another process to release its lease.
  [
    `ALTER TABLE landfall_operations ADD COLUMN lease_asked INTEGER NOT NULL DEFAULT 0`,
    `CREATE INDEX landfall_operations_asked ON landfall_operations (lease_holder) WHERE lease_asked > 0`,
    // What an owner has open and what it stores (invariant 9). Triggers keep these numbers up to date, whichever
    // program writes.
    `CREATE TABLE landfall_usage (owner TEXT PRIMARY KEY NOT NULL, open_operations INTEGER NOT NULL DEFAULT 0,
      reserved_bytes INTEGER NOT NULL DEFAULT 0, stored_bytes INTEGER NOT NULL DEFAULT 0)`,
    `INSERT INTO landfall_usage (owner, open_operations, reserved_bytes)
      SELECT owner, COUNT(*), SUM(file_size) FROM landfall_operations
      WHERE point IN ('declared', 'received', 'sealed', 'verified') GROUP BY owner
      ON CONFLICT (owner) DO UPDATE SET open_operations = excluded.open_operations, reserved_bytes = excluded.reserved_bytes`,
    `INSERT INTO landfall_usage (owner, stored_bytes)
      SELECT owner, SUM(size) FROM landfall_references WHERE true GROUP BY owner
      ON CONFLICT (owner) DO UPDATE SET stored_bytes = excluded.stored_bytes`,
    `CREATE TRIGGER landfall_operation_opened AFTER INSERT ON landfall_operations
      WHEN NEW.point IN ('declared', 'received', 'sealed', 'verified')
      BEGIN
        INSERT INTO landfall_usage (owner, open_operations, reserved_bytes) VALUES (NEW.owner, 1, NEW.file_size)
          ON CONFLICT (owner) DO UPDATE SET open_operations = open_operations + 1, reserved_bytes = reserved_bytes + excluded.reserved_bytes;
      END`,
    `CREATE TRIGGER landfall_operation_ended AFTER UPDATE OF point ON landfall_operations
      WHEN OLD.point IN ('declared', 'received', 'sealed', 'verified') AND NEW.point NOT IN ('declared', 'received', 'sealed', 'verified')
      BEGIN
        UPDATE landfall_usage SET open_operations = open_operations - 1, reserved_bytes = reserved_bytes - NEW.file_size
          WHERE owner = NEW.owner;
      END`,
    `CREATE TRIGGER landfall_reference_stored AFTER INSERT ON landfall_references
      BEGIN
        INSERT INTO landfall_usage (owner, stored_bytes) VALUES (NEW.owner, NEW.size)
          ON CONFLICT (owner) DO UPDATE SET stored_bytes = stored_bytes + excluded.stored_bytes;
      END`,
    `CREATE TRIGGER landfall_reference_gone AFTER DELETE ON landfall_references
      BEGIN UPDATE landfall_usage SET stored_bytes = stored_bytes - OLD.size WHERE owner = OLD.owner; END`,
  ],
  // Retention: an operation that ended long ago is replaced by a tombstone, so that its id is still never used again.
  [
    // The table contains no owner and no row id. It consists only of the index of its primary key.
    `CREATE TABLE landfall_tombstones (
      id TEXT NOT NULL,
      owner_hash TEXT NOT NULL,
      point TEXT NOT NULL,
      PRIMARY KEY (id, owner_hash),
      CONSTRAINT landfall_tombstones_point CHECK (point IN ('completed', 'cancelled', 'expired', 'rejected'))
    ) WITHOUT ROWID`,
    // The triggers recognise an operation's tombstone by this hash. An older version of the server does not write it.
    `ALTER TABLE landfall_operations ADD COLUMN owner_hash TEXT`,
    `ALTER TABLE landfall_operations ADD COLUMN forgotten_at INTEGER`,
    `CREATE INDEX landfall_operations_ended ON landfall_operations (updated_at) WHERE cleanup_due = 0 AND lease_holder IS NULL AND (point IN ('cancelled', 'expired', 'rejected') OR removed_at IS NOT NULL)`,
    `CREATE INDEX landfall_operations_forgotten ON landfall_operations (forgotten_at) WHERE forgotten_at IS NOT NULL`,
    `CREATE INDEX landfall_effects_delivered ON landfall_effects (delivered_at) WHERE delivered_at IS NOT NULL`,
    `DROP TRIGGER IF EXISTS landfall_operation_stays`,
    `CREATE TRIGGER landfall_operation_stays BEFORE DELETE ON landfall_operations
      WHEN NOT EXISTS (SELECT 1 FROM landfall_tombstones t WHERE t.id = OLD.id AND t.owner_hash = OLD.owner_hash)
        OR EXISTS (SELECT 1 FROM landfall_references r WHERE r.operation_id = OLD.id AND r.owner = OLD.owner)
      BEGIN SELECT RAISE(ABORT, 'landfall: an operation is never deleted without its tombstone, because its id is never used again'); END`,
    // If a writer does not give the owner's hash, every id that has a tombstone is refused.
    `CREATE TRIGGER landfall_id_is_never_used_again BEFORE INSERT ON landfall_operations
      WHEN EXISTS (SELECT 1 FROM landfall_tombstones t WHERE t.id = NEW.id AND (NEW.owner_hash IS NULL OR t.owner_hash = NEW.owner_hash))
      BEGIN SELECT RAISE(ABORT, 'landfall: an id is never used again'); END`,
    `CREATE TRIGGER landfall_tombstone_is_not_deleted BEFORE DELETE ON landfall_tombstones
      BEGIN SELECT RAISE(ABORT, 'landfall: a tombstone stays, because its id is never used again'); END`,
    `CREATE TRIGGER landfall_tombstone_is_not_changed BEFORE UPDATE ON landfall_tombstones
      BEGIN SELECT RAISE(ABORT, 'landfall: a tombstone stays, because its id is never used again'); END`,
    // How many files an owner stores, and the time until which its declarations use up its rate.
    `ALTER TABLE landfall_usage ADD COLUMN stored_references INTEGER NOT NULL DEFAULT 0`,
    `ALTER TABLE landfall_usage ADD COLUMN declared_until_us INTEGER NOT NULL DEFAULT 0`,
    `INSERT INTO landfall_usage (owner, stored_references)
      SELECT owner, COUNT(*) FROM landfall_references WHERE true GROUP BY owner
      ON CONFLICT (owner) DO UPDATE SET stored_references = excluded.stored_references`,
    `DROP TRIGGER IF EXISTS landfall_reference_stored`,
    `CREATE TRIGGER landfall_reference_stored AFTER INSERT ON landfall_references
      BEGIN
        INSERT INTO landfall_usage (owner, stored_bytes, stored_references) VALUES (NEW.owner, NEW.size, 1)
          ON CONFLICT (owner) DO UPDATE SET stored_bytes = stored_bytes + excluded.stored_bytes, stored_references = stored_references + 1;
      END`,
    `DROP TRIGGER IF EXISTS landfall_reference_gone`,
    `CREATE TRIGGER landfall_reference_gone AFTER DELETE ON landfall_references
      BEGIN
        UPDATE landfall_usage SET stored_bytes = stored_bytes - OLD.size, stored_references = stored_references - 1
          WHERE owner = OLD.owner;
      END`,
  ],
]
