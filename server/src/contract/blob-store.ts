import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import type { JsonValue } from '@landfall/shared'
import { v7 as uuidv7 } from 'uuid'
import type { AppendRequest, Appended, BlobRef, BlobStore } from '../ports/blob-store.js'
import { type RegisterTest, withFixture } from './suite.js'

/** A store at an empty place. */
export interface BlobStoreFixture {
  /** The store, already open with the identity `ledger-1`. */
  readonly store: BlobStore
  /** Closes the store as a process that ends normally would, and opens the same place again. */
  reopen(identity?: string): Promise<BlobStore>
  /** The name of a holder that wrote since the machine was booted. */
  readonly holder: string
  dispose(): Promise<void>
}

/** A blob with the store's notes, as the ledger would keep them. */
type Noted = { -readonly [K in keyof BlobRef]: BlobRef[K] }
const blob = (size: number): Noted => ({ key: uuidv7().replaceAll('-', ''), size, state: null })
const bytes = (size: number, seed = 1): Uint8Array<ArrayBuffer> =>
  Uint8Array.from({ length: size }, (_, n) => (n * 31 + seed * 7 + (n >> 8)) & 0xff)
const digestOf = (content: Uint8Array): string => `sha-256=:${createHash('sha256').update(content).digest('base64')}:`
const never = new AbortController().signal

/** Checks the digest of what the store has so far, in either of its two forms (see `Prefix`). */
async function proves(store: BlobStore, to: Noted, prefix: Uint8Array): Promise<void> {
  const { digest, partBytes = Infinity } = await store.digestOf(to, prefix.length, never)
  if (partBytes === Infinity) return assert.equal(digest, digestOf(prefix))
  let link = ''
  for (let at = 0; at < prefix.length; at += partBytes)
    link = digestOf(Buffer.from(link + digestOf(prefix.subarray(at, at + partBytes))))
  assert.equal(digest, link)
}

/** A source that delivers the chunks and then ends, breaks, or stays silent. */
function source(
  chunks: readonly Uint8Array[],
  ending: 'whole' | 'broken' | 'silent' = 'whole',
): ReadableStream<Uint8Array> {
  let at = 0
  return new ReadableStream({
    pull(controller) {
      const chunk = chunks[at++]
      if (chunk !== undefined) controller.enqueue(chunk)
      else if (ending === 'whole') controller.close()
      else if (ending === 'broken') controller.error(new Error('the connection was reset'))
    },
  })
}

async function append(
  store: BlobStore,
  to: Noted,
  offset: number,
  from: AsyncIterable<Uint8Array>,
  { acknowledge = async () => true, ...more }: Partial<AppendRequest> = {},
): Promise<Pick<Appended & { outcome: 'kept' }, 'outcome' | 'offset' | 'ended'> | { outcome: 'lost' }> {
  const note = (state?: JsonValue): void => {
    if (state !== undefined) to.state = state
  }
  const appended = await store.append(to, {
    offset,
    source: from,
    signal: never,
    acknowledge: async (upTo, state) => {
      const acknowledged = await acknowledge(upTo, state)
      if (acknowledged) note(state)
      return acknowledged
    },
    ...more,
  })
  if (appended.outcome === 'lost') return appended
  const { state, ...told } = appended
  note(state)
  return told
}

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const item of items) all.push(item)
  return all
}

/** As in UUIDs of version 7, the time comes first. */
const keyNumbered = (n: number): string =>
  `${(0x019000000000 + n * 1000).toString(16).padStart(12, '0')}${'7'.repeat(20)}`

async function stored(store: BlobStore, key: string, range: { start: number; end: number }): Promise<Uint8Array> {
  return new Uint8Array(await new Response(await store.read(key, range)).arrayBuffer())
}

/** What every blob store must do. It registers its cases with `test`, and each case gets its own fixture. */
export function blobStoreContract(test: RegisterTest, create: () => Promise<BlobStoreFixture>): void {
  const on = (name: string, body: (fixture: BlobStoreFixture) => Promise<void>): void =>
    test(name, () => withFixture(create, body))

  for (const size of [1, 10_240, 1024 * 1024, 3 * 1024 * 1024 + 5])
    on(
      `a store keeps ${size} bytes, seals them, computes their digest and reads them back`,
      async ({ store, reopen }) => {
        const content = bytes(size)
        const to = blob(size)
        const chunks = Array.from({ length: Math.ceil(size / 65_536) }, (_, n) =>
          content.subarray(n * 65_536, (n + 1) * 65_536),
        )
        assert.deepEqual(await append(store, to, 0, source(chunks)), { outcome: 'kept', offset: size, ended: 'whole' })
        assert.equal(await store.seal(to), 'sealed')
        assert.equal(await store.seal(to), 'sealed')
        for (const open of [async () => store, reopen]) {
          const opened = await open()
          const found = await opened.inspect(to, never)
          assert.equal(found.digest, digestOf(content))
          assert.deepEqual([...found.head.subarray(0, 8)], [...content.subarray(0, 8)])
          assert.ok(Buffer.from(await stored(opened, to.key, { start: 0, end: size })).equals(content))
          assert.equal(await opened.seal(to), 'sealed')
        }
      },
    )

  on('an empty blob is sealed without an append', async ({ store }) => {
    const to = blob(0)
    assert.equal(await store.seal(to), 'sealed')
    assert.equal((await store.inspect(to, never)).digest, digestOf(new Uint8Array()))
    assert.equal((await stored(store, to.key, { start: 0, end: 0 })).length, 0)
  })

  on('an append resumes where the last one ended, also after a restart', async ({ store, reopen }) => {
    const content = bytes(30_000)
    const to = blob(30_000)
    await append(store, to, 0, source([content.subarray(0, 10_000)]))
    assert.equal(await store.seal(to), 'short')
    const again = await reopen()
    assert.deepEqual(await append(again, to, 10_000, source([content.subarray(10_000)])), {
      outcome: 'kept',
      offset: 30_000,
      ended: 'whole',
    })
    assert.equal((await again.inspect(to, never)).digest, digestOf(content))
  })

  on('a second creation destroys nothing that was acknowledged', async ({ store }) => {
    const content = bytes(5_000)
    const to = blob(5_000)
    await append(store, to, 0, source([content]))
    assert.deepEqual(await append(store, to, 5_000, source([])), { outcome: 'kept', offset: 5_000, ended: 'whole' })
    assert.equal((await store.inspect(to, never)).digest, digestOf(content))
  })

  on('bytes that were never acknowledged are cut off', async ({ store }) => {
    const content = bytes(20_000)
    const to = blob(20_000)
    await append(store, { ...to }, 0, source([bytes(15_000, 9)]))
    await append(store, to, 0, source([content]))
    assert.equal((await store.inspect(to, never)).digest, digestOf(content))
  })

  on('what was received is kept when the source breaks', async ({ store }) => {
    const content = bytes(50_000)
    const to = blob(50_000)
    assert.deepEqual(await append(store, to, 0, source([content.subarray(0, 12_345)], 'broken')), {
      outcome: 'kept',
      offset: 12_345,
      ended: 'broken',
    })
    await append(store, to, 12_345, source([content.subarray(12_345)]))
    assert.equal((await store.inspect(to, never)).digest, digestOf(content))
  })

  on('an append stops when it is asked to, and keeps what it received', async ({ store }) => {
    const content = bytes(50_000)
    const to = blob(50_000)
    const stop = new AbortController()
    const onBytes = (): void => void setTimeout(() => stop.abort(), 10)
    assert.deepEqual(
      await append(store, to, 0, source([content.subarray(0, 10_000)], 'silent'), { signal: stop.signal, onBytes }),
      { outcome: 'kept', offset: 10_000, ended: 'stopped' },
    )
    assert.deepEqual(
      await append(store, to, 10_000, source([content.subarray(10_000)]), { signal: AbortSignal.abort() }),
      { outcome: 'kept', offset: 10_000, ended: 'stopped' },
    )
  })

  on('a source that is longer than the blob is refused', async ({ store }) => {
    const to = blob(1_000)
    assert.deepEqual(await append(store, to, 0, source([bytes(600), bytes(600)])), {
      outcome: 'kept',
      offset: 0,
      ended: 'excess',
    })
    assert.deepEqual(await append(store, to, 0, source([bytes(1_000)])), {
      outcome: 'kept',
      offset: 1_000,
      ended: 'whole',
    })
    assert.equal((await store.inspect(to, never)).digest, digestOf(bytes(1_000)))
  })

  on('an append acknowledges what is durable while it runs, and its offset never decreases', async ({ store }) => {
    const size = 40 * 1024 * 1024
    const chunk = bytes(1024 * 1024)
    const to = blob(size)
    const offsets: number[] = []
    const acknowledge = async (offset: number): Promise<boolean> => {
      offsets.push(offset)
      return true
    }
    await append(store, to, 0, source(Array.from({ length: 40 }, () => chunk)), { acknowledge })
    assert.ok(offsets.length >= 1, 'at least one checkpoint in 40 MiB')
    assert.deepEqual(
      offsets,
      offsets.toSorted((a, b) => a - b),
    )
    assert.ok(offsets.every((offset) => offset <= size))
  })

  on('an append whose lease was lost writes nothing more', async ({ store }) => {
    const size = 64 * 1024 * 1024
    const chunk = bytes(1024 * 1024)
    const to = blob(size)
    let given = 0
    const endless = new ReadableStream<Uint8Array>({
      async pull(controller) {
        if (given++ >= 64) return controller.close()
        await new Promise((resolve) => setTimeout(resolve, 5))
        controller.enqueue(chunk)
      },
    })
    const lost = append(store, to, 0, endless, {
      acknowledge: async () => {
        throw new Error('lease lost')
      },
    })
    await assert.rejects(lost, /lease lost/)
    assert.ok(given < 64, 'the source was read to its end')
  })

  on('a blob whose acknowledged bytes are missing is lost, and is never taken for complete', async ({ store }) => {
    const to = blob(5_000)
    assert.deepEqual(await append(store, to, 100, source([bytes(4_900)])), { outcome: 'lost' })
    assert.deepEqual(await store.recover(to, { offset: 100, writtenBy: null }), { outcome: 'lost' })
    assert.equal(await store.seal(to), 'absent')
    await append(store, to, 0, source([bytes(50)]))
    assert.deepEqual(await append(store, to, 100, source([bytes(4_900)])), { outcome: 'lost' })
    assert.deepEqual(await store.recover(to, { offset: 100, writtenBy: null }), { outcome: 'lost' })
    assert.equal(await store.seal(to), 'short')
  })

  on(
    'a recovery keeps what provably survived its receiver, and otherwise only what was acknowledged',
    async ({ store, reopen, holder }) => {
      const content = bytes(40_000)
      const to = blob(40_000)
      await append(store, to, 0, source([content.subarray(0, 30_000)], 'broken'))
      const again = await reopen()
      const recovered = async (from: Noted, offset: number, writtenBy: string | null): Promise<unknown> => {
        const found = await again.recover(from, { offset, writtenBy })
        return found.outcome === 'lost' ? 'lost' : found.offset
      }
      // A store with notes gets them from the ledger, and they say how far it came. There are no bytes beyond.
      if (to.state === null) {
        assert.equal(await recovered(to, 10_000, 'another-boot/1/x'), 10_000)
        assert.equal(await recovered(to, 10_000, null), 10_000)
        assert.equal(await recovered(to, 10_000, holder), 30_000)
      }
      for (const writtenBy of ['another-boot/1/x', null, holder])
        assert.equal(await recovered(to, 30_000, writtenBy), 30_000)
      assert.equal(await recovered(blob(10), 0, holder), 0)
      await append(again, to, 30_000, source([content.subarray(30_000)]))
      assert.equal((await again.inspect(to, never)).digest, digestOf(content))
    },
  )

  on('the digest of any prefix can be computed', async ({ store }) => {
    const size = 3 * 1024 * 1024
    const content = bytes(size)
    const to = blob(size)
    await append(store, to, 0, source([content.subarray(0, 2_500_000)]))
    for (const length of [0, 1, 1_000_000, 2_500_000]) await proves(store, to, content.subarray(0, length))
    await append(store, to, 2_500_000, source([content.subarray(2_500_000)]))
    assert.equal((await store.inspect(to, never)).digest, digestOf(content))
  })

  on('ranges of a blob can be read', async ({ store }) => {
    const content = bytes(10_000)
    const to = blob(10_000)
    await append(store, to, 0, source([content]))
    for (const [start, end] of [
      [0, 1],
      [9_999, 10_000],
      [1_234, 5_678],
      [5, 5],
    ] as const)
      assert.deepEqual([...(await stored(store, to.key, { start, end }))], [...content.subarray(start, end)])
  })

  on('finished and unfinished blobs can be removed, also several times', async ({ store }) => {
    for (const upTo of [3_000, 10_000]) {
      const to = blob(10_000)
      await append(store, to, 0, source([bytes(10_000).subarray(0, upTo)]))
      await store.remove(to.key)
      await store.remove(to.key)
      assert.equal(await store.seal(to), 'absent')
      await assert.rejects(store.read(to.key, { start: 0, end: 10 }), { code: 'storage-unavailable' })
    }
    await store.remove(blob(1).key)
  })

  on('a removal interrupts a running append, and nothing of the blob comes back', async ({ store }) => {
    const to = blob(10_000)
    const writing = append(store, to, 0, source([bytes(5_000)], 'silent'))
    await new Promise((resolve) => setTimeout(resolve, 50))
    await store.remove(to.key)
    assert.equal((await writing).outcome, 'kept')
    assert.equal(await store.seal(to), 'absent')
  })

  on('an append that was stopped before it began stores nothing', async ({ store }) => {
    const to = blob(10_000)
    await store.remove(to.key)
    const appended = await append(store, to, 0, source([bytes(5_000)]), { signal: AbortSignal.abort() })
    assert.deepEqual(appended, { outcome: 'kept', offset: 0, ended: 'stopped' })
    assert.equal(await store.seal(to), 'absent')
  })

  on('a second writer waits until the first descriptor is closed', async ({ store }) => {
    const to = blob(10_000)
    const content = bytes(10_000)
    const stop = new AbortController()
    const first = append(store, { ...to }, 0, source([bytes(4_000, 9)], 'silent'), { signal: stop.signal })
    await new Promise((resolve) => setTimeout(resolve, 30))
    const second = append(store, to, 0, source([content]))
    stop.abort()
    await first
    assert.deepEqual(await second, { outcome: 'kept', offset: 10_000, ended: 'whole' })
    assert.equal((await store.inspect(to, never)).digest, digestOf(content))
  })

  on('keys that the server did not make are refused', async ({ store }) => {
    for (const key of ['../x', '/etc/passwd', 'a\0b', 'a'.repeat(300), '', '..'])
      await assert.rejects(append(store, { ...blob(1), key }, 0, source([bytes(1)])), { code: 'storage-unavailable' })
  })

  on('the stored blobs are listed in the order of their keys', async ({ store }) => {
    assert.deepEqual(await collect(store.list()), [])
    const blobs = Array.from({ length: 30 }, (_, n) => ({ ...blob(n + 1), key: keyNumbered(n * 7919) }))
    for (const to of blobs.toReversed()) await append(store, to, 0, source([bytes(to.size)]))
    const listed = await collect(store.list())
    assert.deepEqual(
      listed.map(({ key, sizeBytes }) => ({ key, sizeBytes })),
      blobs.map(({ key, size }) => ({ key, sizeBytes: size })),
    )
    for (const { modifiedAt } of listed) assert.ok(Math.abs(modifiedAt - Date.now()) < 60_000)
    assert.equal(await store.sizeOf(blobs[4]?.key ?? ''), 5)
    assert.equal(await store.sizeOf(blob(1).key), null)
  })

  on('blobs move into quarantine and back, also after a restart', async ({ store, reopen }) => {
    const [first, second] = [blob(10), blob(20)]
    for (const to of [first, second]) await append(store, to, 0, source([bytes(to.size)]))
    await store.quarantine.add(first.key, 1_000)
    assert.equal(await store.sizeOf(first.key), null)
    assert.deepEqual(
      (await collect(store.list())).map(({ key }) => key),
      [second.key],
    )
    const again = await reopen()
    assert.deepEqual(await collect(again.quarantine.list()), [{ key: first.key, sizeBytes: 10, sinceAt: 1_000 }])
    assert.equal(await again.quarantine.takeBack(first.key), true)
    assert.equal(await again.quarantine.takeBack(first.key), false)
    assert.deepEqual(await stored(again, first.key, { start: 0, end: 10 }), bytes(10))
    await again.quarantine.add(second.key, 2_000)
    await again.quarantine.remove(second.key)
    await again.quarantine.remove(second.key)
    assert.deepEqual(await collect(again.quarantine.list()), [])
    assert.equal(await again.sizeOf(second.key), null)
  })

  on('the restore mark that was written last is kept', async ({ store, reopen }) => {
    assert.equal(await store.readMark(), 0)
    await store.writeMark(5)
    await store.writeMark(6)
    assert.equal(await (await reopen()).readMark(), 6)
  })

  on('a probe leaves nothing behind', async ({ store }) => {
    const { syncMs, freeBytes, totalBytes } = await store.probe()
    assert.ok(syncMs >= 0)
    if (freeBytes !== null && totalBytes !== null) assert.ok(freeBytes > 0 && freeBytes <= totalBytes)
    assert.deepEqual(await collect(store.list()), [])
  })

  on('a store belongs to one ledger', async ({ reopen }) => {
    await assert.rejects(reopen('ledger-2'), { code: 'setup' })
  })
}
