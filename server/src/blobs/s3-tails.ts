import { v7 as uuidv7 } from 'uuid'
import { UploadError } from '../errors.js'
import type { S3Calls } from './s3-calls.js'
import type { Names } from './s3-names.js'
import type { Piece } from './s3-notes.js'

/**
 * Bytes behind the last full part: an object each, under names that are never used again, so that whoever has lost the
 * lease writes beside them and never over them. The ledger says which count.
 */
export interface Tails {
  /** `announce` is told the name first: who is stopped in the middle knows what may lie there. */
  store(key: string, bytes: Uint8Array, signal: AbortSignal, announce: (piece: Piece) => void): Promise<Piece>
  /** Reads the pieces into `to`, one behind the other. False: one is not there. */
  read(key: string, pieces: readonly Piece[], to: Uint8Array, signal: AbortSignal): Promise<boolean>
  remove(key: string, pieces: readonly Piece[]): Promise<void>
  /** Those that nobody was told of, too. */
  removeAll(key: string): Promise<void>
  /** Ends every multipart of the key. */
  abortAll(key: string): Promise<void>
}

const MOST_ROUNDS = 5

export function createTails(calls: S3Calls, names: Names): Tails {
  const remove: Tails['remove'] = async (key, pieces) => {
    await Promise.all(pieces.map(({ name }) => calls.delete(names.tail(key, name))))
  }
  return {
    async store(key, bytes, signal, announce) {
      const piece = { name: uuidv7().replaceAll('-', ''), bytes: bytes.length }
      announce(piece)
      await calls.put(names.tail(key, piece.name), bytes, { signal })
      return piece
    },
    async read(key, pieces, to, signal) {
      let at = 0
      for (const { name, bytes } of pieces) {
        const found = await calls.getBytes(names.tail(key, name), signal)
        if (found === null) return false
        if (found.length !== bytes)
          throw new UploadError('storage-unavailable', 'a stored piece of an upload has not its length')
        to.set(found, at)
        at += bytes
      }
      return true
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
      throw new UploadError('storage-unavailable', 'uploads under a key that is to be removed do not end')
    },
  }
}
