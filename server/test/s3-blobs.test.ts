import { createHash, randomBytes } from 'node:crypto'
import { S3 } from '@aws-sdk/client-s3'
import type { JsonValue } from '@landfall/shared'
import { v4 as uuidv4, v7 as uuidv7 } from 'uuid'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type S3Blobs, s3Blobs, type S3BlobsOptions } from '../src/blobs/s3/s3-blobs.js'
import { foldedWith, partsIn, readNotes, sealedState, toState } from '../src/blobs/s3/notes.js'
import type { AppendRequest, BlobRef } from '../src/ports/blob-store.js'
import { chainOf, s3Server } from './s3.js'
import { answer, type Interfere, reset, Wire } from './s3-wire.js'

const { missing, config } = await s3Server()
const MiB = 1024 * 1024
const PART = 5 * MiB
const never = new AbortController().signal
const digestOf = (bytes: Uint8Array): string => `sha-256=:${createHash('sha256').update(bytes).digest('base64')}:`

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

async function* chunksOf(bytes: Uint8Array, ending: 'whole' | 'broken' = 'whole'): AsyncIterable<Uint8Array> {
  for (let at = 0; at < bytes.length; at += 65_536) yield bytes.subarray(at, at + 65_536)
  if (ending === 'broken') throw new Error('the connection was reset')
}

/** The part of an operation's row that concerns bytes: one lease at a time, and an offset that never falls. */
function createRow(size: number) {
  const key = uuidv7().replaceAll('-', '')
  const row = { offset: 0, state: null as JsonValue, holder: '' }
  return {
    key,
    row,
    ref: (): BlobRef => ({ key, size, state: row.state }),
    /** Gives the lease to `holder`. Records of earlier holders are refused from now on. */
    lease(holder: string): Pick<AppendRequest, 'offset' | 'acknowledge'> {
      row.holder = holder
      return {
        offset: row.offset,
        async acknowledge(offset, state) {
          if (row.holder !== holder) throw new Error('lease lost')
          expect(offset).toBeGreaterThanOrEqual(row.offset)
          row.offset = offset
          if (state !== undefined) row.state = state
          return true
        },
      }
    },
  }
}
type Row = ReturnType<typeof createRow>

async function send(store: S3Blobs, to: Row, source: AsyncIterable<Uint8Array>, holder = 'a', signal = never) {
  const lease = to.lease(holder)
  const appended = await store.append(to.ref(), { ...lease, source, signal })
  if (appended.outcome === 'kept') await lease.acknowledge(appended.offset, appended.state)
  return appended
}

describe.skipIf(missing !== null)(`S3${missing === null ? '' : ` (${missing})`}`, () => {
  let prefix: string
  let wire: Wire
  let store: S3Blobs
  const opened: S3Blobs[] = []
  const open = async (through: Wire, more: Partial<S3BlobsOptions> = {}): Promise<S3Blobs> => {
    const another = s3Blobs({
      s3ClientConfig: { ...config, requestHandler: through as never },
      prefix,
      partSize: PART,
      patienceMs: 0,
      ...more,
    })
    await another.open('ledger-1', 'new')
    opened.push(another)
    through.calls.length = 0
    return another
  }
  /** The bucket as an operator sees it, without the store. */
  const bare = new S3(config)
  async function everything(): Promise<string[]> {
    const { Contents = [] } = await bare.listObjectsV2({ Bucket: config.bucket, Prefix: prefix })
    const { Uploads = [] } = await bare.listMultipartUploads({ Bucket: config.bucket, Prefix: prefix })
    return [...Contents.map(({ Key = '' }) => Key), ...Uploads.map(({ Key = '' }) => `upload ${Key}`)]
      .map((name) => name.replace(prefix, ''))
      .filter((name) => name !== 'store.json')
  }
  const stored = async (to: Row): Promise<string> => (await store.inspect(to.ref(), never)).digest

  /** Changes the notes into those of a long upload, whose first parts are kept as one digest. */
  function fold(to: Row, parts: number): void {
    const notes = readNotes(to.row.state)
    if (notes === null) throw new Error('there are no notes')
    to.row.state = toState({
      ...notes,
      folded: { count: parts, etags: foldedWith('', notes.parts.slice(0, parts)) },
      parts: notes.parts.slice(parts),
    })
  }

  beforeEach(async () => {
    prefix = `${uuidv4()}/`
    wire = new Wire()
    store = await open(wire)
  })
  afterEach(async () => {
    for (const each of opened.splice(0)) await each.close()
  })

  test('one MiB costs two calls, one that stores it and one that reads it back', async () => {
    const bytes = randomBytes(MiB)
    const to = createRow(MiB)
    expect(await send(store, to, chunksOf(bytes))).toMatchObject({ offset: MiB, ended: 'whole' })
    expect(await store.seal(to.ref())).toBe('sealed')
    expect(await stored(to)).toBe(digestOf(bytes))
    expect(wire.calls).toEqual(['PUT blob', 'GET blob'])
    // After a restart the store must look for the object.
    expect(await (await open(new Wire())).seal(to.ref())).toBe('sealed')
  })

  test('parts are stored at their places, and an upload is completed only with all parts of the ledger', async () => {
    const bytes = randomBytes(3 * PART + 1_234)
    const to = createRow(bytes.length)
    await send(store, to, chunksOf(bytes.subarray(0, PART + 77), 'broken'))
    expect(to.row.offset).toBe(PART + 77)
    expect(await store.seal(to.ref())).toBe('short')
    expect(await store.sizeOf(to.key)).toBe(PART + 77)
    expect(await store.digestOf(to.ref(), PART + 77, never)).toEqual({
      digest: chainOf(bytes.subarray(0, PART + 77), PART),
      partBytes: PART,
    })
    await send(store, to, chunksOf(bytes.subarray(PART + 77)))
    expect(await store.digestOf(to.ref(), bytes.length, never)).toMatchObject({ digest: chainOf(bytes, PART) })
    expect(await store.seal(to.ref())).toBe('sealed')
    expect(await stored(to)).toBe(digestOf(bytes))
    expect(await everything()).toEqual([`blobs/${to.key}`])
  })

  test('if one part fails while later ones succeed, only bytes without a gap are acknowledged', async () => {
    const bytes = randomBytes(6 * PART)
    const to = createRow(bytes.length)
    wire.interfere = async (call, through) => (call === 'UploadPart 2' ? answer(500, 'InternalError') : through())
    await expect(send(store, to, chunksOf(bytes))).rejects.toMatchObject({ code: 'storage-unavailable' })
    expect(wire.calls).toContain('UploadPart 3')
    expect(to.row.offset).toBe(PART)
    wire.interfere = (_call, through) => through()
    expect(await send(store, to, chunksOf(bytes.subarray(PART)))).toMatchObject({ offset: bytes.length })
    expect(await store.seal(to.ref())).toBe('sealed')
    expect(await stored(to)).toBe(digestOf(bytes))
  })

  test('if the store sends ETags with or without quotes, a refused completion does not take one part for another', async () => {
    const bytes = randomBytes(2 * PART + 5)
    const to = createRow(bytes.length)
    let isRefused = false
    wire.interfere = async (call, through) => {
      if (call === 'Complete' && !isRefused) {
        isRefused = true
        return answer(400, 'InvalidPart')
      }
      const answered = await through()
      const { etag } = answered.response.headers
      if (call.startsWith('UploadPart') && etag !== undefined)
        answered.response.headers['etag'] = etag.replaceAll('"', '')
      return answered
    }
    await send(store, to, chunksOf(bytes))
    expect(await store.seal(to.ref())).toBe('sealed')
    expect(isRefused).toBe(true)
    expect(await stored(to)).toBe(digestOf(bytes))
  })

  test('a part that fails once is repeated from memory', async () => {
    const bytes = randomBytes(2 * PART + 5)
    const to = createRow(bytes.length)
    const failed = new Set<string>()
    wire.interfere = async (call, through) => {
      if (!call.startsWith('UploadPart') || failed.has(call)) return through()
      failed.add(call)
      if (call.endsWith('1')) return answer(503, 'SlowDown')
      if (call.endsWith('2')) return reset()
      await through()
      return reset()
    }
    expect(await send(store, to, chunksOf(bytes))).toMatchObject({ offset: bytes.length, ended: 'whole' })
    expect(failed.size).toBe(3)
    expect(await store.seal(to.ref())).toBe('sealed')
    expect(await stored(to)).toBe(digestOf(bytes))
  })

  for (const [what, size, first] of [
    ['a put', MiB, 'PUT blob'],
    ['an upload in parts', 2 * PART + 5, 'Create'],
    ['a part', 2 * PART + 5, 'UploadPart 1'],
  ] as const)
    test(`a store that is unavailable for some seconds is waited for: ${what}`, async () => {
      store = await open(wire, { patienceMs: 6_000 })
      const bytes = randomBytes(size)
      const to = createRow(bytes.length)
      let backAtMs: number | null = null
      wire.interfere = async (call, through) => {
        if (call === first) backAtMs ??= performance.now() + 4_000
        return backAtMs !== null && performance.now() < backAtMs ? reset() : through()
      }
      expect(await send(store, to, chunksOf(bytes))).toMatchObject({ offset: bytes.length, ended: 'whole' })
      expect(await store.seal(to.ref())).toBe('sealed')
      expect(await stored(to)).toBe(digestOf(bytes))
    }, 30_000)

  for (const [how, fault] of Object.entries<Interfere>({
    'lost after its effect': async (_call, through) => {
      await through()
      return reset()
    },
    'a 500 before it': async () => answer(500, 'InternalError'),
    'a 200 with an error in its body': async () => ({
      response: { ...answer(200, 'InternalError').response },
    }),
    'a 200 without any effect': async () => ({
      response: {
        statusCode: 200,
        headers: {},
        body: new TextEncoder().encode('<CompleteMultipartUploadResult></CompleteMultipartUploadResult>\n'),
      },
    }),
  }))
    test(`if the answer to the completion is ${how}, the stored object decides, and the blob is sealed`, async () => {
      const bytes = randomBytes(PART + 10)
      const to = createRow(bytes.length)
      await send(store, to, chunksOf(bytes))
      let faults = 0
      wire.interfere = (call, through, request) =>
        call === 'Complete' && faults++ < 1 ? fault(call, through, request) : through()
      expect(await store.seal(to.ref())).toBe('sealed')
      expect(faults).toBeGreaterThan(0)
      expect(await stored(to)).toBe(digestOf(bytes))
    })

  test('a store that is unavailable is a fault, and blobs never count as absent because of it', async () => {
    const bytes = randomBytes(PART + 10)
    const to = createRow(bytes.length)
    await send(store, to, chunksOf(bytes))
    for (const away of [
      async () => answer(503, 'SlowDown'),
      async () => answer(403, 'AccessDenied'),
      async () => reset(),
    ]) {
      wire.interfere = away
      const fault = { code: 'storage-unavailable' }
      await expect(store.seal(to.ref())).rejects.toMatchObject(fault)
      await expect(store.sizeOf(to.key)).rejects.toMatchObject(fault)
      await expect(store.recover(to.ref(), { offset: to.row.offset, writtenBy: null })).rejects.toMatchObject(fault)
      await expect(store.remove(to.key)).rejects.toMatchObject(fault)
    }
    wire.interfere = async () => answer(403, 'AccessDenied')
    await expect(store.seal(to.ref())).rejects.toThrow(/refuses .*credentials/)
  }, 60_000)

  test("if the store's own object is missing from the bucket, its blobs do not count as lost", async () => {
    const to = createRow(2 * PART)
    await send(store, to, chunksOf(randomBytes(PART), 'broken'))
    await bare.deleteObject({ Bucket: config.bucket, Key: `${prefix}store.json` })
    const empty = createRow(10)
    empty.row.offset = 5
    await expect(store.recover(empty.ref(), { offset: 5, writtenBy: null })).rejects.toMatchObject({
      code: 'storage-unavailable',
    })
    await expect(store.seal(empty.ref())).rejects.toMatchObject({ code: 'storage-unavailable' })
  })

  test('a multipart upload that was aborted from outside is lost and never completed', async () => {
    const bytes = randomBytes(2 * PART)
    const to = createRow(bytes.length)
    await send(store, to, chunksOf(bytes))
    const abort = async (row: Row) => {
      const { uploadId } = row.row.state as { uploadId: string }
      await bare.abortMultipartUpload({ Bucket: config.bucket, Key: `${prefix}blobs/${row.key}`, UploadId: uploadId })
    }
    await abort(to)
    expect(await store.seal(to.ref())).toBe('absent')
    const half = createRow(bytes.length)
    await send(store, half, chunksOf(bytes.subarray(0, PART + 9), 'broken'))
    await abort(half)
    expect(await store.recover(half.ref(), { offset: half.row.offset, writtenBy: null })).toEqual({ outcome: 'lost' })
    expect(await send(store, half, chunksOf(bytes.subarray(PART + 9)))).toEqual({ outcome: 'lost' })
    expect(await store.seal(half.ref())).toBe('absent')
  })

  test('acknowledged parts that were replaced by other content are lost, and no object is made of them', async () => {
    const bytes = randomBytes(2 * PART)
    const to = createRow(bytes.length)
    await send(store, to, chunksOf(bytes))
    await bare.uploadPart({
      Bucket: config.bucket,
      Key: `${prefix}blobs/${to.key}`,
      UploadId: (to.row.state as { uploadId: string }).uploadId,
      PartNumber: 1,
      Body: randomBytes(PART),
    })
    expect(await store.seal(to.ref())).toBe('absent')
  })

  test('a stored tail is removed only after the ledger has recorded what replaces it', async () => {
    const bytes = randomBytes(MiB)
    const to = createRow(MiB)
    await send(store, to, chunksOf(bytes.subarray(0, 1_000), 'broken'))
    const order: string[] = []
    wire.interfere = (call, through) => {
      if (call.endsWith('tail') || call === 'PUT blob') order.push(call)
      return through()
    }
    // While the ledger is unavailable, everything that it has recorded must stay.
    const lease = to.lease('a')
    const refusing = { ...lease, acknowledge: async () => false }
    await store.append(to.ref(), {
      ...refusing,
      source: chunksOf(bytes.subarray(1_000, 5_000), 'broken'),
      signal: never,
    })
    expect(order).toEqual(['PUT tail'])
    const again = to.lease('a')
    await store.append(to.ref(), {
      ...again,
      acknowledge: async (offset, state) => {
        order.push('acknowledged')
        return again.acknowledge(offset, state)
      },
      source: chunksOf(bytes.subarray(1_000)),
      signal: never,
    })
    expect(order).toEqual(['PUT tail', 'GET tail', 'PUT blob', 'acknowledged', 'DELETE tail'])
    expect(await store.seal(to.ref())).toBe('sealed')
    expect(await stored(to)).toBe(digestOf(bytes))
    // Uncounted leftovers were removed when the blob was sealed.
    expect(await everything()).toEqual([`blobs/${to.key}`])
  })

  test('a put overwrites nothing, and a second writer finds the whole blob', async () => {
    const bytes = randomBytes(10_000)
    const to = createRow(bytes.length)
    const other = await open(new Wire())
    await send(other, to, chunksOf(bytes), 'b')
    to.row.offset = 0
    expect(await send(store, to, chunksOf(randomBytes(10_000)), 'a')).toMatchObject({ offset: 10_000, ended: 'whole' })
    expect(await stored(to)).toBe(digestOf(bytes))
  })

  test('if the answer to a put is lost after its effect, the blob is found whole', async () => {
    const bytes = randomBytes(10_000)
    const to = createRow(bytes.length)
    let isFirst = true
    wire.interfere = async (call, through) => {
      const answered = await through()
      if (call === 'PUT blob' && isFirst) {
        isFirst = false
        return reset()
      }
      return answered
    }
    expect(await send(store, to, chunksOf(bytes))).toMatchObject({ offset: 10_000 })
    expect(await stored(to)).toBe(digestOf(bytes))
  })

  for (const where of ['UploadPart 2', 'PUT tail', 'PUT blob', 'Create'] as const)
    for (const moment of ['before', 'after'] as const)
      test(`a node that was suspended ${moment} its ${where} and has lost the lease changes nothing`, async () => {
        const size = where === 'PUT blob' || where === 'PUT tail' ? MiB : 3 * PART + 9
        const bytes = randomBytes(size)
        const to = createRow(size)
        let goOn = (): void => {}
        const stopped = new Promise<void>((resolve) => (goOn = resolve))
        let reached = (): void => {}
        const reaching = new Promise<void>((resolve) => (reached = resolve))
        wire.interfere = async (call, through) => {
          if (call !== where) return through()
          if (moment === 'after') {
            const answered = await through()
            reached()
            await stopped
            return answered
          }
          reached()
          await stopped
          return through()
        }
        const ending = where === 'PUT tail' ? 'broken' : 'whole'
        const paused = send(store, to, chunksOf(bytes.subarray(0, where === 'PUT tail' ? 5_000 : size), ending), 'a')
        paused.catch(() => {})
        await reaching
        await pause(50)
        const b = await open(new Wire())
        expect(await send(b, to, chunksOf(bytes.subarray(to.row.offset)), 'b')).toMatchObject({ offset: size })
        expect(await b.seal(to.ref())).toBe('sealed')
        const before = JSON.stringify(to.row)
        goOn()
        await paused.then(
          () => expect.fail('it has lost the lease'),
          () => {},
        )
        expect(JSON.stringify(to.row)).toBe(before)
        expect(await b.seal(to.ref())).toBe('sealed')
        expect((await b.inspect(to.ref(), never)).digest).toBe(digestOf(bytes))
        expect(await everything()).toEqual([`blobs/${to.key}`])
      })

  test('two nodes that complete the same upload both find it sealed', async () => {
    const bytes = randomBytes(2 * PART)
    const to = createRow(bytes.length)
    await send(store, to, chunksOf(bytes))
    const b = await open(new Wire())
    expect(await Promise.all([store.seal(to.ref()), b.seal(to.ref()), b.seal(to.ref())])).toEqual([
      'sealed',
      'sealed',
      'sealed',
    ])
    expect(await stored(to)).toBe(digestOf(bytes))
  })

  test('a node that continues an upload which another node has sealed learns that it is whole', async () => {
    const bytes = randomBytes(2 * PART)
    const to = createRow(bytes.length)
    await send(store, to, chunksOf(bytes.subarray(0, PART), 'broken'))
    const early = { ...to.row }
    await send(store, to, chunksOf(bytes.subarray(PART)))
    expect(await store.seal(to.ref())).toBe('sealed')
    Object.assign(to.row, early)
    expect(await store.recover(to.ref(), { offset: PART, writtenBy: null })).toMatchObject({ offset: bytes.length })
    const b = await open(new Wire())
    expect(await send(b, to, chunksOf(bytes.subarray(PART)), 'b')).toMatchObject({
      outcome: 'kept',
      offset: bytes.length,
      ended: 'whole',
    })
  })

  test('memory is bounded, and clients that send nothing do not delay others', async () => {
    const small = await open(wire, { memoryBytes: 12 * MiB, checkpointMs: 600_000 })
    const size = 2 * PART
    const stalled = await Promise.all(
      Array.from({ length: 8 }, async () => {
        const bytes = randomBytes(size)
        const to = createRow(size)
        let goOn = (): void => {}
        const silent = new Promise<void>((resolve) => (goOn = resolve))
        const source = async function* () {
          yield* chunksOf(bytes.subarray(0, 4 * MiB))
          await silent
          yield* chunksOf(bytes.subarray(4 * MiB))
        }
        return { bytes, to, goOn: () => goOn(), sent: send(small, to, source()) }
      }),
    )
    await pause(500)
    const bytes = randomBytes(4 * PART)
    const to = createRow(bytes.length)
    const fromMs = performance.now()
    expect(await send(small, to, chunksOf(bytes))).toMatchObject({ offset: bytes.length })
    expect(performance.now() - fromMs).toBeLessThan(5_000)
    expect(await small.seal(to.ref())).toBe('sealed')
    for (const each of stalled) each.goOn()
    for (const each of stalled) {
      expect(await each.sent).toMatchObject({ offset: size, ended: 'whole' })
      expect(await small.seal(each.to.ref())).toBe('sealed')
      expect((await small.inspect(each.to.ref(), never)).digest).toBe(digestOf(each.bytes))
    }
  }, 60_000)

  test('bytes of a slow client are acknowledged at intervals, in pieces that become one object', async () => {
    const slow = await open(wire, { checkpointMs: 150 })
    const fromMs = performance.now()
    const bytes = randomBytes(40 * 1_000)
    const to = createRow(bytes.length)
    const seen: number[] = []
    const lease = to.lease('a')
    const source = async function* () {
      for (let at = 0; at < bytes.length; at += 1_000) {
        yield bytes.subarray(at, at + 1_000)
        await pause(160)
      }
    }
    const appended = await slow.append(to.ref(), {
      ...lease,
      acknowledge: async (offset, state) => {
        seen.push(offset)
        return lease.acknowledge(offset, state)
      },
      source: source(),
      signal: never,
    })
    expect(appended).toMatchObject({ offset: bytes.length })
    // Each one comes when its piece is 150 ms old and the next check runs. On a busy machine both take longer.
    expect((performance.now() - fromMs) / seen.length).toBeLessThan(500)
    expect(wire.calls.filter((call) => call === 'GET tail')).toEqual([])
    expect(await slow.seal(to.ref())).toBe('sealed')
    expect(await stored(to)).toBe(digestOf(bytes))
    expect(await everything()).toEqual([`blobs/${to.key}`])
  }, 30_000)

  test('a writer that is asked to stop aborts its running calls', async () => {
    const bytes = randomBytes(3 * PART)
    const to = createRow(bytes.length)
    wire.interfere = async (call, through) => (call === 'UploadPart 2' ? new Promise<never>(() => {}) : through())
    // A request that is never answered is ended by its signal.
    const handle = wire.handle.bind(wire)
    wire.handle = (request, options) =>
      Promise.race([
        handle(request, options),
        new Promise<never>((_resolve, reject) => {
          const { abortSignal } = options ?? {}
          ;(abortSignal as AbortSignal | undefined)?.addEventListener('abort', () => reject(new Error('aborted')))
        }),
      ])
    const letGo = new AbortController()
    const sending = send(store, to, chunksOf(bytes), 'a', letGo.signal)
    await pause(400)
    const fromMs = performance.now()
    letGo.abort()
    expect(await sending).toMatchObject({ outcome: 'kept', offset: PART, ended: 'stopped' })
    expect(performance.now() - fromMs).toBeLessThan(2_000)
  })

  test('a removal leaves no object, no upload and no piece', async () => {
    const finished = createRow(2 * PART)
    await send(store, finished, chunksOf(randomBytes(2 * PART)))
    await store.seal(finished.ref())
    const half = createRow(3 * PART)
    await send(store, half, chunksOf(randomBytes(PART + 100), 'broken'))
    const small = createRow(MiB)
    await send(store, small, chunksOf(randomBytes(100), 'broken'))
    // These were left by an attempt that the ledger does not know.
    await bare.createMultipartUpload({ Bucket: config.bucket, Key: `${prefix}blobs/${small.key}` })
    await bare.putObject({ Bucket: config.bucket, Key: `${prefix}tails/${small.key}/x`, Body: 'x' })
    expect((await everything()).length).toBe(6)
    for (const { key } of [finished, half, small, finished]) await store.remove(key)
    expect(await everything()).toEqual([])
  })

  test('the inventory lists objects, unfinished uploads and foreign objects, each once', async () => {
    const rows = [createRow(100), createRow(2 * PART), createRow(MiB)] as const
    await send(store, rows[0], chunksOf(randomBytes(100)))
    await send(store, rows[1], chunksOf(randomBytes(PART + 5), 'broken'))
    await send(store, rows[2], chunksOf(randomBytes(7), 'broken'))
    await bare.putObject({ Bucket: config.bucket, Key: `${prefix}blobs/notes.txt`, Body: 'x' })
    const found: { key: string | null; sizeBytes: number }[] = []
    for await (const { key, sizeBytes } of store.list()) found.push({ key, sizeBytes })
    expect(found.filter(({ key }) => key !== null)).toEqual([
      { key: rows[0].key, sizeBytes: 100 },
      { key: rows[1].key, sizeBytes: PART + 5 },
      { key: rows[2].key, sizeBytes: 7 },
    ])
    expect(found.filter(({ key }) => key === null).length).toBe(1)
  })

  test('the inventory is complete and in order if it takes more than one answer of the store', async () => {
    const keys = Array.from({ length: 1_050 }, () => createRow(1).key)
    for (let at = 0; at < keys.length; at += 50)
      await Promise.all(
        keys.slice(at, at + 50).map((key, n) =>
          bare.putObject({
            Bucket: config.bucket,
            Key: `${prefix}${n % 2 ? 'blobs' : 'tails'}/${key}${n % 2 ? '' : '/x'}`,
            Body: 'x',
          }),
        ),
      )
    await bare.putObject({ Bucket: config.bucket, Key: `${prefix}tails/${keys[1]}/x`, Body: 'x' })
    const found: (string | null)[] = []
    for await (const { key } of store.list()) found.push(key)
    expect(found).toEqual(keys.toSorted())
  })

  test('a signed URL gives access to the blob', async () => {
    const bytes = randomBytes(1_000)
    const to = createRow(bytes.length)
    await send(store, to, chunksOf(bytes))
    const plain = s3Blobs({ s3ClientConfig: config, prefix })
    await plain.open('ledger-1', 'known')
    const url = await plain.presign(to.key, { expiresInSeconds: 60, contentDisposition: 'attachment' })
    const fetched = await fetch(url)
    expect(fetched.headers.get('content-disposition')).toBe('attachment')
    expect(Buffer.from(await fetched.arrayBuffer()).equals(bytes)).toBe(true)
    await plain.close()
  })

  test('object names that do not contain their key are refused', () => {
    const backwards = (key: string): string => `${(15 - Number.parseInt(key.slice(3, 4), 16)).toString(16)}/${key}`
    for (const objectName of [() => 'x', (key: string) => `${key}.bin`, backwards])
      expect(() => s3Blobs({ s3ClientConfig: config, objectName })).toThrow(expect.objectContaining({ code: 'setup' }))
  })

  test("parts that the ledger keeps as a digest are read from the store's list, and the upload is completed", async () => {
    const bytes = randomBytes(3 * PART + 1_000)
    const to = createRow(bytes.length)
    await send(store, to, chunksOf(bytes.subarray(0, 2 * PART + 70_000), 'broken'))
    fold(to, 2)
    expect(await store.recover(to.ref(), { offset: to.row.offset, writtenBy: null })).toMatchObject({
      outcome: 'kept',
      offset: to.row.offset,
    })
    expect((await store.digestOf(to.ref(), 2 * PART, never)).digest).toBe(chainOf(bytes.subarray(0, 2 * PART), PART))
    await send(store, to, chunksOf(bytes.subarray(to.row.offset)), 'b')
    expect(to.row.offset).toBe(bytes.length)
    wire.calls.length = 0
    expect(await store.seal(to.ref())).toBe('sealed')
    expect(wire.calls.filter((call) => call === 'ListParts')).toHaveLength(1)
    expect(await stored(to)).toBe(digestOf(bytes))
    // This also holds if the answer was lost, and with the notes of a sealed blob.
    expect(await store.seal(to.ref())).toBe('sealed')
    const before = await store.digestOf(to.ref(), bytes.length, never)
    to.row.state = sealedState(to.row.state)
    expect(JSON.stringify(to.row.state).length).toBeLessThan(400)
    expect(await store.seal(to.ref())).toBe('sealed')
    expect(await store.digestOf(to.ref(), bytes.length, never)).toEqual(before)
    expect(await store.recover(to.ref(), { offset: bytes.length, writtenBy: null })).toMatchObject({
      outcome: 'kept',
      offset: bytes.length,
    })
  })

  test('parts that do not match the digest count as lost bytes, and no object is made', async () => {
    const bytes = randomBytes(3 * PART)
    const to = createRow(bytes.length)
    await send(store, to, chunksOf(bytes))
    fold(to, 2)
    const notes = readNotes(to.row.state)
    // Another program has replaced the bytes of a part.
    await bare.uploadPart({
      Bucket: config.bucket,
      Key: `${prefix}blobs/${to.key}`,
      UploadId: notes?.uploadId ?? '',
      PartNumber: 1,
      Body: randomBytes(PART),
    })
    expect(await store.seal(to.ref())).toBe('absent')
    expect(await everything()).toEqual([`upload blobs/${to.key}`])
    expect(notes === null ? 0 : partsIn(notes)).toBe(3)
  }, 60_000)
})
