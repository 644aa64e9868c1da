import { randomBytes } from 'node:crypto'
import { getEventListeners } from 'node:events'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { v4 as uuidv4, v7 as uuidv7 } from 'uuid'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { type S3Blobs, s3Blobs } from '../src/blobs/s3/s3-blobs.js'
import type { BlobRef } from '../src/ports/blob-store.js'
import { type Fault, type Proxy, type RecordedRequest, startProxy } from '../../e2e/ground/proxy.js'
import { digestOf, later } from './harness.js'
import { s3Server } from './s3.js'

// An object store that does not answer: each call has its time, and is made again.

const { missing, config } = await s3Server()
const MIB = 1024 * 1024
const TIME_LIMIT_MS = 500
const never = new AbortController().signal

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

/** Such a call about a blob: `parameter` begins one of its query, null: none of them says what it is about. */
const asks =
  (method: string, parameter: string | null) =>
  (request: RecordedRequest): boolean => {
    const [path = '', query = ''] = request.path.split('?')
    if (request.method !== method || !path.includes('/blobs/')) return false
    const names = query.split('&').filter((each) => !each.startsWith('x-id='))
    return parameter === null ? names.join('') === '' : names.some((each) => each.startsWith(parameter))
  }

describe.skipIf(missing !== null)(
  `an object store that does not answer${missing === null ? '' : ` (${missing})`}`,
  () => {
    let proxy: Proxy
    let store: S3Blobs
    let collecting: NodeJS.Timeout
    beforeEach(async () => {
      proxy = await startProxy({ targetPort: Number(new URL(config.endpoint).port) })
      store = s3Blobs({
        s3ClientConfig: { ...config, endpoint: proxy.origin },
        prefix: `${uuidv4()}/`,
        partSize: 5 * MIB,
        callTimeoutMs: TIME_LIMIT_MS,
      })
      await store.open('ledger-1', 'new')
      // What only a timer would keep is gone by then: Node 20 has lost time limits so.
      collecting = setInterval(collect, 100)
    })
    afterEach(async () => {
      clearInterval(collecting)
      await proxy.close()
      await store.close()
    })

    async function send(bytes: Buffer): Promise<BlobRef> {
      const blob = { key: uuidv7().replaceAll('-', ''), size: bytes.length, state: null }
      let state: BlobRef['state'] = null
      const source = (async function* () {
        for (let at = 0; at < bytes.length; at += 65_536) yield bytes.subarray(at, at + 65_536)
      })()
      const appended = await store.append(blob, {
        offset: 0,
        source,
        signal: never,
        acknowledge: async (_offset, noted) => {
          state = noted ?? null
          return true
        },
      })
      expect(appended).toMatchObject({ outcome: 'kept', offset: bytes.length })
      return { ...blob, state }
    }

    const SILENT: Fault = { kind: 'black-hole' }
    test.each<[string, number, Fault, (request: RecordedRequest) => boolean]>([
      ['PutObject', MIB, SILENT, asks('PUT', null)],
      ['CreateMultipartUpload', 7 * MIB, SILENT, asks('POST', 'uploads')],
      ['UploadPart, in its middle', 7 * MIB, { kind: 'black-hole', afterBodyBytes: MIB }, asks('PUT', 'partNumber=1')],
      [
        'CompleteMultipartUpload, after its effect',
        7 * MIB,
        { kind: 'swallow-answer', ending: 'black-hole' },
        asks('POST', 'uploadId='),
      ],
      ['HeadObject', 7 * MIB, SILENT, asks('HEAD', null)],
      ['GetObject', MIB, SILENT, asks('GET', null)],
    ])('%s: made again after its time', async (_call, size, fault, match) => {
      const bytes = randomBytes(size)
      const armed = proxy.arm(fault, { match })
      const startedMs = performance.now()
      const blob = await send(bytes)
      expect(await store.seal(blob)).toBe('sealed')
      expect((await store.inspect(blob, never)).digest).toBe(digestOf(bytes))
      expect(armed.matched).toHaveLength(1)
      expect(performance.now() - startedMs).toBeLessThan(8_000)
    })

    test('bytes that stop to come while they are read are a fault that passes', async () => {
      const bytes = randomBytes(3 * MIB)
      const blob = await send(bytes)
      proxy.setRate({ down: MIB })
      const reading = store.inspect(blob, never).catch((error: unknown) => error)
      await later(1_000)
      proxy.cut()
      const startedMs = performance.now()
      expect(await reading).toMatchObject({ code: 'storage-unavailable' })
      expect(performance.now() - startedMs).toBeLessThan(4_000)
      proxy.setRate(null)
      proxy.heal()
      expect((await store.inspect(blob, never)).digest).toBe(digestOf(bytes))
    })

    test('calls leave nothing behind on a signal that outlives them', async () => {
      const bytes = randomBytes(1_000)
      const blob = await send(bytes)
      // What Node 20 keeps of a signal that depends on another one it keeps as long as that other one.
      const any = vi.spyOn(AbortSignal, 'any')
      const { signal } = new AbortController()
      const left = (): unknown[] => [
        getEventListeners(signal, 'abort').length,
        ...Object.getOwnPropertySymbols(signal).map((each) => {
          const kept = (signal as unknown as Record<symbol, unknown>)[each]
          return kept instanceof Set ? [String(each), kept.size] : String(each)
        }),
      ]
      const look = async (): Promise<void> => {
        expect((await store.inspect(blob, signal)).digest).toBe(digestOf(bytes))
        expect((await store.digestOf(blob, 1_000, signal)).digest).toBe(digestOf(bytes))
        expect(await store.sizeOf(blob.key)).toBe(1_000)
        await (await store.read(blob.key, { start: 0, end: 10 })).cancel()
      }
      try {
        await look()
        const before = left()
        for (let n = 0; n < 3; n++) await look()
        expect([any.mock.calls.length, left()]).toEqual([0, before])
      } finally {
        any.mockRestore()
      }
    })

    test('a body that comes still ends with the signal of its reader', async () => {
      const blob = await send(randomBytes(3 * MIB))
      proxy.setRate({ down: MIB })
      const gone = new AbortController()
      const reading = store.inspect(blob, gone.signal).catch((error: unknown) => error)
      await later(1_000)
      const startedMs = performance.now()
      gone.abort(new Error('gone'))
      expect(await reading).toMatchObject({ message: 'gone' })
      expect(performance.now() - startedMs).toBeLessThan(1_000)
    })
  },
)
