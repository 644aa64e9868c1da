import type { ReconcileProgress } from '../../operate/reconcile.js'

/** The bar is shown only for runs that take longer than this. */
const BAR_AFTER_MS = 2_000
const REDRAW_MS = 200
const WIDTH = 30
/** ECMA-48: moves to the beginning of the line and erases it. */
const ERASE = '\r\u001b[K'

export interface Bar {
  show(seen: ReconcileProgress): void
  /** Call it before something else is printed to the same terminal. */
  clear(): void
}

/**
 * A progress bar on standard error if that is a terminal. It only writes. A library that also reads the keyboard would
 * turn Ctrl-C, which must end the command by a signal, into an ordinary exit.
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
  // Uploads continue during the run, so there may be more operations than at the start.
  const part = of === 0 ? 1 : Math.min(1, operations / of)
  const filled = Math.round(part * WIDTH)
  return `${doing} [${'#'.repeat(filled)}${'.'.repeat(WIDTH - filled)}] ${Math.floor(part * 100)} %, ${operations} of ${Math.max(of, operations)} operations`
}
