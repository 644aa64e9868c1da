import type { Clock } from './ports.js'

/**
 * If a read fails, it is repeated once after this time. WebKit breaks reads for about 50 ms around a navigation,
 * including a navigation that becomes a download. If the time were longer, a missing file would be noticed late.
 */
export const READ_AGAIN_MS = 500

/** Reads the bytes of a blob. Returns null if that failed twice, or if `signal` ended before. */
export const reader =
  ({ sleep }: Pick<Clock, 'sleep'>) =>
  async (blob: Blob, signal: AbortSignal): Promise<Uint8Array<ArrayBuffer> | null> => {
    for (let attempt = 1; !signal.aborted; attempt += 1) {
      const bytes = await blob.arrayBuffer().catch(() => null)
      // A file that has become shorter may be read short, without an error.
      if (bytes?.byteLength === blob.size) return new Uint8Array(bytes)
      if (attempt === 2) return null
      await sleep(READ_AGAIN_MS, signal)
    }
    return null
  }
