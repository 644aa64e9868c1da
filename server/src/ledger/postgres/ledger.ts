import { setTimeout as sleep } from 'node:timers/promises'
import { problem } from '@landfall/shared'
import type { PgDatabase, PgQueryResultHKT } from 'drizzle-orm/pg-core'
import { v7 as uuidv7 } from 'uuid'
import { deadline, type Limit } from '../../lib/deadline.js'
import { UploadError } from '../../lib/errors.js'
import { type HookOutcome, NO_HOOK, type ReferenceIntent, type Referred } from '../../ports/ledger/references.js'
import { REMOVAL } from '../../ports/ledger/effects.js'
import type { Lease } from '../../ports/ledger/leases.js'
import type { Ledger } from '../../ports/ledger.js'
import type { OperationRecord } from '../../ports/operation.js'
import { hookTimeout, Lost, Rejected } from '../hook.js'
import { attendedMs, lookAtClock, settleClock } from './clock.js'
import { NEXT_DUE } from './due.js'
import {
  effectsDueAt,
  effectsOf,
  forgetOtherHoldersOfEffects,
  retryEffects,
  settleEffect,
  takeEffects,
} from './effects.js'
import { advanceMark, backlog, claims, health, heartbeat, list, mark, pulse } from './inventory.js'
import {
  ask,
  askedOf,
  cancel,
  clearStall,
  complete,
  declare,
  find,
  findMany,
  forgetOtherHolders,
  leaseDue,
  listOpen,
  migrate,
  ownerKey,
  migrated,
  record,
  referIn,
  rememberStore,
  renew,
  setDigest,
  takeLease,
  unready,
  versions,
} from './operations.js'
import { connectionsOf, type Session } from './connections.js'
import { codesOf, type Executes, faultOf, isStopped, NOW, type Queries, queriesOn } from './query.js'
import { forgetOwner, holdings, retire, tombstone, tombstoneKey } from './retention.js'
import { refusePastTx, revocable, type Scope, withinHook } from './scope.js'
import { ANSWER_MS, createTurns, LONG_MS, type Running } from './turns.js'
import { remembered } from '../../lib/remembered.js'
import { ownerHash } from '../tombstones.js'

type AnySchema = Record<string, unknown>
type AnyDatabase = PgDatabase<PgQueryResultHKT, AnySchema>
/** The transaction that Drizzle hands to the callback of `db.transaction`. */
export type PostgresTx<Database extends Pick<AnyDatabase, 'transaction'>> = Parameters<
  Parameters<Database['transaction']>[0]
>[0]

/** To build an index over many rows takes its time, and so does another process that does it. */
const MIGRATE_MS = 15 * 60_000
/** Between attempts to change tables that somebody uses: those who had to wait for one of them go on. */
const MIGRATE_AGAIN_MS = 2_000
/** An operator forgets an owner as a whole or not at all, however much it has; only rows of that owner wait meanwhile. */
const FORGET_MS = 15 * 60_000
/** What a hook may take longer than its own limit before the database ends its transaction: then its process stands still. */
const GRACE_MS = 5_000
/** A busy server may take as long, whatever the lease. */
const LEAST_RENEWAL_MS = 1_000

/**
 * The ledger in the application's own PostgreSQL database, through the application's own Drizzle (node-postgres or
 * postgres.js). For any number of processes; no connection is held while bytes flow, and nothing lives in a session, so
 * that PgBouncer may pool by transaction.
 */
export function postgresLedger<Database extends Executes & Pick<AnyDatabase, 'transaction'>>(
  db: Database,
): Ledger<PostgresTx<Database>> {
  type Tx = PostgresTx<Database>
  const listeners = new Set<(operation: OperationRecord) => void>()
  const changed = <T extends OperationRecord | null>(operation: T): T => {
    if (operation !== null) for (const listener of listeners) listener(operation)
    return operation
  }
  const connections = connectionsOf(db, refusePastTx)
  const turns = createTurns(connections)
  const on = <T>(work: (queries: Queries) => Promise<T>, answerMs?: number): Promise<T> =>
    told(turns.take((session, _limit, { heard }) => work(queriesOn(session, heard)), answerMs))
  /** Past the crowd: what must not come late, because others would take its silence for a death. */
  const atOnce = <T>(work: (queries: Queries) => Promise<T>, answerMs?: number): Promise<T> =>
    told(turns.takeAtOnce((session, _limit, { heard }) => work(queriesOn(session, heard)), answerMs))
  const within = <T>(work: (queries: Queries) => Promise<T>, answerMs?: number): Promise<T> =>
    told(
      turns.take(
        (session, _limit, connection) =>
          session.transaction(async (tx) => {
            const result = await work(queriesOn(tx, connection.heard))
            connection.commits()
            return result
          }),
        answerMs,
      ),
    )
  /** Read once: it is committed before anything can be declared, and never changes. */
  let hash: ((owner: string) => string) | null = null
  const hashOn = async (queries: Queries): Promise<(owner: string) => string> => {
    if (hash !== null) return hash
    const key = await tombstoneKey(queries)
    return (hash = remembered((owner) => ownerHash(key, owner)))
  }

  return {
    async migrate(how = 'apply') {
      const ready = await on(migrated)
      if (ready !== null) return ready
      if (how === 'check') throw await on(unready)
      for (const untilMs = performance.now() + MIGRATE_MS; ; await sleep(MIGRATE_AGAIN_MS))
        try {
          return await within(migrate, MIGRATE_MS)
        } catch (error) {
          if (!codesOf(error).includes('55P03') || performance.now() > untilMs) throw mayNot(error)
        }
    },

    rememberStore: () => on(async (queries) => void (await rememberStore(queries))),

    ownerKey: () => on(ownerKey),

    async declare(intent) {
      const declared = await on(async (queries) => declare(queries, intent, (await hashOn(queries))(intent.owner)))
      if (declared.outcome === 'created') changed(declared.operation)
      return declared
    },

    find: (key) => on((queries) => find(queries, key)),

    tombstone: (key) => on(async (queries) => tombstone(queries, key.id, (await hashOn(queries))(key.owner))),

    findMany: (owner, ids) => on((queries) => findMany(queries, owner, ids)),

    listOpen: (owner, { after, limit }) => on((queries) => listOpen(queries, owner, after, limit)),

    async setDigest(key, digest) {
      const { outcome, operation } = await on((queries) => setDigest(queries, key, digest))
      changed(operation)
      return outcome
    },

    lease: (key, request) => on((queries) => takeLease(queries, key, request)),

    leaseDue: (request) => on((queries) => leaseDue(queries, request)),

    ask: (key, request) => on((queries) => ask(queries, key, request)),

    askedOf: (holder) => on((queries) => askedOf(queries, holder)),

    versions: (keys) => on((queries) => versions(queries, keys)),

    // So that there is time for another try before they expire.
    renew: (leases, leaseMs) =>
      atOnce(
        (queries) => renew(queries, leases, leaseMs),
        Math.min(ANSWER_MS, Math.max(LEAST_RENEWAL_MS, leaseMs / 3)),
      ),

    async record(lease, from, changes) {
      return changed(await on((queries) => record(queries, lease, from, changes)))
    },

    async refer(lease, from, intent, hook) {
      const referred = await turns.takeForHook((session, limit, connection) =>
        refer({ session, limit, connection }, lease, from, intent, hook),
      )
      if (referred.outcome === 'referenced') changed(referred.operation)
      return referred
    },

    async cancel(key, why) {
      return changed(await on((queries) => cancel(queries, key, why)))
    },

    retry: (key) =>
      within(async (queries) => (await clearStall(queries, key)) + (await retryEffects(queries, key)) > 0),

    effectsOf: (key) => on((queries) => effectsOf(queries, key)),

    remove: (tx, id, owner) => remove(queriesOn(tx), id, owner),

    forgetOwner: (tx, owner) =>
      tx === null ? within((queries) => forgetOwner(queries, owner), FORGET_MS) : forgetOwner(queriesOn(tx), owner),

    // It counts all rows of the owner, and only operators ask.
    holdings: (owner) => on((queries) => holdings(queries, owner), LONG_MS),

    retire: (retention, limit) => within((queries) => retire(queries, retention, limit)),

    complete: (limit) => on((queries) => complete(queries, limit)),

    takeEffects: (target, request) => on((queries) => takeEffects(queries, target, request)),

    settleEffect: (effect, result) => on((queries) => settleEffect(queries, effect, result)),

    forgetOtherHolders: (holder) =>
      within(async (queries) => {
        await forgetOtherHoldersOfEffects(queries, holder)
        return forgetOtherHolders(queries, holder)
      }, LONG_MS),

    claims: (range) => on((queries) => claims(queries, range), LONG_MS),

    list: (page) => on((queries) => list(queries, page), LONG_MS),

    mark: () => on(mark),

    advanceMark: (to) => within((queries) => advanceMark(queries, to)),

    heartbeat: () => atOnce(async (queries) => void (await heartbeat(queries))),

    async settleClock(look) {
      const found = await on((queries) => lookAtClock(queries, look))
      return found.due ? within((queries) => settleClock(queries, look), LONG_MS) : { nowAt: found.nowAt, steppedMs: 0 }
    },

    attendedMs: (sinceAt) => on((queries) => attendedMs(queries, sinceAt)),

    // It counts all rows: `pulse` does not, and is what load balancers ask.
    health: () => on(health, LONG_MS),

    pulse: () => atOnce(pulse),

    backlog: () => on(backlog),

    nextDueInMs: (targets) =>
      on(async (queries) => {
        const row = await queries.get(`SELECT (${NEXT_DUE}) AS due, ${NOW} AS now`)
        const due = [row?.['due'] ?? null, await effectsDueAt(queries, targets)].filter((at) => at !== null)
        return due.length === 0 ? null : Math.max(0, Math.min(...due.map(Number)) - Number(row?.['now']))
      }),

    onChange(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
  }

  /** The hook runs in a transaction of the application's own Drizzle, so that it has its schema and its types. */
  async function refer(
    { session, limit, connection }: { session: Session; limit: Limit; connection: Running },
    lease: Lease,
    from: OperationRecord,
    intent: ReferenceIntent,
    hook: ((tx: Tx, limit: Limit) => Promise<HookOutcome>) | null,
  ): Promise<Referred> {
    const { timeLimitMs } = intent
    let scope: Scope | null = null
    let failed: { readonly error: unknown } | null = null
    try {
      const transaction = session.transaction(async (tx) => {
        const own = (scope = revocable(tx))
        const queries = queriesOn(tx)
        // A process that stands still must not keep what its transaction has locked.
        const endsAfterMs = String(timeLimitMs + GRACE_MS)
        await queries.all(
          `SELECT set_config('statement_timeout', ?, true), set_config('idle_in_transaction_session_timeout', ?, true)`,
          [endsAfterMs, endsAfterMs],
        )
        limit.again(timeLimitMs + ANSWER_MS)
        try {
          const outcome =
            hook === null
              ? NO_HOOK
              : await deadline(
                  (ownLimit) => withinHook(() => hook(tx as Tx, ownLimit)),
                  timeLimitMs,
                  undefined,
                  hookTimeout(timeLimitMs),
                )
          if (outcome.outcome === 'rejected') throw new Rejected(outcome.problem)
          limit.again(ANSWER_MS)
          const operation = await referIn(queries, lease, from, intent, outcome)
          connection.commits()
          return operation
        } catch (error) {
          failed = { error }
          // Else the rollback would wait for a statement that nobody wants any more.
          if (own.waits()) connection.stop()
          throw error
        } finally {
          limit.again(ANSWER_MS)
          own.revoke()
        }
      })
      // postgres.js ends it while the hook still runs, when its connection dies: nothing is to be written on that any more.
      const operation = await transaction.finally(() => scope?.revoke())
      return { outcome: 'referenced', operation }
    } catch (error) {
      if (error instanceof Rejected) return { outcome: 'rejected', problem: error.problem }
      if (error instanceof Lost) return { outcome: 'lost' }
      throw isOfHook(error, failed, scope) ? error : faultOf(error)
    }
  }
}

/**
 * A database that is away is no fault of the hook, and passes. But only this connection tells that: what else the hook has
 * asked (a mail server, another database, a file) may well have failed with the same codes.
 */
const isOfHook = (error: unknown, failed: { readonly error: unknown } | null, scope: Scope | null): boolean =>
  failed !== null && failed.error === error && !(scope?.hasTold(error) === true && !isStopped(error))

/** `insufficient_privilege`: a server need not be able to change tables, but somebody must. */
const mayNot = (error: unknown): unknown =>
  codesOf(error).includes('42501')
    ? new UploadError(
        'setup',
        "this database user may not make or change the ledger's tables: run `landfall migrate`, or call uploads.migrate(), with one that may; after that a server needs only to read and write them",
        { cause: error },
      )
    : error

async function told<T>(work: Promise<T>): Promise<T> {
  try {
    return await work
  } catch (error) {
    throw faultOf(error)
  }
}

/** In the application's own transaction: the reference goes and the removal of its bytes is owed, or neither. */
async function remove(on: Queries, id: string, owner: string | null): Promise<boolean> {
  const [reference, another] = await on.all(
    `SELECT owner, blob_key FROM landfall_references WHERE operation_id = ? ${owner === null ? '' : 'AND owner = ?'} FOR UPDATE`,
    [id, ...(owner === null ? [] : [owner])],
  )
  if (reference === undefined) return false
  if (another !== undefined)
    throw new UploadError('ambiguous-operation', 'several owners use this operation id: name the owner')
  const of = reference['owner'] ?? null
  await on.run(`DELETE FROM landfall_references WHERE owner = ? AND operation_id = ?`, [of, id])
  await on.run(
    `INSERT INTO landfall_effects (effect_id, owner, operation_id, name, type, payload, due_at, created_at)
     VALUES (?, ?, ?, ?, 'remove-bytes', ?, ${NOW}, ${NOW})`,
    [uuidv7(), of, id, REMOVAL.name, JSON.stringify({ blobKey: reference['blob_key'] })],
  )
  await on.run(
    `UPDATE landfall_operations SET owed_effects = owed_effects + 1, removed_at = ${NOW}, problem = ?, updated_at = ${NOW}
     WHERE owner = ? AND id = ?`,
    [JSON.stringify(problem('removed')), of, id],
  )
  return true
}
