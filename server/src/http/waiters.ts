import { setImmediate as others } from 'node:timers/promises'
import type { Clock } from '../ports/clock.js'

/** A place among the requests of one owner that wait for a change. */
export interface Place {
  /**
   * Whether changes wake it. If not, the owner has too many waiting requests: this one may wait for a moment and then
   * read once.
   */
  readonly woken: boolean
  leave(): void
}

/** Limits what the waiting requests of one owner cost a process, so that other owners are not slowed down. */
export interface Waiters {
  /** Null when there is no place left. */
  enter(owner: string): Place | null
  /**
   * The answer to `ask`, which begins after this call, so that it contains everything that was committed before. The
   * reads of one owner go in batches, and the more of them wait, the longer the pause between batches. All requests
   * that ask the same question before it is read get one answer.
   *
   * @param end When it resolves first, the answer is null at once, and a question that no other request asks is not
   * read. Without `end` the answer is due, and no pause delays it.
   */
  look<T>(owner: string, question: string, ask: () => Promise<T>): Promise<T>
  look<T>(owner: string, question: string, ask: () => Promise<T>, end: Promise<unknown> | undefined): Promise<T | null>
}

/**
 * A page waits with one request, however many operations it follows. More than one for each page of a user is a mistake
 * or an attack, but many people may share one owner. A request above the limit is not refused at once, because a
 * refusal would look like a fault.
 */
const WOKEN_PER_OWNER = 64
const PER_OWNER = 4 * WOKEN_PER_OWNER

/**
 * A change wakes all requests that wait for it, and each of them gets an answer. If more requests of an owner wait than
 * a user has pages open, the pause between two batches is this long for each of them. So a stream of changes costs no
 * more when many wait.
 */
const PAUSE_EACH_MS = 4
const PAUSE_MOST_MS = 1_000
const FEW = 8

interface Question {
  /** How many requests wait for its answer. */
  asking: number
  /** The answer is due for one of them. */
  isDue: boolean
  readonly begin: () => void
  readonly answer: Promise<unknown>
}

/** The questions of one owner that are still to be read. */
interface Turn {
  readonly asked: Map<string, Question>
  /** When the last batch ended. */
  overAtMs: number
  isRunning: boolean
  pause: AbortController | null
}

function questionOf(ask: () => Promise<unknown>): Question {
  let begin = (): void => {}
  const answer = new Promise<void>((resolve) => (begin = resolve)).then(ask)
  return { asking: 0, isDue: false, begin, answer }
}

/** One after the other: several at a time would take the ledger's connections from other owners. */
async function lookAt(batch: readonly Question[]): Promise<void> {
  for (const question of batch) {
    if (question.asking === 0) continue
    question.begin()
    // The request that asks gets the fault.
    await question.answer.catch(() => {})
    // If the ledger answers at once, nothing else in this process would run between two reads.
    await others()
  }
}

export function createWaiters(clock: Pick<Clock, 'monotonicMs' | 'sleep'>): Waiters {
  const places = new Map<string, number>()
  const turns = new Map<string, Turn>()
  const pauseMs = (owner: string, turn: Turn): number => {
    const waiting = places.get(owner) ?? 0
    if (waiting <= FEW) return 0
    return Math.min(PAUSE_MOST_MS, waiting * PAUSE_EACH_MS) - (clock.monotonicMs() - turn.overAtMs)
  }

  async function run(owner: string, turn: Turn): Promise<void> {
    turn.isRunning = true
    // Requests that ask at the same moment belong to the same batch.
    await Promise.resolve()
    while (turn.asked.size > 0) {
      const ms = pauseMs(owner, turn)
      if (ms > 0 && ![...turn.asked.values()].some(({ isDue }) => isDue)) {
        turn.pause = new AbortController()
        await clock.sleep(ms, turn.pause.signal)
        turn.pause = null
      }
      const isRested = pauseMs(owner, turn) <= 0
      const batch = [...turn.asked].filter(([, { isDue }]) => isRested || isDue)
      // Requests that ask from now on may know of changes that these reads do not see.
      for (const [name] of batch) turn.asked.delete(name)
      await lookAt(batch.map(([, question]) => question))
      // Questions that are due neither shorten nor prolong the pause of the others.
      if (isRested) turn.overAtMs = clock.monotonicMs()
    }
    turn.isRunning = false
    // The entry is kept while requests of the owner wait, because it knows when the last batch ended.
    if (!places.has(owner)) turns.delete(owner)
  }

  function turnOf(owner: string): Turn {
    const known = turns.get(owner)
    if (known !== undefined) return known
    const turn: Turn = { asked: new Map(), overAtMs: -Infinity, isRunning: false, pause: null }
    turns.set(owner, turn)
    return turn
  }

  return {
    enter(owner) {
      const before = places.get(owner) ?? 0
      if (before >= PER_OWNER) return null
      places.set(owner, before + 1)
      return {
        woken: before < WOKEN_PER_OWNER,
        leave() {
          const left = (places.get(owner) ?? 1) - 1
          if (left > 0) places.set(owner, left)
          else {
            places.delete(owner)
            if (turns.get(owner)?.isRunning === false) turns.delete(owner)
          }
        },
      }
    },

    look<T>(owner: string, name: string, ask: () => Promise<T>, end?: Promise<unknown>) {
      const turn = turnOf(owner)
      const question = turn.asked.get(name) ?? questionOf(ask)
      turn.asked.set(name, question)
      question.asking += 1
      // The same question has the same type of answer.
      const answer = question.answer as Promise<T>
      if (end === undefined) {
        question.isDue = true
        turn.pause?.abort('due')
      }
      if (!turn.isRunning) void run(owner, turn)
      if (end === undefined) return answer
      const left = end.then(() => {
        question.asking -= 1
        if (question.asking === 0 && turn.asked.get(name) === question) turn.asked.delete(name)
        return null
      })
      return Promise.race([answer, left]) as Promise<T>
    },
  }
}
