import type { BlobRef } from '../ports.js'
import type { Budget } from './s3-budget.js'
import { bytesOf } from './s3-notes.js'
import type { Progress } from './s3-progress.js'
import type { Tails } from './s3-tails.js'

/** A stored piece, or the upload itself, is not where the ledger says: somebody else may have ended it. */
export class Gone extends Error {
  override readonly name = 'Gone'
}

/** The part that is being filled, in memory: bytes have their place in it from the start and are copied once. */
export interface Filling {
  /** How many bytes of the part are there, in memory or stored. */
  length(): number
  /** How many it takes. */
  capacity(): number
  /** Of memory. */
  heldBytes(): number
  /** Are not stored yet. */
  unstoredBytes(): number
  /** For `bytes` there is memory: they were taken from the budget. */
  add(bytes: Uint8Array): void
  /** Stores what is not stored yet as a piece; `free` gives the memory back. */
  flush(free: boolean): Promise<void>
  /** All bytes of the part: what is in memory no more is read back. null: `signal` fired while memory was waited for. */
  whole(signal: AbortSignal): Promise<Buffer | null>
  /** Its memory belongs to the caller now. */
  handOver(): void
  drop(): void
}

/** A part of 8 MiB that trickles in is stored in pieces of two seconds each; reading it back should not take hundreds of calls. */
const MOST_PIECES = 32

export function createFilling(
  deps: { tails: Tails; budget: Budget; signal: AbortSignal },
  { key, size }: BlobRef,
  partBytes: number,
  progress: Progress,
): Filling {
  const { tails, budget, signal } = deps
  let start = (progress.filling().number - 1) * partBytes
  let buffer: Buffer | null = null
  /** Memory holds the part from `from` to `to`; up to `stored` it lies in the store as well. */
  let to = bytesOf(progress.filling().pieces)
  let from = to
  let stored = to

  const capacity = (): number => Math.min(partBytes, size - start)
  const memory = (): Buffer => (buffer ??= Buffer.allocUnsafeSlow(capacity()))

  const free = (upTo: number): void => {
    budget.giveBack(upTo - from)
    from = upTo
    if (from === to) buffer = null
  }

  /** Into its place in memory, for which the budget was asked. */
  async function readBack(): Promise<void> {
    const pieces = []
    let covered = 0
    for (const piece of progress.filling().pieces) {
      if (covered >= from) break
      pieces.push(piece)
      covered += piece.bytes
    }
    if (!(await tails.read(key, pieces, memory(), signal))) throw new Gone()
    from = 0
  }

  async function merge(): Promise<void> {
    const part = progress.filling()
    // The last bytes of a blob stay apart: they are acknowledged as a part only.
    if (part.pieces.length < MOST_PIECES || start + stored >= size) return
    if (from > 0) {
      const missing = from
      if (!budget.tryTake(missing)) return
      try {
        await readBack()
      } catch (error) {
        budget.giveBack(missing)
        throw error
      }
    }
    const piece = await tails.store(key, memory().subarray(0, stored), signal, progress.storing)
    progress.stored(piece)
    part.pieces = [piece]
  }

  return {
    length: () => to,
    capacity,
    heldBytes: () => to - from,
    unstoredBytes: () => to - stored,
    add(bytes) {
      memory().set(bytes, to)
      to += bytes.length
    },
    async flush(freeing) {
      const end = to
      if (end > stored) {
        const piece = await tails.store(key, memory().subarray(stored, end), signal, progress.storing)
        progress.stored(piece)
        progress.filling().pieces.push(piece)
        stored = end
        await merge()
      }
      if (freeing) free(stored)
    },
    async whole(stopped) {
      if (from > 0 && !budget.tryTake(from)) {
        // Who waits for memory holds none.
        await this.flush(true)
        if (!(await budget.take(to, stopped))) return null
        // Now all is read back; `from` is where it was freed to.
        try {
          await readBack()
        } catch (error) {
          budget.giveBack(to)
          from = to
          throw error
        }
      } else if (from > 0) {
        const missing = from
        try {
          await readBack()
        } catch (error) {
          budget.giveBack(missing)
          throw error
        }
      }
      return memory()
    },
    handOver() {
      start += capacity()
      buffer = null
      from = to = stored = 0
    },
    drop() {
      budget.giveBack(to - from)
      buffer = null
      from = to
    },
  }
}
