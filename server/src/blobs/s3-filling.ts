import type { BlobRef } from '../ports.js'
import type { Buffers } from './s3-buffers.js'
import type { Budget } from './s3-budget.js'
import { bytesOf, type Piece } from './s3-notes.js'
import type { Progress } from './s3-progress.js'
import type { Tails } from './s3-tails.js'

/** A stored piece, or the upload itself, is not where the ledger says: somebody else may have ended it. */
export class Gone extends Error {
  override readonly name = 'Gone'
}

/** The part that is being filled. The memory that it holds is that which was taken from the budget. */
export interface Filling {
  /** How many bytes of the part are there, in memory or stored. */
  length(): number
  /** How many it takes. */
  capacity(): number
  /** Of memory. */
  heldBytes(): number
  /** Are not stored yet. */
  unstoredBytes(): number
  /** Memory to take from the budget before so many bytes can be added; 0: there is room. */
  wantedBytes(more: number): number
  /** So much was taken for it. */
  grow(memoryBytes: number): void
  /** Takes as many of the bytes as there is room for. */
  add(bytes: Uint8Array): number
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
/** Memory grows with what comes: a client that sends little holds little, and one that sends much is copied by a third. */
const STEPS_BYTES = [256 * 1024, 1024 * 1024, 4 * 1024 * 1024]

export function createFilling(
  deps: { tails: Tails; budget: Budget; buffers: Buffers; signal: AbortSignal },
  { key, size }: BlobRef,
  partBytes: number,
  progress: Progress,
): Filling {
  const { tails, budget, buffers, signal } = deps
  let start = (progress.filling().number - 1) * partBytes
  /** Memory has the part from `from` to `to`; up to `stored` it lies in the store as well. */
  let buffer: Buffer | null = null
  let to = bytesOf(progress.filling().pieces)
  let from = to
  let stored = to
  /** The source is quick enough for whole parts. */
  let isQuick = false
  /** Somebody reads memory: what is replaced must not be used again. */
  let readers = 0

  const capacity = (): number => Math.min(partBytes, size - start)
  const free = (upTo: number): void => {
    // What came meanwhile stays, and the memory with it.
    if (upTo < to) return
    if (buffer !== null) budget.giveBack(buffer.length)
    if (buffer !== null && readers === 0) buffers.giveBack(buffer)
    buffer = null
    from = to
  }
  const replace = (next: Buffer, at: number): void => {
    buffer?.copy(next, from - at, 0, to - from)
    if (buffer !== null) budget.giveBack(buffer.length)
    if (buffer !== null && readers === 0) buffers.giveBack(buffer)
    buffer = next
    from = at
  }
  async function store(begin: number, end: number, memory: Buffer): Promise<Piece> {
    readers += 1
    try {
      const piece = await tails.store(key, memory.subarray(begin, end), signal, progress.storing)
      progress.stored(piece)
      return piece
    } finally {
      readers -= 1
    }
  }

  /** The first bytes of the part, up to `end`, in memory for which the budget was asked. */
  async function assemble(end: number): Promise<Buffer> {
    const memory = buffers.take(end)
    const pieces = []
    let covered = 0
    for (const piece of progress.filling().pieces) {
      if (covered >= from) break
      pieces.push(piece)
      covered += piece.bytes
    }
    if (!(await tails.read(key, pieces, memory, signal))) throw new Gone()
    if (buffer !== null && end > from) buffer.copy(memory, from, 0, end - from)
    return memory
  }

  async function merge(): Promise<void> {
    const part = progress.filling()
    // The last bytes of a blob stay apart: they are acknowledged as a part only.
    if (part.pieces.length < MOST_PIECES || start + stored >= size || !budget.tryTake(stored)) return
    const end = stored
    try {
      part.pieces = [await store(0, end, await assemble(end))]
    } finally {
      budget.giveBack(end)
    }
  }

  return {
    length: () => to,
    capacity,
    heldBytes: () => to - from,
    unstoredBytes: () => to - stored,
    wantedBytes(more) {
      const needed = to - from + more
      if (buffer !== null && needed <= buffer.length) return 0
      const most = capacity() - from
      if (isQuick) return most
      return Math.min(most, STEPS_BYTES.find((step) => step >= needed) ?? most)
    },
    grow(memoryBytes) {
      // It may have been stored and freed while the budget was waited for: less is enough then.
      const length = Math.min(memoryBytes, capacity() - from)
      budget.giveBack(memoryBytes - length)
      replace(buffers.take(length), from)
    },
    add(bytes) {
      if (buffer === null) return 0
      const room = bytes.subarray(0, buffer.length - (to - from))
      buffer.set(room, to - from)
      to += room.length
      return room.length
    },
    async flush(freeing) {
      const end = to
      if (end > stored && buffer !== null) {
        const piece = await store(stored - from, end - from, buffer)
        progress.filling().pieces.push(piece)
        stored = end
        await merge()
      }
      if (freeing) free(stored)
    },
    async whole(stopped) {
      const end = to
      if (from === 0 && buffer?.length === end) return buffer
      if (!budget.tryTake(end)) {
        // Who waits for memory holds none.
        await this.flush(true)
        if (!(await budget.take(end, stopped))) return null
      }
      try {
        replace(await assemble(end), 0)
      } catch (error) {
        budget.giveBack(end)
        throw error
      }
      return buffer
    },
    handOver() {
      isQuick = from === 0 && stored === 0
      start += capacity()
      buffer = null
      from = to = stored = 0
    },
    drop() {
      free(to)
    },
  }
}
