import type { Digester, DigestOutcome } from '../ports.js'
import type { FromWorker, ToWorker } from '../worker.js'

/** On the page's own thread: a slice takes about as long as a frame may. */
const SLICE_BYTES = 256 * 1024

/**
 * SHA-256 in a worker; without one on the page's thread, in slices. A worker that does not start (not found, forbidden
 * by the page's policy) is done without from then on.
 */
export function createDigester(workerUrl: string | URL | undefined, onNoWorker: (cause: unknown) => void): Digester {
  let worker: Worker | null = null
  let isBroken = workerUrl === undefined
  let lastTask = 0
  const waiting = new Map<number, (outcome: DigestOutcome) => void>()

  const giveUp = (cause: unknown): void => {
    isBroken = true
    worker?.terminate()
    worker = null
    for (const resolve of waiting.values()) resolve({ ok: false, why: 'unavailable' })
    waiting.clear()
    onNoWorker(cause)
  }
  const started = (): Worker | null => {
    if (worker !== null || isBroken || workerUrl === undefined) return worker
    try {
      worker = new Worker(workerUrl, { type: 'module', name: 'landfall-digest' })
      worker.addEventListener('message', ({ data }: MessageEvent<FromWorker>) => {
        waiting.get(data.task)?.(data.outcome)
        waiting.delete(data.task)
      })
      worker.addEventListener('error', giveUp)
      worker.addEventListener('messageerror', giveUp)
    } catch (cause) {
      giveUp(cause)
    }
    return worker
  }

  return {
    inBackground: () => started() !== null,
    async digest(blob, { from = null, signal }) {
      const active = started()
      if (active === null) return (await import('../hash.js')).hashBlob(blob, from, SLICE_BYTES, signal)
      const task = (lastTask += 1)
      // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a worker has no origin to name
      const post = (message: ToWorker): void => active.postMessage(message)
      const stop = (): void => {
        post({ task, stop: true })
        waiting.get(task)?.({ ok: false, why: 'stopped' })
        waiting.delete(task)
      }
      if (signal.aborted) return { ok: false, why: 'stopped' }
      return new Promise<DigestOutcome>((resolve) => {
        waiting.set(task, (outcome) => {
          signal.removeEventListener('abort', stop)
          resolve(outcome)
        })
        signal.addEventListener('abort', stop, { once: true })
        post({ task, blob, from })
      })
    },
    close() {
      worker?.terminate()
      worker = null
      for (const resolve of waiting.values()) resolve({ ok: false, why: 'stopped' })
      waiting.clear()
    },
  }
}
