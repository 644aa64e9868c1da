import type { Dirent } from 'node:fs'
import { lstat, mkdir, readdir, rename, unlink } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { isKey } from '../key.js'
import { codeOf } from '../../lib/errors.js'
import { MODE } from '../../lib/private-modes.js'
import type { Quarantine, StoredBlob } from '../../ports/blob-store.js'
import type { DirectorySync } from './durable-files.js'

/** Lists what a directory of blobs contains, whatever the ledger says. */
export interface Inventory {
  /** In the order of the keys. Only one directory at a time is in memory. */
  list(): AsyncIterable<StoredBlob>
  readonly quarantine: Quarantine
}

const BLOBS = 'blobs'
const QUARANTINE = 'quarantine'

export function createInventory(
  root: string,
  pathOf: (key: string) => string,
  { sync, syncName, removeIfEmpty }: DirectorySync,
): Inventory {
  const aside = join(root, QUARANTINE)
  /**
   * The name of a file in quarantine contains the time since when it is there, because a moved file keeps its own
   * times.
   */
  const asideName = async (key: string): Promise<string | null> =>
    (await namesIn(aside)).find((name) => name.startsWith(`${key}.`)) ?? null

  /** Walks three levels of directories, the layout of the keys. A file at any other place was not made by Landfall. */
  async function* list(directory = join(root, BLOBS)): AsyncIterable<StoredBlob> {
    for (const entry of await entriesIn(directory)) {
      const path = join(directory, entry.name)
      if (entry.isDirectory()) yield* list(path)
      else {
        const found = await statOf(path)
        const key = isKey(entry.name) && pathOf(entry.name) === path && entry.isFile() ? entry.name : null
        if (found !== null) yield { key, name: path.slice(root.length + 1), ...found }
      }
    }
  }

  return {
    list: () => list(),
    quarantine: {
      async *list() {
        for (const name of await namesIn(aside)) {
          const [key = '', since = ''] = name.split('.')
          const found = await statOf(join(aside, name))
          if (found !== null && isKey(key) && /^\d+$/.test(since))
            yield { key, sizeBytes: found.sizeBytes, sinceAt: Number(since) }
        }
      },
      async add(key, nowAt) {
        await mkdir(aside, { recursive: true, mode: MODE.directory })
        const to = join(aside, `${key}.${nowAt}`)
        await rename(pathOf(key), to)
        await syncName(to)
        await sync(dirname(pathOf(key)))
        await removeIfEmpty(dirname(pathOf(key)))
      },
      async takeBack(key) {
        const name = await asideName(key)
        if (name === null) return false
        await mkdir(dirname(pathOf(key)), { recursive: true, mode: MODE.directory })
        await rename(join(aside, name), pathOf(key))
        await syncName(pathOf(key))
        await sync(aside)
        return true
      },
      async remove(key) {
        const name = await asideName(key)
        if (name === null) return
        await unlink(join(aside, name))
        await sync(aside)
      },
    },
  }
}

const namesIn = async (directory: string): Promise<string[]> => (await entriesIn(directory)).map(({ name }) => name)

/** A directory that a running request removes at this moment contains nothing any more. */
async function entriesIn(directory: string): Promise<Dirent[]> {
  try {
    const entries = await readdir(directory, { withFileTypes: true })
    return entries.toSorted((a, b) => (a.name < b.name ? -1 : 1))
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') return []
    throw error
  }
}

async function statOf(path: string): Promise<{ sizeBytes: number; modifiedAt: number } | null> {
  try {
    const { size, mtimeMs } = await lstat(path)
    return { sizeBytes: size, modifiedAt: Math.round(mtimeMs) }
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return null
    throw error
  }
}
