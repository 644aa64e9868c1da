/** The clock is set ahead and back, with a running server and without one. Nothing ends or stops because of it. */
import { mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { sql } from 'drizzle-orm'
import { afterEach, describe, expect, test } from 'vitest'
import { relativePath } from '../src/blobs/key.js'
import { kind } from '../src/kinds/kind.js'
import { photos, type Tx } from './fixtures.js'
import { content, digestOf, newId } from './harness.js'
import { startWithMovedClock } from './moved-clock.js'

const DAY_MS = 24 * 60 * 60_000
const JUMP_MS = 8 * DAY_MS
const WEEK_MS = 7 * DAY_MS
/** After this time the clients have had time to return. */
const SETTLED_MS = 11 * 60_000

type World = Awaited<ReturnType<typeof startWithMovedClock>>
const closing: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const close of closing.splice(0)) await close()
})

/** A hook and an effect that fail on demand. */
function troubled() {
  const trouble = { hook: false, effect: false }
  const delivered: string[] = []
  const file = kind({
    onReference: async (tx: Tx, { operation }) => {
      if (trouble.hook) throw new Error('the hook fails')
      await tx.insert(photos).values({ name: operation.file.name })
      return null
    },
    effects: {
      notify: async ({ operation }) => {
        if (trouble.effect) throw new Error('the receiver is away')
        delivered.push(operation.id)
      },
    },
  })
  const strict = kind({ requireDigest: true, onReference: async (_tx: Tx) => null })
  return { trouble, delivered, kinds: { file, strict } }
}

async function start(options: Parameters<typeof startWithMovedClock>[1] = {}) {
  const { kinds, ...rest } = troubled()
  const world = await startWithMovedClock(kinds, options)
  closing.push(() => world.server.close())
  return { ...rest, ...world }
}

const key = (id: string) => ({ owner: 'ann', id })
const UNKNOWN = '0190000000007000800000000000000a'
const FILE = { kind: 'file' }

/** A server checks the clock: the one that runs, or one that starts. */
const looks: [string, (world: World) => Promise<unknown>][] = [
  ['the same server', ({ server }) => server.uploads.runOnce()],
  [
    'a new server',
    async ({ server }) => {
      await server.restart()
      await server.uploads.runOnce()
    },
  ],
]

describe.each(looks)('%s', (_name, look) => {
  test('nothing expires while the clock is eight days ahead, and uploads expire after one more week', async () => {
    const world = await start()
    const { server, jump, pass, now } = world
    const id = newId()
    await server.declare(id, { size: 10 }, FILE)
    await server.patch(id, 0, content(5))
    await jump(JUMP_MS)
    await look(world)
    await pass(SETTLED_MS)
    await server.uploads.runOnce()
    expect(await server.get(id)).toMatchObject({ recoveryPoint: 'declared', offset: 5 })
    const left = ((await server.ledger.find(key(id)))?.expiresAt ?? 0) - now()
    expect(left).toBeGreaterThan(WEEK_MS - 2 * SETTLED_MS)
    expect(left).toBeLessThan(WEEK_MS)
    await pass(WEEK_MS)
    await server.uploads.runOnce()
    expect(await server.get(id)).toMatchObject({ recoveryPoint: 'expired' })
  })

  test('nothing expires when the clock is set eight days ahead and back, and the uploads continue', async () => {
    const world = await start()
    const { server, jump, pass } = world
    const id = newId()
    const strict = newId()
    await server.declare(id, { size: 10 }, FILE)
    await server.patch(id, 0, content(5))
    await server.declare(strict, { size: 5 }, { kind: 'strict', digest: 'pending' })
    await server.patch(strict, 0, content(5))
    for (const ms of [JUMP_MS, -JUMP_MS]) {
      await jump(ms)
      await look(world)
      await pass(SETTLED_MS)
      await server.uploads.runOnce()
      expect(await server.get(id)).toMatchObject({ recoveryPoint: 'declared', offset: 5 })
      expect(await server.get(strict)).toMatchObject({ recoveryPoint: 'received' })
    }
    await server.patch(id, 5, content(10).subarray(5))
    expect(await server.get(id)).toMatchObject({ recoveryPoint: 'referenced' })
    const declared = await server.declare(strict, { size: 5 }, { kind: 'strict', digest: digestOf(content(5)) })
    expect(declared).toMatchObject({ recoveryPoint: 'referenced' })
  })

  test('what failed while the clock was ahead is tried again soon after the clock is right', async () => {
    const world = await start()
    const { server, jump, pass, trouble, delivered } = world
    trouble.effect = true
    const referenced = newId()
    const failed = newId()
    await jump(JUMP_MS)
    await look(world)
    await server.declare(referenced, { size: 5 }, FILE)
    await server.patch(referenced, 0, content(5))
    await server.uploads.runOnce()
    trouble.hook = true
    await server.declare(failed, { size: 5 }, FILE)
    await server.patch(failed, 0, content(5))
    expect(await server.ledger.find(key(failed))).toMatchObject({ attempts: 1 })
    trouble.hook = false
    trouble.effect = false
    await jump(-JUMP_MS)
    await look(world)
    await pass(60_000)
    await server.uploads.runOnce()
    expect(await server.get(referenced)).toMatchObject({ recoveryPoint: 'completed' })
    expect(await server.get(failed)).toMatchObject({ recoveryPoint: 'completed' })
    expect(delivered.toSorted()).toEqual([referenced, failed].toSorted())
  })

  test('a digest that was promised while the clock was ahead is waited for as long as usual', async () => {
    const world = await start({ digestGraceMs: 60_000 })
    const { server, jump, pass } = world
    await jump(JUMP_MS)
    await look(world)
    const id = newId()
    await server.declare(id, { size: 5 }, { ...FILE, digest: 'pending' })
    await server.patch(id, 0, content(5))
    await jump(-JUMP_MS)
    await look(world)
    await server.uploads.runOnce()
    expect(await server.get(id)).toMatchObject({ recoveryPoint: 'received' })
    await pass(61_000)
    await server.uploads.runOnce()
    expect(await server.get(id)).toMatchObject({ recoveryPoint: 'completed', reference: { digestSource: 'server' } })
  })

  test('the lease of a process that died while the clock was ahead ends after its usual time, and not earlier', async () => {
    const world = await start()
    const { server, jump, pass } = world
    const id = newId()
    await server.declare(id, { size: 10 }, FILE)
    await jump(JUMP_MS)
    await look(world)
    const lease = { holder: 'dead', leaseMs: 30_000, purpose: 'receive' as const }
    expect(await server.ledger.lease(key(id), lease)).toMatchObject({ outcome: 'granted' })
    await jump(-JUMP_MS)
    await server.uploads.runOnce()
    expect(await server.ledger.find(key(id))).toMatchObject({ leaseHolder: 'dead' })
    await pass(31_000)
    await server.uploads.runOnce()
    expect(await server.ledger.find(key(id))).toMatchObject({ leaseHolder: null, uncleanHolder: null })
    expect((await server.patch(id, 0, content(10))).status).toBe(204)
  })

  test('nothing stops when the clock is set back by eight days', async () => {
    const world = await start()
    const { server, jump, pass, trouble, delivered } = world
    trouble.effect = true
    const referenced = newId()
    const failed = newId()
    await server.declare(referenced, { size: 5 }, FILE)
    await server.patch(referenced, 0, content(5))
    await server.uploads.runOnce()
    trouble.hook = true
    await server.declare(failed, { size: 5 }, FILE)
    await server.patch(failed, 0, content(5))
    trouble.hook = false
    trouble.effect = false
    await jump(-JUMP_MS)
    await look(world)
    await pass(60_000)
    await server.uploads.runOnce()
    expect(delivered.toSorted()).toEqual([referenced, failed].toSorted())
  })
})

test.each(looks)('%s deletes nothing from quarantine because of the clock', async (_name, look) => {
  const world = await start()
  const { server, jump, pass } = world
  const unknown = join(server.directory, 'blobs', 'blobs', relativePath(UNKNOWN))
  await mkdir(dirname(unknown), { recursive: true })
  await writeFile(unknown, 'whose?')
  const reconcile = () => server.uploads.operator.reconcile({ apply: true, force: true })
  expect(await reconcile()).toMatchObject({ quarantined: 1, done: { quarantined: 1 } })
  for (const ms of [JUMP_MS, -JUMP_MS, JUMP_MS, -JUMP_MS, JUMP_MS]) {
    await jump(ms)
    expect(await reconcile()).toMatchObject({ quarantined: 1, done: { deleted: 0 } })
    await look(world)
    await pass(DAY_MS)
    expect(await reconcile()).toMatchObject({ quarantined: 1, done: { deleted: 0 } })
  }
  await pass(3 * DAY_MS)
  expect(await reconcile()).toMatchObject({ quarantined: 0, done: { deleted: 1 } })
})

test('a clock that is set ahead and back between two checks is noticed if anything asked in between whether it can be trusted', async () => {
  const { server, jump, pass, trouble } = await start()
  trouble.hook = true
  const id = newId()
  await jump(JUMP_MS)
  await server.declare(id, { size: 5 }, FILE)
  await server.patch(id, 0, content(5))
  trouble.hook = false
  await jump(-JUMP_MS)
  await pass(60_000)
  await server.uploads.runOnce()
  expect(await server.get(id)).toMatchObject({ recoveryPoint: 'completed' })
})

test('a clock that was ahead when the server was killed is noticed at the next start', async () => {
  const { server } = await start()
  const id = newId()
  await server.declare(id, { size: 5 }, FILE)
  await server.patch(id, 0, content(4))
  const taken = await server.ledger.lease(key(id), { holder: 'dead', leaseMs: 0, purpose: 'drive' })
  if (taken.outcome !== 'granted') throw new Error(taken.outcome)
  await server.ledger.record(taken.lease, taken.operation, {
    offset: 4,
    point: 'rejected',
    cleanupDue: true,
    attempts: 1,
    dueInMs: JUMP_MS,
    release: true,
  })
  await server.restart()
  await server.uploads.runOnce()
  expect(await server.ledger.find(key(id))).toMatchObject({ point: 'rejected', cleanupDue: false })
})

test('pauses that a receiver asked for survive a start', async () => {
  const { server, pass, trouble, delivered } = await start()
  trouble.effect = true
  const id = newId()
  await server.declare(id, { size: 5 }, FILE)
  await server.patch(id, 0, content(5))
  await server.uploads.runOnce()
  const [effect] = await server.ledger.effectsOf(key(id))
  await server.db.run(sql`UPDATE landfall_effects SET due_at = due_at + ${DAY_MS}`)
  trouble.effect = false
  await server.restart()
  await server.uploads.runOnce()
  expect(delivered).toEqual([])
  expect(effect).toMatchObject({ attempts: 1 })
  await pass(DAY_MS + 60_000)
  await server.uploads.runOnce()
  expect(delivered).toEqual([id])
})

test('time in which no server runs does not count', async () => {
  const { server, pass, now } = await start()
  const id = newId()
  await server.declare(id, { size: 10 }, FILE)
  await server.uploads.close()
  await pass(3 * DAY_MS)
  await server.restart()
  expect(((await server.ledger.find(key(id)))?.expiresAt ?? 0) - now()).toBeGreaterThan(WEEK_MS - 60_000)
})
