/** Effects are delivered at least once under one id, to real receivers on real sockets. */
import { createServer, type IncomingHttpHeaders, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Webhook } from 'standardwebhooks'
import { afterEach, describe, expect, test } from 'vitest'
import type { Effect } from '../src/kinds/effect.js'
import { kind } from '../src/kinds/kind.js'
import type { Ledger } from '../src/ports/ledger.js'
import { standardWebhook, type StandardWebhookOptions } from '../src/effects/webhook.js'
import { type Tx } from './fixtures.js'
import { content, digestOf, eventually, later, newId, type Options, startServer, type TestServer } from './harness.js'

const SECRET = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'
const NEXT_SECRET = 'whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD'

interface Received {
  readonly headers: IncomingHttpHeaders
  readonly body: string
  readonly path: string
}
type Answer = number | { status: number; headers: Record<string, string> } | 'reset' | 'silence'

const closing: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const close of closing.splice(0).toReversed()) await close()
})

/** Gives the answers in turn, and then repeats the last one. */
async function receiver(...answers: Answer[]): Promise<{ url: string; received: Received[]; server: Server }> {
  const received: Received[] = []
  const server = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const answer = answers[Math.min(received.length, answers.length - 1)] ?? 200
      received.push({ headers: request.headers, body: Buffer.concat(chunks).toString(), path: request.url ?? '' })
      if (answer === 'reset') return void request.socket.resetAndDestroy()
      if (answer === 'silence') return
      if (typeof answer === 'number') return void response.writeHead(answer).end()
      response.writeHead(answer.status, answer.headers).end()
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  closing.push(async () => {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook`, received, server }
}

const hookTo = (url: string, options: Partial<StandardWebhookOptions> = {}) =>
  standardWebhook({ url, secret: SECRET, allowPrivateAddresses: true, ...options })

const QUICK: Options = { effects: { backoff: { firstMs: 1, mostMs: 10 }, maxAttempts: 5 } }

async function serverWith(
  effects: Record<string, Effect<unknown, { row: string }>>,
  options: Options & { ledgerOf?: (ledger: Ledger<Tx>) => Ledger<Tx> } = {},
): Promise<TestServer> {
  const server = await startServer(
    {
      file: kind<Tx, { row: string }>({
        onReference: async (_tx, { operation }) => ({ row: operation.file.name }),
        effects,
      }),
    },
    { ...QUICK, ...options },
  )
  closing.push(() => server.close())
  return server
}

const bytes = content(100)
async function upload(server: TestServer): Promise<string> {
  const id = newId()
  await server.declare(id, { size: 100 }, { metadata: { album: '1' } })
  expect((await server.patch(id, 0, bytes)).status).toBe(204)
  return id
}
const key = (id: string) => ({ owner: 'ann', id })
const effectsOf = async (server: TestServer, id: string) => (await server.uploads.operator.show(key(id)))?.effects ?? []
const standing = async (server: TestServer, id: string) => (await effectsOf(server, id))[0]

/** Runs the completer until the operation is completed. */
const completes = (server: TestServer, id: string) =>
  eventually(
    async () => {
      await server.uploads.runOnce()
      return (await server.get(id)).recoveryPoint
    },
    (point) => point === 'completed',
  )

test('a webhook is signed and names the reference, and the operation is completed after a 2xx answer', async () => {
  const { url, received } = await receiver(204)
  const server = await serverWith({ notify: hookTo(url) })
  const id = await upload(server)
  expect((await server.get(id)).recoveryPoint).toBe('referenced')
  expect(await server.uploads.runOnce()).toMatchObject({ effects: 1 })
  expect((await server.get(id)).recoveryPoint).toBe('completed')
  const [request] = received
  expect(received).toHaveLength(1)
  expect(request?.path).toBe('/hook')
  expect(new Webhook(SECRET).verify(request?.body ?? '', request?.headers as Record<string, string>)).toEqual({
    type: 'upload.referenced',
    timestamp: expect.stringMatching(/^\d{4}-.*Z$/),
    data: {
      operation: {
        id,
        owner: 'ann',
        kind: 'file',
        file: { name: 'a.bin', type: 'application/octet-stream', size: 100 },
        metadata: { album: '1' },
        createdAt: expect.stringMatching(/^\d{4}-.*Z$/),
      },
      reference: {
        size: 100,
        type: 'application/octet-stream',
        digest: digestOf(bytes),
        storedAt: expect.stringMatching(/^\d{4}-.*Z$/),
        data: { row: 'a.bin' },
      },
    },
  })
  expect(await standing(server, id)).toMatchObject({
    effectId: request?.headers['webhook-id'],
    name: 'notify',
    type: 'webhook',
    attempts: 1,
    givenUpAt: null,
    lastError: null,
  })
})

test('effects of a kind without onReference get a reference whose data is null', async () => {
  const told: unknown[] = []
  const tell: Effect<unknown, unknown> = async ({ reference }) => void told.push(reference.data)
  const server = await startServer({ file: kind({ effects: { tell } }) }, QUICK)
  closing.push(() => server.close())
  const id = await upload(server)
  const { recoveryPoint, reference } = await server.get(id)
  expect([recoveryPoint, reference]).toEqual(['referenced', expect.objectContaining({ size: 100, data: null })])
  await completes(server, id)
  expect(told).toEqual([null])
})

test('while a secret is replaced, receivers with the old or the new secret accept the webhook', async () => {
  const { url, received } = await receiver(200)
  const server = await serverWith({ notify: hookTo(url, { secret: [NEXT_SECRET, SECRET] }) })
  await completes(server, await upload(server))
  const { body, headers } = received[0] ?? { body: '', headers: {} }
  for (const secret of [SECRET, NEXT_SECRET])
    expect(new Webhook(secret).verify(body, headers as Record<string, string>)).toMatchObject({
      type: 'upload.referenced',
    })
  const other = new Webhook(`whsec_${Buffer.from('another secret of some length').toString('base64')}`)
  expect(() => other.verify(body, headers as Record<string, string>)).toThrow()
})

test('a delivery is repeated with the same id and body until the answer is 2xx', async () => {
  const { url, received } = await receiver(500, 'reset', 404, 302, 200)
  const server = await serverWith({ notify: hookTo(url) })
  await completes(server, await upload(server))
  expect(received).toHaveLength(5)
  expect(new Set(received.map(({ headers }) => headers['webhook-id'])).size).toBe(1)
  expect(new Set(received.map(({ body }) => body)).size).toBe(1)
})

test('a delivery whose outcome could not be recorded is repeated, also after a restart', async () => {
  const { url, received } = await receiver(200)
  let isAway = true
  const server = await serverWith(
    { notify: hookTo(url) },
    {
      ledgerOf: (ledger) => ({
        ...ledger,
        settleEffect: (effect, result) =>
          isAway ? Promise.reject(new Error('the database is away')) : ledger.settleEffect(effect, result),
      }),
    },
  )
  const id = await upload(server)
  await server.uploads.runOnce()
  expect(received).toHaveLength(1)
  expect((await server.get(id)).recoveryPoint).toBe('referenced')
  isAway = false
  await server.restart()
  await server.uploads.runOnce()
  expect((await server.get(id)).recoveryPoint).toBe('completed')
  expect(received.map(({ headers }) => headers['webhook-id'])).toEqual([
    received[0]?.headers['webhook-id'],
    received[0]?.headers['webhook-id'],
  ])
})

test('an effect that fails for too long is given up visibly, and delivered again after a retry', async () => {
  const { url, received } = await receiver(500, 500, 500, 500, 500, 200)
  const server = await serverWith({ notify: hookTo(url) })
  const id = await upload(server)
  const given = await eventually(
    async () => {
      await server.uploads.runOnce()
      return standing(server, id)
    },
    (effect) => effect?.givenUpAt !== null,
  )
  expect(given).toMatchObject({ attempts: 5, dueAt: null, lastError: 'the receiver answered 500' })
  expect(received).toHaveLength(5)
  expect((await server.get(id)).recoveryPoint).toBe('referenced')
  expect(await server.uploads.operator.retry(key(id))).toBe(true)
  await completes(server, id)
  expect(new Set(received.map(({ headers }) => headers['webhook-id'])).size).toBe(1)
})

test('410 ends all deliveries to that receiver until a retry', async () => {
  const { url, received } = await receiver(410, 200)
  const other = await receiver(200)
  const server = await serverWith({ notify: hookTo(url), other: hookTo(other.url) })
  const first = await upload(server)
  await server.uploads.runOnce()
  const second = await upload(server)
  await server.uploads.runOnce()
  expect(received).toHaveLength(1)
  expect(other.received).toHaveLength(2)
  for (const id of [first, second])
    expect(
      Object.fromEntries((await effectsOf(server, id)).map(({ name, givenUpAt }) => [name, givenUpAt !== null])),
    ).toEqual({ notify: true, other: false })
  await server.uploads.operator.retry(key(second))
  await completes(server, second)
  expect(received).toHaveLength(2)
})

test.each([
  ['in seconds', () => '120'],
  ['as a date', () => new Date(Date.now() + 121_000).toUTCString()],
])('Retry-After %s delays all deliveries to that receiver', async (_name, retryAfter) => {
  const { url, received } = await receiver({ status: 503, headers: { 'Retry-After': retryAfter() } }, 200)
  const server = await serverWith({ notify: hookTo(url) })
  const id = await upload(server)
  await server.uploads.runOnce()
  const dueInMs = ((await standing(server, id))?.dueAt ?? 0) - Date.now()
  expect(dueInMs).toBeGreaterThan(115_000)
  expect(dueInMs).toBeLessThan(125_000)
  await upload(server)
  await server.uploads.runOnce()
  expect(received).toHaveLength(1)
})

test('effects that were already taken are also delayed, and no attempt is counted for them', async () => {
  const { url, received } = await receiver({ status: 429, headers: { 'Retry-After': '120' } }, 200)
  const server = await serverWith({ notify: hookTo(url) })
  const ids = []
  for (let n = 0; n < 30; n += 1) ids.push(await upload(server))
  await server.uploads.runOnce()
  // When the first answer arrived, at most one delivery per worker was running.
  expect(received.length).toBeLessThanOrEqual(16)
  const all = await Promise.all(ids.map((id) => standing(server, id)))
  const untried = all.filter((effect) => effect?.attempts === 0)
  expect(untried.length).toBeGreaterThanOrEqual(30 - 16)
  for (const effect of untried) expect((effect?.dueAt ?? 0) - Date.now()).toBeGreaterThan(100_000)
})

test('redirects are not followed', async () => {
  const target = await receiver(200)
  const { url } = await receiver({ status: 307, headers: { Location: target.url } })
  const server = await serverWith({ notify: hookTo(url) })
  const id = await upload(server)
  await server.uploads.runOnce()
  expect(target.received).toEqual([])
  expect((await standing(server, id))?.lastError).toBe('the receiver answered 307')
})

test.each([
  '127.0.0.1',
  'localhost',
  '[::1]',
  '[::ffff:127.0.0.1]',
  '0.0.0.0',
  '2130706433',
  '0x7f.1',
  // IPv4 addresses within IPv6 (RFC 4291 section 2.5.5.1). Simple filters take them for public addresses.
  '[::127.0.0.1]',
  '[::7f00:1]',
  '[::10.0.0.1]',
  '[::]',
  '[4000::1]',
])('the private address %s is refused before anything is sent', async (host) => {
  const { url, received, server: target } = await receiver(200)
  let connections = 0
  target.on('connection', () => (connections += 1))
  const server = await serverWith({
    notify: hookTo(url.replace('127.0.0.1', host), { allowPrivateAddresses: false }),
  })
  const id = await upload(server)
  await server.uploads.runOnce()
  expect(received).toEqual([])
  expect(connections).toBe(0)
  expect((await standing(server, id))?.lastError).toMatch(/not allowed|is not public/)
})

test.each([
  ['an invalid url', { url: 'example.org/hook' }],
  ['another protocol', { url: 'ftp://example.org/' }],
  ['no secret', { secret: [] }],
  ['a secret that is not base64', { secret: 'whsec_%%%' }],
  ['an empty secret', { secret: '' }],
])('%s is refused at once', (_name, wrong) => {
  expect(() => standardWebhook({ url: 'https://example.org/', secret: SECRET, ...wrong })).toThrow(
    expect.objectContaining({ code: 'setup' }),
  )
})

test("a function gets the reference, the effect's id and the number of the attempt, and is called again after it throws", async () => {
  const calls: unknown[] = []
  const server = await serverWith({
    index: async ({ effectId, attempt, operation, reference, signal }) => {
      calls.push({ effectId, attempt, name: operation.file.name, row: reference.data.row, at: reference.storedAt })
      expect(signal.aborted).toBe(false)
      if (attempt < 3) throw new Error('the index is away')
    },
  })
  const id = await upload(server)
  await completes(server, id)
  const { effectId } = (await standing(server, id)) ?? { effectId: '' }
  expect(calls).toEqual(
    [1, 2, 3].map((attempt) => ({ effectId, attempt, name: 'a.bin', row: 'a.bin', at: expect.any(Date) })),
  )
})

test('a receiver that hangs delays neither uploads nor the effects of others', async () => {
  const hanging = await receiver('silence')
  const quick: string[] = []
  const server = await serverWith(
    {
      hangs: hookTo(hanging.url, { timeLimitMs: 3_000 }),
      quick: async ({ operation }) => void quick.push(operation.id),
    },
    { completer: 'automatic', completerIntervalMs: 50 },
  )
  const ids: string[] = []
  const startMs = performance.now()
  for (let n = 0; n < 60; n += 1) ids.push(await upload(server))
  await eventually(
    async () => quick.length,
    (count) => count === 60,
  )
  expect(performance.now() - startMs).toBeLessThan(2_900)
  expect(quick.toSorted()).toEqual(ids.toSorted())
  // One for each worker.
  expect(hanging.received.length).toBeLessThanOrEqual(16)
  await eventually(
    async () => (await effectsOf(server, ids[0] ?? '')).find(({ name }) => name === 'hangs'),
    (effect) => effect?.lastError === 'no answer within the time limit',
  )
})

test('the bytes are removed without waiting for a webhook, and the webhook is still delivered after the removal', async () => {
  const { url, received } = await receiver(500, 200)
  const server = await serverWith({ notify: hookTo(url) })
  const id = await upload(server)
  await server.uploads.runOnce()
  expect(await server.db.transaction((tx) => server.uploads.remove(tx, id, 'ann'))).toBe(true)
  await later(20)
  await completes(server, id)
  expect(received).toHaveLength(2)
  expect(JSON.parse(received[1]?.body ?? '')).toMatchObject({ data: { reference: { digest: digestOf(bytes) } } })
  expect((await effectsOf(server, id)).map(({ deliveredAt }) => deliveredAt !== null)).toEqual([true, true])
})

test('an effect whose name is not declared any more stays owed', async () => {
  let calls = 0
  const server = await serverWith({ old: async () => void (calls += 1) })
  const id = await upload(server)
  const { effects } = server.kinds['file'] ?? { effects: {} }
  Object.assign(server.kinds, { file: { ...server.kinds['file'], effects: {} } })
  await server.restart()
  expect(await server.uploads.runOnce()).toMatchObject({ effects: 0 })
  expect(calls).toBe(0)
  Object.assign(server.kinds, { file: { ...server.kinds['file'], effects } })
  await server.restart()
  await completes(server, id)
  expect(calls).toBe(1)
})

describe('a drain', () => {
  let letGo = (): void => {}
  const hanging = new Promise<void>((resolve) => (letGo = resolve))
  const standings = async (server: TestServer, ids: readonly string[]) => {
    const all = await Promise.all(ids.map((id) => effectsOf(server, id)))
    return all.flat()
  }

  test('releases effects that were taken and not begun, without counting an attempt, and leaves running deliveries alone', async () => {
    const server = await serverWith({ hangs: () => hanging })
    const ids: string[] = []
    for (let n = 0; n < 32; n += 1) ids.push(await upload(server))
    void server.uploads.runOnce({ maxMs: 1 })
    await eventually(
      () => standings(server, ids),
      (all) => all.every(({ attempts }) => attempts === 1),
    )
    const { ledger } = server
    const from = performance.now()
    await server.uploads.close({ withinMs: 300 })
    expect(performance.now() - from).toBeLessThan(2_000)
    // Another process takes the released effects at once. This is their first attempt, because none was counted here.
    const taken = await ledger.takeEffects(
      { kind: 'file', name: 'hangs' },
      { holder: 'next', leaseMs: 1_000, limit: 40 },
    )
    expect(taken.map(({ attempts }) => attempts)).toEqual(Array.from({ length: 16 }, () => 1))
    letGo()
  })

  test('waits for running deliveries, and records their outcome', async () => {
    let calls = 0
    const server = await serverWith({ slow: () => later(400).then(() => (calls += 1)) })
    const ids: string[] = []
    for (let n = 0; n < 20; n += 1) ids.push(await upload(server))
    void server.uploads.runOnce({ maxMs: 1 })
    await eventually(
      () => standings(server, ids),
      (all) => all.every(({ attempts }) => attempts === 1),
    )
    await server.uploads.close({ withinMs: 5_000 })
    expect(calls).toBe(16)
    await server.restart()
    const all = await standings(server, ids)
    expect(all.filter(({ deliveredAt }) => deliveredAt !== null)).toHaveLength(16)
    expect(all.filter(({ attempts, deliveredAt }) => attempts === 0 && deliveredAt === null)).toHaveLength(4)
  })

  test('releases effects that the ledger hands out while the drain begins', async () => {
    let asked = (): void => {}
    const isAsked = new Promise<void>((resolve) => (asked = resolve))
    let calls = 0
    const server = await serverWith(
      { quick: async () => (calls += 1) },
      {
        ledgerOf: (ledger) => ({
          ...ledger,
          async takeEffects(target, request) {
            const taken = await ledger.takeEffects(target, request)
            if (taken.length > 0) {
              asked()
              await later(200)
            }
            return taken
          },
        }),
      },
    )
    const id = await upload(server)
    void server.uploads.runOnce({ maxMs: 1 })
    await isAsked
    await server.uploads.close({ withinMs: 2_000 })
    expect(calls).toBe(0)
    await server.restart()
    expect(await effectsOf(server, id)).toMatchObject([{ attempts: 0, deliveredAt: null }])
    await completes(server, id)
    expect(calls).toBe(1)
  })
})

test('effects from one read of the ledger are delivered even if another read fails', async () => {
  let calls = 0
  let isBroken = true
  const server = await serverWith(
    { first: async () => (calls += 1), second: async () => (calls += 1) },
    {
      ledgerOf: (ledger) => ({
        ...ledger,
        async takeEffects(target, request) {
          const taken = await ledger.takeEffects(target, request)
          if (target.name === 'second' && isBroken) throw new Error('the connection was lost before the question')
          return taken
        },
      }),
    },
  )
  await upload(server)
  await expect(server.uploads.runOnce()).rejects.toThrow('the connection was lost')
  await eventually(
    async () => calls,
    (count) => count === 1,
  )
  isBroken = false
})
