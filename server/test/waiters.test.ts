/** Requests that wait for a change: how many of one owner, and what they cost. */
import { afterEach, beforeEach, expect, test } from 'vitest'
import { systemClock } from '../src/clock.js'
import { kind } from '../src/kinds.js'
import type { Ledger } from '../src/ports.js'
import { createWaiters } from '../src/waiters.js'
import type { Tx } from './fixtures.js'
import { content, eventually, later, newId, startServer } from './harness.js'

const kinds = { file: kind({ onReference: async () => null }) }
let asked = 0
let server: Awaited<ReturnType<typeof startServer>>
beforeEach(async () => {
  asked = 0
  server = await startServer(kinds, { ledgerOf: counted })
})
afterEach(() => server.close())

function counted(ledger: Ledger<Tx>): Ledger<Tx> {
  return {
    ...ledger,
    findMany: (owner, ids) => {
      asked += 1
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

test('all who wait for the same are answered by a few looks', async () => {
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

test('a change reaches nobody who waits for something else', async () => {
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

test('who waits beyond the places of an owner looks now and then, and still beyond that is told to come back', async () => {
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
  // Another owner waits as ever, and hears of a change at once.
  const theirs = await declared('bob')
  const theirTag = (await wait([theirs], 0, { owner: 'bob' })).headers.get('ETag') ?? ''
  const heard = wait([theirs], 20, { owner: 'bob', tag: theirTag })
  await later(50)
  const changedAt = performance.now()
  await server.patch(theirs, 0, content(4), { owner: 'bob' })
  expect((await heard).status).toBe(200)
  expect(performance.now() - changedAt).toBeLessThan(2_000)
  // Never at once: a client would ask again without a pause.
  for (const { status, afterMs } of await Promise.all(answers.slice(64, 256))) {
    expect(status).toBe(304)
    expect(afterMs).toBeGreaterThan(4_500)
  }
  await server.patch(ids[0] ?? '', 0, content(4))
  for (const { status } of await Promise.all(answers.slice(0, 64))) expect(status).toBe(200)
  // All have left: there is room again.
  expect((await wait(ids, 1)).status).toBe(200)
}, 30_000)

test('a look that was asked for begins after the asking, and one that fails hinders no other', async () => {
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
