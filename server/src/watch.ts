import type { Clock, Ledger, OperationKey, OperationRecord } from './ports.js'

/** Waits for changes of operations. */
export interface Watch {
  /**
   * Resolves with the operation as soon as `done` holds, at the latest after `waitMs` with how it stands then; null
   * when there is none.
   */
  until(
    key: OperationKey,
    done: (operation: OperationRecord) => boolean,
    waitMs: number,
    signal?: AbortSignal,
  ): Promise<OperationRecord | null>
  /** Resolves when one of the operations may have changed, or after `waitMs`. `arm` runs once nothing can be missed any more. */
  change(
    owner: string,
    ids: ReadonlySet<string>,
    waitMs: number,
    signal?: AbortSignal,
  ): { changed: Promise<void>; stop(): void }
  /** Ends all waiting, now and from now on: the server drains. */
  close(): void
  closed(): boolean
}

export function createWatch(ledger: Pick<Ledger<unknown>, 'find' | 'onChange'>, clock: Clock): Watch {
  const waiting = new Set<AbortController>()
  let isClosed = false

  const change: Watch['change'] = (owner, ids, waitMs, signal) => {
    const stopped = new AbortController()
    waiting.add(stopped)
    if (isClosed) stopped.abort()
    const slept = clock.sleep(waitMs, signal === undefined ? stopped.signal : AbortSignal.any([stopped.signal, signal]))
    const off = ledger.onChange((operation) => {
      if (operation.owner === owner && ids.has(operation.id)) stopped.abort()
    })
    const done = (): void => {
      off()
      waiting.delete(stopped)
    }
    return { changed: slept.finally(done), stop: () => stopped.abort() }
  }

  return {
    change,
    close() {
      isClosed = true
      for (const stopped of waiting) stopped.abort()
    },
    closed: () => isClosed,
    async until(key, done, waitMs, signal) {
      const ids = new Set([key.id])
      for (const deadline = clock.monotonicMs() + waitMs; ;) {
        // Armed before the look, so that nothing is missed between the two.
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
