import { setTimeout as sleep } from 'node:timers/promises'
import type { Stop } from '../read-chunks.js'
import { codeOf } from '../../lib/errors.js'

/**
 * No space, no permission or no free descriptor: an operator repairs these, often within seconds. A broken disk (EIO)
 * stays broken.
 */
const PASSING = new Set(['ENOSPC', 'EDQUOT', 'EROFS', 'EACCES', 'EPERM', 'EMFILE', 'ENFILE', 'storage-full'])
const PAUSE_MS = { first: 50, most: 400 }

/**
 * Repeats `work` while the disk refuses it for a reason that may pass, for at most `patienceMs`. While it repeats, the
 * source is not read, so the client's bytes wait in the network. If the request were refused instead, the client would
 * have sent them in vain. `work` must be repeatable.
 */
export async function patiently<T>(work: () => Promise<T>, stop: Stop, patienceMs: number): Promise<T> {
  const deadlineMs = performance.now() + patienceMs
  for (let pauseMs = PAUSE_MS.first; ; pauseMs = Math.min(PAUSE_MS.most, pauseMs * 2)) {
    try {
      return await work()
    } catch (error) {
      if (!PASSING.has(codeOf(error)) || performance.now() + pauseMs > deadlineMs) throw error
      await sleep(pauseMs)
      // A stopped request must write nothing more: the file that it writes to may belong to another request by now.
      if (stop.asked()) throw error
    }
  }
}
