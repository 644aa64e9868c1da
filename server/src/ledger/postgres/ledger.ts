import { setTimeout as sleep } from 'node:timers/promises'
import type { PgDatabase, PgQueryResultHKT } from 'drizzle-orm/pg-core'
import { hookTimeout, Lost, Rejected } from '../hook.js'
import { type Plan, row, runOn } from '../query.js'
import { ledgerStatements } from '../statements/index.js'
import { tombstoneKey } from '../statements/marks.js'
import { ownerHash } from '../tombstones.js'
import { deadline, type Limit } from '../../lib/deadline.js'
import { UploadError } from '../../lib/errors.js'
import { remembered } from '../../lib/remembered.js'
import type { Ledger } from '../../ports/ledger.js'
import type { Lease } from '../../ports/ledger/leases.js'
import { type HookOutcome, NO_HOOK, type ReferenceIntent, type Referred } from '../../ports/ledger/references.js'
import type { OperationRecord } from '../../ports/operation.js'
import type { Session } from './connection.js'
import { connectionsOf } from './connections.js'
import { POSTGRES } from './dialect.js'
import { codesOf, type Executes, faultOf, isStopped, queriesOn } from './query.js'
import { refusePastTx, revocable, type Scope, withinHook } from './scope.js'
import { POSTGRES_TABLES } from './tables.js'
import { ANSWER_MS, createTurns, LONG_MS, type Running } from './turns.js'

const { migrate, migrated, unready } = POSTGRES_TABLES
const statements = ledgerStatements(POSTGRES)

type AnySchema = Record<string, unknown>
type AnyDatabase = PgDatabase<PgQueryResultHKT, AnySchema>
/** The transaction that Drizzle passes to the callback of `db.transaction`. */
export type PostgresTx<Database extends Pick<AnyDatabase, 'transaction'>> = Parameters<
  Parameters<Database['transaction']>[0]
>[0]

/**
 * How long a migration may take. Building an index over many rows takes time, and so does waiting for another process
 * that does it.
 */
const MIGRATE_MS = 15 * 60_000
/**
 * The pause between attempts to change tables that are in use. In it, statements that had to wait for an attempt can
 * run.
 */
const MIGRATE_AGAIN_MS = 2_000
/**
 * An operator forgets an owner completely or not at all, however much the owner has. During that time, only the rows of
 * that owner are locked.
 */
const FORGET_MS = 15 * 60_000
/**
 * How much longer than its own limit a hook may take before the database ends its transaction. A hook that takes so
 * long is in a process that is suspended.
 */
const GRACE_MS = 5_000
const ENDS_AFTER = `SELECT set_config('statement_timeout', :ms, true), set_config('idle_in_transaction_session_timeout', :ms, true)`
/** A busy server may take this long, whatever the lease. */
const LEAST_RENEWAL_MS = 1_000

/**
 * The ledger in the application's own PostgreSQL database, through the application's own Drizzle (node-postgres or
 * postgres.js). It serves any number of processes. No connection is held while bytes arrive, and no state is kept in a
 * database session, so PgBouncer may pool by transaction.
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
  const on = <T>(plan: () => Plan<T>, answerMs?: number): Promise<T> =>
    told(turns.take((session, _limit, { heard }) => runOn(queriesOn(session, heard), plan()), answerMs))
  /**
   * Runs before all calls that wait. It is for calls that must not be late, because other nodes would take a delay for
   * a death.
   */
  const atOnce = <T>(plan: () => Plan<T>, answerMs?: number): Promise<T> =>
    told(turns.takeAtOnce((session, _limit, { heard }) => runOn(queriesOn(session, heard), plan()), answerMs))
  const within = <T>(plan: () => Plan<T>, answerMs?: number): Promise<T> =>
    told(
      turns.take(
        (session, _limit, connection) =>
          session.transaction(async (tx) => {
            const result = await runOn(queriesOn(tx, connection.heard), plan())
            connection.commits()
            return result
          }),
        answerMs,
      ),
    )
  /** The key is read once. It is committed before anything can be declared, and it never changes. */
  let known: ((owner: string) => string) | null = null
  function* hashOf(owner: string): Plan<string> {
    if (known === null) {
      const key = yield* tombstoneKey()
      known = remembered((each) => ownerHash(key, each))
    }
    return known(owner)
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

    rememberStore: () => on(statements.rememberStore),

    ownerKey: () => on(statements.ownerKey),

    async declare(intent) {
      const declared = await on(function* () {
        return yield* statements.declare(intent, yield* hashOf(intent.owner))
      })
      if (declared.outcome === 'created') changed(declared.operation)
      return declared
    },

    find: (key) => on(() => statements.find(key)),

    tombstone: ({ owner, id }) =>
      on(function* () {
        return yield* statements.tombstone(id, yield* hashOf(owner))
      }),

    findMany: (owner, ids) => on(() => statements.findMany(owner, ids)),

    listOpen: (owner, page) => on(() => statements.listOpen(owner, page)),

    async setDigest(key, digest) {
      const { outcome, operation } = await on(() => statements.setDigest(key, digest))
      changed(operation)
      return outcome
    },

    lease: (key, request) => on(() => statements.lease(key, request)),

    leaseDue: (request) => on(() => statements.leaseDue(request)),

    ask: (key, request) => on(() => statements.ask(key, request)),

    askedOf: (holder) => on(() => statements.askedOf(holder)),

    versions: (keys) => on(() => statements.versions(keys)),

    // The limit leaves time for another attempt before the leases expire.
    renew: (leases, leaseMs) =>
      atOnce(() => statements.renew(leases, leaseMs), Math.min(ANSWER_MS, Math.max(LEAST_RENEWAL_MS, leaseMs / 3))),

    async record(lease, from, changes) {
      return changed(await on(() => statements.record(lease, from, changes)))
    },

    async refer(lease, from, intent, hook) {
      const referred = await turns.takeForHook((session, limit, connection) =>
        refer({ session, limit, connection }, lease, from, intent, hook),
      )
      if (referred.outcome === 'referenced') changed(referred.operation)
      return referred
    },

    async cancel(key, why) {
      return changed(await on(() => statements.cancel(key, why)))
    },

    retry: (key) => within(() => statements.retry(key)),

    effectsOf: (key) => on(() => statements.effectsOf(key)),

    remove: (tx, id, owner) => runOn(queriesOn(tx), statements.remove(id, owner)),

    forgetOwner: (tx, owner) =>
      tx === null
        ? within(() => statements.forgetOwner(owner), FORGET_MS)
        : runOn(queriesOn(tx), statements.forgetOwner(owner)),

    // This counts all rows of the owner, and only operators ask for it.
    holdings: (owner) => on(() => statements.holdings(owner), LONG_MS),

    retire: (retention, limit) => within(() => statements.retire(retention, limit)),

    complete: (limit) => on(() => statements.complete(limit)),

    takeEffects: (target, request) => on(() => statements.takeEffects(target, request)),

    settleEffect: (effect, result) => on(() => statements.settleEffect(effect, result)),

    forgetOtherHolders: (holder) => within(() => statements.forgetOtherHolders(holder), LONG_MS),

    claims: (range) => on(() => statements.claims(range), LONG_MS),

    list: (page) => on(() => statements.list(page), LONG_MS),

    mark: () => on(statements.mark),

    advanceMark: (to) => within(() => statements.advanceMark(to)),

    heartbeat: () => atOnce(statements.heartbeat),

    async settleClock(look) {
      const found = await on(() => statements.lookAtClock(look))
      return found.due ? within(() => statements.settleClock(look), LONG_MS) : { nowAt: found.nowAt, steppedMs: 0 }
    },

    attendedMs: (sinceAt) => on(() => statements.attendedMs(sinceAt)),

    // This counts all rows. Load balancers ask for `pulse`, which does not.
    health: () => on(statements.health, LONG_MS),

    pulse: () => atOnce(statements.pulse),

    backlog: () => on(statements.backlog),

    nextDueInMs: (targets) => on(() => statements.nextDueInMs(targets)),

    onChange(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
  }

  /**
   * The hook runs in a transaction of the application's own Drizzle, so that it has the application's schema and types.
   */
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
        // A process that is suspended must not keep what its transaction has locked.
        await runOn(queries, row(ENDS_AFTER, { ms: String(timeLimitMs + GRACE_MS) }))
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
          const operation = await runOn(queries, statements.refer(lease, from, intent, outcome))
          connection.commits()
          return operation
        } catch (error) {
          failed = { error }
          // Otherwise the rollback would wait for a statement whose answer is not needed any more.
          if (own.waits()) connection.stop()
          throw error
        } finally {
          limit.again(ANSWER_MS)
          own.revoke()
        }
      })
      // If the connection dies, postgres.js ends the transaction while the hook still runs. Then nothing may be written
      // on that connection any more.
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
 * A database that cannot be reached is no fault of the hook, and the fault passes. But only errors of this connection
 * prove that. Anything else that the hook uses (a mail server, another database, a file) may fail with the same codes.
 */
const isOfHook = (error: unknown, failed: { readonly error: unknown } | null, scope: Scope | null): boolean =>
  failed !== null && failed.error === error && !(scope?.hasTold(error) === true && !isStopped(error))

/**
 * `insufficient_privilege`: a server does not need the right to change tables. But then another database user must have
 * changed them before.
 */
const mayNot = (error: unknown): unknown =>
  codesOf(error).includes('42501')
    ? new UploadError(
        'setup',
        "this database user may not create or change the ledger's tables. Run `landfall migrate`, or call uploads.migrate(), with a database user that may. After that, a server needs only the rights to read and write them",
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
