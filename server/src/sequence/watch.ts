import type { Logger } from '../lib/log.js'
import type { Clock } from '../ports/clock.js'
import type { LedgerOperations } from '../ports/ledger/operations.js'
import type { OperationKey, OperationRecord } from '../ports/operation.js'

/** Waits for changes of operations. */
export interface Watch {
  /**
   * Resolves with the operation as soon as `done` holds, and after `waitMs` with its state at that time. Null when
   * there is none.
   */
  until(
    key: OperationKey,
    done: (operation: OperationRecord) => boolean,
    waitMs: number,
    signal?: AbortSignal,
  ): Promise<OperationRecord | null>
  /**
   * Resolves when one of the operations may have changed, or after `waitMs`. It is armed when it returns: no later
   * change is missed.
   */
  change(
    owner: string,
    ids: ReadonlySet<string>,
    waitMs: number,
    signal?: AbortSignal,
  ): { changed: Promise<void>; stop(): void }
  /** Ends all waiting, now and in the future: the server drains. */
  close(): void
  closed(): boolean
}

/**
 * How often the watch asks the ledger what other nodes have changed: one statement for everything that is awaited here.
 */
const LOOK_MS = 400

export function createWatch({
  ledger,
  clock,
  log,
  alone,
}: {
  ledger: LedgerOperations
  clock: Clock
  log: Logger
  /** Whether no other process can change an operation. */
  alone: () => boolean
}): Watch {
  const waiting = new Set<AbortController>()
  /** By operation, so that a change wakes only the requests that wait for it. */
  const waitingFor = new Map<string, Set<AbortController>>()
  let unhear: (() => void) | null = null
  const watched = new Map<AbortController, readonly OperationKey[]>()
  const seen = new Map<string, string | null>()
  let looking: ReturnType<typeof setTimeout> | null = null
  let isClosed = false

  const nameOf = ({ owner, id }: OperationKey): string => JSON.stringify([owner, id])
  const lookLater = (): void => {
    if (looking !== null || watched.size === 0) return
    looking = setTimeout(() => void look(), LOOK_MS)
    looking.unref()
  }
  async function look(): Promise<void> {
    try {
      const keys = [...new Map([...watched.values()].flat().map((key) => [nameOf(key), key])).values()]
      const versions = await ledger.versions(keys)
      const changed = new Set<string>()
      for (const [index, key] of keys.entries()) {
        const name = nameOf(key)
        const version = versions[index] ?? null
        // Not known before. The waiting request read the operation after it was armed, up to a moment before this.
        if (seen.get(name) !== version) changed.add(name)
        seen.set(name, version)
      }
      for (const [stopped, of] of watched) if (of.some((key) => changed.has(nameOf(key)))) stopped.abort()
      const asked = new Set(keys.map(nameOf))
      for (const name of seen.keys()) if (!asked.has(name)) seen.delete(name)
    } catch (error) {
      log.warn({ err: error }, 'could not check what other processes have changed')
    }
    looking = null
    lookLater()
  }

  const change: Watch['change'] = (owner, ids, waitMs, signal) => {
    const stopped = new AbortController()
    waiting.add(stopped)
    const stop = (): void => stopped.abort()
    if (isClosed || signal?.aborted === true) stop()
    // No `AbortSignal.any`: Node 20 keeps an entry for each one on `signal` for as long as `signal` lives.
    signal?.addEventListener('abort', stop)
    const slept = clock.sleep(waitMs, stopped.signal)
    const names = [...ids].map((id) => nameOf({ owner, id }))
    for (const name of names) {
      const others = waitingFor.get(name)
      if (others === undefined) waitingFor.set(name, new Set([stopped]))
      else others.add(stopped)
    }
    unhear ??= ledger.onChange((operation) => {
      for (const each of waitingFor.get(nameOf(operation)) ?? []) each.abort()
    })
    if (!alone()) {
      watched.set(
        stopped,
        [...ids].map((id) => ({ owner, id })),
      )
      lookLater()
    }
    const done = (): void => {
      for (const name of names) {
        const others = waitingFor.get(name)
        others?.delete(stopped)
        if (others?.size === 0) waitingFor.delete(name)
      }
      if (waitingFor.size === 0) {
        unhear?.()
        unhear = null
      }
      waiting.delete(stopped)
      watched.delete(stopped)
      signal?.removeEventListener('abort', stop)
    }
    return { changed: slept.finally(done), stop }
  }

  return {
    change,
    close() {
      isClosed = true
      if (looking !== null) clearTimeout(looking)
      for (const stopped of waiting) stopped.abort()
    },
    closed: () => isClosed,
    async until(key, done, waitMs, signal) {
      const ids = new Set([key.id])
      for (const deadline = clock.monotonicMs() + waitMs; ;) {
        // Armed before the read, so that no change between the two is missed.
        const armed = change(key.owner, ids, Math.max(0, deadline - clock.monotonicMs()), signal)
        const operation = await ledger.find(key).catch((error: unknown) => {
          armed.stop()
          throw error
        })
        if (
          operation === null ||
          done(operation) ||
          clock.monotonicMs() >= deadline ||
          signal?.aborted === true ||
          isClosed
        ) {
          armed.stop()
          return operation
        }
        await armed.changed
      }
    },
  }
}
