import { UploadError } from '../errors.js'

/**
 * A transaction handle that ends with its hook. Drizzle's own goes on after the end: what a hook writes then, because it
 * was given up or forgot to wait, would reach the pooled connection of somebody else's transaction, or commit by itself.
 *
 * @throws UploadError `setup` where this version of Drizzle keeps its connection elsewhere
 */
export function revocable(tx: unknown): { revoke(): void } {
  const { session } = tx as { session?: { client?: Record<PropertyKey, unknown> } }
  const client = session?.client
  if (session === undefined || client === undefined)
    throw new UploadError('setup', 'postgresLedger does not know this version of drizzle-orm')
  let open = true
  session.client = new Proxy(client, {
    get(target, name) {
      const value = Reflect.get(target, name)
      if (typeof value !== 'function') return value
      return (...args: unknown[]) => {
        if (!open && STATEMENTS.has(name) && !isEnd(args[0])) {
          const closed = new UploadError('transaction-closed', 'the transaction of onReference has ended')
          // Drizzle calls this one outside of any async function.
          if (name === 'savepoint') return Promise.reject(closed)
          throw closed
        }
        return Reflect.apply(value as (...all: unknown[]) => unknown, target, args)
      }
    },
  })
  return { revoke: () => void (open = false) }
}

/** Of node-postgres, and of postgres.js. */
const STATEMENTS = new Set<PropertyKey>(['query', 'unsafe', 'savepoint'])

/** Drizzle's last statement for node-postgres; postgres.js ends its transactions by itself. */
function isEnd(statement: unknown): boolean {
  const text = typeof statement === 'string' ? statement : (statement as { text?: unknown } | null)?.text
  return text === 'commit' || text === 'rollback'
}
