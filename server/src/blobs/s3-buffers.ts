/**
 * Memory for what is received. It is used again: what is made anew for each part is given back by the garbage collector
 * late, and an upload would take several times of what the budget allows. Shared, so that a thread can hash it without a
 * copy.
 */
export interface Buffers {
  take(bytes: number): Buffer
  /** Only what nobody reads any more. */
  giveBack(buffer: Buffer): void
  close(): void
}

/** Nothing is kept for longer than this without being used. */
const KEPT_MS = 5_000

export function createBuffers(limitBytes: number): Buffers {
  let kept: Buffer[] = []
  let keptBytes = 0
  let dropping: NodeJS.Timeout | null = null
  const drop = (): void => {
    kept = []
    keptBytes = 0
    dropping = null
  }
  return {
    take(bytes) {
      const at = kept.findLastIndex((buffer) => buffer.length === bytes)
      const [found] = at < 0 ? [] : kept.splice(at, 1)
      keptBytes -= found?.length ?? 0
      return found ?? Buffer.from(new SharedArrayBuffer(bytes))
    },
    giveBack(buffer) {
      kept.push(buffer)
      keptBytes += buffer.length
      for (let oldest = kept[0]; keptBytes > limitBytes && oldest !== undefined; oldest = kept[0]) {
        kept.shift()
        keptBytes -= oldest.length
      }
      if (dropping !== null) dropping.refresh()
      else dropping = setTimeout(drop, KEPT_MS).unref()
    },
    close() {
      if (dropping !== null) clearTimeout(dropping)
      drop()
    },
  }
}
