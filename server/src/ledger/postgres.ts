import { problem } from '@landfall/shared'
import type { PgDatabase, PgQueryResultHKT } from 'drizzle-orm/pg-core'
import { v7 as uuidv7 } from 'uuid'
import { UploadError } from '../errors.js'
import { REMOVAL } from '../ports.js'
import type { HookOutcome, Lease, Ledger, OperationRecord, ReferenceIntent, Referred } from '../ports.js'
import { createPatience, Lost, Rejected } from './hook.js'
import { attendedMs, lookAtClock, settleClock } from './postgres-clock.js'
import { NEXT_DUE } from './postgres-due.js'
import {
  effectsDueAt,
  effectsOf,
  forgetOtherHoldersOfEffects,
  retryEffects,
  settleEffect,
  takeEffects,
} from './postgres-effects.js'
import { advanceMark, backlog, claims, health, heartbeat, list, mark, pulse } from './postgres-inventory.js'
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
  record,
  referIn,
  rememberStore,
  renew,
  setDigest,
  takeLease,
  versions,
} from './postgres-operations.js'
import { type Executes, faultOf, NOW, type Queries, queriesOn } from './postgres-query.js'
import { forgetOwner, holdings, retire, tombstone, tombstoneKey } from './postgres-retention.js'
import { revocable } from './postgres-scope.js'
import { createTurns } from './postgres-turns.js'
import { ownerHash } from './tombstones.js'

type AnySchema = Record<string, unknown>
type AnyDatabase = PgDatabase<PgQueryResultHKT, AnySchema>
/** The transaction that Drizzle hands to the callback of `db.transaction`. */
export type PostgresTx<Database extends Pick<AnyDatabase, 'transaction'>> = Parameters<
  Parameters<Database['transaction']>[0]
>[0]

/** What a hook may take longer than its own limit before the database ends its transaction: then its process stands still. */
const GRACE_MS = 5_000

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
  const plain = queriesOn(db)
  /** Past the crowd: what must not come late, because others would take its silence for a death. */
  const atOnce = async <T>(work: (queries: Queries) => Promise<T>): Promise<T> => {
    try {
      return await work(plain)
    } catch (error) {
      throw faultOf(error)
    }
  }
  const turns = createTurns(db)
  const on = <T>(work: (queries: Queries) => Promise<T>): Promise<T> => turns.take(() => atOnce(work))
  const within = <T>(work: (queries: Queries) => Promise<T>): Promise<T> =>
    on(() => db.transaction(async (tx) => work(queriesOn(tx))))
  /** Read once: it is committed before anything can be declared, and never changes. */
  let knownKey: string | null = null
  const keyOn = async (queries: Queries): Promise<string> => (knownKey ??= await tombstoneKey(queries))
  listenForErrors(db)

  return {
    migrate: () => within(migrate),

    rememberStore: () => on(async (queries) => void (await rememberStore(queries))),

    ownerKey: () => on(ownerKey),

    async declare(intent) {
      const declared = await on(async (queries) =>
        declare(queries, intent, ownerHash(await keyOn(queries), intent.owner)),
      )
      if (declared.outcome === 'created') changed(declared.operation)
      return declared
    },

    find: (key) => on((queries) => find(queries, key)),

    tombstone: (key) => on(async (queries) => tombstone(queries, key, await keyOn(queries))),

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

    renew: (leases, leaseMs) => atOnce((queries) => renew(queries, leases, leaseMs)),

    async record(lease, from, changes) {
      return changed(await on((queries) => record(queries, lease, from, changes)))
    },

    async refer(lease, from, intent, hook) {
      const referred = await turns.takeForHook(() => refer(lease, from, intent, hook))
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
      tx === null ? within((queries) => forgetOwner(queries, owner)) : forgetOwner(queriesOn(tx), owner),

    holdings: (owner) => on((queries) => holdings(queries, owner)),

    retire: (retention, limit) => within((queries) => retire(queries, retention, limit)),

    complete: (limit) => on((queries) => complete(queries, limit)),

    takeEffects: (target, request) => on((queries) => takeEffects(queries, target, request)),

    settleEffect: (effect, result) => on((queries) => settleEffect(queries, effect, result)),

    forgetOtherHolders: (holder) =>
      within(async (queries) => {
        await forgetOtherHoldersOfEffects(queries, holder)
        return forgetOtherHolders(queries, holder)
      }),

    claims: (range) => on((queries) => claims(queries, range)),

    list: (page) => on((queries) => list(queries, page)),

    mark: () => on(mark),

    advanceMark: (to) => within((queries) => advanceMark(queries, to)),

    heartbeat: () => atOnce(async (queries) => void (await heartbeat(queries))),

    async settleClock(look) {
      const found = await on((queries) => lookAtClock(queries, look))
      return found.due ? within((queries) => settleClock(queries, look)) : { nowAt: found.nowAt, steppedMs: 0 }
    },

    attendedMs: (sinceAt) => on((queries) => attendedMs(queries, sinceAt)),

    health: () => atOnce(health),

    pulse: () => on(pulse),

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

  /** The hook runs in Drizzle's own `db.transaction`, so that the application has its schema and its types. */
  async function refer(
    lease: Lease,
    from: OperationRecord,
    intent: ReferenceIntent,
    hook: (tx: Tx) => Promise<HookOutcome>,
  ): Promise<Referred> {
    let end = (): void => {}
    try {
      const transaction = db.transaction(async (tx) => {
        end = revocable(tx).revoke
        const queries = queriesOn(tx)
        // A process that stands still must not keep what its transaction has locked.
        const limit = String(intent.timeLimitMs + GRACE_MS)
        await queries.all(
          `SELECT set_config('statement_timeout', ?, true), set_config('idle_in_transaction_session_timeout', ?, true)`,
          [limit, limit],
        )
        try {
          const outcome = await createPatience(intent.timeLimitMs).wait(hook(tx as Tx))
          if (outcome.outcome === 'rejected') throw new Rejected(outcome.problem)
          return await referIn(queries, lease, from, intent, outcome)
        } finally {
          end()
        }
      })
      // postgres.js ends it while the hook still runs, when its connection dies: nothing is to be written on that any more.
      const operation = await transaction.finally(() => end())
      return { outcome: 'referenced', operation }
    } catch (error) {
      if (error instanceof Rejected) return { outcome: 'rejected', problem: error.problem }
      if (error instanceof Lost) return { outcome: 'lost' }
      throw faultOf(error)
    }
  }
}

/**
 * node-postgres says by an event that a connection has died which nobody is asking anything just now: the pool for those
 * that lie idle, the connection itself for one that waits between two statements. An event that nobody listens to ends
 * the process.
 */
function listenForErrors(db: unknown): void {
  const { $client: pool } = db as { $client?: unknown }
  if (!isEmitter(pool)) return
  if (pool.listenerCount('error') === 0) pool.on('error', () => {})
  // Not `connect`: the application may have connections from before.
  const heard = new WeakSet()
  pool.on('acquire', (connection: unknown) => {
    if (!isEmitter(connection) || heard.has(connection)) return
    heard.add(connection)
    connection.on('error', () => {})
  })
}

const isEmitter = (value: unknown): value is NodeJS.EventEmitter =>
  typeof value === 'object' && value !== null && 'on' in value && 'listenerCount' in value

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
