import type { Exclusive, Hold } from '../ports.js'

/** A lock that another tab gives up just now is not worth telling. */
const ELSEWHERE_MS = 100

/** Web Locks; null where the browser has none (insecure contexts). */
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
          // Stolen; or the waiting was ended; or the browser refuses locks here (a sandboxed frame), as if it had none.
          if (isHeld) lost.abort()
          else resolve(withoutLocks.hold(name, onElsewhere, signal))
        })
      }),
  }
}

/** Without locks: everybody goes on. The server still takes every byte once. */
export const withoutLocks: Exclusive = {
  hold: async (_name, _onElsewhere, signal) =>
    signal.aborted ? null : { lost: new AbortController().signal, release: () => {} },
}
