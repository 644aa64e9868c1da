import type { ReconcileProgress } from '../../operate/reconcile.js'

/** Only of runs that are long enough to be waited for. */
const BAR_AFTER_MS = 2_000
const REDRAW_MS = 200
const WIDTH = 30
/** ECMA-48: to the line's begin, and erase it. */
const ERASE = '\r\u001b[K'

export interface Bar {
  show(seen: ReconcileProgress): void
  /** Before something else is printed to the same terminal. */
  clear(): void
}

/**
 * A bar on standard error where that is a terminal. It only writes: a library that reads the keyboard as well would
 * turn Ctrl-C, which must end the command by a signal, into an exit of its own.
 */
export function createBar(to: NodeJS.WriteStream = process.stderr): Bar {
  const startMs = performance.now()
  let drawnAtMs = startMs + BAR_AFTER_MS - REDRAW_MS
  let isDrawn = false
  return {
    show(seen) {
      const now = performance.now()
      if (!to.isTTY || now - drawnAtMs < REDRAW_MS) return
      drawnAtMs = now
      isDrawn = true
      to.write(`${ERASE}${textOf(seen)}`)
    },
    clear() {
      if (isDrawn) to.write(ERASE)
      isDrawn = false
    },
  }
}

function textOf({ doing, operations, of }: ReconcileProgress): string {
  // Traffic goes on: there may be more than there were at the start.
  const part = of === 0 ? 1 : Math.min(1, operations / of)
  const filled = Math.round(part * WIDTH)
  return `${doing} [${'#'.repeat(filled)}${'.'.repeat(WIDTH - filled)}] ${Math.floor(part * 100)} %, ${operations} of ${Math.max(of, operations)} operations`
}
