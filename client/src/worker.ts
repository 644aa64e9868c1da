import { hashBlob } from './hash.js'
import type { DigestOutcome, DigestState } from './ports.js'

/** Served by the application; one file without imports, for `new Worker(url)`. */
interface Work {
  readonly task: number
  readonly blob: Blob
  readonly from: DigestState | null
}
export type ToWorker = Work | { readonly task: number; readonly stop: true }
export interface FromWorker {
  readonly task: number
  readonly outcome: DigestOutcome
}

/** Large enough for speed, small enough that several files move on side by side. */
const SLICE_BYTES = 1024 * 1024

const tasks = new Map<number, AbortController>()

const work = async ({ task, blob, from }: Work): Promise<void> => {
  const controller = new AbortController()
  tasks.set(task, controller)
  const outcome = await hashBlob(blob, from, SLICE_BYTES, controller.signal)
  tasks.delete(task)
  const message: FromWorker = { task, outcome }
  postMessage(message) // oxlint-disable-line unicorn/require-post-message-target-origin -- this is a worker, not a window
}

addEventListener('message', ({ data }: MessageEvent<ToWorker>) => {
  if ('stop' in data) tasks.get(data.task)?.abort()
  else void work(data)
})
