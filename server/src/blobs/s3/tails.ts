import { v7 as uuidv7 } from 'uuid'
import { UploadError } from '../../lib/errors.js'
import { payloadOf } from './blocks.js'
import type { S3Calls } from './calls.js'
import type { Names } from './names.js'
import type { Piece } from './notes.js'

/**
 * Bytes after the last full part. Each piece is an object, under a name that is never used again. So a request that has
 * lost the lease writes its own objects and never overwrites others. The ledger says which pieces count.
 */
export interface Tails {
  /** Calls `announce` with the name first, so that a request that is stopped in the middle knows what may exist. */
  store(
    key: string,
    chunks: readonly Uint8Array[],
    signal: AbortSignal,
    announce: (piece: Piece) => void,
  ): Promise<{ piece: Piece; attempts: number }>
  /** Reads the pieces, one after the other. Null if one is missing. */
  read(key: string, pieces: readonly Piece[], signal: AbortSignal): Promise<Uint8Array[] | null>
  remove(key: string, pieces: readonly Piece[]): Promise<void>
  /** Also removes pieces that were never recorded. */
  removeAll(key: string): Promise<void>
  /** Ends every multipart upload of the key. */
  abortAll(key: string): Promise<void>
}

const MOST_ROUNDS = 5

export function createTails(calls: S3Calls, names: Names): Tails {
  const remove: Tails['remove'] = async (key, pieces) => {
    await Promise.all(pieces.map(({ name }) => calls.delete(names.tail(key, name))))
  }
  return {
    async store(key, chunks, signal, announce) {
      const payload = payloadOf(chunks)
      const piece = { name: uuidv7().replaceAll('-', ''), bytes: payload.bytes }
      announce(piece)
      const { attempts } = await calls.put(names.tail(key, piece.name), payload, { signal })
      return { piece, attempts }
    },
    async read(key, pieces, signal) {
      const all: Uint8Array[] = []
      for (const { name, bytes } of pieces) {
        const found = await calls.getBytes(names.tail(key, name), signal)
        if (found === null) return null
        if (found.length !== bytes)
          throw new UploadError('storage-unavailable', 'a stored piece of an upload has another length than recorded')
        all.push(found)
      }
      return all
    },
    remove,
    async removeAll(key) {
      const prefix = names.tailsOf(key)
      for (;;) {
        const { Contents = [] } = await calls.list(prefix, undefined)
        if (Contents.length === 0) return
        await Promise.all(Contents.map(({ Key = '' }) => calls.delete(Key)))
      }
    },
    async abortAll(key) {
      const name = names.blob(key)
      for (let round = 0; round < MOST_ROUNDS; round++) {
        const { page } = await calls.listMultiparts(name, null)
        const own = page.filter((multipart) => multipart.name === name)
        if (own.length === 0) return
        await Promise.all(own.map(({ uploadId }) => calls.abort(name, uploadId)))
      }
      throw new UploadError('storage-unavailable', 'uploads under a key that is being removed do not end')
    },
  }
}
