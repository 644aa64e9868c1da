import { createHash } from 'node:crypto'

/**
 * Memory for received bytes, in blocks that are used again. The garbage collector frees memory late. If each part had
 * new memory, an upload would take several times what the budget allows.
 */
export interface Blocks {
  /** Returns a block of so many bytes, at most `BLOCK_BYTES`. */
  take(bytes: number): Buffer
  /** Takes back blocks, which must not be read by anything any more. */
  giveBack(blocks: readonly Buffer[]): void
  close(): void
}

export const BLOCK_BYTES = 256 * 1024

/** After this time without use, the kept blocks are dropped. */
const KEPT_MS = 5_000

export function createBlocks(limitBytes: number): Blocks {
  let kept: Buffer[] = []
  let dropping: NodeJS.Timeout | null = null
  const drop = (): void => {
    kept = []
    dropping = null
  }
  return {
    // Small files have small blocks, which are not worth keeping.
    take: (bytes) => (bytes < BLOCK_BYTES ? Buffer.allocUnsafe(bytes) : (kept.pop() ?? Buffer.allocUnsafeSlow(bytes))),
    giveBack(blocks) {
      for (const block of blocks)
        if (block.length === BLOCK_BYTES && (kept.length + 1) * BLOCK_BYTES <= limitBytes) kept.push(block)
      if (dropping !== null) dropping.refresh()
      else dropping = setTimeout(drop, KEPT_MS).unref()
    },
    close() {
      if (dropping !== null) clearTimeout(dropping)
      drop()
    },
  }
}

/** The bytes between two positions of what the blocks hold, without a copy. */
export function between(blocks: readonly Uint8Array[], from: number, to: number): Uint8Array[] {
  const found: Uint8Array[] = []
  let at = 0
  for (const block of blocks) {
    const slice = block.subarray(Math.max(0, from - at), Math.max(0, to - at))
    if (slice.length > 0) found.push(slice)
    at += block.length
  }
  return found
}

export const lengthOf = (chunks: readonly Uint8Array[]): number => chunks.reduce((sum, { length }) => sum + length, 0)

/** The body of one call. */
export interface Payload {
  readonly chunks: readonly Uint8Array[]
  readonly bytes: number
  readonly sha256: Buffer
}

export function payloadOf(chunks: readonly Uint8Array[]): Payload {
  const sha256 = createHash('sha256')
  for (const chunk of chunks) sha256.update(chunk)
  return { chunks, bytes: lengthOf(chunks), sha256: sha256.digest() }
}
