import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
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
import * as v from 'valibot'

let server: TestServer
afterEach(() => server.close())

const photo = kind({
  metadata: v.object({ albumId: v.pipe(v.string(), v.minLength(1)) }),
  accept: ['image/*'],
  maxSizeBytes: 1_000_000,
  authorize: ({ owner, metadata }) => metadata.albumId !== 'secret' || owner === 'boss',
  onReference: async (tx: Tx, { operation, blob }) => {
    await tx.insert(photos).values({ name: `${operation.metadata.albumId}/${operation.file.name}` })
    return { photo: operation.file.name, size: blob.size, type: blob.type }
  },
})
const plain = kind({ onReference: async (_tx: Tx) => null })
const start = async (
  kinds: Parameters<typeof startServer>[0] = { file: plain },
  options: Options & Parameters<typeof startServer>[1] = {},
) => (server = await startServer(kinds, options))

const PNG = Uint8Array.from([
  0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 13, 0x49, 0x48, 0x44, 0x52, 0, 0, 0, 1, 0, 0, 0, 1, 8, 2, 0,
  0, 0,
])

describe('declare or continue', () => {
  test('an operation that was declared without a kind, when there was only one, can still be repeated without it when there are two', async () => {
    const { declare, kinds } = await start({ file: plain })
    const id = newId()
    await declare(id, { size: 10 })
    kinds['other'] = plain
    await server.restart()
    expect(await declare(id, { size: 10 })).toMatchObject({ status: 200, kind: 'file' })
    expect(await declare(newId(), { size: 10 })).toMatchObject({ status: 422, code: 'unknown-kind' })
  })

  test('a small file takes two requests', async () => {
    const { declare, patch, get, photos: rows } = await start({ photo })
    const id = newId()
    const declared = await declare(
      id,
      { size: PNG.length, name: 'a.png', type: 'image/png' },
      { metadata: { albumId: '7' }, digest: digestOf(PNG) },
    )
    expect(declared).toMatchObject({
      status: 201,
      id,
      kind: 'photo',
      recoveryPoint: 'declared',
      offset: 0,
      uploadUrl: `/uploads/files/${id}`,
      reference: null,
      problem: null,
      digest: digestOf(PNG),
    })
    const sent = await patch(id, 0, PNG)
    expect([sent.status, sent.headers.get('Upload-Offset'), sent.headers.get('Landfall-Recovery-Point')]).toEqual([
      204,
      String(PNG.length),
      'referenced',
    ])
    const { status, recoveryPoint, reference } = await get(id)
    expect([status, recoveryPoint]).toEqual([200, 'referenced'])
    expect(reference).toMatchObject({
      operationId: id,
      size: PNG.length,
      type: 'image/png',
      digest: digestOf(PNG),
      digestSource: 'client',
      url: `/uploads/files/${id}`,
      data: { photo: 'a.png', size: PNG.length, type: 'image/png' },
    })
    expect(await rows()).toEqual(['7/a.png'])
    expect(
      await declare(id, { size: PNG.length, name: 'a.png', type: 'image/png' }, { metadata: { albumId: '7' } }),
    ).toMatchObject({ status: 200, recoveryPoint: 'referenced', reference: { operationId: id } })
  })

  test('the same declaration, at once or later, is one operation; other facts are refused, and nothing changes', async () => {
    const { declare, patch, get } = await start()
    const id = newId()
    const answers = await Promise.all(Array.from({ length: 10 }, () => declare(id, { size: 10 })))
    expect(answers.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([
      200, 200, 200, 200, 200, 200, 200, 200, 200, 201,
    ])
    await patch(id, 0, content(4))
    expect(await declare(id.toUpperCase(), { size: 10 })).toMatchObject({ status: 200, id, offset: 4 })
    for (const [file, more] of [
      [{ size: 11 }, {}],
      [{ size: 10, name: 'b' }, {}],
      [{ size: 10, type: 'text/plain' }, {}],
      [{ size: 10 }, { metadata: { a: 1 } }],
      [{ size: 10 }, { kind: 'other' }],
    ] as const)
      expect(await declare(id, file, more)).toMatchObject({
        status: 422,
        code: 'operation-mismatch',
        type: 'urn:landfall:problem:operation-mismatch',
      })
    await patch(id, 4, content(10).subarray(4))
    expect(await get(id)).toMatchObject({ recoveryPoint: 'referenced', reference: { digest: digestOf(content(10)) } })
    expect(await declare(id, { size: 11 })).toMatchObject({ status: 422, code: 'operation-mismatch' })
  })

  test('the order of metadata, lastModified and the digest are not compared as facts', async () => {
    const { declare } = await start()
    const id = newId()
    const withTime = { size: 10, lastModified: 5 }
    await declare(id, { size: 10 }, { metadata: { a: 1, b: { c: [1, 2], d: null } } })
    expect(
      await declare(id, withTime, { metadata: { b: { d: null, c: [1, 2] }, a: 1 }, digest: 'pending' }),
    ).toMatchObject({ status: 200 })
    expect(await declare(id, { size: 10 }, { metadata: { b: { d: null, c: [2, 1] }, a: 1 } })).toMatchObject({
      status: 422,
    })
  })

  test('invalid input is refused and stores nothing', async () => {
    const { declare, request, ledger } = await start({ photo }, { limits: { maxMetadataBytes: 200 } })
    const good = { size: 10, type: 'image/png' }
    const metadata = { albumId: '7' }
    const id = newId()
    const answers = [
      [await declare(id, { ...good, size: 1_000_001 }, { metadata }), 413, 'too-large'],
      [await declare(id, { ...good, size: -1 }, { metadata }), 400, 'invalid-request'],
      [await declare(id, { ...good, size: 1.5 }, { metadata }), 400, 'invalid-request'],
      [await declare(id, { ...good, name: 'a\u0000b' }, { metadata }), 400, 'invalid-request'],
      [await declare(id, { ...good, name: 'x'.repeat(2_000) }, { metadata }), 400, 'invalid-request'],
      [await declare(id, { ...good, type: 'text/html' }, { metadata }), 415, 'type-not-accepted'],
      [await declare(id, good, { metadata: {} }), 422, 'invalid-metadata'],
      [await declare(id, good, { metadata: { albumId: 7 } }), 422, 'invalid-metadata'],
      [await declare(id, good, { metadata: { albumId: '7', more: 'x'.repeat(300) } }), 413, 'metadata-too-large'],
      [await declare(id, good, { metadata: { albumId: 'secret' } }), 403, 'forbidden'],
      [await declare(id, good, { metadata, kind: 'video' }), 422, 'unknown-kind'],
      [await declare(id, good, { metadata, kind: '__proto__' }), 422, 'unknown-kind'],
      [await declare(id, good, { metadata, digest: 'sha-256=:no:' }), 400, 'invalid-request'],
    ] as const
    for (const [answer, status, code] of answers) expect([answer.status, answer.code]).toEqual([status, code])
    for (const body of ['', '{', '[]', 'null'])
      expect((await request('PUT', `/operations/${id}`, { body })).status).toBe(400)
    const deep = `{"file":{"name":"a","size":1,"type":""},"metadata":${'{"a":'.repeat(2_000)}1${'}'.repeat(2_000)}}`
    expect((await request('PUT', `/operations/${id}`, { body: deep })).status).toBe(400)
    expect((await request('PUT', `/operations/${id}`, { body: 'x'.repeat(100_000) })).status).toBe(413)
    expect((await request('PUT', `/operations/${id}`, { owner: null, body: '{}' })).status).toBe(401)
    expect(await ledger.find({ owner: 'ann', id })).toBeNull()
    expect(answers[0][0]).toMatchObject({ detail: 'at most 1000000 bytes', title: 'The file is too large' })
  })

  test('the kind must be named if there are several', async () => {
    const { declare } = await start({ a: plain, b: plain })
    expect(await declare(newId(), { size: 1 })).toMatchObject({ status: 422, code: 'unknown-kind' })
    expect(await declare(newId(), { size: 1 }, { kind: 'b' })).toMatchObject({ status: 201, kind: 'b' })
  })

  test('the number of open operations of an owner is limited, and the answer says when to retry', async () => {
    const { declare, request } = await start({ file: plain }, { limits: { maxOpenPerOwner: 1 } })
    await declare(newId(), { size: 1 })
    const refused = await request('PUT', `/operations/${newId()}`, {
      body: JSON.stringify({ file: { name: 'a', size: 1, type: '' } }),
    })
    expect([refused.status, refused.headers.get('Retry-After'), refused.headers.get('Content-Type')]).toEqual([
      429,
      '30',
      'application/problem+json',
    ])
    expect(await refused.json()).toMatchObject({ code: 'too-many-open', retryAfterSeconds: 30 })
  })

  test('an empty file needs no bytes', async () => {
    const { declare } = await start()
    expect(await declare(newId(), { size: 0 })).toMatchObject({
      status: 201,
      recoveryPoint: 'referenced',
      reference: { size: 0, digest: digestOf(new Uint8Array()) },
    })
  })
})

describe('ids', () => {
  test.each([
    '../x',
    '..%2Fx',
    '%2Fetc%2Fpasswd',
    'a%00b',
    'x'.repeat(300),
    'not-a-uuid',
    '0192f0c1-0000-7000-8000-00000000000',
  ])('%s is refused everywhere', async (id) => {
    const { request, directory } = await start()
    const body = JSON.stringify({ file: { name: 'a', size: 1, type: '' } })
    expect([400, 404]).toContain((await request('PUT', `/operations/${id}`, { body })).status)
    expect([400, 404]).toContain((await request('GET', `/operations/${id}`)).status)
    expect([400, 404]).toContain((await request('DELETE', `/operations/${id}`)).status)
    for (const method of ['HEAD', 'GET', 'PATCH', 'DELETE'])
      expect([400, 404]).toContain(
        (
          await request(method, `/files/${id}`, {
            headers: {
              'Tus-Resumable': '1.0.0',
              'Upload-Offset': '0',
              'Content-Type': 'application/offset+octet-stream',
            },
          })
        ).status,
      )
    const created = await request('POST', '/files', {
      headers: {
        'Tus-Resumable': '1.0.0',
        'Upload-Length': '1',
        'Upload-Metadata': `operationId ${Buffer.from(decodeURIComponent(id)).toString('base64')}`,
      },
    })
    expect(created.status).toBe(400)
    expect(await readdir(join(directory, 'blobs'))).not.toContain('blobs')
  })
})

describe("another owner's operation", () => {
  test('is 404 on every route and method, and does not prevent the same id for this owner', async () => {
    const { declare, patch, request, head, get } = await start()
    for (const finished of [false, true]) {
      const id = newId()
      await declare(id, { size: 10 })
      await patch(id, 0, finished ? content(10) : content(5))
      const bob = { owner: 'bob' }
      expect((await request('GET', `/operations/${id}`, bob)).status).toBe(404)
      expect((await request('DELETE', `/operations/${id}`, bob)).status).toBe(404)
      expect((await request('GET', `/operations/${id}/prefix`, bob)).status).toBe(404)
      expect(await (await request('GET', `/operations?ids=${id}`, bob)).json()).toEqual({ operations: [] })
      expect(await (await request('GET', '/operations?open', bob)).json()).toEqual({ operations: [] })
      expect((await head(id, bob)).status).toBe(404)
      expect((await patch(id, 5, content(5), bob)).status).toBe(404)
      expect((await request('GET', `/files/${id}`, bob)).status).toBe(404)
      expect((await request('HEAD', `/files/${id}`, bob)).status).toBe(404)
      expect((await request('DELETE', `/files/${id}`, { ...bob, headers: { 'Tus-Resumable': '1.0.0' } })).status).toBe(
        404,
      )
      expect(await declare(id, { size: 3 }, {}, 'bob')).toMatchObject({ status: 201, offset: 0 })
      expect((await patch(id, 0, content(3, 9), bob)).status).toBe(204)
      expect(await get(id, '', 'bob')).toMatchObject({ recoveryPoint: 'referenced', file: { size: 3 } })
      expect(await get(id)).toMatchObject({ file: { size: 10 }, offset: finished ? 10 : 5 })
    }
  })
})

describe('cookies and other sites', () => {
  test.each([
    [{ Cookie: 'a=b', 'Sec-Fetch-Site': 'cross-site' }, 403],
    [{ Cookie: 'a=b', 'Sec-Fetch-Site': 'same-site' }, 403],
    [{ Cookie: 'a=b', 'Sec-Fetch-Site': 'same-origin' }, 201],
    [{ Cookie: 'a=b', Origin: 'https://evil.test' }, 403],
    [{ Cookie: 'a=b', Origin: 'null' }, 403],
    [{ Cookie: 'a=b', Origin: 'https://host.test', Host: 'host.test' }, 201],
    [{ Cookie: 'a=b' }, 201],
    [{ 'Sec-Fetch-Site': 'cross-site', Origin: 'https://evil.test' }, 201],
    [{ Cookie: 'a=b', 'Sec-Fetch-Site': 'cross-site', Origin: 'https://app.test' }, 201],
  ] as const)('%j: %d', async (headers, status) => {
    const { request } = await start({ file: plain }, { allowedOrigins: ['https://app.test'] })
    const answer = await request('PUT', `/operations/${newId()}`, {
      headers: { ...headers },
      body: JSON.stringify({ file: { name: 'a', size: 1, type: '' } }),
    })
    expect(answer.status).toBe(status)
  })

  test('CORS is off unless it is configured, and then it names all headers that tus and Landfall need', async () => {
    const { request } = await start()
    const preflight = { Origin: 'https://app.test', 'Access-Control-Request-Method': 'PATCH' }
    for (const [method, path] of [
      ['OPTIONS', '/files'],
      ['POST', '/files'],
      ['GET', `/operations/${newId()}`],
    ] as const) {
      const { headers } = await request(method, path, {
        headers: { ...preflight, 'Tus-Resumable': '1.0.0', 'Upload-Length': '1' },
      })
      expect([...headers.keys()].filter((name) => name.startsWith('access-control-'))).toEqual([])
    }
    await server.close()
    await start({ file: plain }, { allowedOrigins: ['https://app.test'] })
    const allowed = await server.request('OPTIONS', `/files/${newId()}`, {
      owner: null,
      headers: { ...preflight, 'Access-Control-Request-Headers': 'upload-offset' },
    })
    expect(allowed.status).toBe(204)
    expect(allowed.headers.get('Access-Control-Allow-Origin')).toBe('https://app.test')
    expect(allowed.headers.get('Access-Control-Allow-Credentials')).toBe('true')
    expect(allowed.headers.get('Access-Control-Allow-Methods')).toContain('PATCH')
    for (const name of [
      'Tus-Resumable',
      'Upload-Offset',
      'Upload-Length',
      'Upload-Metadata',
      'Landfall-Owner',
      'Landfall-Version',
      'Content-Type',
      'If-None-Match',
    ])
      expect(allowed.headers.get('Access-Control-Allow-Headers')).toContain(name)
    const created = await server.create(1, { filename: 'a' }, { headers: { Origin: 'https://app.test' } })
    expect(created.status).toBe(201)
    for (const name of [
      'Location',
      'Upload-Offset',
      'Upload-Length',
      'Tus-Resumable',
      'ETag',
      'Retry-After',
      'Landfall-Owner',
      'Landfall-Recovery-Point',
    ])
      expect(created.headers.get('Access-Control-Expose-Headers')).toContain(name)
    const other = await server.create(1, { filename: 'a' }, { headers: { Origin: 'https://evil.test' } })
    expect(other.headers.get('Access-Control-Allow-Origin')).toBeNull()
  })
})

describe('the digest', () => {
  test('that the client promised is waited for, and compared with the stored bytes', async () => {
    const { declare, patch, get, photos: rows } = await start({ photo })
    const facts = [{ size: PNG.length, type: 'image/png' }, { metadata: { albumId: '1' } }] as const
    const good = newId()
    await declare(good, facts[0], { ...facts[1], digest: 'pending' })
    expect((await patch(good, 0, PNG)).headers.get('Landfall-Recovery-Point')).toBe('received')
    expect(await rows()).toEqual([])
    expect(await declare(good, facts[0], { ...facts[1], digest: digestOf(PNG) })).toMatchObject({
      status: 200,
      recoveryPoint: 'referenced',
      reference: { digestSource: 'client' },
    })
    expect(await declare(good, facts[0], { ...facts[1], digest: digestOf(content(3)) })).toMatchObject({
      status: 409,
      code: 'digest-conflict',
    })

    const bad = newId()
    await declare(bad, facts[0], { ...facts[1], digest: 'pending' })
    await patch(bad, 0, PNG)
    for (let n = 0; n < 2; n++)
      expect(await declare(bad, facts[0], { ...facts[1], digest: digestOf(content(3)) })).toMatchObject({
        status: 200,
        recoveryPoint: 'rejected',
        problem: { code: 'digest-mismatch' },
        reference: null,
      })
    expect(await get(bad)).toMatchObject({ recoveryPoint: 'rejected', problem: { code: 'digest-mismatch' } })
    expect(await rows()).toHaveLength(1)
  })

  test('that never arrives is replaced by the server’s own after the grace period', async () => {
    const { declare, patch, get, uploads } = await start({ file: plain }, { digestGraceMs: 150 })
    const id = newId()
    await declare(id, { size: 5 }, { digest: 'pending' })
    await patch(id, 0, content(5))
    await uploads.runOnce()
    expect(await get(id)).toMatchObject({ recoveryPoint: 'received', digest: null })
    await later(200)
    await uploads.runOnce()
    expect(await get(id)).toMatchObject({
      recoveryPoint: 'completed',
      reference: { digestSource: 'server', digest: digestOf(content(5)) },
    })
    expect(await declare(id, { size: 5 }, { digest: digestOf(content(6)) })).toMatchObject({
      status: 409,
      code: 'digest-conflict',
    })
    expect(await declare(id, { size: 5 }, { digest: digestOf(content(5)) })).toMatchObject({
      status: 200,
      recoveryPoint: 'completed',
    })
  })

  test('is required where the kind says so, until the operation expires', async () => {
    const strict = kind({ requireDigest: true, onReference: async (_tx: Tx) => null })
    const { declare, patch, get, uploads } = await start({ file: strict }, { digestGraceMs: 50, expiresAfterMs: 1_000 })
    expect(await declare(newId(), { size: 5 })).toMatchObject({ status: 400, code: 'invalid-request' })
    const id = newId()
    await declare(id, { size: 5 }, { digest: 'pending' })
    await patch(id, 0, content(5))
    await later(200)
    await uploads.runOnce()
    expect(await get(id)).toMatchObject({ recoveryPoint: 'received' })
    await later(1_000)
    await uploads.runOnce()
    expect(await get(id)).toMatchObject({ recoveryPoint: 'rejected', problem: { code: 'expired' } })
  })

  test('of the accepted prefix is given to the client, so that it can check a file that is picked again', async () => {
    const { declare, patch, request } = await start()
    const id = newId()
    await declare(id, { size: 3_000_000 })
    const bytes = content(3_000_000)
    const prefix = async () => (await request('GET', `/operations/${id}/prefix`)).json()
    expect(await prefix()).toEqual({ offset: 0, digest: digestOf(new Uint8Array()) })
    await patch(id, 0, bytes.subarray(0, 2_000_001))
    expect(await prefix()).toEqual({ offset: 2_000_001, digest: digestOf(bytes.subarray(0, 2_000_001)) })
    await patch(id, 2_000_001, bytes.subarray(2_000_001))
    expect(await prefix()).toEqual({ offset: 3_000_000, digest: digestOf(bytes) })
  })
})

describe('a final refusal', () => {
  test('by the application is kept permanently, and the bytes are removed', async () => {
    const scanned = kind({
      prepare: {
        scan: async ({ blob }) =>
          (await new Response(await blob.read()).text()).includes('virus')
            ? reject('infected', 'A virus')
            : { clean: true },
      },
      onReference: async (tx: Tx, { prepared }) => {
        await tx.insert(photos).values({ name: JSON.stringify(prepared) })
        return null
      },
    })
    const { declare, patch, get, request, photos: rows, directory } = await start({ file: scanned })
    const id = newId()
    await declare(id, { size: 7 })
    expect((await patch(id, 0, 'a virus')).status).toBe(204)
    const answer = await eventually(
      () => get(id),
      ({ recoveryPoint }) => recoveryPoint === 'rejected',
    )
    expect(answer.problem).toEqual({
      type: 'urn:landfall:problem:rejected',
      title: 'The application did not accept the file',
      status: 422,
      code: 'infected',
      detail: 'A virus',
    })
    expect(await declare(id, { size: 7 })).toMatchObject({
      status: 200,
      recoveryPoint: 'rejected',
      problem: { code: 'infected' },
    })
    expect((await patch(id, 0, 'a virus')).status).toBe(422)
    expect((await request('GET', `/files/${id}`)).status).toBe(404)
    await eventually(
      () => filesBelow(directory),
      (found) => found.length === 0,
    )
    expect(await rows()).toEqual([])

    const clean = newId()
    await declare(clean, { size: 5 })
    await patch(clean, 0, 'clean')
    await eventually(
      () => get(clean),
      ({ recoveryPoint }) => recoveryPoint === 'referenced',
    )
    expect(await rows()).toEqual(['{"scan":{"clean":true}}'])
  })

  test('bytes with another digest are removed, even if no client asks again', async () => {
    const { declare, patch, uploads, get, directory } = await start()
    for (const size of [1_000, 9_000_000]) {
      const id = newId()
      await declare(id, { size }, { digest: digestOf(content(3)) })
      await patch(id, 0, content(size))
      await eventually(
        async () => {
          await uploads.runOnce()
          return get(id)
        },
        ({ recoveryPoint }) => recoveryPoint === 'rejected',
      )
      await uploads.runOnce()
      expect(await filesBelow(directory)).toEqual([])
    }
  })

  test('of content that is not of an accepted type', async () => {
    const { declare, patch, get, directory, uploads, photos: rows } = await start({ photo })
    for (const [body, detail] of [
      ['<html><script>alert(1)</script></html>', 'the content is not image/png'],
      [Buffer.from('%PDF-1.4\n%âãÏÓ\n1 0 obj'), 'the content is application/pdf'],
    ] as const) {
      const id = newId()
      const bytes = Buffer.from(body)
      await declare(id, { size: bytes.length, type: 'image/png' }, { metadata: { albumId: '1' } })
      await patch(id, 0, bytes)
      expect(await get(id)).toMatchObject({ recoveryPoint: 'rejected', problem: { code: 'not-acceptable', detail } })
    }
    expect(await rows()).toEqual([])
    // This also happens if no client asks again.
    await uploads.runOnce()
    expect(await filesBelow(directory)).toEqual([])
  })

  test('cancelling can be repeated, and is 409 once there is a reference', async () => {
    const { declare, patch, request, uploads, get, directory } = await start()
    const id = newId()
    await declare(id, { size: 10 })
    await patch(id, 0, content(5))
    for (let n = 0; n < 2; n++) {
      const cancelled = await request('DELETE', `/operations/${id}`)
      expect(cancelled.status).toBe(200)
      expect(await cancelled.json()).toMatchObject({ recoveryPoint: 'cancelled', problem: { code: 'cancelled' } })
    }
    await uploads.runOnce()
    expect(await filesBelow(directory)).toEqual([])
    expect(await declare(id, { size: 10 })).toMatchObject({ recoveryPoint: 'cancelled' })
    expect((await patch(id, 5, content(5))).status).toBe(410)

    const stored = newId()
    await declare(stored, { size: 5 })
    await patch(stored, 0, content(5))
    const refused = await request('DELETE', `/operations/${stored}`)
    expect([refused.status, await refused.json()]).toMatchObject([409, { code: 'already-referenced' }])
    expect(await get(stored)).toMatchObject({ recoveryPoint: 'referenced' })
  })

  test('a DELETE that arrives while the operation is being declared cancels it', async () => {
    let overtake: (() => Promise<unknown>) | null = null
    const { declare, request, get } = await start(undefined, {
      ledgerOf: (ledger) => ({
        ...ledger,
        async cancel(...args) {
          const answer = await ledger.cancel(...args)
          const meanwhile = overtake
          overtake = null
          await meanwhile?.()
          return answer
        },
      }),
    })
    const id = newId()
    overtake = () => declare(id, { size: 5 })
    const answer = await request('DELETE', `/operations/${id}`)
    expect(answer.status).toBe(200)
    expect(await get(id)).toMatchObject({ recoveryPoint: 'cancelled' })
  })

  test('a cancellation while bytes arrive stops the receiver, and no bytes remain', async () => {
    const { declare, patch, request, uploads, directory } = await start()
    const id = newId()
    await declare(id, { size: 10_000 })
    const sending = patch(id, 0, brokenBody([content(5_000)], 'silent'))
    await later(100)
    expect((await request('DELETE', `/operations/${id}`)).status).toBe(200)
    expect((await sending).status).toBe(410)
    await uploads.runOnce()
    expect(await filesBelow(directory)).toEqual([])
  })

  test('an upload whose acknowledged bytes are gone is rejected as bytes-lost and never completed', async () => {
    const { declare, patch, get, restart, directory } = await start()
    const id = newId()
    await declare(id, { size: 10 })
    await patch(id, 0, content(5))
    const { rm } = await import('node:fs/promises')
    for (const path of await filesBelow(directory)) await rm(path)
    await restart()
    expect((await patch(id, 5, content(5))).status).toBe(422)
    expect(await get(id)).toMatchObject({ recoveryPoint: 'rejected', problem: { code: 'bytes-lost' } })
  })
})

describe('the state of operations', () => {
  test('a request for several operations waits for a change, and is 304 when there is none', async () => {
    const { declare, patch, request } = await start()
    const ids = [newId(), newId()]
    for (const id of ids) await declare(id, { size: 10 })
    const first = await request('GET', `/operations?ids=${ids.join(',')},${newId()}`)
    const tag = first.headers.get('ETag') ?? ''
    const list = (await first.json()) as { operations: { id: string }[] }
    expect(list.operations.map(({ id }) => id)).toEqual(ids)

    const poll = (wait: number, known: string) =>
      request('GET', `/operations?ids=${ids.join(',')}&wait=${wait}`, { headers: { 'If-None-Match': known } })
    expect((await poll(0, tag)).status).toBe(304)
    // A proxy that compresses changes the tag to a weak one.
    expect((await poll(0, `W/${tag}`)).status).toBe(304)
    const startedAt = performance.now()
    expect((await poll(1, tag)).status).toBe(304)
    expect(performance.now() - startedAt).toBeGreaterThan(900)
    expect((await poll(20, '"other"')).status).toBe(200)
    const waiting = poll(20, tag)
    await later(100)
    await patch(ids[1] ?? '', 0, content(10))
    const changed = await waiting
    expect(changed.status).toBe(200)
    expect(
      ((await changed.json()) as { operations: { recoveryPoint: string }[] }).operations.map(
        ({ recoveryPoint }) => recoveryPoint,
      ),
    ).toEqual(['declared', 'referenced'])
    expect(changed.headers.get('ETag')).not.toBe(tag)
  })

  test('a request for one operation waits for a change, unless the operation has ended', async () => {
    const { declare, patch, get } = await start()
    const id = newId()
    await declare(id, { size: 10 })
    const waiting = get(id, '?wait=20')
    await later(50)
    await patch(id, 0, content(10))
    expect(await waiting).toMatchObject({ recoveryPoint: 'referenced' })
    expect(await get(id, '?wait=20')).toMatchObject({ recoveryPoint: 'referenced' })
  })

  test('open operations are listed in pages', async () => {
    const { declare, request } = await start()
    const ids = Array.from({ length: 103 }, newId)
    for (const id of ids) await declare(id, { size: 1 })
    const first = (await (await request('GET', '/operations?open')).json()) as {
      operations: { id: string }[]
      next: string
    }
    const second = (await (await request('GET', `/operations?open&after=${first.next}`)).json()) as {
      operations: { id: string }[]
      next?: string
    }
    expect([...first.operations, ...second.operations].map(({ id }) => id)).toEqual(ids)
    expect([first.operations.length, second.next]).toEqual([100, undefined])
    expect((await request('GET', '/operations')).status).toBe(400)
    expect((await request('GET', `/operations?ids=${Array.from({ length: 41 }, newId).join(',')}`)).status).toBe(400)
  })
})

async function filesBelow(directory: string): Promise<string[]> {
  const entries = await readdir(join(directory, 'blobs', 'blobs'), { recursive: true, withFileTypes: true }).catch(
    () => [],
  )
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name))
}
