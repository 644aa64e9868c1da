/**
 * The history of the tables for PostgreSQL, in order. It is only ever appended to, and each migration only adds, so
 * that versions N and N+1 of the server can run against one database. A test compares its result with `schema.ts`.
 */
export const POSTGRES_MIGRATIONS: readonly (readonly string[])[] = [
  [
    // Keys and ids are compared byte by byte, as JavaScript and the blob stores do.
    `CREATE TABLE landfall_operations (
      owner text COLLATE "C" NOT NULL,
      id text COLLATE "C" NOT NULL,
      kind text NOT NULL,
      point text NOT NULL,
      stalled smallint NOT NULL DEFAULT 0,
      file_name text NOT NULL,
      file_size bigint NOT NULL,
      file_type text NOT NULL,
      file_last_modified bigint,
      metadata text NOT NULL,
      validated text NOT NULL,
      upload_metadata text,
      facts text NOT NULL,
      "offset" bigint NOT NULL DEFAULT 0,
      digest text,
      digest_pending smallint NOT NULL DEFAULT 0,
      digest_due_at bigint,
      blob_key text COLLATE "C" NOT NULL,
      blob_state text NOT NULL DEFAULT 'null',
      received_at bigint,
      tail_base bigint,
      prepared text NOT NULL DEFAULT '{}',
      content text NOT NULL DEFAULT 'null',
      lease_holder text,
      lease_purpose text,
      lease_token bigint NOT NULL DEFAULT 0,
      lease_expires_at bigint,
      lease_asked smallint NOT NULL DEFAULT 0,
      unclean_holder text,
      attempts integer NOT NULL DEFAULT 0,
      due_at bigint,
      problem text NOT NULL DEFAULT 'null',
      last_error text,
      cleanup_due smallint NOT NULL DEFAULT 0,
      removed_at bigint,
      created_at bigint NOT NULL,
      updated_at bigint NOT NULL,
      expires_at bigint NOT NULL,
      owed_effects integer NOT NULL DEFAULT 0,
      PRIMARY KEY (owner, id),
      CONSTRAINT landfall_operations_point CHECK (point IN ('declared', 'received', 'sealed', 'verified', 'referenced', 'completed', 'cancelled', 'expired', 'rejected')),
      CONSTRAINT landfall_operations_offset CHECK ("offset" >= 0 AND "offset" <= file_size),
      CONSTRAINT landfall_operations_whole CHECK (point NOT IN ('received', 'sealed', 'verified', 'referenced', 'completed') OR "offset" = file_size)
    )`,
    `CREATE UNIQUE INDEX landfall_operations_blob_key ON landfall_operations (blob_key)`,
    `CREATE INDEX landfall_operations_due ON landfall_operations (due_at) WHERE due_at IS NOT NULL`,
    `CREATE INDEX landfall_operations_open ON landfall_operations (owner, created_at, id) WHERE point IN ('declared', 'received', 'sealed', 'verified')`,
    `CREATE INDEX landfall_operations_incomplete ON landfall_operations (owed_effects, updated_at) WHERE point = 'referenced'`,
    `CREATE INDEX landfall_operations_asked ON landfall_operations (lease_holder) WHERE lease_asked > 0`,
    `CREATE TABLE landfall_references (
      owner text COLLATE "C" NOT NULL,
      operation_id text COLLATE "C" NOT NULL,
      blob_key text COLLATE "C" NOT NULL,
      size bigint NOT NULL,
      type text NOT NULL,
      digest text NOT NULL,
      digest_source text NOT NULL,
      stored_at bigint NOT NULL,
      data text NOT NULL,
      PRIMARY KEY (operation_id, owner)
    )`,
    `CREATE UNIQUE INDEX landfall_references_blob_key ON landfall_references (blob_key)`,
    `CREATE TABLE landfall_effects (
      effect_id text COLLATE "C" PRIMARY KEY,
      owner text COLLATE "C" NOT NULL,
      operation_id text COLLATE "C" NOT NULL,
      name text NOT NULL,
      type text NOT NULL,
      payload text NOT NULL,
      attempts integer NOT NULL DEFAULT 0,
      due_at bigint,
      delivered_at bigint,
      last_error text,
      created_at bigint NOT NULL,
      kind text NOT NULL DEFAULT '',
      holder text,
      given_up_at bigint
    )`,
    `CREATE UNIQUE INDEX landfall_effects_name ON landfall_effects (owner, operation_id, name)`,
    `CREATE INDEX landfall_effects_target ON landfall_effects (kind, name, due_at) WHERE due_at IS NOT NULL`,
    `CREATE INDEX landfall_effects_given_up ON landfall_effects (given_up_at) WHERE given_up_at IS NOT NULL`,
    `CREATE TABLE landfall_disabled_targets (
      kind text NOT NULL,
      name text NOT NULL,
      disabled_at bigint NOT NULL,
      PRIMARY KEY (kind, name)
    )`,
    // What an owner has open and what it stores (invariant 9). Triggers keep these numbers up to date, whichever
    // program writes, because rows that several nodes insert at once cannot be counted.
    `CREATE TABLE landfall_usage (
      owner text COLLATE "C" PRIMARY KEY,
      open_operations bigint NOT NULL DEFAULT 0,
      reserved_bytes bigint NOT NULL DEFAULT 0,
      stored_bytes bigint NOT NULL DEFAULT 0
    )`,
    `CREATE FUNCTION landfall_guard_operation() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN
        IF TG_OP = 'DELETE' THEN
          RAISE EXCEPTION 'landfall: an operation is never deleted, because its id is never used again';
        END IF;
        IF NEW."offset" < OLD."offset" THEN
          RAISE EXCEPTION 'landfall: an acknowledged offset never falls';
        END IF;
        IF NEW.point <> OLD.point AND (
          OLD.point IN ('completed', 'cancelled', 'expired', 'rejected')
          OR (OLD.point = 'referenced' AND NEW.point <> 'completed')
          OR (OLD.point = 'verified' AND NEW.point IN ('declared', 'received', 'sealed', 'expired', 'completed'))
          OR (OLD.point = 'sealed' AND NEW.point IN ('declared', 'received', 'expired', 'completed'))
          OR (OLD.point = 'received' AND NEW.point IN ('declared', 'expired', 'completed'))
          OR (OLD.point = 'declared' AND NEW.point = 'completed')) THEN
          RAISE EXCEPTION 'landfall: a recovery point never moves back';
        END IF;
        RETURN NEW;
      END $$`,
    `CREATE TRIGGER landfall_operation_guarded BEFORE DELETE OR UPDATE OF "offset", point ON landfall_operations
      FOR EACH ROW EXECUTE FUNCTION landfall_guard_operation()`,
    `CREATE FUNCTION landfall_count_operation() RETURNS trigger LANGUAGE plpgsql AS $$
      DECLARE
        open constant text[] := ARRAY['declared', 'received', 'sealed', 'verified'];
      BEGIN
        IF TG_OP = 'INSERT' AND NEW.point = ANY (open) THEN
          INSERT INTO landfall_usage AS u (owner, open_operations, reserved_bytes) VALUES (NEW.owner, 1, NEW.file_size)
            ON CONFLICT (owner) DO UPDATE SET open_operations = u.open_operations + 1, reserved_bytes = u.reserved_bytes + NEW.file_size;
        ELSIF TG_OP = 'UPDATE' AND OLD.point = ANY (open) AND NOT NEW.point = ANY (open) THEN
          UPDATE landfall_usage SET open_operations = open_operations - 1, reserved_bytes = reserved_bytes - NEW.file_size
            WHERE owner = NEW.owner;
        END IF;
        RETURN NULL;
      END $$`,
    `CREATE TRIGGER landfall_operation_counted AFTER INSERT OR UPDATE OF point ON landfall_operations
      FOR EACH ROW EXECUTE FUNCTION landfall_count_operation()`,
    `CREATE FUNCTION landfall_count_reference() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN
        IF TG_OP = 'INSERT' THEN
          INSERT INTO landfall_usage AS u (owner, stored_bytes) VALUES (NEW.owner, NEW.size)
            ON CONFLICT (owner) DO UPDATE SET stored_bytes = u.stored_bytes + NEW.size;
        ELSE
          UPDATE landfall_usage SET stored_bytes = stored_bytes - OLD.size WHERE owner = OLD.owner;
        END IF;
        RETURN NULL;
      END $$`,
    `CREATE TRIGGER landfall_reference_counted AFTER INSERT OR DELETE ON landfall_references
      FOR EACH ROW EXECUTE FUNCTION landfall_count_reference()`,
  ],
  // Retention: an operation that ended long ago is replaced by a tombstone, so that its id is still never used again.
  [
    // The table contains no owner.
    `CREATE TABLE landfall_tombstones (
      id text COLLATE "C" NOT NULL,
      owner_hash text COLLATE "C" NOT NULL,
      point text NOT NULL,
      PRIMARY KEY (id, owner_hash),
      CONSTRAINT landfall_tombstones_point CHECK (point IN ('completed', 'cancelled', 'expired', 'rejected'))
    )`,
    // The triggers recognise an operation's tombstone by this hash. An older version of the server does not write it.
    `ALTER TABLE landfall_operations ADD COLUMN owner_hash text`,
    `ALTER TABLE landfall_operations ADD COLUMN forgotten_at bigint`,
    `CREATE INDEX landfall_operations_ended ON landfall_operations (updated_at) WHERE cleanup_due = 0 AND lease_holder IS NULL AND (point IN ('cancelled', 'expired', 'rejected') OR removed_at IS NOT NULL)`,
    `CREATE INDEX landfall_operations_forgotten ON landfall_operations (forgotten_at) WHERE forgotten_at IS NOT NULL`,
    `CREATE INDEX landfall_effects_delivered ON landfall_effects (delivered_at) WHERE delivered_at IS NOT NULL`,
    `CREATE OR REPLACE FUNCTION landfall_guard_operation() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN
        IF TG_OP = 'DELETE' THEN
          IF NOT EXISTS (SELECT 1 FROM landfall_tombstones t WHERE t.id = OLD.id AND t.owner_hash = OLD.owner_hash)
            OR EXISTS (SELECT 1 FROM landfall_references r WHERE r.operation_id = OLD.id AND r.owner = OLD.owner) THEN
            RAISE EXCEPTION 'landfall: an operation is never deleted without its tombstone, because its id is never used again';
          END IF;
          RETURN OLD;
        END IF;
        IF NEW."offset" < OLD."offset" THEN
          RAISE EXCEPTION 'landfall: an acknowledged offset never falls';
        END IF;
        IF NEW.point <> OLD.point AND (
          OLD.point IN ('completed', 'cancelled', 'expired', 'rejected')
          OR (OLD.point = 'referenced' AND NEW.point <> 'completed')
          OR (OLD.point = 'verified' AND NEW.point IN ('declared', 'received', 'sealed', 'expired', 'completed'))
          OR (OLD.point = 'sealed' AND NEW.point IN ('declared', 'received', 'expired', 'completed'))
          OR (OLD.point = 'received' AND NEW.point IN ('declared', 'expired', 'completed'))
          OR (OLD.point = 'declared' AND NEW.point = 'completed')) THEN
          RAISE EXCEPTION 'landfall: a recovery point never moves back';
        END IF;
        RETURN NEW;
      END $$`,
    // If a writer does not give the owner's hash, every id that has a tombstone is refused.
    `CREATE FUNCTION landfall_refuse_used_id() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN
        IF EXISTS (SELECT 1 FROM landfall_tombstones t
          WHERE t.id = NEW.id AND (NEW.owner_hash IS NULL OR t.owner_hash = NEW.owner_hash)) THEN
          RAISE EXCEPTION 'landfall: an id is never used again';
        END IF;
        RETURN NEW;
      END $$`,
    `CREATE TRIGGER landfall_id_is_never_used_again BEFORE INSERT ON landfall_operations
      FOR EACH ROW EXECUTE FUNCTION landfall_refuse_used_id()`,
    `CREATE FUNCTION landfall_guard_tombstone() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN
        RAISE EXCEPTION 'landfall: a tombstone stays, because its id is never used again';
      END $$`,
    `CREATE TRIGGER landfall_tombstone_guarded BEFORE DELETE OR UPDATE ON landfall_tombstones
      FOR EACH ROW EXECUTE FUNCTION landfall_guard_tombstone()`,
    // How many files an owner stores, and the time until which its declarations use up its rate. `declaration_refused`
    // says whether the latest declaration came too soon, because one statement decides this and returns it.
    `ALTER TABLE landfall_usage ADD COLUMN stored_references bigint NOT NULL DEFAULT 0`,
    `ALTER TABLE landfall_usage ADD COLUMN declared_until_us bigint NOT NULL DEFAULT 0`,
    `ALTER TABLE landfall_usage ADD COLUMN declaration_refused smallint NOT NULL DEFAULT 0`,
    // This locks the table. Until the migration is committed nobody adds a reference, so the count misses none.
    `DROP TRIGGER IF EXISTS landfall_reference_counted ON landfall_references`,
    `CREATE OR REPLACE FUNCTION landfall_count_reference() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN
        IF TG_OP = 'INSERT' THEN
          INSERT INTO landfall_usage AS u (owner, stored_bytes, stored_references) VALUES (NEW.owner, NEW.size, 1)
            ON CONFLICT (owner) DO UPDATE SET stored_bytes = u.stored_bytes + NEW.size, stored_references = u.stored_references + 1;
        ELSE
          UPDATE landfall_usage SET stored_bytes = stored_bytes - OLD.size, stored_references = stored_references - 1
            WHERE owner = OLD.owner;
        END IF;
        RETURN NULL;
      END $$`,
    `CREATE TRIGGER landfall_reference_counted AFTER INSERT OR DELETE ON landfall_references
      FOR EACH ROW EXECUTE FUNCTION landfall_count_reference()`,
    `INSERT INTO landfall_usage (owner, stored_references)
      SELECT owner, COUNT(*) FROM landfall_references GROUP BY owner
      ON CONFLICT (owner) DO UPDATE SET stored_references = excluded.stored_references`,
  ],
]
