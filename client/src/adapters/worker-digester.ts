import { hashBlob } from '../hash.js'
import type { Clock, Digester, DigestOutcome } from '../ports.js'
import { reader } from '../read.js'
import type { FromWorker, ToWorker } from '../worker.js'

/** On the page's own thread, a slice takes about as long as a frame may take. */
const SLICE_BYTES = 256 * 1024

/**
 * A worker that has work but sends nothing for this many checks is taken for dead: its script never loaded, or it was
 * killed.
 */
const SILENT_LOOKS = 6
/** Checks are counted instead of time, because a machine that was asleep has made only one check. */
const LOOK_EVERY_MS = 5_000

/**
 * SHA-256 in a worker. Without a worker, it runs on the page's thread, in slices, with code that was loaded with the
 * page: code that is loaded later may not exist after a deployment, together with the worker's script. If a worker does
 * not start (not found, or forbidden by the page's policy) or stops answering, it is not used any more. So there is
 * always a digest in the end.
 */
export function createDigester(
  workerUrl: string | URL | undefined,
  clock: Pick<Clock, 'sleep'>,
  onNoWorker: (cause: unknown) => void,
): Digester {
  let worker: Worker | null = null
  let isBroken = workerUrl === undefined
  let lastTask = 0
  let silentLooks = 0
  let isWatching = false
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
        silentLooks = 0
        if ('alive' in data) return
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
  const watch = async (): Promise<void> => {
    if (isWatching) return
    isWatching = true
    for (silentLooks = 0; waiting.size > 0 && silentLooks < SILENT_LOOKS; silentLooks += 1) {
      await clock.sleep(LOOK_EVERY_MS, new AbortController().signal)
    }
    isWatching = false
    if (waiting.size > 0) giveUp(new Error('The digest worker does not answer.'))
  }

  return {
    inBackground: () => started() !== null,
    async digest(blob, { from = null, signal }) {
      const active = started()
      if (active === null) return hashBlob(blob, from, SLICE_BYTES, reader(clock), signal)
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
        void watch()
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
