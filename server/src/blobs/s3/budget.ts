/**
 * Memory that all uploads of a store share. Requests are granted in the order in which they came. A caller that waits
 * should hold no memory itself.
 */
export interface Budget {
  /** Takes the bytes if they are available. False if they are not available now. */
  tryTake(bytes: number): boolean
  /** Resolves with false when `signal` fires first. Then nothing was taken. */
  take(bytes: number, signal: AbortSignal): Promise<boolean>
  giveBack(bytes: number): void
  /** Whether a caller is waiting. */
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
  // A request that is larger than the whole budget (a part of a huge file) is granted when no other memory is in use.
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
          // The request that waited behind this one may fit now.
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
