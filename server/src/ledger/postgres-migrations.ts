/**
 * The tables' history for PostgreSQL, in order; only ever appended to, and each only adds, so that versions N and N+1 of
 * the server can run against one database. A test holds it against `postgres-schema.ts`.
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
    // What an owner has open and holds (invariant 9): kept by triggers, because what several nodes insert at once cannot
    // be counted, and against every writer.
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
]
