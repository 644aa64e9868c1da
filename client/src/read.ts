import type { Clock } from './ports.js'

/**
 * What cannot be read is read once more after this long. WebKit breaks reads for some 50 ms around a navigation, one that
 * becomes a download included; longer, and a file that is gone is noticed late.
 */
export const READ_AGAIN_MS = 500

/** Reads the bytes of a blob; null when that failed twice, or `signal` ended before. */
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
