import type { Clock } from './ports.js'

/** The first retry comes almost at once, because most faults are a single reset connection. */
const BACKOFF_BASE_MS = 500
/**
 * If it were longer, a network that is back would be noticed late. If it were shorter, a dead server would get too many
 * requests.
 */
const BACKOFF_MAX_MS = 30_000
/** `Retry-After` is obeyed up to an hour. Without this limit, a proxy's mistake could mean "never". */
const RETRY_AFTER_MAX_MS = 3_600_000
/** Up to this much is added to `Retry-After`, so that not all clients come back at the same moment. */
const RETRY_AFTER_SPREAD_MS = 1_000

/** Full jitter: anything between zero and the exponential limit. `Retry-After` is a lower bound. */
export function delayMs(attempt: number, askedMs: number | null, random: number): number {
  if (askedMs !== null) {
    return Math.min(askedMs, RETRY_AFTER_MAX_MS) + random * Math.min(askedMs, RETRY_AFTER_SPREAD_MS)
  }
  return random * Math.min(BACKOFF_MAX_MS, BACKOFF_BASE_MS * 2 ** Math.min(attempt, 16))
}

/**
 * `Retry-After` in milliseconds. It accepts seconds or an HTTP date (RFC 9110 section 10.2.3), and returns null for
 * anything else.
 */
export function retryAfterMs(header: string | null, wallMs: number): number | null {
  if (header === null) return null
  if (/^\s*\d+(\.\d+)?\s*$/.test(header)) return Number(header) * 1000
  const atMs = Date.parse(header)
  return Number.isNaN(atMs) ? null : Math.max(0, atMs - wallMs)
}

/**
 * Waits before a retry. Events that promise success (`online`, the page is visible again) end the wait early, unless
 * the server itself asked for the time. If the browser is offline, it waits for these events, but no longer than the
 * maximum, because browsers report this state wrongly at times.
 */
export async function backOff(
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

/** If the upload makes no progress for this long, the connection is taken for dead. */
const STALL_MS = 30_000
/**
 * After the whole body was sent, the server may have to sync it. The limit is the longer of this and three times the
 * last chunk.
 */
const ANSWER_MS = 60_000
/** A gap between two checks counts for no more than this. For the rest of it, the machine or the tab was asleep. */
const AWAKE_GAP_MS = 5_000
/** How often to check. */
export const WATCH_EVERY_MS = 1_000

export interface Watchdog {
  /** To be called when bytes were sent. */
  progress(sentBytes: number): void
  /** True if the request has waited too long. Time asleep is not counted. */
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

/** Small enough to show progress, and to lose little at the start. */
export const CHUNK_MIN_BYTES = 256 * 1024
/** Large enough that a round trip between two chunks costs little. */
const CHUNK_MAX_BYTES = 8 * 1024 * 1024
/**
 * A file, or the rest of one, that is not larger than this is sent as a whole. It costs one request, and risks no more
 * bytes than a reset may cost.
 */
export const SMALL_BYTES = 1024 * 1024
const QUICK_MS = 1_000
const SLOW_MS = 4_000

/** The next chunk's size: twice as much while chunks are quick, half as much when they are slow. */
export function nextChunkBytes(chunkBytes: number, tookMs: number): number {
  if (tookMs < QUICK_MS) return Math.min(CHUNK_MAX_BYTES, chunkBytes * 2)
  return tookMs > SLOW_MS ? Math.max(CHUNK_MIN_BYTES, chunkBytes / 2) : chunkBytes
}

/** Where the next chunk ends. After a fault, even a small rest is sent in the smallest pieces. */
export function chunkEnd(offset: number, size: number, chunkBytes: number, afterFault: boolean): number {
  return !afterFault && size - offset <= SMALL_BYTES ? size : Math.min(size, offset + chunkBytes)
}

/** Grants at most `places` at a time, in the order of the requests. */
export interface Turns {
  /** Resolves with a function that gives the place back, or with null if `signal` ended before. */
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
