import { UploadError } from '../lib/errors.js'

/**
 * One call at a time for each key. Leases see to that already, but a lease fences rows and not bytes: a descriptor of
 * somebody who lost it must be closed before the next one writes, seals or removes.
 */
export interface KeyQueue {
  /** `interrupt` is how the call can be asked to stop. */
  run<T>(key: string, work: () => Promise<T>, interrupt?: () => void): Promise<T>
  /** Asks the call that runs for this key to stop. */
  interrupt(key: string): void
  /** Interrupts all, waits for all, and takes no more. */
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
