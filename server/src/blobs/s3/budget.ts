/** Memory that all uploads of a store share. First come, first served; whoever waits should hold nothing itself. */
export interface Budget {
  /** False: not now. */
  tryTake(bytes: number): boolean
  /** Resolves with false when `signal` fires first: then nothing was taken. */
  take(bytes: number, signal: AbortSignal): Promise<boolean>
  giveBack(bytes: number): void
  /** Somebody waits. */
  underPressure(): boolean
  usedBytes(): number
}

interface Waiting {
  readonly bytes: number
  readonly granted: (granted: boolean) => void
}

export function createBudget(limitBytes: number): Budget {
  let used = 0
  const waiting: Waiting[] = []
  // What alone is larger than all (a part of a huge file) goes when nobody else holds anything.
  const fits = (bytes: number): boolean => used + bytes <= limitBytes || used === 0

  const serve = (): void => {
    for (let [first] = waiting; first !== undefined && fits(first.bytes); [first] = waiting) {
      waiting.shift()
      used += first.bytes
      first.granted(true)
    }
  }

  const tryTake = (bytes: number): boolean => {
    if (waiting.length > 0 || !fits(bytes)) return false
    used += bytes
    return true
  }

  return {
    tryTake,
    take(bytes, signal) {
      if (signal.aborted) return Promise.resolve(false)
      if (tryTake(bytes)) return Promise.resolve(true)
      return new Promise((resolve) => {
        const leave = (): void => {
          const at = waiting.indexOf(entry)
          if (at >= 0) waiting.splice(at, 1)
          resolve(false)
          // Whoever stood behind it may fit.
          serve()
        }
        const entry: Waiting = {
          bytes,
          granted(granted) {
            signal.removeEventListener('abort', leave)
            resolve(granted)
          },
        }
        signal.addEventListener('abort', leave, { once: true })
        waiting.push(entry)
      })
    },
    giveBack(bytes) {
      used -= bytes
      serve()
    },
    underPressure: () => waiting.length > 0,
    usedBytes: () => used,
  }
}
