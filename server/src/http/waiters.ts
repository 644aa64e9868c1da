import { setImmediate as others } from 'node:timers/promises'
import type { Clock } from '../ports/clock.js'

/** A place among those of one owner who wait for a change. */
export interface Place {
  /** Whether changes wake it. If not, the house is full: it may wait for a moment and then look. */
  readonly woken: boolean
  leave(): void
}

/** Bounds what the waiting requests of one owner cost a process, so that they cost other owners nothing. */
export interface Waiters {
  /** Null when there is no place left. */
  enter(owner: string): Place | null
  /**
   * The answer to `ask`, begun after this call, so that it knows of everything that was committed before it. Looks of one
   * owner go in batches, and the more of them wait the more seldom; all who ask the same question before it is asked get
   * one answer.
   *
   * @param end When it resolves first, the answer is null at once, and what nobody else asks is not asked. Without it the
   * answer is due, and is not paused for.
   */
  look<T>(owner: string, question: string, ask: () => Promise<T>): Promise<T>
  look<T>(owner: string, question: string, ask: () => Promise<T>, end: Promise<unknown> | undefined): Promise<T | null>
}

/**
 * A page waits with one request, whatever it follows: more than one for each page of a user is a mistake or an attack;
 * but many people may share an owner. Who comes later is not refused at once, because a refusal would show as a fault.
 */
const WOKEN_PER_OWNER = 64
const PER_OWNER = 4 * WOKEN_PER_OWNER

/**
 * A change wakes all who wait for it, and each of them gets an answer: between two batches of looks of one owner passes so
 * much for each who waits, where more wait than a user has pages open. So a stream of changes costs no more with many of
 * them.
 */
const PAUSE_EACH_MS = 4
const PAUSE_MOST_MS = 1_000
const FEW = 8

interface Question {
  /** How many wait for its answer. */
  asking: number
  /** For one of them the answer is due. */
  isDue: boolean
  readonly begin: () => void
  readonly answer: Promise<unknown>
}

/** What waits for its look of one owner. */
interface Turn {
  readonly asked: Map<string, Question>
  /** When the last batch was over. */
  overAtMs: number
  isRunning: boolean
  pause: AbortController | null
}

function questionOf(ask: () => Promise<unknown>): Question {
  let begin = (): void => {}
  const answer = new Promise<void>((resolve) => (begin = resolve)).then(ask)
  return { asking: 0, isDue: false, begin, answer }
}

/** One after the other: more at a time would take the ledger's connections from other owners. */
async function lookAt(batch: readonly Question[]): Promise<void> {
  for (const question of batch) {
    if (question.asking === 0) continue
    question.begin()
    // Whoever asks hears of the fault.
    await question.answer.catch(() => {})
    // A ledger that answers at once would let nobody else of this process come between two looks.
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
    // Whoever asks in the same moment belongs to the same batch.
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
      // Who comes from now on may know of what these looks do not see.
      for (const [name] of batch) turn.asked.delete(name)
      await lookAt(batch.map(([, question]) => question))
      // Those that are due neither shorten the pause of the others nor make it longer.
      if (isRested) turn.overAtMs = clock.monotonicMs()
    }
    turn.isRunning = false
    // While some wait it is kept, for when its last batch was over.
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
      // The same question has the same kind of answer.
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
