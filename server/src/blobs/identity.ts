import * as v from 'valibot'
import { UploadError } from '../lib/errors.js'

/** The names of the two files, or objects, in which a store keeps what it knows about its ledger. */
export const IDENTITY_NAME = 'store.json'
export const MARK_NAME = 'mark.json'

const identitySchema = v.object({ format: v.literal(1), ledger: v.string() })
const markSchema = v.object({ mark: v.pipe(v.number(), v.integer(), v.minValue(0)) })
const identityText = (ledger: string): string => JSON.stringify({ format: 1, ledger })

/** `drizzle-kit push` is the other way in which a store and its ledger come apart. */
const TABLES_WERE_DROPPED =
  "If it is the same database, its landfall_* tables were dropped, as `drizzle-kit push` does with every table that the application's schema does not name: restore them from a backup, and say tablesFilter: ['!landfall_*'] in drizzle.config.ts"

/** How a store reads and writes the two. Faults of the store are thrown as its own errors. */
export interface IdentityIo {
  /** null: absent. */
  read(name: string): Promise<string | null>
  /** Writes the whole text durably, or nothing of it. It may leave a text that another process has written first. */
  create(name: string, text: string): Promise<void>
  /** Writes the whole text durably, in the place of the one before. */
  replace(name: string, text: string): Promise<void>
  /** Makes durable what a process may have written that was killed before it could. */
  settle?(): Promise<void>
}

/** How the store is called in messages for people. */
export interface StoreWords {
  /** "the directory of blobs". */
  readonly name: string
  /** What is seen where the store should be and is not, and what to look at. */
  readonly notThere: string
  /** What to make where the blobs are lost permanently: "put a file store.json there". */
  readonly putAgain: string
  /** What is wrong where the store belongs to another ledger, and what to do. */
  readonly foreign: string
}

/**
 * A store carries the identity of its ledger in `store.json`. Without it, another environment's ledger would take all
 * blobs for garbage, and a disk that is not mounted, or a bucket that was emptied, would read as "all blobs are absent".
 */
export interface StoreIdentity {
  /**
   * Makes a new store this ledger's, or finds that a known one is.
   *
   * @throws UploadError `storage-unavailable` where no store is found, `setup` for another ledger's.
   */
  open(ledger: string, store: 'new' | 'known'): Promise<void>
  /** Before "absent" is believed of a blob. @throws UploadError `storage-unavailable` where no store is found. */
  expect(): Promise<void>
  /** The highest mark that the ledger has told the store; 0 where none can be read. */
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
        // Another node may have been faster, also one of another environment.
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
        // A mark that is torn says nothing.
        return 0
      }
    },
    writeMark: (mark) => io.replace(MARK_NAME, JSON.stringify({ mark })),
  }
}
