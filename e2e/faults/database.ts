import { setTimeout as sleep } from 'node:timers/promises'
import { wireTo } from '../clients/wire.js'
import { until } from '../ground/patience.js'
import type { Upload } from './course.js'
import type { Stage } from './stage.js'

/** The statement whose answer is lost, in the transaction that makes a file arrive. */
export type LostAnswer = 'the row' | 'COMMIT'

const AWAY_MS = 3_000

/**
 * Takes PostgreSQL away for 3 s, from the moment at which the object store is asked to complete the multipart upload.
 * With `reset` PostgreSQL cannot be reached; with `black-hole` it does not answer.
 */
export async function takeAwayAtCompletion({ system, line }: Upload, how: 'reset' | 'black-hole'): Promise<void> {
  await line.struck(line.arm({ kind: 'delay', ms: 300 }, { call: 'complete' }))
  system.database.cut(how)
  await sleep(AWAY_MS)
  system.database.heal()
}

/** The state between the lost answer and the restart. */
export interface Between {
  /** How often the row was written. All transactions but one may have been rolled back. */
  readonly attempts: number
  /** Whether the row was committed. */
  readonly committed: boolean
}

/** Loses the answer to a statement of this upload, and restarts PostgreSQL at once. */
export async function loseAnswerAndRestart(
  { ground }: Stage,
  { system, operationId }: Upload,
  lost: LostAnswer,
): Promise<Between> {
  // If a single statement is a transaction, its answer is also the answer to its COMMIT.
  const row = system.name === 'landfall' ? 'insert into "arrivals"' : 'INSERT INTO arrivals'
  let attempts = 0
  const wanted = new Set<number>()
  const lose = system.database.loseAnswers((bytes, connection) => {
    if (bytes.includes(row) && bytes.includes(operationId)) {
      attempts += 1
      wanted.add(connection)
      return lost === 'the row' || system.name === 'peer'
    }
    return wanted.has(connection) && bytes.includes('commit')
  }, 1)
  await until(() => lose.struck > 0, 60_000, 'such a statement', 5)
  const hasRow = async (): Promise<boolean> =>
    (await system.query('SELECT 1 FROM arrivals WHERE name = $1', [operationId])).length > 0
  // The statement reached the database and is executed a moment later.
  let committed = false
  if (lost === 'COMMIT') for (let look = 0; !committed && look < 100; look += 1) committed = await hasRow()
  const between = { attempts, committed }
  await ground.postgres.restart('immediate')
  return between
}

/**
 * Asks every node to drive the operation, again and again. Returns a function that stops this and says how often each
 * node has answered.
 */
export function driveEverywhere({ system: { nodes }, operationId, sizeBytes }: Upload) {
  const stopping = new AbortController()
  const answers = nodes.map(() => 0)
  const loops = nodes.map(async (node, n) => {
    const wire = wireTo(node)
    for (; !stopping.signal.aborted; await sleep(50)) {
      const answer = await wire.declare(operationId, sizeBytes, operationId).catch(() => null)
      await answer?.arrayBuffer().catch(() => null)
      if (answer?.ok === true) answers[n] = (answers[n] ?? 0) + 1
    }
  })
  return {
    async stop(): Promise<readonly number[]> {
      stopping.abort()
      await Promise.all(loops)
      return answers
    },
  }
}
