import * as v from 'valibot'
import { UploadError } from '../lib/errors.js'

/** The names of the two files, or objects, in which a store keeps what it knows about its ledger. */
export const IDENTITY_NAME = 'store.json'
export const MARK_NAME = 'mark.json'

const identitySchema = v.object({ format: v.literal(1), ledger: v.string() })
const markSchema = v.object({ mark: v.pipe(v.number(), v.integer(), v.minValue(0)) })
const identityText = (ledger: string): string => JSON.stringify({ format: 1, ledger })

/** The second way in which a store and its ledger can stop matching is `drizzle-kit push`. */
const TABLES_WERE_DROPPED =
  "If it is the same database, its landfall_* tables were dropped, as `drizzle-kit push` does with every table that the application's schema does not name: restore them from a backup, and set tablesFilter: ['!landfall_*'] in drizzle.config.ts"

/** How a store reads and writes these two texts. Faults of the store are thrown as its own errors. */
export interface IdentityIo {
  /** Returns null if the text is absent. */
  read(name: string): Promise<string | null>
  /**
   * Writes the whole text durably, or nothing of it. If another process has written a text first, that one may stay.
   */
  create(name: string, text: string): Promise<void>
  /** Writes the whole text durably, in the place of the previous one. */
  replace(name: string, text: string): Promise<void>
  /** Makes durable what a process may have written that was killed before it could sync it. */
  settle?(): Promise<void>
}

/** The names of the store in messages for people. */
export interface StoreWords {
  /** For example "the directory of blobs". */
  readonly name: string
  /** What the server finds if the store is missing at its place, and what to check. */
  readonly notThere: string
  /** What to make if the blobs are lost permanently: "put a file store.json there". */
  readonly putAgain: string
  /** What is wrong if the store belongs to another ledger, and what to do. */
  readonly foreign: string
}

/**
 * The identity of its ledger that a store carries in `store.json`. Without it, the ledger of another environment would
 * take all blobs for garbage, and a disk that is not mounted, or a bucket that was emptied, would look as if all blobs
 * were absent.
 */
export interface StoreIdentity {
  /**
   * Makes a new store this ledger's store, or confirms that a known one is.
   *
   * @throws UploadError `storage-unavailable` if no store is found, `setup` if it belongs to another ledger.
   */
  open(ledger: string, store: 'new' | 'known'): Promise<void>
  /**
   * Must be called before a missing blob counts as absent. @throws UploadError `storage-unavailable` if no store is
   * found.
   */
  expect(): Promise<void>
  /** The highest mark that the ledger has given to the store. Returns 0 if none can be read. */
  readMark(): Promise<number>
  writeMark(mark: number): Promise<void>
}

export function createStoreIdentity(io: IdentityIo, words: StoreWords): StoreIdentity {
  async function read(): Promise<string | null> {
    const text = await io.read(IDENTITY_NAME)
    if (text === null) return null
    try {
      return v.parse(identitySchema, JSON.parse(text)).ledger
    } catch (error) {
      throw new UploadError('setup', `${IDENTITY_NAME} in ${words.name} cannot be read`, { cause: error })
    }
  }

  const notThere = (ledger: string | null): UploadError =>
    new UploadError(
      'storage-unavailable',
      words.notThere +
        (ledger === null
          ? ''
          : ` If its blobs are lost permanently, ${words.putAgain} that holds ${identityText(ledger)}`),
    )

  return {
    async open(ledger, store) {
      let found = await read()
      if (found === null && store === 'new') {
        await io.create(IDENTITY_NAME, identityText(ledger))
        // Another node may have been faster, perhaps one of another environment.
        found = await read()
      } else if (store === 'new') await io.settle?.()
      if (found === null) throw notThere(ledger)
      if (found !== ledger) throw new UploadError('setup', `${words.foreign}. ${TABLES_WERE_DROPPED}`)
    },
    async expect() {
      if ((await read()) === null) throw notThere(null)
    },
    async readMark() {
      const text = await io.read(MARK_NAME)
      if (text === null) return 0
      try {
        return v.parse(markSchema, JSON.parse(text)).mark
      } catch {
        // A torn mark counts as no mark.
        return 0
      }
    },
    writeMark: (mark) => io.replace(MARK_NAME, JSON.stringify({ mark })),
  }
}
