import { mkdir, readdir, readFile, readlink, rename, stat, unlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { sql } from 'drizzle-orm'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { files } from '../src/blobs/file/durable-files.js'
import { fileBlobs } from '../src/blobs/file/file-blobs.js'
import { kind } from '../src/kinds/kind.js'
import type { BlobRef, BlobStore } from '../src/ports/blob-store.js'
import { temporaryDirectory, type Tx } from './fixtures.js'
import { content, digestOf, startServer } from './harness.js'

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

test('a directory that is not mounted is a temporary fault, and bytes never count as lost because of it', async () => {
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

test('files are in directories by time, have mode 0600, and leave no empty directories', async () => {
  await append(0, content(10))
  const path = join(directory.path, 'blobs', 'blobs', '0192f0', 'c1', blob.key)
  expect((await stat(path)).mode & 0o777).toBe(0o600)
  await store.remove(blob.key)
  expect(await readdir(join(directory.path, 'blobs', 'blobs', '0192f0'))).toEqual([])
  // A directory that is made again with the same name is a new one, whose names must be synced as well.
  expect(await append(0, content(10))).toMatchObject({ offset: 10 })
  expect(await store.seal(blob)).toBe('sealed')
})

test('a removal that was not synced is synced by the next removal of the same name', async () => {
  await append(0, content(10))
  const neighbour = { ...blob, key: '0192f0c1ffff'.padEnd(32, '0') }
  await store.append(neighbour, {
    offset: 0,
    source: new Blob([content(10)]).stream(),
    signal: new AbortController().signal,
    acknowledge: async () => true,
  })
  const names = join(directory.path, 'blobs', 'blobs', '0192f0', 'c1')
  const synced: string[] = []
  const sync = files.sync
  const spy = vi.spyOn(files, 'sync').mockImplementation(async (file) => {
    synced.push(await readlink(`/proc/self/fd/${file}`))
    return sync(file)
  })
  try {
    // A process that dies right after the removal leaves this state.
    await unlink(join(names, blob.key))
    await store.remove(blob.key)
    expect(synced).toEqual([names])
    await store.remove(neighbour.key)
    // The directory was removed too, and it was synced before that.
    await store.remove(blob.key)
    expect(synced).toEqual([names, names])
  } finally {
    spy.mockRestore()
  }
})

test('a file is made even if its directory is removed at the same moment', async () => {
  const other = '0192f0c1ffff'.padEnd(32, '0')
  for (let round = 0; round < 300; round += 1) {
    const [appended] = await Promise.all([
      append(0, content(10)),
      store.remove(other),
      store.remove(`${other.slice(0, -1)}1`),
    ])
    expect(appended).toMatchObject({ outcome: 'kept', offset: 10 })
    await store.remove(blob.key)
  }
})

test('a store that the ledger knows is not made again if its disk is not mounted', async () => {
  await store.close()
  const empty = join(directory.path, 'mount-point')
  await mkdir(empty)
  store = fileBlobs({ directory: empty })
  await expect(store.open('ledger-1', 'known')).rejects.toMatchObject({
    code: 'storage-unavailable',
    message: expect.stringContaining('{"format":1,"ledger":"ledger-1"}'),
  })
  expect(await readdir(empty)).not.toContain('store.json')
  // An operator does this, as the message says, if the blobs are lost permanently.
  await writeFile(join(empty, 'store.json'), '{"format":1,"ledger":"ledger-1"}')
  await store.open('ledger-1', 'known')
  expect(await append(0, content(10))).toMatchObject({ offset: 10 })
})

test('a store is known once it has its identity, and is never taken over from another ledger', async () => {
  const server = await startServer({ file: kind({ onReference: async (_tx: Tx) => null }) })
  try {
    const path = join(server.directory, 'blobs', 'store.json')
    const own = await readFile(path, 'utf8')
    const foreign = '{"format":1,"ledger":"another"}'
    expect(await server.ledger.migrate()).toMatchObject({ store: 'known' })
    // An older version leaves this state, and so does a crash between the identity and the mark.
    await server.db.run(sql`DELETE FROM landfall_meta WHERE key = 'store'`)
    await writeFile(path, foreign)
    await expect(server.restart()).rejects.toMatchObject({ code: 'setup' })
    expect(await readFile(path, 'utf8')).toBe(foreign)
    expect(await server.ledger.migrate()).toMatchObject({ store: 'new' })
    await writeFile(path, own)
    await server.uploads.ready()
    expect(await server.ledger.migrate()).toMatchObject({ store: 'known' })
  } finally {
    await server.close()
  }
})

test('the digest is that of the stored bytes, also if bytes that were not acknowledged were cut off', async () => {
  const pieceBytes = 1024 * 1024
  await store.close()
  store = fileBlobs({ directory: join(directory.path, 'blobs'), checkpointBytes: pieceBytes })
  await store.open('ledger-1', 'known')
  const large = { ...blob, size: 3 * pieceBytes }
  const piece = (byte: number) => new Uint8Array(pieceBytes).fill(byte)
  const { signal } = new AbortController()
  let acknowledged = 0
  /** There is a checkpoint after each piece, and only the first one is acknowledged. */
  const sendRest = (byte: number) => {
    let passed = (): void => {}
    const source = async function* () {
      for (let at = acknowledged; at < large.size; at += pieceBytes) {
        const checkpoint = new Promise<void>((resolve) => (passed = resolve))
        yield piece(byte)
        await checkpoint
      }
    }
    const acknowledge = async (offset: number) => {
      passed()
      if (acknowledged > 0) return false
      acknowledged = offset
      return true
    }
    return store.append(large, { offset: acknowledged, source: source(), signal, acknowledge })
  }
  await sendRest(1)
  // This waits until the hashing thread has handled all earlier messages.
  expect(await store.digestOf(large, pieceBytes, signal)).toEqual({ digest: digestOf(piece(1)) })
  await sendRest(2)
  expect(await store.seal(large)).toBe('sealed')
  expect((await store.inspect(large, signal)).digest).toBe(
    digestOf(Uint8Array.from(Buffer.concat([piece(1), piece(2), piece(2)]))),
  )
})

test('an identity that cannot be read is an error, and is not overwritten', async () => {
  await store.close()
  await writeFile(join(directory.path, 'blobs', 'store.json'), '{"format":1,"led')
  store = fileBlobs({ directory: join(directory.path, 'blobs') })
  await expect(store.open('ledger-1', 'known')).rejects.toMatchObject({ code: 'setup' })
})

test('a closed store refuses bytes', async () => {
  await store.close()
  await expect(append(0, content(5))).rejects.toMatchObject({ code: 'storage-unavailable' })
})

test('the store waits for a disk that refuses for a while, and reads the request only afterwards', async () => {
  let refusals = 0
  let pulled = false
  const denied = Object.assign(new Error('permission denied'), { code: 'EACCES' })
  const refuse = (): void => {
    expect(pulled).toBe(false)
    if ((refusals += 1) <= 3) throw denied
  }
  const { open, openNow } = files
  vi.spyOn(files, 'open').mockImplementation(async (...args) => {
    refuse()
    return open(...args)
  })
  vi.spyOn(files, 'openNow').mockImplementation((...args) => {
    refuse()
    return openNow(...args)
  })
  async function* source(): AsyncIterable<Uint8Array> {
    pulled = true
    vi.restoreAllMocks()
    yield content(10)
  }
  const kept = await store.append(blob, {
    offset: 0,
    source: source(),
    signal: new AbortController().signal,
    acknowledge: async () => true,
  })
  expect(kept).toMatchObject({ outcome: 'kept', offset: 10 })
  expect(refusals).toBeGreaterThan(3)
})
