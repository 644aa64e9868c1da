import { UploadError } from '../lib/errors.js'

/**
 * Runs one call at a time for each key. Leases already order the calls, but a lease protects rows and not bytes. The
 * file descriptor of a request that has lost its lease must be closed before the next request writes, seals or removes.
 */
export interface KeyQueue {
  /** Runs `work` after all earlier calls for this key. `interrupt` is called to ask the running call to stop. */
  run<T>(key: string, work: () => Promise<T>, interrupt?: () => void): Promise<T>
  /** Asks the call that is running for this key to stop. */
  interrupt(key: string): void
  /** Interrupts all running calls, waits for them, and accepts no more. */
  closeAll(): Promise<void>
}

interface Entry {
  readonly interrupt: () => void
  readonly settled: Promise<unknown>
}

export function createKeyQueue(): KeyQueue {
  const running = new Map<string, Entry>()
  let closed = false
  return {
    async run(key, work, interrupt = () => {}) {
      if (closed) throw new UploadError('storage-unavailable', 'the store of blobs is closed')
      const before = running.get(key)
      const result = before === undefined ? work() : before.settled.then(work)
      const entry = { interrupt, settled: result.catch(() => {}) }
      running.set(key, entry)
      try {
        return await result
      } finally {
        if (running.get(key) === entry) running.delete(key)
      }
    },
    interrupt: (key) => running.get(key)?.interrupt(),
    async closeAll() {
      closed = true
      const entries = [...running.values()]
      for (const { interrupt } of entries) interrupt()
      await Promise.all(entries.map(({ settled }) => settled))
    },
  }
}
