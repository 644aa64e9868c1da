import { setTimeout as sleep } from 'node:timers/promises'
import { codeOf } from './durable-files.js'
import type { Stop } from '../take-bytes.js'

/** No room, no permission, no descriptor: somebody mends it, often within seconds. A broken disk (EIO) does not pass. */
const PASSING = new Set(['ENOSPC', 'EDQUOT', 'EROFS', 'EACCES', 'EPERM', 'EMFILE', 'ENFILE', 'storage-full'])
const PAUSE_MS = { first: 50, most: 400 }

/**
 * Tries again while the disk refuses for a reason that passes, at most so long. Meanwhile the source is not read: its
 * bytes wait on the line, where a refusal would have them all sent in vain. `work` must be repeatable.
 */
export async function patiently<T>(work: () => Promise<T>, stop: Stop, patienceMs: number): Promise<T> {
  const deadlineMs = performance.now() + patienceMs
  for (let pauseMs = PAUSE_MS.first; ; pauseMs = Math.min(PAUSE_MS.most, pauseMs * 2)) {
    try {
      return await work()
    } catch (error) {
      if (!PASSING.has(codeOf(error)) || performance.now() + pauseMs > deadlineMs) throw error
      await sleep(pauseMs)
      // Whoever was stopped writes nothing any more: what it writes to may be somebody else's by now.
      if (stop.asked()) throw error
    }
  }
}
