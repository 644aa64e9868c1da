import type { LibSQLDatabase } from 'drizzle-orm/libsql'
import { hookTimeout, Lost, Rejected } from '../hook.js'
import { type Args, type Plan, type Queries, queryOf, row, runOn, type SqlRow } from '../query.js'
import { completable, dueArgs, dueEffects, dueOperations } from '../statements/due.js'
import { ledgerStatements } from '../statements/index.js'
import { meta, tombstoneKey } from '../statements/marks.js'
import { ownerHash, TOMBSTONE_KEY } from '../tombstones.js'
import { deadline, type Limit } from '../../lib/deadline.js'
import { faultCode, UploadError } from '../../lib/errors.js'
import { remembered } from '../../lib/remembered.js'
import type { Ledger } from '../../ports/ledger.js'
import type { Lease } from '../../ports/ledger/leases.js'
import { type HookOutcome, NO_HOOK, type ReferenceIntent, type Referred } from '../../ports/ledger/references.js'
import type { OperationRecord } from '../../ports/operation.js'
import { type Connection, isAway, isSaid } from './client/connection.js'
import { hooks, type HookScope, openTransaction, sqliteAccess } from './client/serialized-libsql.js'
import { SQLITE } from './dialect.js'
import { runNow } from './run.js'
import { SQLITE_TABLES } from './tables.js'

const { migrate, migrated, unready } = SQLITE_TABLES
const statements = ledgerStatements(SQLITE)
const DUE = {
  operations: dueOperations(SQLITE),
  effects: dueEffects(SQLITE),
  completable: completable(SQLITE),
}

type AnySchema = Record<string, unknown>
/** The transaction that Drizzle passes to the callback of `db.transaction`. */
export type SqliteTx<Schema extends AnySchema> = Parameters<Parameters<LibSQLDatabase<Schema>['transaction']>[0]>[0]

/**
 * The ledger in the application's own SQLite database, through the application's own Drizzle.
 *
 * `db` must be made on a client from `serializedLibsql`, so that all writes go through one queue.
 *
 * @throws UploadError `setup` if it is not.
 */
export function sqliteLedger<Schema extends AnySchema>(db: LibSQLDatabase<Schema>): Ledger<SqliteTx<Schema>> {
  const access = sqliteAccess((db as unknown as { $client: unknown }).$client)
  const listeners = new Set<(operation: OperationRecord) => void>()
  const changed = <T extends OperationRecord | null>(operation: T): T => {
    if (operation !== null) for (const listener of listeners) listener(operation)
    return operation
  }
  const read = <T>(plan: () => Plan<T>): Promise<T> => told(async () => runNow(await access.reader(), plan()))
  const write = <T>(plan: () => Plan<T>): Promise<T> => told(() => access.writer.write((on) => runNow(on, plan())))
  /** Takes the writer only if a reader finds something. What becomes due a moment later is found the next time. */
  const writeIfAny = async <T>(pick: string, args: Args, none: T, plan: () => Plan<T>): Promise<T> =>
    (await read(() => row(pick, { ...args, limit: 1 }))) === undefined ? none : write(plan)

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
      const ready = await read(migrated)
      if (ready !== null) return ready
      if (how === 'check') throw await read(unready)
      return write(migrate)
    },

    rememberStore: () => write(statements.rememberStore),

    ownerKey: () => write(statements.ownerKey),

    async declare(intent) {
      const declared = await write(function* () {
        return yield* statements.declare(intent, yield* hashOf(intent.owner))
      })
      if (declared.outcome === 'created') changed(declared.operation)
      return declared
    },

    find: (key) => read(() => statements.find(key)),

    tombstone: ({ owner, id }) =>
      read(function* () {
        // A reader cannot make the key. As long as there is no key, there are no tombstones.
        const key = yield* meta(TOMBSTONE_KEY)
        return key === null ? null : yield* statements.tombstone(id, ownerHash(key, owner))
      }),

    findMany: (owner, ids) => read(() => statements.findMany(owner, ids)),

    listOpen: (owner, page) => read(() => statements.listOpen(owner, page)),

    async setDigest(key, digest) {
      const { outcome, operation } = await write(() => statements.setDigest(key, digest))
      changed(operation)
      return outcome
    },

    lease: (key, request) => write(() => statements.lease(key, request)),

    leaseDue: (request) => writeIfAny(DUE.operations, dueArgs(request), [], () => statements.leaseDue(request)),

    ask: (key, request) => write(() => statements.ask(key, request)),

    askedOf: (holder) => read(() => statements.askedOf(holder)),

    versions: (keys) => read(() => statements.versions(keys)),

    renew: (leases, leaseMs) => write(() => statements.renew(leases, leaseMs)),

    async record(lease, from, changes) {
      return changed(await write(() => statements.record(lease, from, changes)))
    },

    async refer(lease, from, intent, hook) {
      const referred = await (hook === null ? referAlone(lease, from, intent) : refer(lease, from, intent, hook))
      if (referred.outcome === 'referenced') changed(referred.operation)
      return referred
    },

    async cancel(key, why) {
      return changed(await write(() => statements.cancel(key, why)))
    },

    retry: (key) => write(() => statements.retry(key)),

    effectsOf: (key) => read(() => statements.effectsOf(key)),

    remove: (tx, id, owner) => runOn(queriesIn(tx), statements.remove(id, owner)),

    async forgetOwner(tx, owner) {
      if (tx !== null) return runOn(queriesIn(tx), statements.forgetOwner(owner))
      return told(() => db.transaction((own) => runOn(queriesIn(own), statements.forgetOwner(owner))))
    },

    holdings: (owner) => read(() => statements.holdings(owner)),

    async retire(retention, limit) {
      const isAny = await read(() => statements.isAnyEnded(retention))
      return isAny ? write(() => statements.retire(retention, limit)) : { operations: 0, effects: 0 }
    },

    complete: (limit) => writeIfAny(DUE.completable, {}, 0, () => statements.complete(limit)),

    takeEffects: (target, request) =>
      writeIfAny(DUE.effects, { ...target }, [], () => statements.takeEffects(target, request)),

    settleEffect: (effect, result) => write(() => statements.settleEffect(effect, result)),

    forgetOtherHolders: (holder) => write(() => statements.forgetOtherHolders(holder)),

    claims: (range) => read(() => statements.claims(range)),

    list: (page) => read(() => statements.list(page)),

    mark: () => read(statements.mark),

    advanceMark: (to) => write(() => statements.advanceMark(to)),

    heartbeat: () => write(statements.heartbeat),

    pulse: () => read(statements.pulse),

    backlog: () => read(statements.backlog),

    async settleClock(look) {
      const found = await read(() => statements.lookAtClock(look))
      return found.due ? write(() => statements.settleClock(look)) : { nowAt: found.nowAt, steppedMs: 0 }
    },

    attendedMs: (sinceAt) => read(() => statements.attendedMs(sinceAt)),

    health: () => read(statements.health),

    nextDueInMs: (targets) => read(() => statements.nextDueInMs(targets)),

    onChange(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
  }

  /** Without a hook, Drizzle does not need to know of the transaction. It is a job of the queue like any other. */
  async function referAlone(lease: Lease, from: OperationRecord, intent: ReferenceIntent): Promise<Referred> {
    try {
      return { outcome: 'referenced', operation: await write(() => statements.refer(lease, from, intent, NO_HOOK)) }
    } catch (error) {
      if (error instanceof Lost) return { outcome: 'lost' }
      throw error
    }
  }

  /**
   * The hook runs in Drizzle's own `db.transaction`, so that it has the application's schema and types. The transaction
   * really begins with the hook's first statement, so that a hook which first waits for something else does not delay
   * other writes. Landfall adds the last statements.
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
        throw new UploadError('transaction-closed', 'the transaction was committed before its hook had returned')
      operation = runNow(on, statements.refer(lease, from, intent, accepted))
    }
    let opened = false
    const taken = new AbortController()
    const scope: HookScope = {
      active: true,
      open: async () => {
        if (opened)
          throw new UploadError(
            'write-past-tx',
            'onReference began a separate transaction. Use tx.transaction, which is part of the transaction that it is given',
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
      // A mail server, another database or a file that the hook uses may fail with the same codes. That is a fault of
      // the hook.
      const isOfHook = (failed as { readonly error: unknown } | null)?.error === error && !isSaid(error)
      throw isOfHook ? error : faultOf(error)
    }
    if (operation === null) throw new UploadError('ledger-unavailable', 'the transaction ended without the reference')
    return { outcome: 'referenced', operation }
  }
}

/** A full disk is no reason to give an operation up. So a fault in a statement of Landfall's own gets an error code. */
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

/** Runs statements in a transaction of the application, through its Drizzle. */
const queriesIn = <Schema extends AnySchema>(tx: SqliteTx<Schema>): Queries => ({
  async ask({ wants, sql, args }) {
    const query = queryOf(sql, args)
    if (wants === 'changes') return (await tx.run(query)).rowsAffected
    const found = await tx.all<SqlRow>(query)
    return wants === 'rows' ? found : found[0]
  },
})
