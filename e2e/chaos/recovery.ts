import { setTimeout as sleep } from 'node:timers/promises'
import type { Operation } from './operation.js'
import type { Stage } from './stage.js'

/**
 * How long operations wait after a fault: from its end until something more of the operation is acknowledged (its
 * offset, its point, its row), of each that had begun and whose user waits. A fault that begins meanwhile starts the
 * clock anew at its end. Looked at four times a second.
 */
export interface Recovery {
  /** The server is back, the line is whole. */
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
