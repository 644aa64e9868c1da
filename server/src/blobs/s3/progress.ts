import type { AppendRequest, BlobRef } from '../../ports/blob-store.js'
import { bytesOf, type Notes, noted, partCount, partsIn, type Piece, toState, withParts } from './notes.js'
import type { Tails } from './tails.js'

/** A part that is not in the ledger yet. */
export interface OpenPart {
  readonly number: number
  /** The stored pieces of it, from its first byte on. */
  pieces: Piece[]
  /** Set once it is stored as a whole. */
  done: { readonly etag: string; readonly proof: string } | null
}

/** How far an append has come, in the store and in the ledger. */
export interface Progress {
  /** The part that is being filled. */
  filling(): OpenPart
  next(): void
  /** The piece may exist in the store from now on. `stored` says that it does. */
  storing(piece: Piece): void
  stored(piece: Piece): void
  /** What the ledger has recorded. */
  recorded(): { readonly offset: number; readonly notes: Notes }
  /** What may be recorded now: a prefix without a gap. */
  durable(): { readonly offset: number; readonly notes: Notes }
  /**
   * Records what is durable, and only then deletes the pieces that it replaces. False if it cannot be recorded now.
   *
   * @throws what the ledger threw. Then the lease is lost, and pieces that were never recorded were removed.
   */
  acknowledge(final?: 'final'): Promise<boolean>
  /** Whether no piece would have to be removed, neither after recording what is durable nor after losing the lease. */
  hasNoPieces(): boolean
  /** The whole blob was stored with one call. */
  acknowledgeWhole(): Promise<boolean>
  /** Removes the pieces that were never recorded. */
  discard(): Promise<void>
  /** Waits for deletions that are still running. */
  settled(): Promise<void>
}

export function createProgress(
  blob: BlobRef,
  from: Notes,
  { offset, acknowledge }: AppendRequest,
  tails: Tails,
): Progress {
  const open: OpenPart[] = [{ number: partsIn(from) + 1, pieces: [...from.tail], done: null }]
  /** All pieces that may exist in the store. */
  const known = new Map(from.tail.map((piece) => [piece.name, piece]))
  const unsure = new Map<string, Piece>()
  /**
   * Pieces that may be in the ledger. A write that was reported as failed may have succeeded all the same, unless the
   * lease was lost.
   */
  const told = new Set(known.keys())
  let recorded = { offset, notes: from }
  let writing: Promise<unknown> = Promise.resolve()
  const removals = new Set<Promise<void>>()

  const filling = (): OpenPart => open[open.length - 1] as OpenPart

  function durable(): { offset: number; notes: Notes } {
    const done = open.slice(
      0,
      open.findIndex((part) => part.done === null),
    )
    const notes = {
      ...from,
      ...withParts(
        recorded.notes,
        done.map((part) => part.done?.etag ?? ''),
      ),
      proof: done.at(-1)?.done?.proof ?? recorded.notes.proof,
      tail: [...(open[done.length]?.pieces ?? [])],
    }
    // The last byte of a blob is acknowledged only as a part of an upload that can be completed.
    const isWhole = notes.uploadId !== null && partsIn(notes) === partCount(blob.size, notes.partBytes)
    if (!isWhole) while (noted(notes, blob.size) >= blob.size && notes.tail.length > 0) notes.tail.pop()
    return { offset: noted(notes, blob.size), notes }
  }

  function remove(pieces: readonly Piece[]): void {
    for (const { name } of pieces) known.delete(name)
    // A piece that could not be removed is found when the upload is sealed or removed.
    const removal = tails.remove(blob.key, pieces).catch(() => {})
    removals.add(removal)
    void removal.finally(() => removals.delete(removal))
  }

  async function record(to: { offset: number; notes: Notes }, recordedParts: number): Promise<boolean> {
    const passed = await acknowledge(to.offset, toState(to.notes))
    for (const { name } of to.notes.tail) told.add(name)
    if (!passed) return false
    recorded = to
    open.splice(0, recordedParts)
    const kept = new Set([...to.notes.tail, ...open.flatMap(({ pieces }) => pieces)].map(({ name }) => name))
    remove([...known.values()].filter(({ name }) => !kept.has(name)))
    return true
  }

  /** Runs one write after the other. */
  const serially = (work: () => Promise<boolean>): Promise<boolean> => {
    const result = writing.then(work)
    writing = result.catch(() => {})
    return result
  }

  return {
    filling,
    next: () => void open.push({ number: filling().number + 1, pieces: [], done: null }),
    storing: (piece) => void unsure.set(piece.name, piece),
    stored(piece) {
      unsure.delete(piece.name)
      known.set(piece.name, piece)
    },
    recorded: () => recorded,
    durable,
    acknowledge: (final) =>
      serially(async () => {
        const now = durable()
        if (now.offset <= recorded.offset && sameTail(now.notes, recorded.notes)) return true
        // Only the end of the source shows whether it brings more bytes than the blob has.
        if (now.offset < recorded.offset || (now.offset === blob.size && final === undefined)) return false
        return record(now, partsIn(now.notes) - partsIn(recorded.notes))
      }),
    hasNoPieces: () => known.size + unsure.size === 0,
    acknowledgeWhole: () =>
      serially(() => {
        filling().pieces = []
        return record({ offset: blob.size, notes: { ...from, tail: [] } }, 0)
      }),
    async discard() {
      const untold = [...known.values(), ...unsure.values()].filter(({ name }) => !told.has(name))
      await tails.remove(blob.key, untold).catch(() => {})
    },
    settled: async () => void (await Promise.all(removals)),
  }
}

const sameTail = (a: Notes, b: Notes): boolean =>
  partsIn(a) === partsIn(b) && a.tail.length === b.tail.length && bytesOf(a.tail) === bytesOf(b.tail)
