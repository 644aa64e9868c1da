import { Worker } from 'node:worker_threads'
import { UploadError } from '../../lib/errors.js'

/** Computes SHA-256 of stored files in its own thread, while they are still being written. */
export interface Digester {
  /** Continues hashing up to `length` in the background, so that the digest is ready soon after the last byte. */
  follow(key: string, path: string, length: number): void
  /** Base64 SHA-256 of the first `length` bytes. */
  digest(key: string, path: string, length: number, signal: AbortSignal): Promise<string>
  forget(key: string): void
  close(): Promise<void>
}

interface Answer {
  readonly id: number
  readonly digest: string | null
  readonly error: string | null
  readonly code: string | null
}

export function createDigester(): Digester {
  let worker: Worker | null = null
  let lastId = 0
  const waiting = new Map<number, { resolve(digest: string): void; reject(error: unknown): void }>()

  const started = (): Worker => {
    if (worker !== null) return worker
    const fresh = new Worker(new URL('./hash-worker.js', import.meta.url))
    // The thread must not keep a program alive that is otherwise finished.
    fresh.unref()
    fresh.on('message', ({ id, digest, error, code }: Answer) => {
      const waiter = waiting.get(id)
      waiting.delete(id)
      if (digest !== null) waiter?.resolve(digest)
      else
        waiter?.reject(
          new UploadError('storage-unavailable', `stored bytes could not be read: ${code ?? error ?? 'unknown'}`),
        )
    })
    const gone = (error: unknown): void => {
      if (worker === fresh) worker = null
      for (const waiter of waiting.values())
        waiter.reject(new UploadError('storage-unavailable', 'the hashing thread ended', { cause: error }))
      waiting.clear()
    }
    fresh.on('error', gone)
    fresh.on('exit', gone)
    return (worker = fresh)
  }

  return {
    follow(key, path, length) {
      started().postMessage({ type: 'follow', key, path, length })
    },
    digest(key, path, length, signal) {
      return new Promise((resolve, reject) => {
        signal.throwIfAborted()
        const id = ++lastId
        const abort = (): void => {
          waiting.delete(id)
          reject(signal.reason as Error)
        }
        signal.addEventListener('abort', abort, { once: true })
        const done =
          <T>(settle: (value: T) => void) =>
          (value: T): void => {
            signal.removeEventListener('abort', abort)
            settle(value)
          }
        waiting.set(id, { resolve: done(resolve), reject: done(reject) })
        started().postMessage({ type: 'digest', key, path, length, id })
      })
    },
    forget(key) {
      worker?.postMessage({ type: 'forget', key })
    },
    async close() {
      await worker?.terminate()
    },
  }
}
