import { problem } from '@landfall/shared'
import { sql } from 'drizzle-orm'
import type { LibSQLDatabase } from 'drizzle-orm/libsql'
import { v7 as uuidv7 } from 'uuid'
import { deadline, type Limit } from '../../lib/deadline.js'
import { faultCode, UploadError } from '../../lib/errors.js'
import { type HookOutcome, NO_HOOK, type ReferenceIntent, type Referred } from '../../ports/ledger/references.js'
import { REMOVAL } from '../../ports/ledger/effects.js'
import type { Lease } from '../../ports/ledger/leases.js'
import type { Ledger } from '../../ports/ledger.js'
import type { OperationRecord } from '../../ports/operation.js'
import { remembered } from '../../lib/remembered.js'
import { hookTimeout, Lost, Rejected } from '../hook.js'
import { hooks, type HookScope, openTransaction, sqliteAccess } from './client/serialized-libsql.js'
import {
  ask,
  askedOf,
  cancel,
  complete,
  declare,
  find,
  leaseDue,
  listOpen,
  migrate,
  ownerKey,
  migrated,
  record,
  referIn,
  rememberStore,
  renewLease,
  setDigest,
  takeLease,
  unready,
  versions,
} from './operations.js'
import { advanceMark, backlog, claims, health, heartbeat, list, mark, pulse } from './inventory.js'
import { attendedMs, lookAtClock, settleClock } from './clock.js'
import { COMPLETABLE, DUE_EFFECTS, DUE_OPERATIONS, dueArgs, NEXT_DUE } from './due.js'
import { effectsDueAt, effectsOf, retryEffects, settleEffect, takeEffects } from './effects.js'
import { type Queries, queryOf } from '../postgres/query.js'
import { forgetOwner, holdings, retire, tombstone, tombstoneKey, toRetire } from './retention.js'
import { ownerHash } from '../tombstones.js'
import { type Connection, isAway, isSaid, NOW, type SqlRow, type SqlValue } from './client/connection.js'

type AnySchema = Record<string, unknown>
/** The transaction that Drizzle hands to the callback of `db.transaction`. */
export type SqliteTx<Schema extends AnySchema> = Parameters<Parameters<LibSQLDatabase<Schema>['transaction']>[0]>[0]

/**
 * The ledger in the application's own SQLite database, through the application's own Drizzle.
 *
 * `db` must be made on a client from `serializedLibsql`, so that all writes go through one queue.
 *
 * @throws UploadError `setup` where it is not.
 */
export function sqliteLedger<Schema extends AnySchema>(db: LibSQLDatabase<Schema>): Ledger<SqliteTx<Schema>> {
  const access = sqliteAccess((db as unknown as { $client: unknown }).$client)
  const listeners = new Set<(operation: OperationRecord) => void>()
  const changed = <T extends OperationRecord | null>(operation: T): T => {
    if (operation !== null) for (const listener of listeners) listener(operation)
    return operation
  }
  const read = <T>(query: (connection: Connection) => T): Promise<T> => told(async () => query(await access.reader()))
  const write = <T>(work: (connection: Connection) => T): Promise<T> => told(() => access.writer.write(work))
  /** Takes the writer only where a reader finds something; what comes a moment later is found by the next look. */
  const writeIfAny = async <T>(pick: string, args: SqlValue[], none: T, work: (on: Connection) => T): Promise<T> =>
    (await read((on) => on.get(pick, [...args, 1]))) === undefined ? none : write(work)

  /** The key is read once: it is committed before anything can be declared, and never changes. */
  let hash: ((owner: string) => string) | null = null
  const hashOn = (on: Connection): ((owner: string) => string) => {
    if (hash === null) {
      const key = tombstoneKey(on)
      hash = remembered((owner) => ownerHash(key, owner))
    }
    return hash
  }

  return {
    async migrate(how = 'apply') {
      const ready = await read(migrated)
      if (ready !== null) return ready
      if (how === 'check') throw await read(unready)
      return write(migrate)
    },

    rememberStore: () => write(rememberStore),

    ownerKey: () => write(ownerKey),

    async declare(intent) {
      const declared = await write((on) => declare(on, intent, hashOn(on)(intent.owner)))
      if (declared.outcome === 'created') changed(declared.operation)
      return declared
    },

    find: (key) => read((on) => find(on, key)),

    tombstone: (key) => read((on) => tombstone(on, key)),

    findMany: (owner, ids) =>
      read((on) => ids.map((id) => find(on, { owner, id })).filter((operation) => operation !== null)),

    listOpen: (owner, { after, limit }) => read((on) => listOpen(on, owner, after, limit)),

    async setDigest(key, digest) {
      const { outcome, operation } = await write((on) => setDigest(on, key, digest))
      changed(operation)
      return outcome
    },

    lease: (key, request) => write((on) => takeLease(on, key, request)),

    leaseDue: (request) => writeIfAny(DUE_OPERATIONS, dueArgs(request), [], (on) => leaseDue(on, request)),

    ask: (key, request) => write((on) => ask(on, key, request)),

    askedOf: (holder) => read((on) => askedOf(on, holder)),

    versions: (keys) => read((on) => versions(on, keys)),

    renew: (leases, leaseMs) => write((on) => leases.filter((lease) => renewLease(on, lease, leaseMs))),

    async record(lease, from, changes) {
      return changed(await write((on) => record(on, lease, from, changes)))
    },

    async refer(lease, from, intent, hook) {
      const referred = await (hook === null ? referAlone(lease, from, intent) : refer(lease, from, intent, hook))
      if (referred.outcome === 'referenced') changed(referred.operation)
      return referred
    },

    async cancel(key, why) {
      return changed(await write((on) => cancel(on, key, why)))
    },

    retry: (key) =>
      write((on) => {
        const stalls = on.run(
          `UPDATE landfall_operations SET stalled = 0, attempts = 0, problem = 'null', due_at = ${NOW}, updated_at = ${NOW}
           WHERE owner = ? AND id = ? AND stalled = 1`,
          [key.owner, key.id],
        )
        return stalls + retryEffects(on, key) > 0
      }),

    effectsOf: (key) => read((on) => effectsOf(on, key)),

    remove: (tx, id, owner) => remove(tx, id, owner),

    async forgetOwner(tx, owner) {
      if (tx !== null) return forgetOwner(queriesIn(tx), owner)
      return told(() => db.transaction(async (own) => forgetOwner(queriesIn(own), owner)))
    },

    holdings: (owner) => read((on) => holdings(on, owner)),

    async retire(retention, limit) {
      const { operations, effects } = await read((on) => toRetire(on, retention, 1))
      if (operations.length + effects.length === 0) return { operations: 0, effects: 0 }
      return write((on) => retire(on, retention, limit))
    },

    complete: (limit) => writeIfAny(COMPLETABLE, [], 0, (on) => complete(on, limit)),

    takeEffects: (target, request) =>
      writeIfAny(DUE_EFFECTS, [target.kind, target.name], [], (on) => takeEffects(on, target, request)),

    settleEffect: (effect, result) => write((on) => settleEffect(on, effect, result)),

    forgetOtherHolders: (holder) =>
      write((on) => {
        on.run(
          `UPDATE landfall_effects SET holder = NULL, due_at = ${NOW} WHERE due_at IS NOT NULL AND holder IS NOT NULL AND holder <> ?`,
          [holder],
        )
        return on.run(
          // A lease always has a due time: the index of due operations finds them without a scan.
          `UPDATE landfall_operations SET
             unclean_holder = COALESCE(unclean_holder, CASE lease_purpose WHEN 'receive' THEN lease_holder END),
             lease_holder = NULL, lease_purpose = NULL, lease_expires_at = NULL, lease_asked = 0, lease_token = lease_token + 1, due_at = ${NOW}
           WHERE due_at IS NOT NULL AND lease_holder IS NOT NULL AND lease_holder <> ?`,
          [holder],
        )
      }),

    claims: (range) => read((on) => claims(on, range)),

    list: (page) => read((on) => list(on, page)),

    mark: () => read(mark),

    advanceMark: (to) => write((on) => advanceMark(on, to)),

    heartbeat: () => write(heartbeat),

    pulse: () => read(pulse),

    backlog: () => read(backlog),

    async settleClock(look) {
      const found = await read((on) => lookAtClock(on, look))
      return found.due ? write((on) => settleClock(on, look)) : { nowAt: found.nowAt, steppedMs: 0 }
    },

    attendedMs: (sinceAt) => read((on) => attendedMs(on, sinceAt)),

    health: () => read(health),

    nextDueInMs: (targets) =>
      read((on) => {
        const row = on.get(`SELECT (${NEXT_DUE}) AS due, ${NOW} AS now`)
        const now = Number(row?.['now'])
        const due = [row?.['due'] ?? null, effectsDueAt(on, targets)].filter((at) => at !== null)
        return due.length === 0 ? null : Math.max(0, Math.min(...due.map(Number)) - now)
      }),

    onChange(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
  }

  /** Without a hook there is nothing that Drizzle would have to see: a job of the queue like any other. */
  async function referAlone(lease: Lease, from: OperationRecord, intent: ReferenceIntent): Promise<Referred> {
    try {
      return { outcome: 'referenced', operation: await write((on) => referIn(on, lease, from, intent, NO_HOOK)) }
    } catch (error) {
      if (error instanceof Lost) return { outcome: 'lost' }
      throw error
    }
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
    hook: (tx: SqliteTx<Schema>, limit: Limit) => Promise<HookOutcome>,
  ): Promise<Referred> {
    const mode = await access.intMode()
    let accepted: Extract<HookOutcome, { outcome: 'accepted' }> | null = null
    let operation: OperationRecord | null = null
    let failed: { readonly error: unknown } | null = null
    const last = (on: Connection): void => {
      if (accepted === null)
        throw new UploadError('transaction-closed', 'the transaction was committed before its hook had answered')
      operation = referIn(on, lease, from, intent, accepted)
    }
    let opened = false
    const taken = new AbortController()
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
          () => access.writer.hold({ label: from.kind, repeatable: true, onTakenAway: (why) => taken.abort(why) }),
          mode,
          (hold) => (hold === null ? access.writer.write(last) : hold.commit(last)),
        )
      },
    }
    try {
      await hooks.run(scope, () =>
        db.transaction(async (tx) => {
          const { timeLimitMs } = intent
          const outcome = await deadline(
            (limit) => hook(tx, limit),
            timeLimitMs,
            taken.signal,
            hookTimeout(timeLimitMs),
          )
            .catch((error: unknown) => {
              failed = { error }
              throw error
            })
            .finally(() => (scope.active = false))
          if (outcome.outcome === 'rejected') throw new Rejected(outcome.problem)
          accepted = outcome
        }),
      )
    } catch (error) {
      if (error instanceof Rejected) return { outcome: 'rejected', problem: error.problem }
      if (error instanceof Lost) return { outcome: 'lost' }
      // A mail server, another database, a file of the hook's may fail with the same codes; that is its own fault.
      const isOfHook = (failed as { readonly error: unknown } | null)?.error === error && !isSaid(error)
      throw isOfHook ? error : faultOf(error)
    }
    if (operation === null) throw new UploadError('ledger-unavailable', 'the transaction ended without the reference')
    return { outcome: 'referenced', operation }
  }
}

/** A full disk is no reason to give an operation up: what Landfall itself asked of the database fails with a code. */
const faultOf = (error: unknown): unknown =>
  isAway(error) && faultCode(error) === null
    ? new UploadError('ledger-unavailable', 'the database cannot be used now', { cause: error })
    : error

async function told<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw faultOf(error)
  }
}

/** Statements with `?` for their arguments, in a transaction of Drizzle's. */
function queriesIn<Schema extends AnySchema>(tx: SqliteTx<Schema>): Queries {
  const all = (text: string, args: readonly SqlValue[] = []): Promise<SqlRow[]> => tx.all<SqlRow>(queryOf(text, args))
  return {
    all,
    get: async (text, args) => (await all(text, args))[0],
    run: async (text, args = []) => (await tx.run(queryOf(text, args))).rowsAffected,
  }
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
    VALUES (${uuidv7()}, ${reference.owner}, ${id}, ${REMOVAL.name}, 'remove-bytes', ${JSON.stringify({ blobKey: reference.blob_key })}, ${now}, ${now})`)
  await tx.run(sql`UPDATE landfall_operations SET removed_at = ${now}, problem = ${JSON.stringify(problem('removed'))}, updated_at = ${now}
    WHERE owner = ${reference.owner} AND id = ${id}`)
  return true
}
