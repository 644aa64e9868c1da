import pLimit, { type LimitFunction } from 'p-limit'
import { deadline, grantedWithin, type Limit } from '../../lib/deadline.js'
import { UploadError } from '../../lib/errors.js'
import type { Connection, Connections, Session } from './connection.js'
import { faultOf, isAway } from './query.js'

/** How long a call may take from when it has its connection, in milliseconds. */
export const ANSWER_MS = 5_000
/** The same for calls that read or change whole tables. No client waits for these. */
export const LONG_MS = 60_000
/**
 * What is left to a call on a connection that is suspect, because another one has not answered in `ANSWER_MS` and this
 * one has said nothing since that was asked: the database's host may be gone. Without it a call that began right before
 * that was known would take its whole time too, and a node twice as long to be back.
 */
const SUSPECT_MS = 1_000
/** So long a call waits for its connection once it is its turn: for the server to take a new one. */
const WAIT_MS = 5_000
/**
 * So long it waits for its turn, behind others who have all connections. Longer than theirs may take: those whose
 * connections are silent end before, and a thousand uploads that come at once on ten connections are slow, and not away.
 */
const TURN_MS = 20_000
/** Of hooks only a few are let in at once, and each may take its own time limit. */
const HOOK_WAIT_MS = 20_000

/** What a call may say of its connection, or to it. */
export type Running = Pick<Connection, 'heard' | 'stop' | 'commits'>
type Work<T> = (session: Session, limit: Limit, connection: Running) => Promise<T>

/**
 * Who gets a connection, of those that this ledger asks for, and for how long. Each call ends in time: after `TURN_MS`
 * without its turn, `WAIT_MS` without a connection, `answerMs` with one. That connection is ended then, and the next call gets another one.
 */
export interface Turns {
  /** All but one of them: the last is for what must not come late, because others take its silence for a death. */
  take<T>(work: Work<T>, answerMs?: number): Promise<T>
  /** Hooks that hang must not take all of those: others are to go on. */
  takeForHook<T>(work: Work<T>): Promise<T>
  /** Before all calls that wait for their turn. */
  takeAtOnce<T>(work: Work<T>, answerMs?: number): Promise<T>
}

export function createTurns(connections: Connections): Turns {
  const max = connections.most
  const hooksAtOnce = max === Number.POSITIVE_INFINITY ? max : Math.max(1, max - Math.max(2, Math.ceil(max / 5)))
  const hooks = pLimit(hooksAtOnce)
  const crowd = pLimit(Math.max(hooksAtOnce + 1, max - 1))
  /**
   * Calls that wait for their answers. Hooks are not among them: they are silent for as long as the application thinks.
   * Nor are calls that may take longer than `LONG_MS`: another call may be late only because it waits for what such a
   * call has locked, and an owner who uploads would keep an operator from ever forgetting them.
   */
  const waiting = new Set<{ readonly connection: Connection; readonly limit: Limit; readonly endsAtMs: number }>()

  function distrust(sinceMs: number): void {
    connections.distrust(sinceMs)
    const soonMs = performance.now() + SUSPECT_MS
    for (const { connection, limit, endsAtMs } of waiting)
      if (endsAtMs > soonMs && connection.isSuspect()) limit.again(SUSPECT_MS)
  }

  async function run<T>(work: Work<T>, untilMs: number, answerMs: number, isHook = false): Promise<T> {
    const getting = connections.get().catch((error: unknown) => Promise.reject(faultOf(error)))
    const connection = await grantedWithin(getting, Math.max(1, untilMs - performance.now()), {
      late: () => new UploadError('ledger-unavailable', 'no connection to the database was to be had in time'),
      giveBack: (late: Connection) => late.release(),
    })
    const beganMs = performance.now()
    let isLate = false
    try {
      const result = await deadline(
        async (limit) => {
          if (isHook || answerMs > LONG_MS) return work(connection.session, limit, connection)
          const call = { connection, limit, endsAtMs: beganMs + answerMs }
          waiting.add(call)
          try {
            return await work(connection.session, limit, connection)
          } finally {
            waiting.delete(call)
          }
        },
        answerMs,
        undefined,
        () => {
          isLate = true
          return new UploadError('ledger-unavailable', 'the database did not answer in time')
        },
      )
      connection.release()
      return result
    } catch (error) {
      if (isLate) distrust(beganMs)
      if (isLate || isAway(error)) connection.destroy()
      else connection.release()
      throw error
    }
  }

  return {
    take: (work, answerMs = ANSWER_MS) =>
      inTurn(crowd, performance.now() + TURN_MS, () => run(work, performance.now() + WAIT_MS, answerMs)),
    takeForHook: (work) =>
      inTurn(hooks, performance.now() + HOOK_WAIT_MS, () =>
        inTurn(crowd, performance.now() + TURN_MS, () => run(work, performance.now() + WAIT_MS, ANSWER_MS, true)),
      ),
    takeAtOnce: (work, answerMs = ANSWER_MS) => run(work, performance.now() + Math.min(WAIT_MS, answerMs), answerMs),
  }
}

/** Who has waited too long is told so, and asks nothing any more. */
async function inTurn<T>(limit: LimitFunction, untilMs: number, work: () => Promise<T>): Promise<T> {
  const granting = new Promise<() => void>((granted) => {
    void limit(() => new Promise<void>((done) => granted(done)))
  })
  const done = await grantedWithin(granting, Math.max(1, untilMs - performance.now()), {
    late: () => new UploadError('ledger-unavailable', 'too many wait for the database'),
    giveBack: (end) => end(),
  })
  try {
    return await work()
  } finally {
    done()
  }
}
