import { hashBlob } from './hash.js'
import type { DigestOutcome, DigestState } from './ports.js'
import { reader } from './read.js'

/** The application serves this script. It is one file without imports, for `new Worker(url)`. */
interface Work {
  readonly task: number
  readonly blob: Blob
  readonly from: DigestState | null
}
export type ToWorker = Work | { readonly task: number; readonly stop: true }
/** `alive` is sent at the start, and repeatedly while there is work. A script that never runs sends nothing. */
export type FromWorker = { readonly alive: true } | { readonly task: number; readonly outcome: DigestOutcome }

/** Large enough for speed, and small enough that several files make progress at the same time. */
const SLICE_BYTES = 1024 * 1024

const ALIVE_EVERY_MS = 2_000

const read = reader({ sleep: (ms) => new Promise((resolve) => setTimeout(resolve, ms)) })
const tasks = new Map<number, AbortController>()

// oxlint-disable-next-line unicorn/require-post-message-target-origin -- this is a worker, not a window
const tell = (message: FromWorker): void => postMessage(message)
const work = async ({ task, blob, from }: Work): Promise<void> => {
  const controller = new AbortController()
  tasks.set(task, controller)
  const outcome = await hashBlob(blob, from, SLICE_BYTES, read, controller.signal)
  tasks.delete(task)
  tell({ task, outcome })
}

addEventListener('message', ({ data }: MessageEvent<ToWorker>) => {
  if ('stop' in data) tasks.get(data.task)?.abort()
  else void work(data)
})

tell({ alive: true })
setInterval(() => tasks.size > 0 && tell({ alive: true }), ALIVE_EVERY_MS)
