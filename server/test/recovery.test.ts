import { rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { isReferenced } from '@landfall/shared'
import { afterEach, describe, expect, test } from 'vitest'
import { createHolderName } from '../src/lib/holder-name.js'
import { systemClock } from '../src/sequence/clock.js'
import { UploadError } from '../src/lib/errors.js'
import { kind } from '../src/kinds/kind.js'
import type { BlobStore } from '../src/ports/blob-store.js'
import type { Changes } from '../src/ports/ledger/leases.js'
import type { Clock } from '../src/ports/clock.js'
import type { Ledger } from '../src/ports/ledger.js'
import type { OperationKey } from '../src/ports/operation.js'
import { photos, type Tx } from './fixtures.js'
import {
  brokenBody,
  content,
  digestOf,
  eventually,
  later,
  newId,
  type Options,
  startServer,
  type TestServer,
} from './harness.js'

let server: TestServer
afterEach(() => server.close())
const start = async (
  kinds: Parameters<typeof startServer>[0],
  options: Options & Parameters<typeof startServer>[1] = {},
) => (server = await startServer(kinds, options))

const counted = () => {
  const calls = { scan: 0, reference: 0 }
  const file = kind({
    prepare: {
      scan: async ({ idempotencyKey }) => {
        calls.scan++
        return idempotencyKey
      },
    },
    onReference: async (tx: Tx, { operation, prepared }) => {
      calls.reference++
      await tx.insert(photos).values({ name: operation.file.name })
      return prepared['scan'] ?? null
    },
  })
  return { calls, file }
}

/** Brings an operation to a point, as a process that died there would have left it. */
async function leaveAt(key: OperationKey, changes: Changes): Promise<void> {
  const taken = await server.ledger.lease(key, { holder: 'dead', leaseMs: 0, purpose: 'drive' })
  if (taken.outcome !== 'granted') throw new Error(taken.outcome)
  await server.ledger.record(taken.lease, taken.operation, { ...changes, dueInMs: 0, release: true })
}

describe('the completer alone continues from', () => {
  const bytes = content(10)
  const contentFacts = { digest: digestOf(bytes), type: 'application/octet-stream' }
  test.each([
    ['declared, all bytes acknowledged', { offset: 10, tailBase: 0 }],
    ['received', { offset: 10, tailBase: 0, point: 'received' }],
    ['sealed', { offset: 10, tailBase: 0, point: 'sealed' }],
    ['verified', { offset: 10, tailBase: 0, point: 'verified', content: contentFacts }],
    [
      'verified, prepared',
      { offset: 10, tailBase: 0, point: 'verified', content: contentFacts, prepared: { scan: 'recorded' } },
    ],
  ] satisfies [string, Changes][])('%s', async (_name, changes) => {
    const { calls, file } = counted()
    const { declare, get, ledger, blobs, uploads, photos: rows } = await start({ file }, { digestGraceMs: 10 })
    const id = newId()
    await declare(id, { size: 10 })
    const operation = await ledger.find({ owner: 'ann', id })
    await blobs.append(
      { key: operation?.blobKey ?? '', size: 10, state: null },
      {
        offset: 0,
        source: new Blob([bytes]).stream(),
        signal: new AbortController().signal,
        acknowledge: async () => true,
      },
    )
    await leaveAt({ owner: 'ann', id }, changes)
    await uploads.runOnce()
    expect(await get(id)).toMatchObject({ recoveryPoint: 'completed', reference: { digest: digestOf(bytes) } })
    const prepared = 'prepared' in changes
    expect(calls).toEqual({ scan: prepared ? 0 : 1, reference: 1 })
    expect(await rows()).toEqual(['a.bin'])
  })

  test('declared, after its receiver died: bytes that survived are used', async () => {
    const { calls, file } = counted()
    const { declare, get, ledger, blobs, uploads } = await start({ file }, { digestGraceMs: 10 })
    for (const [holder, survives] of [
      [createHolderName(), true],
      ['another-boot/1/x', false],
    ] as const) {
      const id = newId()
      await declare(id, { size: 10 })
      const taken = await ledger.lease({ owner: 'ann', id }, { holder, leaseMs: 20, purpose: 'receive' })
      if (taken.outcome !== 'granted') throw new Error(taken.outcome)
      await blobs.append(
        { key: taken.operation.blobKey, size: 10, state: null },
        {
          offset: 0,
          source: new Blob([content(10)]).stream(),
          signal: new AbortController().signal,
          acknowledge: async () => false,
        },
      )
      await later(40)
      await uploads.runOnce()
      expect(await get(id)).toMatchObject(
        survives ? { recoveryPoint: 'completed', offset: 10 } : { recoveryPoint: 'declared', offset: 0 },
      )
    }
    expect(calls.reference).toBe(1)
  })

  test('a point whose blob has gone: the operation is rejected as bytes-lost and never completed', async () => {
    const { file } = counted()
    for (const point of ['declared', 'received', 'sealed'] as const) {
      const { declare, patch, get, uploads, directory } = await start({ file }, { digestGraceMs: 10 })
      const id = newId()
      await declare(id, { size: 10 })
      await patch(id, 0, content(5))
      await rm(join(directory, 'blobs', 'blobs'), { recursive: true })
      await leaveAt({ owner: 'ann', id }, { offset: 10, tailBase: 0, ...(point === 'declared' ? {} : { point }) })
      await uploads.runOnce()
      const found = await get(id)
      if (point === 'sealed') expect(found.recoveryPoint).toBe('sealed')
      else expect(found).toMatchObject({ recoveryPoint: 'rejected', problem: { code: 'bytes-lost' } })
      if (point !== 'sealed') await server.close()
    }
  })
})

test('the answer to the last PATCH does not wait for an earlier record that hangs', async () => {
  let release = (): void => {}
  const held = new Promise<void>((resolve) => (release = resolve))
  const file = kind({
    onReference: async () => {
      await later(200)
      return null
    },
  })
  const { declare, patch } = await start(
    { file },
    {
      ledgerOf: (ledger) => ({
        ...ledger,
        async record(...of) {
          await held
          return ledger.record(...of)
        },
      }),
    },
  )
  const id = newId()
  await declare(id, { size: 5 })
  const answer = await Promise.race([patch(id, 0, content(5)), later(3_000)])
  expect(answer?.headers.get('Landfall-Recovery-Point')).toBe('referenced')
  release()
})

describe('a failing application', () => {
  test('when onReference throws twice and then works, there is exactly one reference, and its rows are written once', async () => {
    let calls = 0
    const file = kind({
      onReference: async (tx: Tx, { operation }) => {
        await tx.insert(photos).values({ name: operation.file.name })
        if (++calls <= 2) throw new Error('not yet')
        return { calls }
      },
    })
    const {
      declare,
      patch,
      get,
      photos: rows,
    } = await start({ file }, { completer: 'automatic', completerIntervalMs: 1_000 })
    const id = newId()
    await declare(id, { size: 5 })
    expect((await patch(id, 0, content(5))).headers.get('Landfall-Recovery-Point')).toBe('verified')
    const done = await eventually(
      () => get(id),
      ({ recoveryPoint }) => isReferenced(recoveryPoint),
    )
    expect(done.reference).toMatchObject({ data: { calls: 3 } })
    expect(await rows()).toEqual(['a.bin'])
    expect(calls).toBe(3)
  })

  test('that never works is a stall, kept and visible, until an operator retries', async () => {
    let broken = true
    const file = kind({
      onReference: async (_tx: Tx) => {
        if (broken) throw new Error('the album table is missing')
        return null
      },
    })
    const { declare, patch, get, ledger, uploads } = await start(
      { file },
      { completer: 'automatic', completerIntervalMs: 50, maxAttempts: 2 },
    )
    const id = newId()
    await declare(id, { size: 5 })
    await patch(id, 0, content(5))
    const stalled = await eventually(
      () => get(id),
      (operation) => operation.stalled,
    )
    expect(stalled).toMatchObject({ recoveryPoint: 'verified', problem: { code: 'stalled' }, reference: null })
    expect((await ledger.find({ owner: 'ann', id }))?.lastError).toBe('the album table is missing')
    expect(await uploads.operator.retry({ owner: 'bob', id })).toBe(false)
    broken = false
    expect(await uploads.operator.retry({ owner: 'ann', id })).toBe(true)
    await eventually(
      () => get(id),
      ({ recoveryPoint, stalled: still }) => isReferenced(recoveryPoint) && !still,
    )
  })

  test('that has stalled is not run again by any request of a client, until an operator retries', async () => {
    let runs = 0
    let broken = true
    const file = kind({
      onReference: async (_tx: Tx) => {
        runs += 1
        if (broken) throw new Error('the album table is missing')
        return null
      },
    })
    const { declare, patch, get, head, create, uploads } = await start({ file }, { maxAttempts: 1 })
    const id = newId()
    await declare(id, { size: 5 })
    await patch(id, 0, content(5))
    const stalled = await eventually(
      () => get(id),
      (operation) => operation.stalled,
    )
    for (let again = 0; again < 5; again += 1)
      expect(await declare(id, { size: 5 })).toMatchObject({ status: 200, stalled: true, problem: { code: 'stalled' } })
    await create(5, { operationId: id, filename: 'a.bin', filetype: 'application/octet-stream' })
    await head(id)
    await patch(id, 4, content(1), { stock: true })
    await patch(id, 5, content(0))
    await uploads.runOnce()
    expect(runs).toBe(1)
    expect((await get(id)).recoveryPoint).toBe(stalled.recoveryPoint)
    broken = false
    expect(await uploads.operator.retry({ owner: 'ann', id })).toBe(true)
    await uploads.runOnce()
    expect(isReferenced((await get(id)).recoveryPoint)).toBe(true)
    expect(runs).toBe(2)
  }, 30_000)

  test('a prepare step that hangs is ended at its time limit, and tried again with the same idempotency key', async () => {
    const keys: string[] = []
    const file = kind({
      prepareTimeoutMs: 100,
      prepare: {
        scan: async ({ idempotencyKey, signal }) => {
          keys.push(idempotencyKey)
          if (keys.length === 1) await new Promise((resolve) => signal.addEventListener('abort', resolve))
          if (keys.length === 2) await new Promise(() => {})
          return null
        },
      },
      onReference: async (_tx: Tx) => null,
    })
    const { declare, patch, get } = await start({ file }, { completer: 'automatic', completerIntervalMs: 50 })
    const id = newId()
    await declare(id, { size: 5 })
    await patch(id, 0, content(5))
    await eventually(
      () => get(id),
      ({ recoveryPoint }) => isReferenced(recoveryPoint),
      8_000,
    )
    expect(new Set(keys).size).toBe(1)
    expect(keys.length).toBeGreaterThanOrEqual(2)
  })

  test('when PUT, PATCH and the completer drive at once, onReference takes effect once', async () => {
    const { calls, file } = counted()
    const { declare, patch, get, uploads, photos: rows } = await start({ file })
    const ids = Array.from({ length: 10 }, newId)
    await Promise.all(
      ids.map(async (id) => {
        await declare(id, { size: 5 })
        await Promise.all([
          patch(id, 0, content(5)),
          declare(id, { size: 5 }),
          uploads.runOnce(),
          declare(id, { size: 5 }),
          patch(id, 0, content(5), { stock: true }),
        ])
        await eventually(
          () => get(id),
          ({ recoveryPoint }) => isReferenced(recoveryPoint),
        )
      }),
    )
    expect(await rows()).toHaveLength(10)
    expect(calls.scan).toBe(10)
  })

  test('operations of a kind that this version does not know are left to a version that knows it', async () => {
    const { file } = counted()
    const { declare, patch, get, restart } = await start({ file, other: file }, { digestGraceMs: 60_000 })
    const id = newId()
    await declare(id, { size: 5 }, { kind: 'other', digest: 'pending' })
    await patch(id, 0, content(5))
    kindsWithout(server, 'other')
    await restart()
    await declare(id, { size: 5 }, { kind: 'other', digest: digestOf(content(5)) })
    await server.uploads.runOnce()
    expect(await get(id)).toMatchObject({ recoveryPoint: 'sealed', stalled: false, problem: null })
  })
})

describe('a ledger or a store that fails', () => {
  test('if the ledger is unavailable for a second after the last bytes, they are acknowledged and not sent again', async () => {
    let backAtMs = Number.POSITIVE_INFINITY
    let isAway = false
    const away =
      <A extends unknown[], T>(call: (...args: A) => Promise<T>) =>
      async (...args: A): Promise<T> => {
        if (isAway && performance.now() < backAtMs)
          throw new UploadError('ledger-unavailable', 'the database did not answer in time')
        return call(...args)
      }
    const { declare, patch, get } = await start(
      { file: kind({ onReference: async () => null }) },
      {
        ledgerOf: (ledger) => ({
          ...ledger,
          find: away(ledger.find),
          record: away(ledger.record),
          refer: async (...args) => {
            backAtMs = Math.min(backAtMs, performance.now() + 1_000)
            isAway = true
            return away(ledger.refer)(...args)
          },
        }),
      },
    )
    const id = newId()
    await declare(id, { size: 10 })
    const answered = await patch(id, 0, content(10))
    expect([answered.status, answered.headers.get('Upload-Offset')]).toEqual([204, '10'])
    await eventually(
      async () => {
        await server.uploads.runOnce()
        return get(id)
      },
      ({ recoveryPoint }) => isReferenced(recoveryPoint),
    )
  })

  test('if the answer to COMMIT is lost, the row is read again first, and there is one reference', async () => {
    const { calls, file } = counted()
    const ledgerOf = (ledger: Ledger<Tx>): Ledger<Tx> => ({
      ...ledger,
      refer: async (...args) => {
        await ledger.refer(...args)
        throw new UploadError('ledger-unavailable', 'the answer was lost')
      },
    })
    const { declare, patch, get, uploads, photos: rows } = await start({ file }, { ledgerOf })
    const id = newId()
    await declare(id, { size: 5 })
    await patch(id, 0, content(5))
    await eventually(
      () => get(id),
      ({ recoveryPoint }) => isReferenced(recoveryPoint),
    )
    await uploads.runOnce()
    expect(calls).toEqual({ scan: 1, reference: 1 })
    expect(await rows()).toEqual(['a.bin'])
  })

  test('an operation does not stall because the store is unavailable for a while', async () => {
    const { file } = counted()
    // One more than the number that would stall the operation, if these failures counted.
    let failures = 3
    const blobsOf = (blobs: BlobStore): BlobStore => ({
      ...blobs,
      seal: async (blob) => {
        if (failures-- > 0) throw new UploadError('storage-unavailable', 'the disk is away')
        return blobs.seal(blob)
      },
    })
    const { declare, patch, get, ledger } = await start(
      { file },
      { blobsOf, maxAttempts: 2, completer: 'automatic', completerIntervalMs: 50 },
    )
    const id = newId()
    await declare(id, { size: 5 })
    await patch(id, 0, content(5))
    await eventually(
      () => get(id),
      ({ recoveryPoint }) => isReferenced(recoveryPoint),
      // Each pause is up to 4 s.
      30_000,
    )
    expect((await ledger.find({ owner: 'ann', id }))?.attempts).toBe(0)
  })

  test('if the ledger is unavailable after the last byte, no answer is false, and nothing is sent again', async () => {
    const { file } = counted()
    const { ledgerOf, lastBytes, comeBack } = unreliable()
    const { create, patch, head, get } = await start({ file }, { ledgerOf })
    const id = newId()
    await create(5_000, { operationId: id, filename: 'a' })
    const completing = patch(id, 0, lastBytes(), { stock: true })
    await later(300)
    const status = head(id)
    await later(700)
    comeBack()
    expect((await completing).status).toBe(204)
    const shown = Number((await status).headers.get('Upload-Offset'))
    expect(shown).toBeGreaterThanOrEqual(5_000 - 448)
    await eventually(
      () => get(id),
      ({ recoveryPoint }) => isReferenced(recoveryPoint),
    )
  })

  test('if the ledger stays unavailable after the last byte, the answer is 503 without an offset, and the same process takes the lease again later', async () => {
    const { file, calls } = counted()
    const { ledgerOf, lastBytes, comeBack } = unreliable()
    const { declare, patch, get, ledger } = await start(
      { file },
      { ledgerOf, leaseMs: 600, completer: 'automatic', completerIntervalMs: 100, digestGraceMs: 10 },
    )
    const id = newId()
    await declare(id, { size: 5_000 })
    const answer = await patch(id, 0, lastBytes())
    expect([answer.status, answer.headers.get('Upload-Offset')]).toEqual([503, null])
    await later(1_500)
    comeBack()
    expect(await ledger.find({ owner: 'ann', id })).toMatchObject({ point: 'declared', offset: 0 })
    // The client has gone. The same process finds the operation whose lease it could not release.
    await eventually(
      () => get(id),
      ({ recoveryPoint }) => isReferenced(recoveryPoint),
    )
    expect(calls.reference).toBe(1)
  })

  test('a digest that arrives while a drive stops to wait for it is used at once', async () => {
    const { file } = counted()
    let between = async (): Promise<void> => {}
    const ledgerOf = (ledger: Ledger<Tx>): Ledger<Tx> => ({
      ...ledger,
      async record(lease, from, changes) {
        if (changes.release === true) await between()
        return ledger.record(lease, from, changes)
      },
    })
    const { declare, patch, get, ledger } = await start({ file }, { ledgerOf, digestGraceMs: 60_000 })
    const id = newId()
    await declare(id, { size: 5 }, { digest: 'pending' })
    between = async () => {
      between = async () => {}
      expect(await ledger.setDigest({ owner: 'ann', id }, digestOf(content(5)))).toBe('set')
    }
    await patch(id, 0, content(5))
    await eventually(
      () => get(id),
      ({ recoveryPoint }) => isReferenced(recoveryPoint),
    )
  })

  test('a full disk is answered with 507, and the upload succeeds once there is space', async () => {
    const { file } = counted()
    let full = true
    const blobsOf = (blobs: BlobStore): BlobStore => ({
      ...blobs,
      append: async (blob, request) => {
        if (full) throw new UploadError('storage-full', 'no space left')
        return blobs.append(blob, request)
      },
    })
    const { declare, patch, get } = await start({ file }, { blobsOf })
    const id = newId()
    await declare(id, { size: 5 })
    const refused = await patch(id, 0, content(5))
    expect([refused.status, refused.headers.get('Retry-After'), await refused.json()]).toMatchObject([
      507,
      '30',
      { code: 'storage-full' },
    ])
    full = false
    expect(await declare(id, { size: 5 })).toMatchObject({ offset: 0, recoveryPoint: 'declared' })
    await patch(id, 0, content(5))
    await eventually(
      () => get(id),
      ({ recoveryPoint }) => isReferenced(recoveryPoint),
    )
  })
})

describe('time', () => {
  test('an abandoned upload expires, its bytes are removed, and its id is still answered with "expired"', async () => {
    const { file } = counted()
    const { declare, patch, get, uploads, directory } = await start({ file }, { expiresAfterMs: 400 })
    const id = newId()
    await declare(id, { size: 10 })
    await later(250)
    await patch(id, 0, content(5))
    await later(250)
    await uploads.runOnce()
    expect(await get(id)).toMatchObject({ recoveryPoint: 'declared' })
    await later(300)
    await uploads.runOnce()
    expect(await get(id)).toMatchObject({ recoveryPoint: 'expired', problem: { code: 'expired' } })
    expect((await patch(id, 5, content(5))).status).toBe(410)
    expect(await declare(id, { size: 10 })).toMatchObject({ recoveryPoint: 'expired' })
    await expect(rm(join(directory, 'blobs', 'blobs'))).rejects.toThrow()
  })

  test('an upload survives a clock that is set eight days ahead and back', async () => {
    const { file } = counted()
    let aheadMs = 0
    const clock: Clock = { ...systemClock, now: () => Date.now() + aheadMs }
    const { declare, patch, get, uploads } = await start({ file }, { clock, expiresAfterMs: 500 })
    const id = newId()
    await declare(id, { size: 10 })
    await patch(id, 0, content(5))
    await later(600)
    aheadMs = 8 * 24 * 60 * 60_000
    await uploads.runOnce()
    expect(await get(id)).toMatchObject({ recoveryPoint: 'declared', offset: 5 })
    aheadMs = 0
    await patch(id, 5, content(10).subarray(5))
    await eventually(
      () => get(id),
      ({ recoveryPoint }) => isReferenced(recoveryPoint),
    )
  })

  test('after a start, clients have time to return before their uploads expire', async () => {
    const { file } = counted()
    const { declare, get, uploads, restart } = await start({ file }, { expiresAfterMs: 400 })
    const id = newId()
    await declare(id, { size: 10 })
    await later(500)
    await restart()
    await server.uploads.runOnce()
    expect(await get(id)).toMatchObject({ recoveryPoint: 'declared' })
    await later(500)
    await server.uploads.runOnce()
    expect(await get(id)).toMatchObject({ recoveryPoint: 'expired' })
    expect(uploads).not.toBe(server.uploads)
  })
})

test('draining ends requests at an acknowledged offset and releases the leases', async () => {
  const { file } = counted()
  const { declare, patch, restart } = await start({ file })
  const id = newId()
  await declare(id, { size: 10_000 })
  const sending = patch(id, 0, brokenBody([content(4_000)], 'silent'))
  await later(300)
  await restart()
  const ended = await sending
  expect([ended.status, ended.headers.get('Upload-Offset')]).toEqual([204, '4000'])
  const operation = await server.ledger.find({ owner: 'ann', id })
  expect([operation?.offset, operation?.leaseHolder, operation?.uncleanHolder]).toEqual([4_000, null, null])
})

test('a directory that one process has open is refused to another one', async () => {
  const { file } = counted()
  const { directory } = await start({ file })
  const { fileBlobs } = await import('../src/blobs/file/file-blobs.js')
  const second = fileBlobs({ directory: join(directory, 'blobs') })
  await expect(second.open('whatever', 'known')).rejects.toMatchObject({ code: 'setup' })
  await second.close()
})

test('if the disk is not mounted at the start, requests get 503, nothing is lost, and uploads resume once it is mounted', async () => {
  const { file } = counted()
  const { declare, patch, get, request, directory } = await start({ file })
  const [stored, half] = [newId(), newId()]
  await declare(stored, { size: 5 })
  await patch(stored, 0, content(5))
  await declare(half, { size: 10 })
  await patch(half, 0, content(5))
  const blobs = join(directory, 'blobs')
  await rename(blobs, `${blobs}-unmounted`)
  await expect(server.restart()).rejects.toMatchObject({ code: 'storage-unavailable' })
  expect((await patch(half, 5, content(5))).status).toBe(503)
  await rm(blobs, { recursive: true, force: true })
  await rename(`${blobs}-unmounted`, blobs)
  // The same process resumes the upload.
  expect((await patch(half, 5, content(10).subarray(5))).status).toBe(204)
  await eventually(
    () => get(half),
    ({ recoveryPoint }) => isReferenced(recoveryPoint),
  )
  expect((await request('GET', `/files/${stored}`)).status).toBe(200)
})

/** A ledger that can become unavailable, and a body that makes it so when its last byte has been read. */
function unreliable() {
  let away = false
  const faulty =
    <A extends unknown[], R>(method: (...args: A) => Promise<R>) =>
    async (...args: A): Promise<R> => {
      if (away) throw new UploadError('ledger-unavailable', 'the database is away')
      return method(...args)
    }
  return {
    ledgerOf: (ledger: Ledger<Tx>): Ledger<Tx> => ({
      ...ledger,
      record: faulty(ledger.record),
      refer: faulty(ledger.refer),
      lease: faulty(ledger.lease),
      leaseDue: faulty(ledger.leaseDue),
      renew: faulty(ledger.renew),
    }),
    lastBytes: () =>
      new ReadableStream<Uint8Array>(
        {
          start: (controller) => controller.enqueue(content(5_000)),
          pull(controller) {
            away = true
            controller.close()
          },
        },
        { highWaterMark: 1 },
      ),
    comeBack: () => void (away = false),
  }
}

function kindsWithout(started: TestServer, name: string): void {
  delete started.kinds[name]
}

test('draining answers long polls with the present state', async () => {
  const { file } = counted()
  const { declare, request, uploads } = await start({ file })
  const id = newId()
  await declare(id, { size: 10 })
  const polling = request('GET', `/operations?ids=${id}&wait=20`)
  await later(50)
  const startedAt = performance.now()
  await uploads.close()
  expect((await polling).status).toBe(200)
  expect(performance.now() - startedAt).toBeLessThan(5_000)
})
