import pLimit, { type LimitFunction } from 'p-limit'
import { deadline, grantedWithin, type Limit } from '../../lib/deadline.js'
import { UploadError } from '../../lib/errors.js'
import type { Connection, Connections, Session } from './connection.js'
import { faultOf, isAway } from './query.js'

/** How long a call may take after it has got its connection, in milliseconds. */
export const ANSWER_MS = 5_000
/** The same for calls that read or change whole tables. No client waits for them. */
export const LONG_MS = 60_000
/**
 * How long a call may still take on a suspect connection. A connection is suspect if another one has not answered
 * within `ANSWER_MS`, and this one has not answered since that request was sent: the database's host may be gone.
 * Without this limit, a call that began right before that was known would take its whole time too, and a node would
 * need twice as long to recover.
 */
const SUSPECT_MS = 1_000
/** How long a call waits for its connection once it is its turn, while the server accepts a new one. */
const WAIT_MS = 5_000
/**
 * How long a call waits for its turn while other calls have all connections. This is longer than those may take. Calls
 * on silent connections end before it, and a thousand uploads that arrive at once on ten connections are slow, but the
 * database is not unavailable.
 */
const TURN_MS = 20_000
/** How long a hook waits for its turn. Only a few hooks run at once, and each may use its whole time limit. */
const HOOK_WAIT_MS = 20_000

/** What a call may report about its connection, or ask of it. */
export type Running = Pick<Connection, 'heard' | 'stop' | 'commits'>
type Work<T> = (session: Session, limit: Limit, connection: Running) => Promise<T>

/**
 * Decides which call gets a connection of this ledger, and for how long. Each call ends in time: after `TURN_MS`
 * without its turn, after `WAIT_MS` without a connection, or after `answerMs` with one. In the last case its connection
 * is ended, and the next call gets another one.
 */
export interface Turns {
  /**
   * Uses all connections except one. The last one is for calls that must not be late, because other nodes would take a
   * delay for a death.
   */
  take<T>(work: Work<T>, answerMs?: number): Promise<T>
  /** Hooks that hang must not take all of those connections, so that other calls can continue. */
  takeForHook<T>(work: Work<T>): Promise<T>
  /** Runs before all calls that wait for their turn. */
  takeAtOnce<T>(work: Work<T>, answerMs?: number): Promise<T>
}

export function createTurns(connections: Connections): Turns {
  const max = connections.most
  const hooksAtOnce = max === Number.POSITIVE_INFINITY ? max : Math.max(1, max - Math.max(2, Math.ceil(max / 5)))
  const hooks = pLimit(hooksAtOnce)
  const crowd = pLimit(Math.max(hooksAtOnce + 1, max - 1))
  /**
   * Calls that wait for their answers. Hooks are not among them, because they are silent while the application's code
   * runs. Nor are calls that may take longer than `LONG_MS`. Another call may be late only because it waits for rows
   * that such a call has locked. Then an owner who keeps uploading would prevent an operator from ever forgetting that
   * owner.
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
      late: () => new UploadError('ledger-unavailable', 'no connection to the database became available in time'),
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

/** A call that has waited too long fails with `ledger-unavailable`, and asks nothing of the database any more. */
async function inTurn<T>(limit: LimitFunction, untilMs: number, work: () => Promise<T>): Promise<T> {
  const granting = new Promise<() => void>((granted) => {
    void limit(() => new Promise<void>((done) => granted(done)))
  })
  const done = await grantedWithin(granting, Math.max(1, untilMs - performance.now()), {
    late: () => new UploadError('ledger-unavailable', 'too many calls wait for the database'),
    giveBack: (end) => end(),
  })
  try {
    return await work()
  } finally {
    done()
  }
}
