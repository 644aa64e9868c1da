import { sql } from 'drizzle-orm'
import { v7 as uuidv7 } from 'uuid'
import type { EffectFunction } from '../../src/kinds/effect.js'
import type { SqlRow } from '../../src/ledger/query.js'
import { createClient, type Client } from './client.js'
import { DUE, type ModelDatabase } from './database.js'
import { applies, ENDING, type Fault, type Stage, strikeOf } from './faults.js'
import { forgotten, INVARIANTS, steps } from './invariants.js'
import { kind, reject } from './modules.js'
import type { Scenario } from './scenarios.js'
import { createWorld, EXPIRES_AFTER_MS, type Tx, type World } from './world.js'

export interface Outcome {
  /** Each names its invariant. The list is empty if all invariants hold. */
  readonly violations: readonly string[]
  /** The boundaries that were crossed. */
  readonly calls: readonly string[]
  /** How many of the faults happened at a boundary. */
  readonly struck: number
}

/** Runs one upload with its faults, from its first request until nothing changes any more. */
export async function runHistory(
  database: ModelDatabase,
  scenario: Scenario,
  faults: readonly Fault[],
  seed = 1,
): Promise<Outcome> {
  const random = Math.random
  Math.random = seeded(seed)
  try {
    const history = createHistory(database, { exclusive: scenario.exclusive === true, faults })
    const client = history.upload(scenario, seed)
    await history.world.finish(client.upload())
    return await history.end()
  } finally {
    Math.random = random
  }
}

type Hook = Parameters<typeof kind<Tx, { arrived: boolean }>>[0]['onReference']
type Notify = EffectFunction<unknown, unknown>

interface Upload {
  readonly id: string
  readonly scenario: Scenario
  readonly client: Client
  seen: SqlRow | null
  /** The disk has lost bytes of it. */
  damaged: boolean
}

/** Several uploads of one owner, on one disk and in one database. */
export function createHistory(
  database: ModelDatabase,
  { exclusive, faults }: { exclusive: boolean; faults: readonly Fault[] },
) {
  const owner = uuidv7()
  const violations = new Set<string>()
  const violated = (words: string): void => void violations.add(words)
  const uploads = new Map<string, Upload>()
  const deliveries: { id: string; effectId: string }[] = []
  const pending = new Set<Promise<unknown>>()
  /** The latest upload. A fault that needs a client uses this upload's client. */
  let active: Upload | null = null
  let struck = 0
  let peaceful = true

  const stageOf = (upload: Upload): Stage => ({
    world,
    client: upload.client,
    pending,
    damage(how) {
      const key = String(rowOf(upload.id)?.['blob_key'])
      if (world.disk.damage(key, how)) upload.damaged = true
    },
  })

  const rowOf = (id: string): SqlRow | null =>
    database.read('SELECT * FROM landfall_operations WHERE owner = ? AND id = ?', [owner, id])[0] ?? null

  const tombstoneOf = (id: string): string | null => {
    const point = database.read('SELECT point FROM landfall_tombstones WHERE id = ?', [id])[0]?.['point']
    return typeof point === 'string' ? point : null
  }

  function observe(): void {
    for (const upload of uploads.values()) {
      const row = rowOf(upload.id)
      const disk = upload.damaged ? null : world.disk
      const wrong = steps(upload.seen, row, upload.client.content, disk, tombstoneOf(upload.id) !== null)
      if (wrong !== null) violated(wrong)
      upload.seen = row
    }
  }

  const world: World = createWorld({
    database,
    owner,
    exclusive,
    checkpoints: true,
    observe,
    violated,
    strikeAt({ index, call }) {
      const fault = faults.find(({ at }) => at === index)
      if (fault === undefined || active === null || !applies(fault.how, call)) return null
      struck++
      if (ENDING.has(fault.how)) peaceful = false
      return strikeOf(fault.how, stageOf(active))
    },
    kindsOf(cross) {
      const onReference: Hook = (tx, { operation, blob }) =>
        cross('hook', async () => {
          await tx.run(sql`INSERT INTO arrivals VALUES (${operation.id}, ${owner}, ${blob.digest})`)
          return operation.kind === 'refused' ? reject('unwanted') : { arrived: true }
        })
      const scan = (): Promise<string> => cross('prepare', async () => 'clean')
      const notify: Notify = ({ effectId, operation }) =>
        cross('effect', async () => void deliveries.push({ id: operation.id, effectId }))
      return {
        plain: kind({ onReference }),
        refused: kind({ onReference }),
        prepared: kind({ onReference, prepare: { scan } }),
        notified: kind({ onReference, effects: { notify } }),
      }
    },
  })

  /** The completers of all processes run until nothing is due before `untilAt`. */
  async function settle(untilAt: number): Promise<void> {
    const jumpedBeforeMs = world.jumpedMs()
    // An effect that is due and not taken waits for the pause of its target, which is state of a process.
    let waitMs = 0
    for (let passes = 0; passes < 80; passes++) {
      while (pending.size > 0) await world.finish(Promise.all(pending))
      const dueAt = database.read(`SELECT MIN(due) AS due FROM (${DUE})`, [])[0]?.['due'] ?? null
      if (dueAt === null || Number(dueAt) > untilAt + world.jumpedMs() - jumpedBeforeMs) return
      waitMs = Number(dueAt) > world.now() ? 0 : Math.min(60_000, Math.max(500, waitMs * 2))
      await world.pass(Math.max(Number(dueAt) - world.now(), waitMs / 2))
      const [first = world.server(), ...others] = world.alive()
      for (const server of [first, ...others]) await world.finish(server.runOnce())
    }
    violated('6: the completer never finishes')
  }

  function check(): void {
    observe()
    const keys = new Set(
      [...uploads.keys()].flatMap((id) =>
        // The row is found by its id alone, because its owner may have been forgotten.
        database.read('SELECT blob_key FROM landfall_operations WHERE id = ?', [id]).map((row) => row['blob_key']),
      ),
    )
    const strays = [...world.disk.stored.keys()].filter((key) => !keys.has(key))
    for (const { id, scenario, client, damaged } of uploads.values()) {
      const of = (table: string): SqlRow[] =>
        database.read(`SELECT * FROM ${table} WHERE owner = ? AND operation_id = ?`, [owner, id])
      const point = tombstoneOf(id)
      if (client.told.gone && point === null) violated('1: 410 was answered, and the operation still exists')
      if (point !== null) {
        const by = (table: string, column: string): SqlRow[] =>
          database.read(`SELECT * FROM ${table} WHERE ${column} = ?`, [id])
        const wrong = forgotten({
          point,
          rows: by('landfall_operations', 'id'),
          references: by('landfall_references', 'operation_id'),
          effects: by('landfall_effects', 'operation_id'),
          arrivals: by('arrivals', 'operation_id'),
        })
        const [contradiction] = client.told.contradictions
        if (strays.length > 0) violated('6: a blob without an operation')
        for (const words of [wrong, contradiction ?? null]) if (words !== null) violated(words)
        continue
      }
      const { digest, kind: name, leaves, cancelAfter, forget } = scenario
      const ending = {
        id,
        content: client.content,
        told: client.told,
        operation: rowOf(id),
        references: of('landfall_references'),
        arrivals: of('arrivals'),
        effects: of('landfall_effects'),
        deliveries: deliveries.filter((delivery) => delivery.id === id).map(({ effectId }) => effectId),
        disk: world.disk,
        strays,
        owed: name === 'notified' ? ['notify'] : [],
        rejects: name === 'refused',
        damaged,
        mustArrive:
          peaceful &&
          !digest.endsWith('wrong') &&
          name !== 'refused' &&
          leaves !== true &&
          cancelAfter === undefined &&
          forget === undefined,
        nowAt: world.now(),
      }
      for (const [number, holds] of INVARIANTS) {
        const wrong = holds(ending)
        if (wrong !== null) violated(`${number}: ${wrong}`)
      }
    }
  }

  return {
    world,
    uploads,
    violated,
    pending,
    upload(scenario: Scenario, seed: number): Client {
      const id = uuidv7()
      const client = createClient(world, scenario, id, seed)
      active = { id, scenario, client, seen: null, damaged: false }
      uploads.set(id, active)
      return client
    },
    /** Chooses the upload of the next faults. */
    aim(client: Client): Stage | null {
      active = [...uploads.values()].find((upload) => upload.client === client) ?? null
      return active === null ? null : stageOf(active)
    },
    disturbed: (): void => void (peaceful = false),
    async end(): Promise<Outcome> {
      try {
        // Only operations that wait for their client may be unfinished here.
        await settle(world.now() + EXPIRES_AFTER_MS / 3)
        check()
        // At the end none may be.
        if (violations.size === 0) {
          await settle(Number.POSITIVE_INFINITY)
          check()
        }
      } finally {
        world.end()
        await world.quiet()
        database.forget()
      }
      return { violations: [...violations], calls: world.calls, struck }
    },
  }
}

/** mulberry32: backoff is drawn at random, and a history must be the same each time. */
export function seeded(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
}
