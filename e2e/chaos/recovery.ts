import { setTimeout as sleep } from 'node:timers/promises'
import type { Operation } from './operation.js'
import type { Stage } from './stage.js'

/**
 * Measures how long operations wait after a fault. The time of an operation runs from the end of the fault until
 * something more of it is acknowledged (its offset, its point or its row). Only operations that had begun and whose
 * user waits are measured. If another fault begins before that, the time runs from the end of that fault. The state is
 * read four times a second.
 */
export interface Recovery {
  /** To be called when the server is back and the line works. */
  faultEnded(): Promise<void>
  faultBegins(): void
  stop(): Promise<readonly number[]>
}

const EVERY_MS = 250

export function watchRecovery(stage: Stage, operations: readonly Operation[]): Recovery {
  const tookMs: number[] = []
  let waiting = new Map<string, string>()
  let endedAtMs: number | null = null
  const over = new AbortController()

  async function watch(): Promise<void> {
    for (; !over.signal.aborted; await sleep(EVERY_MS)) {
      if (endedAtMs === null || waiting.size === 0) continue
      const since = endedAtMs
      const progress = await stage.progress().catch(() => null)
      if (progress === null || endedAtMs !== since) continue
      for (const [id, before] of waiting) {
        if (progress.get(id) === before) continue
        tookMs.push(performance.now() - since)
        waiting.delete(id)
      }
    }
  }
  const watching = watch()

  return {
    faultBegins() {
      endedAtMs = null
    },
    async faultEnded() {
      const atMs = performance.now()
      const progress = await stage.progress().catch(() => null)
      if (progress === null) return
      waiting = new Map(
        operations
          .filter(({ attended, told }) => attended && told === null)
          .flatMap(({ id }) => {
            const before = progress.get(id)
            return before === undefined ? [] : [[id, before]]
          }),
      )
      endedAtMs = atMs
    },
    async stop() {
      over.abort()
      await watching
      return tookMs
    },
  }
}
