import { AsyncLocalStorage } from 'node:async_hooks'
import { UploadError } from '../../lib/errors.js'
import type { PastTx } from './connections.js'

/** A hook's handle on its transaction, as the ledger sees it. */
export interface Scope {
  /** From now on, every use of the handle is refused. */
  revoke(): void
  /** Whether a statement of the hook waits for its answer. */
  waits(): boolean
  /** Whether the hook got this error from the database, directly or as the cause of another error. */
  hasTold(error: unknown): boolean
}

/**
 * Makes a transaction handle end with its hook. Drizzle's own handle still works after the end. A hook that was given
 * up, or that forgot to wait, could then write into another caller's transaction on the pooled connection, or commit
 * its write by itself.
 *
 * @throws UploadError `setup` if this version of Drizzle keeps its connection elsewhere
 */
export function revocable(tx: unknown): Scope {
  const { session } = tx as { session?: { client?: object } }
  const client = session?.client
  if (session === undefined || client === undefined)
    throw new UploadError('setup', 'postgresLedger does not know this version of drizzle-orm')
  let open = true
  let waiting = 0
  const told = new WeakSet()

  async function listen(answer: PromiseLike<unknown>): Promise<void> {
    waiting += 1
    try {
      await answer
    } catch (error) {
      if (typeof error === 'object' && error !== null) told.add(error)
    } finally {
      waiting -= 1
    }
  }
  const watched = (target: object): object =>
    new Proxy(target, {
      get(of, name) {
        const value: unknown = Reflect.get(of, name)
        if (typeof value !== 'function' || !STATEMENTS.has(name)) return bound(value, of)
        return (...args: unknown[]) => {
          if (!open && !isEnd(args[0])) {
            const closed = new UploadError('transaction-closed', 'the transaction of onReference has ended')
            // Drizzle calls `savepoint` outside of any async function, so the error must be a rejection.
            if (name === 'savepoint') return Promise.reject(closed)
            throw closed
          }
          const answer: unknown = Reflect.apply(value, of, name === 'savepoint' ? args.map(watchedWithin) : args)
          if (name !== 'savepoint' && isPromise(answer)) void listen(answer)
          return answer
        }
      },
    })
  /** postgres.js has a separate handle within a savepoint. */
  const watchedWithin = (body: unknown): unknown =>
    typeof body === 'function' ? (inner: object): unknown => (body as (on: object) => unknown)(watched(inner)) : body
  session.client = watched(client)

  return {
    revoke: () => void (open = false),
    waits: () => waiting > 0,
    hasTold(error) {
      for (let at = error, depth = 0; at instanceof Error && depth < 8; at = at.cause, depth++)
        if (told.has(at)) return true
      return false
    },
  }
}

const bound = (value: unknown, of: object): unknown =>
  typeof value === 'function' ? (...args: unknown[]): unknown => Reflect.apply(value, of, args) : value

const isPromise = (value: unknown): value is PromiseLike<unknown> =>
  typeof value === 'object' && value !== null && 'then' in value

/** Methods of node-postgres and of postgres.js that run statements. */
const STATEMENTS = new Set<PropertyKey>(['query', 'unsafe', 'savepoint'])

/** Whether this is Drizzle's last statement for node-postgres. postgres.js ends its transactions by itself. */
function isEnd(statement: unknown): boolean {
  const text = textOf(statement)
  return text === 'commit' || text === 'rollback'
}

const textOf = (statement: unknown): unknown =>
  typeof statement === 'string' ? statement : (statement as { text?: unknown } | null)?.text

/** Whether a hook runs in this asynchronous context. */
const hooks = new AsyncLocalStorage<{ active: boolean }>()

/**
 * Runs a hook. While it runs, writes through the application's `db` are refused, because they would not be in its
 * transaction.
 */
export async function withinHook<T>(hook: () => Promise<T>): Promise<T> {
  const scope = { active: true }
  try {
    return await hooks.run(scope, hook)
  } finally {
    scope.active = false
  }
}

/** Refuses writes through the application's `db` that a hook makes outside of its transaction. */
export const refusePastTx: PastTx = {
  statement(sql) {
    if (hooks.getStore()?.active === true && writes(sql))
      throw new UploadError(
        'write-past-tx',
        'onReference wrote through `db`. Write through the `tx` that it is given, so that everything is committed with the reference or not at all',
      )
  },
  transaction() {
    if (hooks.getStore()?.active === true)
      throw new UploadError(
        'write-past-tx',
        'onReference began a separate transaction. Use tx.transaction, which is part of the transaction that it is given',
      )
  },
}

/** Conservative: a statement that only reads may bypass the transaction, and so may one that is not recognised. */
const writes = (sql: string): boolean =>
  /^\s*(insert|update|delete|merge|truncate|copy)\b/i.test(sql) ||
  (/^\s*with\b/i.test(sql) && /\b(insert\s+into|delete\s+from|merge\s+into|update\s+\S+\s+set)\b/i.test(sql))
