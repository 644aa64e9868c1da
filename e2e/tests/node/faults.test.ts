/**
 * Faults of the object store and of PostgreSQL, with three nodes of an application with Landfall and with the usual
 * stack beside it: the same faults on the same calls. What Landfall does is asserted, what the other does is only looked
 * at; the table of both is printed at the end.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openGround } from '../../ground/ground.js'
import { createTurns } from '../../ground/turns.js'
import { CASES } from '../../faults/cases.js'
import { type Course, type Disturbance, follow } from '../../faults/course.js'
import {
  type Between,
  driveEverywhere,
  type LostAnswer,
  loseAnswerAndRestart,
  takeAwayAtCompletion,
} from '../../faults/database.js'
import { openStage, type Stage } from '../../faults/stage.js'
import { type Row, tableOf } from '../../faults/table.js'

const opened = await openGround().catch((error: Error) => error)
const missing = opened instanceof Error ? opened.message : null
/** More of them at once on two cores, and their time limits would strike by themselves. */
const inTurn = createTurns(4)

const LOST = 'the answer to COMMIT is lost, PostgreSQL is restarted'
const AWAY = [
  ['PostgreSQL is away for 3 s when the bytes are complete', 'reset'],
  ['PostgreSQL says nothing for 3 s when the bytes are complete', 'black-hole'],
] as const

const ARRIVED = { told: { success: true }, stored: 'right', references: 1, rows: 1, effects: 1, offsetFell: false }
const REFUSED = { told: { success: false }, references: 0, rows: 0, effects: 0, offsetFell: false }

describe.skipIf(opened instanceof Error)(`faults${missing === null ? '' : ` (${missing})`}`, () => {
  let stage: Stage
  const rows: Row[] = []
  beforeAll(async () => {
    if (!(opened instanceof Error)) stage = await openStage(opened)
  })
  afterAll(async () => {
    await stage.ground.close()
    const faults = [...CASES.map(({ name }) => name), LOST, ...AWAY.map(([name]) => name)]
    const inOrder = rows.toSorted((a, b) => faults.indexOf(a.fault) - faults.indexOf(b.fault))
    process.stdout.write(`\n${tableOf(inOrder)}\n`)
  })

  describe.concurrent('of the object store', () => {
    test.for(CASES.map((fault) => [fault.name, fault] as const))('%s', { timeout: 180_000 }, async ([, fault]) => {
      const [byTus, byOperation, peer] = await inTurn(() =>
        Promise.all([
          follow(stage, stage.landfall, 'tus', fault),
          follow(stage, stage.landfall, 'operation', fault),
          follow(stage, stage.peer, 'tus', fault),
        ]),
      )
      const landfall = [byTus, byOperation]
      rows.push({ fault: fault.name, landfall, peer })
      const { ends, leastStruck = 1 } = fault
      for (const course of landfall) {
        expect(course).toMatchObject(ends === 'bytes-lost' ? REFUSED : ARRIVED)
        expect(course.struck).toBeGreaterThanOrEqual(leastStruck)
      }
      expect(peer.struck).toBeGreaterThanOrEqual(Math.min(1, leastStruck))
    })
  })

  /** Against hanging only: an effect may be in hand for two minutes. */
  const PATIENCE_MS = 300_000

  describe('of PostgreSQL', () => {
    /** `between` is told how it stood. */
    const losing = (lost: LostAnswer, between: Between[] = []): Disturbance => ({
      async strike(upload) {
        await upload.created
        const driving = upload.system.name === 'landfall' ? driveEverywhere(upload) : null
        between.push(await loseAnswerAndRestart(stage, upload, lost))
        await sleep(1_000)
        for (const answered of (await driving?.stop()) ?? []) expect(answered).toBeGreaterThan(0)
      },
    })
    const byCommit: Course[] = []

    test.each(['tus', 'operation', 'tus', 'operation'] as const)(
      'the answer to COMMIT is lost and PostgreSQL restarted, three nodes drive; by %s',
      async (client) => {
        const between: Between[] = []
        const course = await follow(stage, stage.landfall, client, losing('COMMIT', between))
        byCommit.push(course)
        expect(course).toMatchObject(ARRIVED)
        // It was this COMMIT that took effect: nobody had come to another one.
        expect(between).toEqual([{ attempts: 1, committed: true }])
      },
      PATIENCE_MS,
    )

    test.each(['tus', 'operation'] as const)(
      'PostgreSQL is restarted in the middle of the transaction, three nodes drive; by %s',
      async (client) => {
        expect(await follow(stage, stage.landfall, client, losing('the row'))).toMatchObject(ARRIVED)
      },
      PATIENCE_MS,
    )

    test.each(AWAY)(
      '%s',
      async (name, how) => {
        const away: Disturbance = { strike: (upload) => takeAwayAtCompletion(upload, how) }
        const oneByOne = async (): Promise<Course[]> => [
          await follow(stage, stage.landfall, 'tus', away),
          await follow(stage, stage.landfall, 'operation', away),
        ]
        const [landfall, peer] = await Promise.all([oneByOne(), follow(stage, stage.peer, 'tus', away)])
        rows.push({ fault: name, landfall, peer })
        for (const course of landfall) expect(course).toMatchObject(ARRIVED)
      },
      PATIENCE_MS,
    )

    test('the usual stack beside it', async () => {
      const between: Between[] = []
      const peer = await follow(stage, stage.peer, 'tus', losing('COMMIT', between))
      rows.push({ fault: LOST, landfall: byCommit, peer })
      expect(between).toEqual([{ attempts: 1, committed: true }])
    })
  })
})
