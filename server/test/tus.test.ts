import { afterEach, describe, expect, test } from 'vitest'
import { kind, reject } from '../src/kinds/kind.js'
import type { Tx } from './fixtures.js'
import { photos } from './fixtures.js'
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

const plain = kind({ onReference: async (_tx: Tx) => null })
const start = async (
  kinds: Parameters<typeof startServer>[0] = { file: plain },
  options: Options & Parameters<typeof startServer>[1] = {},
) => (server = await startServer(kinds, options))

const offsetOf = (response: Response): number => Number(response.headers.get('Upload-Offset'))

/** A kind whose reference waits until `release` is called. */
function gated(outcome: 'accept' | 'reject' = 'accept') {
  let release = (): void => {}
  const released = new Promise<void>((resolve) => (release = resolve))
  const file = kind({
    prepare: {
      scan: async () => {
        await released
        return outcome === 'reject' ? reject('infected') : null
      },
    },
    onReference: async (tx: Tx, { operation }) => {
      await tx.insert(photos).values({ name: operation.file.name })
      return null
    },
  })
  return { file, release }
}

describe('tus 1.0.0', () => {
  test('OPTIONS names the extensions, also if other origins are allowed', async () => {
    const allowedOrigins = ['https://app.test']
    const { request } = await start({ file: plain }, { limits: { maxSizeBytes: 1_000 }, allowedOrigins })
    const preflight = await request('OPTIONS', '/files', {
      owner: null,
      headers: { Origin: 'https://app.test', 'Access-Control-Request-Method': 'POST' },
    })
    expect(preflight.headers.get('Access-Control-Allow-Methods')).toContain('POST')
    const options = await request('OPTIONS', '/files', { owner: null })
    expect(options.status).toBe(204)
    expect(options.headers.get('Tus-Version')).toBe('1.0.0')
    expect(options.headers.get('Tus-Extension')?.split(',')).toEqual([
      'creation',
      'creation-with-upload',
      'termination',
    ])
    expect(options.headers.get('Tus-Max-Size')).toBe('1000')
  })

  test('an upload can be created, queried, resumed and finished', async () => {
    const { create, head, patch, get } = await start()
    const id = newId()
    const created = await create(10, { operationId: id, filename: 'ä.txt', filetype: 'text/plain', albumId: '7' })
    expect([created.status, created.headers.get('Location'), created.headers.get('Tus-Resumable')]).toEqual([
      201,
      `/uploads/files/${id}`,
      '1.0.0',
    ])
    expect(await get(id)).toMatchObject({
      file: { name: 'ä.txt', type: 'text/plain', size: 10 },
      metadata: { albumId: '7' },
    })
    expect((await patch(id, 0, content(10).subarray(0, 4), { stock: true })).headers.get('Upload-Offset')).toBe('4')
    const status = await head(id)
    expect([
      status.status,
      offsetOf(status),
      status.headers.get('Upload-Length'),
      status.headers.get('Cache-Control'),
    ]).toEqual([200, 4, '10', 'no-store'])
    expect(status.headers.get('Upload-Metadata')).toContain('filename w6QudHh0')
    const done = await patch(id, 4, content(10).subarray(4), { stock: true })
    expect([done.status, offsetOf(done)]).toEqual([204, 10])
    expect(await get(id)).toMatchObject({ recoveryPoint: 'referenced', reference: { digest: digestOf(content(10)) } })
    expect(offsetOf(await head(id))).toBe(10)
  })

  test('an id is made if the client gives none', async () => {
    const { create, get } = await start()
    const location = (await create(10, { filename: 'a' })).headers.get('Location') ?? ''
    expect(await get(location.split('/').at(-1) ?? '')).toMatchObject({ status: 200, file: { name: 'a' } })
  })

  test('a repeated creation, also at once and after completion, gets the same Location, and the bytes stay', async () => {
    const { create, patch, get } = await start()
    const id = newId()
    const metadata = { operationId: id, filename: 'a' }
    const replays = await Promise.all(Array.from({ length: 8 }, () => create(10, metadata)))
    expect(new Set(replays.map((replay) => `${replay.status} ${replay.headers.get('Location')}`))).toEqual(
      new Set([`201 /uploads/files/${id}`]),
    )
    await patch(id, 0, content(4), { stock: true })
    expect((await create(10, metadata)).status).toBe(201)
    expect(await get(id)).toMatchObject({ offset: 4 })
    await patch(id, 4, content(10).subarray(4), { stock: true })
    const after = await create(10, metadata)
    expect([after.status, after.headers.get('Location')]).toEqual([201, `/uploads/files/${id}`])
    expect((await create(11, metadata)).status).toBe(422)
    expect((await create(10, { ...metadata, filename: 'b' })).status).toBe(422)
    expect(await get(id)).toMatchObject({ recoveryPoint: 'referenced', reference: { digest: digestOf(content(10)) } })
  })

  test('data in the creation request is taken once, and a repeated request does not write at offset 0', async () => {
    const { create, get, patch } = await start()
    const id = newId()
    const metadata = { operationId: id, filename: 'a' }
    const headers = { 'Content-Type': 'application/offset+octet-stream', 'Content-Length': '6' }
    const first = await create(10, metadata, { headers, body: content(10).subarray(0, 6) })
    expect([first.status, offsetOf(first)]).toEqual([201, 6])
    const replay = await create(10, metadata, { headers, body: content(6, 9) })
    expect([replay.status, offsetOf(replay)]).toEqual([201, 6])
    await patch(id, 6, content(10).subarray(6), { stock: true })
    expect(await get(id)).toMatchObject({ reference: { digest: digestOf(content(10)) } })

    const whole = newId()
    const at = await create(
      5,
      { operationId: whole, filename: 'a' },
      { headers: { ...headers, 'Content-Length': '5' }, body: content(5) },
    )
    expect([at.status, offsetOf(at)]).toEqual([201, 5])
    expect(await get(whole)).toMatchObject({ recoveryPoint: 'referenced' })
  })

  test('requests that the protocol forbids or that need a missing extension are refused', async () => {
    const { create, patch, request, head, get } = await start()
    const id = newId()
    await create(10, { operationId: id, filename: 'a' })
    const answers = [
      [await patch(id, 0, content(1), { headers: { 'Tus-Resumable': '0.2.0' } }), 412],
      [await patch(id, 0, content(1), { headers: { 'Content-Type': 'text/plain' } }), 415],
      [await patch(id, 0, content(1), { headers: { 'Upload-Offset': '-1' } }), 400],
      [await patch(id, 0, content(1), { headers: { 'Upload-Offset': '1e3' } }), 400],
      [await patch(id, 3, content(1)), 409],
      [await patch(id, 3, content(1), { stock: true }), 409],
      [await patch(id, 0, content(11), { headers: { 'Content-Length': '11' } }), 413],
      [await patch(id, 0, content(11)), 413],
      [await patch(newId(), 0, content(1)), 404],
      [await head(newId()), 404],
      [await create(null, { filename: 'a' }, { headers: { 'Upload-Defer-Length': '1' } }), 501],
      [await create(null, { filename: 'a' }), 400],
      [await create(10, { filename: 'a' }, { headers: { 'Upload-Concat': 'partial' } }), 501],
      [await create(-5, { filename: 'a' }), 400],
      [
        await request('POST', '/files', {
          headers: { 'Tus-Resumable': '1.0.0', 'Upload-Length': '1', 'Upload-Metadata': 'a b c' },
        }),
        400,
      ],
      [await request('POST', '/files', { headers: { 'Upload-Length': '1' } }), 412],
    ] as const
    expect(answers.map(([answer]) => answer.status)).toEqual(answers.map(([, status]) => status))
    for (const [answer] of answers)
      if (answer.body !== null && answer.status !== 404)
        expect(answer.headers.get('Content-Type')).toBe('application/problem+json')
    expect(await get(id)).toMatchObject({ offset: 0, recoveryPoint: 'declared' })
    expect((await patch(id, 0, content(10))).status).toBe(204)
  })

  test('an upload can be terminated only before it has a reference', async () => {
    const { create, patch, request, head } = await start()
    const [open, stored] = [newId(), newId()]
    for (const id of [open, stored]) await create(10, { operationId: id, filename: 'a' })
    await patch(stored, 0, content(10), { stock: true })
    const terminate = (id: string) => request('DELETE', `/files/${id}`, { headers: { 'Tus-Resumable': '1.0.0' } })
    expect((await terminate(open)).status).toBe(204)
    expect((await head(open)).status).toBe(410)
    expect((await patch(open, 0, content(1), { stock: true })).status).toBe(410)
    const again = await create(10, { operationId: open, filename: 'a' })
    expect([again.status, await again.json()]).toMatchObject([410, { code: 'cancelled' }])
    const refused = await terminate(stored)
    // The status is not 409, because stock clients repeat a request that was answered with 409.
    expect([refused.status, await refused.json()]).toMatchObject([403, { code: 'already-referenced', status: 403 }])
    const ours = await request('DELETE', `/operations/${stored}`)
    expect([ours.status, await ours.json()]).toMatchObject([409, { code: 'already-referenced', status: 409 }])
    expect((await head(stored)).status).toBe(200)
  })

  test('HEAD waits while authentication fails and is then 423, because a stock client begins again after any other fault', async () => {
    let failing = false
    const { create, head, request } = await start(
      { file: plain },
      {
        authenticate: async (c) => {
          if (failing) throw new Error('the sessions are away')
          return c.req.header('X-Owner') ?? null
        },
      },
    )
    const id = newId()
    await create(10, { operationId: id, filename: 'a' })
    failing = true
    const waiting = head(id)
    await later(500)
    failing = false
    expect((await waiting).status).toBe(200)
    failing = true
    const never = head(id)
    expect((await request('GET', `/operations/${id}`)).status).toBe(500)
    expect((await never).status).toBe(423)
    failing = false
    expect((await request('HEAD', `/files/${id}`, { owner: null, headers: { 'Tus-Resumable': '1.0.0' } })).status).toBe(
      401,
    )
  }, 15_000)

  test('X-HTTP-Method-Override can name PATCH and DELETE', async () => {
    const { create, request, get } = await start()
    const id = newId()
    await create(4, { operationId: id, filename: 'a' })
    const headers = {
      'Tus-Resumable': '1.0.0',
      'Upload-Offset': '0',
      'Content-Type': 'application/offset+octet-stream',
      'X-HTTP-Method-Override': 'PATCH',
    }
    expect((await request('POST', `/files/${id}`, { headers, body: content(2) })).status).toBe(204)
    expect(
      (
        await request('POST', `/files/${id}`, {
          headers: { 'Tus-Resumable': '1.0.0', 'X-HTTP-Method-Override': 'DELETE' },
        })
      ).status,
    ).toBe(204)
    expect(await get(id)).toMatchObject({ recoveryPoint: 'cancelled' })
  })
})

describe('bytes', () => {
  test('what was received is kept when the connection breaks', async () => {
    const { declare, patch, get } = await start()
    const id = newId()
    await declare(id, { size: 10_000 })
    await patch(id, 0, brokenBody([content(3_000), content(2_000)], 'broken'))
    expect(await get(id)).toMatchObject({ offset: 5_000 })
  })

  test('a silent connection gives way to the next request, and its bytes are kept', async () => {
    const { declare, patch, head } = await start()
    const id = newId()
    const bytes = content(10_000)
    await declare(id, { size: 10_000 })
    const silent = patch(id, 0, brokenBody([bytes.subarray(0, 4_000)], 'silent'))
    await later(600)
    const startedAt = performance.now()
    expect(await declare(id, { size: 10_000 })).toMatchObject({ offset: 4_000 })
    expect(performance.now() - startedAt).toBeLessThan(1_500)
    expect([(await silent).status, offsetOf(await silent)]).toEqual([204, 4_000])

    const second = patch(id, 4_000, brokenBody([bytes.subarray(4_000, 6_000)], 'silent'), { stock: true })
    await later(600)
    expect(offsetOf(await head(id))).toBe(6_000)
    expect((await second).status).toBe(204)

    // Its bytes have arrived, and it has not been silent for long.
    const third = patch(id, 6_000, brokenBody([bytes.subarray(6_000, 7_000)], 'silent'))
    await later(250)
    expect((await patch(id, 6_000, bytes.subarray(6_000))).status).toBe(409)
    await third
    expect((await patch(id, 7_000, bytes.subarray(7_000))).headers.get('Landfall-Recovery-Point')).toBe('referenced')
  })

  test('if two requests send the same bytes at once, one of them is taken, and the stored bytes are right', async () => {
    const { declare, patch, get } = await start()
    const id = newId()
    const bytes = content(200_000)
    await declare(id, { size: bytes.length })
    const answers = await Promise.all([patch(id, 0, bytes), patch(id, 0, bytes), patch(id, 0, bytes)])
    expect(answers.map(({ status }) => status).every((status) => [204, 409, 423].includes(status))).toBe(true)
    const { offset } = await get(id)
    if (offset < bytes.length) await patch(id, offset, bytes.subarray(offset))
    expect(await get(id)).toMatchObject({ recoveryPoint: 'referenced', reference: { digest: digestOf(bytes) } })
  })
})

describe('the withheld tail', () => {
  test('a stock client is shown an offset below the length until there is a reference, and the offset never falls', async () => {
    const { file, release } = gated()
    const { create, patch, head, photos: rows } = await start({ file })
    const id = newId()
    const size = 100_000
    await create(size, { operationId: id, filename: 'a' })
    const startedAt = performance.now()
    const completing = await patch(id, 0, content(size), { stock: true })
    expect(performance.now() - startedAt).toBeGreaterThan(1_900)
    expect(completing.status).toBe(204)
    let shown = offsetOf(completing)
    expect(shown).toBeGreaterThanOrEqual(size - 448)
    expect(shown).toBeLessThan(size)
    for (let n = 0; n < 2; n++) {
      await later(1_000)
      const next = offsetOf(await head(id))
      expect(next).toBeGreaterThan(shown)
      expect(next).toBeLessThan(size)
      shown = next
    }
    const held = patch(id, shown, content(size - shown), { stock: true })
    await later(300)
    expect(await rows()).toEqual([])
    release()
    const done = await held
    expect([done.status, offsetOf(done), await rows()]).toEqual([204, size, ['a']])
    expect(offsetOf(await head(id))).toBe(size)
  })

  test('other offsets are a conflict, and a PATCH for the tail waits for at most 8 s', async () => {
    const { file, release } = gated()
    const { create, patch } = await start({ file })
    const id = newId()
    await create(5_000, { operationId: id, filename: 'a' })
    const shown = offsetOf(await patch(id, 0, content(5_000), { stock: true }))
    expect((await patch(id, 0, content(5_000), { stock: true })).status).toBe(409)
    expect((await patch(id, 100, content(10), { stock: true })).status).toBe(409)
    const startedAt = performance.now()
    const held = await patch(id, shown, content(5_000 - shown), { stock: true })
    const tookMs = performance.now() - startedAt
    expect(tookMs).toBeGreaterThan(7_500)
    expect(tookMs).toBeLessThan(9_500)
    expect(held.status).toBe(204)
    expect(offsetOf(held)).toBeGreaterThan(shown)
    expect(offsetOf(held)).toBeLessThan(5_000)
    release()
    await eventually(
      () => patch(id, offsetOf(held), content(5_000 - offsetOf(held)), { stock: true }),
      (answer) => offsetOf(answer) === 5_000,
    )
  })

  test('after a rejection PATCH is 422, HEAD shows an offset below the length, and a new creation gets the same answer', async () => {
    const { file, release } = gated('reject')
    const { create, patch, head } = await start({ file })
    const id = newId()
    await create(5_000, { operationId: id, filename: 'a' })
    const completing = patch(id, 0, content(5_000), { stock: true })
    await later(100)
    release()
    const refused = await completing
    expect([refused.status, await refused.json()]).toMatchObject([422, { code: 'infected', status: 422 }])
    const status = await head(id)
    expect(status.status).toBe(200)
    expect(offsetOf(status)).toBeLessThan(5_000)
    expect((await patch(id, offsetOf(status), content(10), { stock: true })).status).toBe(422)
    const again = await create(5_000, { operationId: id, filename: 'a' })
    expect([again.status, await again.json()]).toMatchObject([422, { code: 'infected' }])
  })

  test('an empty file waits inside its creation', async () => {
    const { file, release } = gated()
    const { create, photos: rows } = await start({ file })
    const creating = create(0, { operationId: newId(), filename: 'empty' })
    await later(300)
    expect(await rows()).toEqual([])
    release()
    expect((await creating).status).toBe(201)
    expect(await rows()).toEqual(['empty'])
    await server.close()

    const no = gated('reject')
    await start({ file: no.file })
    no.release()
    const refused = await server.create(0, { operationId: newId(), filename: 'empty' })
    expect([refused.status, await refused.json()]).toMatchObject([422, { code: 'infected' }])
  })

  test("Landfall's own client is told at once that all bytes are durable", async () => {
    const { file, release } = gated()
    const { declare, patch, get } = await start({ file })
    const id = newId()
    await declare(id, { size: 5_000 })
    const startedAt = performance.now()
    const sent = await patch(id, 0, content(5_000))
    expect([sent.status, offsetOf(sent), sent.headers.get('Landfall-Recovery-Point')]).toEqual([204, 5_000, 'verified'])
    expect(performance.now() - startedAt).toBeLessThan(1_000)
    expect((await patch(id, 5_000, null)).status).toBe(204)
    release()
    expect(
      await eventually(
        () => get(id),
        ({ recoveryPoint }) => recoveryPoint === 'referenced',
      ),
    ).toBeTruthy()
  })

  test("Landfall's own client does not wait for a hook that hangs before it writes", async () => {
    let release = (): void => {}
    const released = new Promise<void>((resolve) => (release = resolve))
    const file = kind({
      onReference: async (_tx: Tx) => {
        await released
        return null
      },
    })
    const { declare, patch, get } = await start({ file })
    const id = newId()
    await declare(id, { size: 5 })
    const sent = await patch(id, 0, content(5))
    expect([sent.status, offsetOf(sent), sent.headers.get('Landfall-Recovery-Point')]).toEqual([204, 5, 'verified'])
    release()
    await eventually(
      () => get(id),
      ({ recoveryPoint }) => recoveryPoint === 'referenced',
    )
  })
})
