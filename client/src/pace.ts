import type { Clock } from './ports.js'

/** A first retry nearly at once: most faults are a single reset connection. */
const BACKOFF_BASE_MS = 500
/** Longer, and a network that is back goes unnoticed; shorter, and a dead server is hammered. */
const BACKOFF_MAX_MS = 30_000
/** `Retry-After` is obeyed up to an hour; beyond it a slip of a proxy would mean "never". */
const RETRY_AFTER_MAX_MS = 3_600_000
/** Up to this much is added to `Retry-After`, so that not all clients come back in the same moment. */
const RETRY_AFTER_SPREAD_MS = 1_000

/** Full jitter: anything between nothing and the exponential ceiling; `Retry-After` is a lower bound. */
export function delayMs(attempt: number, askedMs: number | null, random: number): number {
  if (askedMs !== null) {
    return Math.min(askedMs, RETRY_AFTER_MAX_MS) + random * Math.min(askedMs, RETRY_AFTER_SPREAD_MS)
  }
  return random * Math.min(BACKOFF_MAX_MS, BACKOFF_BASE_MS * 2 ** Math.min(attempt, 16))
}

/** `Retry-After` in milliseconds: seconds or an HTTP date (RFC 9110 section 10.2.3); null for anything else. */
export function retryAfterMs(header: string | null, wallMs: number): number | null {
  if (header === null) return null
  if (/^\s*\d+(\.\d+)?\s*$/.test(header)) return Number(header) * 1000
  const atMs = Date.parse(header)
  return Number.isNaN(atMs) ? null : Math.max(0, atMs - wallMs)
}

/**
 * Waits before a retry. Signs of life (`online`, the page seen again) cut it short, except where the server itself
 * asked for the time. Offline, it waits for them; but no longer than the ceiling, because browsers err about it.
 */
export async function breathe(
  clock: Clock,
  attempt: number,
  retryAfter: number | null,
  signal: AbortSignal,
  onUntil: (untilMs: number) => void,
): Promise<void> {
  const ms = clock.online() || retryAfter !== null ? delayMs(attempt, retryAfter, clock.random()) : BACKOFF_MAX_MS
  onUntil(Math.round(clock.wallMs() + ms))
  const awake = new AbortController()
  const wake = (): void => awake.abort()
  const forget = retryAfter === null ? clock.onWake(wake) : null
  signal.addEventListener('abort', wake)
  if (signal.aborted) wake()
  await clock.sleep(ms, awake.signal)
  signal.removeEventListener('abort', wake)
  forget?.()
}

/** No upload progress for this long, and the connection is taken for dead. */
const STALL_MS = 30_000
/** After the whole body went out the server may have to sync it: the longer of this and three times the last chunk. */
const ANSWER_MS = 60_000
/** A gap between two looks counts for no more than this: the rest of it the machine or the tab was asleep. */
const AWAKE_GAP_MS = 5_000
/** How often to look. */
export const WATCH_EVERY_MS = 1_000

export interface Watchdog {
  /** Bytes moved. */
  progress(sentBytes: number): void
  /** True when it has waited too long. Time asleep is not counted. */
  stalled(nowMs: number): boolean
}

/** Watches one request whose body has `bodyBytes`. */
export function createWatchdog(bodyBytes: number, lastChunkMs: number, startMs: number): Watchdog {
  let lookedMs = startMs
  let quietMs = 0
  let sent = 0
  return {
    progress(sentBytes) {
      if (sentBytes <= sent) return
      sent = sentBytes
      quietMs = 0
    },
    stalled(nowMs) {
      quietMs += Math.min(Math.max(0, nowMs - lookedMs), AWAKE_GAP_MS)
      lookedMs = nowMs
      return quietMs >= (sent < bodyBytes ? STALL_MS : Math.max(ANSWER_MS, 3 * lastChunkMs))
    },
  }
}

/** Small enough to show progress and to lose little at the start. */
export const CHUNK_MIN_BYTES = 256 * 1024
/** Large enough that a round trip between two chunks costs little. */
const CHUNK_MAX_BYTES = 8 * 1024 * 1024
/** Up to this, a file or the rest of one goes as a whole: it costs one request and risks no more than a reset may cost. */
export const SMALL_BYTES = 1024 * 1024
const QUICK_MS = 1_000
const SLOW_MS = 4_000

/** The next chunk's size: twice as much while chunks are quick, half as much when they are slow. */
export function nextChunkBytes(chunkBytes: number, tookMs: number): number {
  if (tookMs < QUICK_MS) return Math.min(CHUNK_MAX_BYTES, chunkBytes * 2)
  return tookMs > SLOW_MS ? Math.max(CHUNK_MIN_BYTES, chunkBytes / 2) : chunkBytes
}

/** Where the next chunk ends. After a fault even a small rest goes in the smallest pieces. */
export function chunkEnd(offset: number, size: number, chunkBytes: number, afterFault: boolean): number {
  return !afterFault && size - offset <= SMALL_BYTES ? size : Math.min(size, offset + chunkBytes)
}

/** At most `places` at a time, first come, first served. */
export interface Turns {
  /** Resolves with the way to give the place back, or null when `signal` ended before. */
  take(signal: AbortSignal): Promise<(() => void) | null>
}
export function createTurns(places: number): Turns {
  let free = places
  const queue: (() => void)[] = []
  const giveBack = (): void => {
    const next = queue.shift()
    if (next === undefined) free += 1
    else next()
  }
  const place = (): (() => void) => {
    let taken = true
    return () => {
      if (taken) giveBack()
      taken = false
    }
  }
  return {
    take: (signal) =>
      new Promise((resolve) => {
        const called = (): void => {
          signal.removeEventListener('abort', left)
          resolve(place())
        }
        const left = (): void => {
          const at = queue.indexOf(called)
          if (at >= 0) queue.splice(at, 1)
          resolve(null)
        }
        if (signal.aborted) return resolve(null)
        if (free > 0) {
          free -= 1
          return resolve(place())
        }
        queue.push(called)
        signal.addEventListener('abort', left, { once: true })
      }),
  }
}
