/** Requests that wait for a change: how many one owner may have, and how many reads they cost. */
import { getEventListeners } from 'node:events'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { systemClock } from '../src/sequence/clock.js'
import { kind } from '../src/kinds/kind.js'
import type { Ledger } from '../src/ports/ledger.js'
import { createWaiters } from '../src/http/waiters.js'
import { createWatch } from '../src/sequence/watch.js'
import type { Tx } from './fixtures.js'
import { content, eventually, later, newId, silent, startServer } from './harness.js'

const kinds = { file: kind({ onReference: async () => null }) }
let asked = 0
/** Reads wait for this promise when the ledger hangs. */
let gate = Promise.resolve()
let server: Awaited<ReturnType<typeof startServer>>
beforeEach(async () => {
  asked = 0
  gate = Promise.resolve()
  server = await startServer(kinds, { ledgerOf: counted })
})
afterEach(() => server.close())

function counted(ledger: Ledger<Tx>): Ledger<Tx> {
  return {
    ...ledger,
    findMany: async (owner, ids) => {
      asked += 1
      await gate
      return ledger.findMany(owner, ids)
    },
  }
}

async function declared(owner = 'ann'): Promise<string> {
  const id = newId()
  await server.declare(id, { size: 10 }, {}, owner)
  return id
}
const wait = (ids: readonly string[], seconds: number, { owner = 'ann', tag = '' } = {}) =>
  server.request('GET', `/operations?ids=${ids.join()}&wait=${seconds}`, {
    owner,
    ...(tag === '' ? {} : { headers: { 'If-None-Match': tag } }),
  })

test('60 requests that wait for the same operation are answered by a few reads', async () => {
  const id = await declared()
  const tag = (await wait([id], 0)).headers.get('ETag') ?? ''
  const waiting = Array.from({ length: 60 }, () => wait([id], 10, { tag }))
  await later(200)
  expect(asked).toBeLessThan(10)
  asked = 0
  await server.patch(id, 0, content(4))
  for (const answer of await Promise.all(waiting))
    expect([answer.status, await answer.json()]).toEqual([
      200,
      { operations: [expect.objectContaining({ id, offset: 4 })] },
    ])
  expect(asked).toBeLessThan(10)
})

test('a change causes no read for requests that wait for other operations', async () => {
  const [mine, other] = [await declared(), await declared()]
  const tag = (await wait([other], 0)).headers.get('ETag') ?? ''
  const waiting = wait([other], 2, { tag })
  await later(100)
  asked = 0
  await server.patch(mine, 0, content(4))
  await later(300)
  expect(asked).toBe(0)
  expect((await waiting).status).toBe(304)
})

test('after 64 waiting requests of one owner, 192 more read every 5 s, and further ones get 429', async () => {
  const ids = await Promise.all(Array.from({ length: 5 }, () => declared()))
  const tag = (await wait(ids, 0)).headers.get('ETag') ?? ''
  const from = performance.now()
  const answers = Array.from({ length: 300 }, async (_, n) => {
    const answer = await wait(ids, 20, { tag })
    return { n, status: answer.status, afterMs: performance.now() - from, problem: await answer.text(), answer }
  })
  await eventually(
    async () => asked,
    (looks) => looks > 0,
  )
  const refused = await Promise.all(answers.slice(256))
  for (const { status, problem, answer } of refused) {
    expect([status, answer.headers.get('Retry-After')]).toEqual([429, '5'])
    expect(JSON.parse(problem)).toMatchObject({ code: 'too-many-waiting', retryAfterSeconds: 5 })
  }
  // Another owner waits as usual, and is answered at once after a change.
  const theirs = await declared('bob')
  const theirTag = (await wait([theirs], 0, { owner: 'bob' })).headers.get('ETag') ?? ''
  const heard = wait([theirs], 20, { owner: 'bob', tag: theirTag })
  await later(50)
  const changedAt = performance.now()
  await server.patch(theirs, 0, content(4), { owner: 'bob' })
  expect((await heard).status).toBe(200)
  expect(performance.now() - changedAt).toBeLessThan(2_000)
  // They are not answered at once, because a client would then ask again without a pause.
  for (const { status, afterMs } of await Promise.all(answers.slice(64, 256))) {
    expect(status).toBe(304)
    expect(afterMs).toBeGreaterThan(4_500)
  }
  await server.patch(ids[0] ?? '', 0, content(4))
  for (const { status } of await Promise.all(answers.slice(0, 64))) expect(status).toBe(200)
  // All of them have ended, so there are free places again.
  expect((await wait(ids, 1)).status).toBe(200)
}, 30_000)

test('a read begins after the request for it, and a read that fails does not affect others', async () => {
  const waiters = createWaiters(systemClock)
  let now = 0
  const look = (question: string): Promise<number> =>
    waiters.look('ann', question, async () => {
      const begun = now
      await later(20)
      if (question === 'bad') throw new Error('away')
      return begun
    })
  const first = look('a')
  await later(5)
  now = 1
  const [second, third, bad, fourth] = [look('a'), look('a'), look('bad'), look('b')]
  await expect(bad).rejects.toThrow('away')
  expect(await Promise.all([first, second, third, fourth])).toEqual([0, 1, 1, 1])
})

/** A clock on which time passes only during a sleep. */
function sleepers() {
  const slept: number[] = []
  let nowMs = 0
  const sleep = async (ms: number): Promise<void> => {
    slept.push(ms)
    nowMs += ms
  }
  return { slept, clock: { monotonicMs: () => nowMs, sleep } }
}

test('different reads of one owner share one pause', async () => {
  const { slept, clock } = sleepers()
  const waiters = createWaiters(clock)
  const never = new Promise(() => {})
  for (let n = 0; n < 200; n++) waiters.enter('ann')
  let atOnce = 0
  let most = 0
  const look = (question: number): Promise<number | null> =>
    waiters.look(
      'ann',
      String(question),
      async () => {
        most = Math.max(most, (atOnce += 1))
        await later(1)
        atOnce -= 1
        return question
      },
      never,
    )
  await look(-1)
  expect(await Promise.all(Array.from({ length: 200 }, (_, n) => look(n)))).toEqual(
    Array.from({ length: 200 }, (_, n) => n),
  )
  expect(slept).toEqual([800])
  expect(most).toBe(1)
})

test('a request that no longer waits is released before its read, and the read is left out if no other request wants it', async () => {
  const waiters = createWaiters(systemClock)
  const begun: string[] = []
  let open = (): void => {}
  const opened = new Promise<void>((resolve) => (open = resolve))
  let leave = (): void => {}
  const end = new Promise<void>((resolve) => (leave = resolve))
  const look = (question: string, until?: Promise<void>): Promise<string | null> =>
    waiters.look(
      'ann',
      question,
      async () => {
        begun.push(question)
        await opened
        return question
      },
      until,
    )
  const hanging = look('hanging', end)
  await later(5)
  const left = [look('mine', end), look('shared', end)]
  const shared = look('shared')
  leave()
  expect(await Promise.race([Promise.all([hanging, ...left]), later(500)])).toEqual([null, null, null])
  open()
  expect(await shared).toBe('shared')
  expect(begun).toEqual(['hanging', 'shared'])
})

test('a request whose time is over is answered without a pause, and does not hurry other requests', async () => {
  const waiters = createWaiters(systemClock)
  for (let n = 0; n < 256; n++) waiters.enter('ann')
  const never = new Promise(() => {})
  const look = (question: string, end?: Promise<unknown>) => waiters.look('ann', question, async () => question, end)
  await look('first', never)
  const from = performance.now()
  const patient = look('patient', never).then(() => performance.now() - from)
  await later(20)
  expect(await look('due')).toBe('due')
  expect(performance.now() - from).toBeLessThan(500)
  expect(await patient).toBeGreaterThan(900)
})

test('200 requests that wait for different operations are answered when their time is over', async () => {
  const tag = (await wait([newId()], 0)).headers.get('ETag') ?? ''
  const from = performance.now()
  const answers = await Promise.all(Array.from({ length: 200 }, () => wait([newId()], 3, { tag })))
  expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([304]))
  expect(performance.now() - from).toBeLessThan(8_000)
}, 30_000)

test('while the ledger hangs, clients that have disconnected do not count as waiting', async () => {
  let open = (): void => {}
  gate = new Promise((resolve) => (open = resolve))
  try {
    const gone = new AbortController()
    const ask = async (signal: AbortSignal): Promise<number> => {
      const url = `http://host.test/uploads/operations?ids=${newId()}&wait=20`
      return (await server.app.request(url, { headers: { 'X-Owner': 'ann' }, signal })).status
    }
    const asking = Array.from({ length: 256 }, () => ask(gone.signal))
    expect(await ask(gone.signal)).toBe(429)
    gone.abort()
    await Promise.race([Promise.all(asking), later(2_000)])
    const next = wait([newId()], 1)
    await later(200)
    open()
    expect((await next).status).toBe(200)
  } finally {
    open()
  }
})

test('while the ledger hangs, closing the server ends all waiting', async () => {
  const id = await declared()
  const asking = Array.from({ length: 8 }, async () => {
    const ids = [id, newId()]
    const tag = (await wait(ids, 0)).headers.get('ETag') ?? ''
    return wait(ids, 20, { tag })
  })
  await eventually(
    async () => asked,
    (looks) => looks >= 16,
  )
  await later(100)
  let open = (): void => {}
  gate = new Promise((resolve) => (open = resolve))
  try {
    await server.patch(id, 0, content(4))
    await later(100)
    const from = performance.now()
    await server.uploads.close({ withinMs: 500 })
    const statuses = Promise.all(asking).then((answers) => answers.map(({ status }) => status))
    expect(new Set(await Promise.race([statuses, later(2_000).then(() => [0])]))).toEqual(new Set([304]))
    expect(performance.now() - from).toBeLessThan(3_000)
  } finally {
    open()
  }
})

test('waiting leaves nothing on the signal that may end it', async () => {
  const watch = createWatch({ ledger: server.ledger, clock: systemClock, log: silent, alone: () => true })
  const any = vi.spyOn(AbortSignal, 'any')
  const gone = new AbortController()
  const change = () => watch.change('ann', new Set([newId()]), 20_000, gone.signal)
  try {
    for (let n = 0; n < 5; n++) {
      const armed = change()
      armed.stop()
      await armed.changed
    }
    expect([any.mock.calls.length, getEventListeners(gone.signal, 'abort').length]).toEqual([0, 0])
    const { changed } = change()
    gone.abort()
    await Promise.all([changed, change().changed])
    expect(getEventListeners(gone.signal, 'abort').length).toBe(0)
  } finally {
    any.mockRestore()
  }
})
