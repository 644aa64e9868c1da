import { mkdir, readdir, rename, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { fileBlobs } from '../src/blobs/file.js'
import type { BlobRef, BlobStore } from '../src/ports.js'
import { temporaryDirectory } from './fixtures.js'
import { content, digestOf, later } from './harness.js'

let directory: Awaited<ReturnType<typeof temporaryDirectory>>
let store: BlobStore
beforeEach(async () => {
  directory = await temporaryDirectory()
  store = fileBlobs({ directory: join(directory.path, 'blobs') })
  await store.open('ledger-1', 'new')
})
afterEach(async () => {
  await store.close()
  await directory.remove()
})

const blob: BlobRef = { key: '0192f0c1a2b3'.padEnd(32, '0'), size: 10, state: null }
const append = (offset: number, bytes: Uint8Array<ArrayBuffer>) =>
  store.append(blob, {
    offset,
    source: new Blob([bytes]).stream(),
    signal: new AbortController().signal,
    acknowledge: async () => true,
  })

test('a directory that is not mounted is a fault that passes, and never "the bytes are gone"', async () => {
  await append(0, content(5))
  await rename(join(directory.path, 'blobs'), join(directory.path, 'elsewhere'))
  await mkdir(join(directory.path, 'blobs'))
  const away = { code: 'storage-unavailable' }
  await expect(append(5, content(5))).rejects.toMatchObject(away)
  await expect(append(0, content(5))).rejects.toMatchObject(away)
  await expect(store.recover(blob, { offset: 5, writtenBy: null })).rejects.toMatchObject(away)
  await expect(store.seal(blob)).rejects.toMatchObject(away)
  await expect(store.read(blob.key, { start: 0, end: 5 })).rejects.toMatchObject(away)
  await expect(store.remove(blob.key)).rejects.toMatchObject(away)
  expect(await readdir(join(directory.path, 'blobs'))).toEqual([])

  await rename(join(directory.path, 'elsewhere'), join(directory.path, 'blobs'))
  expect(await append(5, content(10).subarray(5))).toMatchObject({ outcome: 'kept', offset: 10 })
  expect(await store.seal(blob)).toBe('sealed')
})

test('files lie in directories by time, are not for everybody, and leave no empty ones', async () => {
  await append(0, content(10))
  const path = join(directory.path, 'blobs', 'blobs', '0192f0', 'c1', blob.key)
  expect((await stat(path)).mode & 0o777).toBe(0o640 & ~process.umask())
  await store.remove(blob.key)
  expect(await readdir(join(directory.path, 'blobs', 'blobs', '0192f0'))).toEqual([])
  // Made anew under the same name: another directory, whose names are synced as well.
  expect(await append(0, content(10))).toMatchObject({ offset: 10 })
  expect(await store.seal(blob)).toBe('sealed')
})

test('a store that the ledger knows is never made anew where its disk is not mounted', async () => {
  await store.close()
  const empty = join(directory.path, 'mount-point')
  await mkdir(empty)
  store = fileBlobs({ directory: empty })
  await expect(store.open('ledger-1', 'known')).rejects.toMatchObject({
    code: 'storage-unavailable',
    message: expect.stringContaining('{"format":1,"ledger":"ledger-1"}'),
  })
  expect(await readdir(empty)).not.toContain('store.json')
  // As the message says, for blobs that are lost for good.
  await writeFile(join(empty, 'store.json'), '{"format":1,"ledger":"ledger-1"}')
  await store.open('ledger-1', 'known')
  expect(await append(0, content(10))).toMatchObject({ offset: 10 })
})

test('the digest is that of the stored bytes, also where bytes that nobody acknowledged were cut off', async () => {
  const large = { ...blob, size: 3 * 1024 * 1024 }
  const fill = (byte: number) => new Uint8Array(large.size).fill(byte)
  const send = (bytes: Uint8Array<ArrayBuffer>, acknowledged: boolean) =>
    store.append(large, {
      offset: 0,
      source: new Blob([bytes]).stream(),
      signal: new AbortController().signal,
      acknowledge: async () => acknowledged,
    })
  const digested = async () => (await store.inspect(large, new AbortController().signal)).digest
  await send(fill(1), false)
  await later(200)
  await send(fill(2), false)
  await store.seal(large)
  expect(await digested()).toBe(digestOf(fill(2)))
})

test('an identity that cannot be read is said, and not written anew', async () => {
  await store.close()
  await writeFile(join(directory.path, 'blobs', 'store.json'), '{"format":1,"led')
  store = fileBlobs({ directory: join(directory.path, 'blobs') })
  await expect(store.open('ledger-1', 'known')).rejects.toMatchObject({ code: 'setup' })
})

test('a closed store takes nothing', async () => {
  await store.close()
  await expect(append(0, content(5))).rejects.toMatchObject({ code: 'storage-unavailable' })
})
