import type { Clock } from '../ports.js'

/** If a frame does not come within this time (hidden tabs have none), it counts as past. */
const FRAME_MS = 100

type Listeners = readonly (readonly [EventTarget | undefined, string, (event: Event) => void])[]

function listen(listeners: Listeners): () => void {
  for (const [target, name, listener] of listeners) target?.addEventListener(name, listener)
  return () => {
    for (const [target, name, listener] of listeners) target?.removeEventListener(name, listener)
  }
}

const page = (): EventTarget | undefined => (typeof window === 'undefined' ? undefined : window)

/** The browser's time and events. It uses no browser global before it is called, and it works without a page too. */
export const createBrowserClock = (): Clock => ({
  nowMs: () => performance.now(),
  wallMs: () => Date.now(),
  random: () => Math.random(),
  online: () => typeof navigator === 'undefined' || !('onLine' in navigator) || navigator.onLine,
  sleep: (ms, signal) =>
    new Promise((resolve) => {
      if (signal.aborted) return resolve()
      const over = (): void => {
        clearTimeout(timer)
        signal.removeEventListener('abort', over)
        resolve()
      }
      const timer = setTimeout(over, ms)
      signal.addEventListener('abort', over)
    }),
  onWake(listener) {
    const seen = (): void => {
      if (document.visibilityState === 'visible') listener()
    }
    return listen([
      [page(), 'online', listener],
      [page(), 'pageshow', listener],
      [typeof document === 'undefined' ? undefined : document, 'visibilitychange', seen],
    ])
  },
  onFocus: (listener) => listen([[page(), 'focus', listener]]),
  onPage: ({ hidden, shown }) =>
    listen([
      [page(), 'pagehide', hidden],
      [page(), 'pageshow', (event) => 'persisted' in event && event.persisted && shown()],
    ]),
  frame(callback) {
    let isDone = false
    const once = (): void => {
      if (isDone) return
      isDone = true
      clearTimeout(timer)
      callback()
    }
    const timer = setTimeout(once, FRAME_MS)
    if (typeof requestAnimationFrame === 'function') requestAnimationFrame(once)
  },
})
