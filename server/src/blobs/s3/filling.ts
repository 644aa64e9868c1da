import { createHash, type Hash } from 'node:crypto'
import type { BlobRef } from '../../ports/blob-store.js'
import { between, BLOCK_BYTES, type Blocks, lengthOf, type Payload, payloadOf } from './blocks.js'
import type { Budget } from './budget.js'
import { bytesOf, type Piece } from './notes.js'
import type { Progress } from './progress.js'
import type { Tails } from './tails.js'

/** A stored piece, or the upload itself, is not where the ledger says. Another node may have ended the upload. */
export class Gone extends Error {
  override readonly name = 'Gone'
}

/** All bytes of a part, and the memory that was taken from the budget for them. */
export interface WholePart {
  readonly payload: Payload
  /** Gives the memory back. `isReusable` says that nothing reads it any more. */
  release(isReusable: boolean): void
}

/** The part that is being filled. It may hold only as much memory as it has taken from the budget. */
export interface Filling {
  /** How many bytes of the part are there, in memory or stored. */
  length(): number
  /** How many bytes the part takes in total. */
  capacity(): number
  /** Whether it holds memory, or the right to take some. */
  holds(): boolean
  /** How many bytes are not stored yet. */
  unstoredBytes(): number
  /** How much to take from the budget before a byte can be added. 0 means that there is room. */
  wanted(): { readonly bytes: number; readonly isRest: boolean }
  /** Tells the part that so many bytes were taken from the budget for it. */
  grow(bytes: number): void
  /** Adds as many of the bytes as there is room for, and returns how many. */
  add(bytes: Uint8Array): number
  /** Stores what is not stored yet as a piece. `free` also gives the memory back. */
  flush(free: boolean): Promise<void>
  /**
   * Returns all bytes of the part. Bytes that are no longer in memory are read back. From then on the caller owns them,
   * and filling continues with the next part. Null if `signal` fired while the part waited for memory.
   */
  whole(signal: AbortSignal): Promise<WholePart | null>
  drop(): void
}

/**
 * A part of 8 MiB that arrives slowly is stored in pieces of two seconds each. Reading it back should not take hundreds
 * of calls.
 */
const MOST_PIECES = 32
/**
 * A client that would fill a part within this time gets the memory for all of it. A slower client gets it block by
 * block.
 */
const QUICK_MS = 1_000

export function createFilling(
  deps: { tails: Tails; budget: Budget; blocks: Blocks; signal: AbortSignal },
  { key, size }: BlobRef,
  partBytes: number,
  progress: Progress,
): Filling {
  const { tails, budget, signal } = deps
  let start = (progress.filling().number - 1) * partBytes
  /** Memory holds the part from `from` to `to`. The bytes up to `stored` are also in the store. */
  let blocks: Buffer[] = []
  let to = bytesOf(progress.filling().pieces)
  let from = to
  let stored = to
  /** How many bytes were taken from the budget. */
  let takenBytes = 0
  /** True if an earlier call may still read the blocks. Then they must not be used again. */
  let isRead = false
  let readers = 0
  let grown = { atMs: 0, bytes: 0 }
  let isQuick = false
  /** The hash of the part so far. Null if an earlier request brought its first bytes. */
  let hash: Hash | null = to === 0 ? createHash('sha256') : null

  const capacity = (): number => Math.min(partBytes, size - start)
  const release = (held: readonly Buffer[], bytes: number, isReusable: boolean): void => {
    budget.giveBack(bytes)
    if (isReusable) deps.blocks.giveBack(held)
  }
  const free = (upTo: number): void => {
    // Bytes that arrived in the meantime stay, and so does their memory.
    if (upTo < to) return
    release(blocks, takenBytes, readers === 0 && !isRead)
    blocks = []
    takenBytes = 0
    isRead = false
    from = to
  }
  async function store(chunks: readonly Uint8Array[]): Promise<Piece> {
    readers += 1
    try {
      const { piece, attempts } = await tails.store(key, chunks, signal, progress.storing)
      // The socket of an attempt that broke off may still read the bytes.
      if (attempts > 1) isRead = true
      progress.stored(piece)
      return piece
    } catch (error) {
      isRead = true
      throw error
    } finally {
      readers -= 1
    }
  }
  async function readBack(pieces: readonly Piece[]): Promise<Uint8Array[]> {
    const found = await tails.read(key, pieces, signal)
    if (found === null) throw new Gone()
    return found
  }

  async function merge(): Promise<void> {
    const part = progress.filling()
    // The last bytes of a blob are not merged, because they are acknowledged only as a part.
    if (part.pieces.length < MOST_PIECES || start + stored >= size || !budget.tryTake(stored)) return
    const bytes = stored
    try {
      part.pieces = [await store(await readBack(part.pieces))]
    } finally {
      budget.giveBack(bytes)
    }
  }

  const filling: Filling = {
    length: () => to,
    capacity,
    holds: () => takenBytes > 0,
    unstoredBytes: () => to - stored,
    wanted() {
      if (to - from < takenBytes) return { bytes: 0, isRest: false }
      const rest = capacity() - to
      return isQuick ? { bytes: rest, isRest: true } : { bytes: Math.min(rest, BLOCK_BYTES), isRest: false }
    },
    grow(bytes) {
      // While this waited for the budget, the part may have been stored and freed. Then it needs less.
      const most = Math.min(bytes, capacity() - from - takenBytes)
      budget.giveBack(bytes - most)
      takenBytes += most
      grown = { atMs: performance.now(), bytes: most }
    },
    add(bytes) {
      let added = 0
      const most = Math.min(bytes.length, takenBytes - (to - from))
      while (added < most) {
        const inLast = (to - from) % BLOCK_BYTES
        if (inLast === 0) blocks.push(deps.blocks.take(Math.min(BLOCK_BYTES, capacity() - to)))
        const block = blocks.at(-1)
        const room = Math.min(most - added, (block?.length ?? 0) - inLast)
        block?.set(bytes.subarray(added, added + room), inLast)
        hash?.update(bytes.subarray(added, added + room))
        added += room
        to += room
      }
      if (to - from === takenBytes) isQuick = (performance.now() - grown.atMs) * capacity() <= QUICK_MS * grown.bytes
      return added
    },
    async flush(freeing) {
      const end = to
      if (end > stored) {
        const piece = await store(between(blocks, stored - from, end - from))
        progress.filling().pieces.push(piece)
        stored = end
        await merge()
      }
      if (freeing) free(stored)
    },
    async whole(stopped) {
      let before: Uint8Array[] = []
      if (from > 0) {
        if (!budget.tryTake(from)) {
          // A part that waits for memory must hold none.
          await filling.flush(true)
          if (!(await budget.take(from, stopped))) return null
        }
        takenBytes += from
        before = between(await readBack(untilFrom()), 0, from)
      }
      const [held, bytes, wasRead] = [blocks, takenBytes, isRead]
      const chunks = [...before, ...between(held, 0, to - from)]
      const payload = hash === null ? payloadOf(chunks) : { chunks, bytes: lengthOf(chunks), sha256: hash.digest() }
      hash = createHash('sha256')
      isQuick &&= stored === 0
      start += capacity()
      blocks = []
      from = to = stored = takenBytes = 0
      isRead = false
      return { payload, release: (isReusable) => release(held, bytes, isReusable && !wasRead) }
    },
    drop() {
      free(to)
    },
  }
  return filling

  /** The pieces that hold the bytes which are no longer in memory. */
  function untilFrom(): Piece[] {
    const pieces = []
    let covered = 0
    for (const piece of progress.filling().pieces) {
      if (covered >= from) break
      pieces.push(piece)
      covered += piece.bytes
    }
    return pieces
  }
}
