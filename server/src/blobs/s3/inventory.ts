import { UploadError } from '../../lib/errors.js'
import type { Quarantine, StoredBlob } from '../../ports/blob-store.js'
import { payloadOf } from './blocks.js'
import type { S3Calls } from './calls.js'
import type { Names } from './names.js'

export interface S3Inventory {
  list(): AsyncIterable<StoredBlob>
  sizeOf(key: string): Promise<number | null>
  hasUploadRemains(key: string): Promise<boolean>
  readonly quarantine: Quarantine
}

interface Item {
  readonly key: string | null
  readonly name: string
  readonly sizeBytes: number
  readonly modifiedAt: number
  readonly uploadId?: string
}

/** One sorted listing that can show its next item without taking it. */
interface Listing {
  peek(): Promise<Item | null>
  take(): void
}

function createListing(items: AsyncIterable<Item>): Listing {
  const iterator = items[Symbol.asyncIterator]()
  let next: Promise<IteratorResult<Item>> | null = null
  return {
    async peek() {
      const found = await (next ??= iterator.next())
      return found.done === true ? null : found.value
    },
    take: () => void (next = null),
  }
}

/**
 * Lists what the bucket contains under the prefix, whatever the ledger says: objects, unfinished uploads and pieces.
 * Each comes from a listing in the order of the keys, of which one page is in memory.
 */
export function createS3Inventory(deps: {
  calls: S3Calls
  names: Names
  remove: (key: string) => Promise<void>
}): S3Inventory {
  const { calls, names } = deps

  async function* objects(prefix: string, keyOf: (name: string) => string | null): AsyncIterable<Item> {
    for (let after: string | undefined; ;) {
      const { Contents = [], IsTruncated } = await calls.list(prefix, after)
      for (const { Key = '', Size = 0, LastModified } of Contents)
        yield { key: keyOf(Key), name: Key, sizeBytes: Size, modifiedAt: LastModified?.getTime() ?? 0 }
      after = Contents.at(-1)?.Key
      if (IsTruncated !== true || after === undefined) return
    }
  }
  async function* multiparts(prefix: string): AsyncIterable<Item> {
    let after: { name: string; uploadId: string } | null = null
    do {
      const found: Awaited<ReturnType<S3Calls['listMultiparts']>> = await calls.listMultiparts(prefix, after)
      for (const { name, uploadId, startedAt } of found.page)
        yield { key: names.keyOfBlob(name), name, sizeBytes: 0, modifiedAt: startedAt, uploadId }
      after = found.next
    } while (after !== null)
  }
  const markers = (prefix = names.quarantine): AsyncIterable<Item> =>
    objects(prefix, (name) => names.keyOfMarker(name)?.key ?? null)

  /** How many bytes of an unfinished upload are there without a gap. */
  async function partsBytes(name: string, uploadId: string): Promise<number> {
    const parts = (await calls.listParts(name, uploadId)) ?? []
    const gap = parts.findIndex(({ PartNumber }, index) => PartNumber !== index + 1)
    return (gap < 0 ? parts : parts.slice(0, gap)).reduce((sum, { Size = 0 }) => sum + Size, 0)
  }

  /** Everything that belongs to one key, as one blob: an object, or what an upload has brought so far. */
  async function merged(key: string, items: readonly Item[]): Promise<StoredBlob> {
    const modifiedAt = Math.max(...items.map((item) => item.modifiedAt))
    const blob = items.find(({ name, uploadId }) => uploadId === undefined && name === names.blob(key))
    if (blob !== undefined)
      return { key, name: blob.name, sizeBytes: blob.sizeBytes, modifiedAt, hasUploadRemains: items.length > 1 }
    let parts = 0
    let pieces = 0
    for (const { name, uploadId, sizeBytes } of items) {
      if (uploadId === undefined) pieces += sizeBytes
      else parts = Math.max(parts, await partsBytes(name, uploadId))
    }
    return { key, name: names.blob(key), sizeBytes: parts + pieces, modifiedAt }
  }

  /** Finds the blob of one key, whether it is in quarantine or not. */
  async function find(key: string): Promise<StoredBlob | null> {
    const found = await calls.head(names.blob(key))
    if (found !== null) return { key, name: names.blob(key), sizeBytes: found.sizeBytes, modifiedAt: found.modifiedAt }
    const items = await unfinished(key)
    return items.length === 0 ? null : merged(key, items)
  }
  async function unfinished(key: string): Promise<Item[]> {
    const items: Item[] = []
    for await (const item of objects(names.tailsOf(key), names.keyOfTail)) items.push(item)
    for await (const item of multiparts(names.blob(key))) if (item.key === key) items.push(item)
    return items
  }
  async function markerOf(key: string): Promise<string | null> {
    for await (const { name } of markers(names.markersOf(key))) return name
    return null
  }

  return {
    async *list() {
      const listings = [
        objects(names.blobs, names.keyOfBlob),
        objects(names.tails, names.keyOfTail),
        multiparts(names.blobs),
      ].map(createListing)
      const aside = createListing(markers())
      let last = ''
      for (;;) {
        const heads = await Promise.all(listings.map((listing) => listing.peek()))
        const foreign = heads.findIndex((head) => head !== null && head.key === null)
        if (foreign >= 0) {
          const { name, sizeBytes, modifiedAt } = heads[foreign] as Item
          listings[foreign]?.take()
          yield { key: null, name, sizeBytes, modifiedAt }
          continue
        }
        const [key] = heads.flatMap((head) => head?.key ?? []).toSorted()
        if (key === undefined) return
        if (key < last) throw new UploadError('setup', 'objectName: names are not in the order of their keys')
        last = key
        const items: Item[] = []
        for (const listing of listings)
          for (let head = await listing.peek(); head?.key === key; head = await listing.peek()) {
            items.push(head)
            listing.take()
          }
        let marker = await aside.peek()
        while (marker !== null && (marker.key === null || marker.key < key)) {
          aside.take()
          marker = await aside.peek()
        }
        if (marker?.key !== key) yield await merged(key, items)
      }
    },

    sizeOf: async (key) => ((await markerOf(key)) === null ? ((await find(key))?.sizeBytes ?? null) : null),

    hasUploadRemains: async (key) => (await calls.head(names.blob(key))) !== null && (await unfinished(key)).length > 0,

    // Quarantine puts a marker next to the blob and does not move it. A copy of terabytes takes hours and costs its
    // storage twice. And if a row for the blob appears later, its bytes are still where they were.
    quarantine: {
      async *list() {
        for await (const { name } of markers()) {
          const marked = names.keyOfMarker(name)
          const found = marked === null ? null : await find(marked.key)
          if (marked !== null && found !== null) yield { ...marked, sizeBytes: found.sizeBytes }
        }
      },
      async add(key, nowAt) {
        await calls.put(names.marker(key, nowAt), payloadOf([]))
      },
      async takeBack(key) {
        const marker = await markerOf(key)
        if (marker === null) return false
        await calls.delete(marker)
        return true
      },
      async remove(key) {
        const marker = await markerOf(key)
        if (marker === null) return
        await deps.remove(key)
        await calls.delete(marker)
      },
    },
  }
}
