import { MAX_IDS_PER_REQUEST, MAX_WAIT_SECONDS, type Operation } from '@landfall/shared'
import { backOff } from './pace.js'
import type { Clock, Ledger, Refusal } from './ports.js'

/** Ids that arrive within this time go into one new request. */
const GATHER_MS = 100
/**
 * If a list answers early and without news although it was asked to wait, it is not requested again before this time.
 */
const NO_NEWS_MS = 1_000
/** If the ids do not fit in one request, groups of them take turns. Each request then waits this long. */
const TURN_SECONDS = 2

export interface Watch {
  /** Called with the operation, or with null if the server does not know it. */
  isNews: (operation: Operation | null) => boolean
  /** Called with the reason why there are no answers at the moment, and with null when there are answers again. */
  onObstacle: (refusal: Refusal | null, untilMs: number) => void
}

/** One long poll for all operations that wait for the server, and no request while none waits. */
export interface Follower {
  /** Resolves with the first answer that is news, or with undefined if `signal` ended before. */
  until(id: string, watch: Watch, signal: AbortSignal): Promise<Operation | null | undefined>
  /** Asks at once instead of waiting for the next attempt. */
  hurry(): void
}

export function createFollower(ledger: Ledger, clock: Clock): Follower {
  const watched = new Map<string, Watch & { resolve: (operation: Operation | null) => void }>()
  let running = false
  let request: AbortController | null = null
  let hasNewcomers = false

  const tell = (ids: readonly string[], operations: Operation[], unreadable: readonly string[]): boolean => {
    let news = false
    for (const id of ids) {
      const watch = watched.get(id)
      const operation = operations.find((each) => each.id === id) ?? null
      if (!unreadable.includes(id) && watch?.isNews(operation)) {
        news = true
        watched.delete(id)
        watch.resolve(operation)
      } else watch?.onObstacle(null, 0)
    }
    return news
  }

  const poll = async (): Promise<void> => {
    /** The ETag of each list of ids that was requested. */
    const tags = new Map<string, string>()
    let attempts = 0
    for (let turn = 0; watched.size > 0; turn += 1) {
      const all = [...watched.keys()]
      const groups = Math.ceil(all.length / MAX_IDS_PER_REQUEST)
      const start = (turn % groups) * MAX_IDS_PER_REQUEST
      const ids = all.slice(start, start + MAX_IDS_PER_REQUEST)
      if (hasNewcomers) tags.clear()
      hasNewcomers = false
      const controller = (request = new AbortController())
      const key = ids.join()
      const etag = tags.get(key) ?? null
      // A new operation needs its current state at once, and not only later changes.
      const waitSeconds = etag === null ? 0 : groups > 1 ? TURN_SECONDS : MAX_WAIT_SECONDS
      const startMs = clock.nowMs()
      const answer = await ledger.list(ids, { waitSeconds, etag }, controller.signal)
      if (answer.ok) {
        attempts = 0
        const next = answer.value.etag
        if (next === null) tags.delete(key)
        else tags.set(key, next)
        const { operations, unreadable } = answer.value
        const news = operations !== null && tell(ids, operations, unreadable)
        const early = operations !== null && etag !== null && clock.nowMs() - startMs < NO_NEWS_MS
        if (!news && (next === null || early)) await clock.sleep(NO_NEWS_MS, controller.signal)
      } else if (!controller.signal.aborted) {
        tags.clear()
        await backOff(clock, attempts++, answer.retryAfterMs, controller.signal, (untilMs) => {
          for (const id of ids) watched.get(id)?.onObstacle(answer, untilMs)
        })
      }
      if (hasNewcomers) await clock.sleep(GATHER_MS, new AbortController().signal)
    }
  }

  const ensure = (): void => {
    if (running) return
    running = true
    void (async () => {
      await clock.sleep(0, new AbortController().signal)
      await poll()
      running = false
      if (watched.size > 0) ensure()
    })()
  }

  return {
    until: (id, watch, signal) =>
      new Promise((resolve) => {
        if (signal.aborted) return resolve(undefined)
        const left = (): void => {
          if (watched.get(id) === entry) watched.delete(id)
          // No operation waits any more, so the connection is released at once.
          if (watched.size === 0) request?.abort()
          resolve(undefined)
        }
        const entry = {
          ...watch,
          resolve: (operation: Operation | null) => {
            signal.removeEventListener('abort', left)
            resolve(operation)
          },
        }
        signal.addEventListener('abort', left, { once: true })
        watched.set(id, entry)
        hasNewcomers = true
        request?.abort()
        ensure()
      }),
    hurry: () => request?.abort(),
  }
}
