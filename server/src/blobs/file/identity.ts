import { open, readFile, rename } from 'node:fs/promises'
import { join } from 'node:path'
import * as v from 'valibot'
import { UploadError } from '../../lib/errors.js'
import { ELSE_DROPPED } from '../dropped.js'
import { codeOf, type DirectorySync, storageFault } from './durable-files.js'
import { MODE } from './private-modes.js'

const FILE_NAME = 'store.json'
const schema = v.object({ format: v.literal(1), ledger: v.string() })
const identityText = (ledger: string): string => JSON.stringify({ format: 1, ledger })

/**
 * A directory of blobs carries the identity of its ledger in `store.json`: another environment's ledger would take all
 * blobs for garbage, and a disk that is not mounted has no files either. `ledger` null asks only for the latter.
 *
 * @throws UploadError `storage-unavailable` where no store is found, `setup` for another ledger's.
 */
export async function expectStore(root: string, ledger: string | null): Promise<void> {
  const found = await readIdentity(join(root, FILE_NAME))
  if (found === null)
    throw new UploadError(
      'storage-unavailable',
      'the directory of blobs is empty, and the database knows of one that was not: is its disk mounted?' +
        (ledger === null
          ? ''
          : ` If its blobs are lost for good, put a file ${FILE_NAME} there that holds ${identityText(ledger)}`),
    )
  if (ledger !== null && found !== ledger)
    throw new UploadError(
      'setup',
      `this directory of blobs belongs to another database: give each environment a directory of its own. ${ELSE_DROPPED}`,
    )
}

const MARK_NAME = 'mark.json'
const markSchema = v.object({ mark: v.pipe(v.number(), v.integer(), v.minValue(0)) })

/** The highest mark that the ledger has told the store. One that is torn or gone says nothing: 0. */
export async function readMark(root: string): Promise<number> {
  try {
    return v.parse(markSchema, JSON.parse(await readFile(join(root, MARK_NAME), 'utf8'))).mark
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || error instanceof SyntaxError || v.isValiError(error)) return 0
    throw storageFault(error)
  }
}

export const writeMark = (root: string, mark: number, syncDirectory: DirectorySync['sync']): Promise<void> =>
  replace(root, MARK_NAME, JSON.stringify({ mark }), syncDirectory)

/** Makes the directory this ledger's store, or finds that it is. @throws UploadError `setup` as above */
export async function claim(root: string, ledger: string, syncDirectory: DirectorySync['sync']): Promise<void> {
  if ((await readIdentity(join(root, FILE_NAME))) === null)
    return replace(root, FILE_NAME, identityText(ledger), syncDirectory)
  await expectStore(root, ledger)
  // Who wrote it may have been killed before its name was durable.
  await syncDirectory(root)
}

/** Whole or not at all: written beside, synced, then renamed. */
async function replace(root: string, name: string, text: string, syncDirectory: DirectorySync['sync']): Promise<void> {
  const path = join(root, name)
  const draft = `${path}.new`
  const file = await open(draft, 'w', MODE.file)
  try {
    await file.writeFile(`${text}\n`)
    await file.sync()
  } finally {
    await file.close()
  }
  await rename(draft, path)
  await syncDirectory(root)
}

async function readIdentity(path: string): Promise<string | null> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return null
    throw storageFault(error)
  }
  try {
    return v.parse(schema, JSON.parse(text)).ledger
  } catch (error) {
    throw new UploadError('setup', 'store.json in the directory of blobs cannot be read', { cause: error })
  }
}
