import type { Exclusive, Hold } from '../ports.js'

/** If another tab releases the lock within this time, it is not worth reporting. */
const ELSEWHERE_MS = 100

/** Web Locks, or null if the browser has none (in insecure contexts). */
export function createWebLocks(): Exclusive | null {
  if (typeof navigator === 'undefined' || !navigator.locks) return null
  const { locks } = navigator
  return {
    hold: (name, onElsewhere, signal) =>
      new Promise((resolve) => {
        if (signal.aborted) return resolve(null)
        const lost = new AbortController()
        const timer = setTimeout(onElsewhere, ELSEWHERE_MS)
        let isHeld = false
        const granted = (): Promise<void> =>
          new Promise((release) => {
            clearTimeout(timer)
            isHeld = true
            const hold: Hold = { lost: lost.signal, release }
            resolve(hold)
          })
        locks.request(name, { signal }, granted).catch(() => {
          clearTimeout(timer)
          // The lock was stolen, or the waiting was ended, or the browser refuses locks here (in a sandboxed frame),
          // which counts as having none.
          if (isHeld) lost.abort()
          else resolve(withoutLocks.hold(name, onElsewhere, signal))
        })
      }),
  }
}

/** Without locks, every tab continues. The server still takes every byte only once. */
export const withoutLocks: Exclusive = {
  hold: async (_name, _onElsewhere, signal) =>
    signal.aborted ? null : { lost: new AbortController().signal, release: () => {} },
}
