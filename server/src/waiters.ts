import type { Clock } from './ports.js'

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
   * owner go one after the other, and the more of them wait the more slowly; all who ask the same question before it is
   * asked get one answer.
   */
  look<T>(owner: string, question: string, ask: () => Promise<T>): Promise<T>
}

/**
 * A page waits with one request, whatever it follows: more than one for each page of a user is a mistake or an attack;
 * but many people may share an owner. Who comes later is not refused at once, because a refusal would show as a fault.
 */
const WOKEN_PER_OWNER = 64
const PER_OWNER = 4 * WOKEN_PER_OWNER

/**
 * A change wakes all who wait for it, and each of them gets an answer: between two looks of one owner passes so much for
 * each who waits, where more wait than a user has pages open. So a stream of changes costs no more with many of them.
 */
const PAUSE_EACH_MS = 4
const PAUSE_MOST_MS = 1_000
const FEW = 8

export function createWaiters(clock: Pick<Clock, 'monotonicMs' | 'sleep'>): Waiters {
  const places = new Map<string, number>()
  interface Turn {
    last: Promise<unknown>
    begunAtMs: number
    readonly asked: Map<string, Promise<unknown>>
  }
  const turns = new Map<string, Turn>()
  const pauseMs = (owner: string, turn: Turn): number => {
    const waiting = places.get(owner) ?? 0
    if (waiting <= FEW) return 0
    return Math.min(PAUSE_MOST_MS, waiting * PAUSE_EACH_MS) - (clock.monotonicMs() - turn.begunAtMs)
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
            if (turns.get(owner)?.asked.size === 0) turns.delete(owner)
          }
        },
      }
    },

    look<T>(owner: string, question: string, ask: () => Promise<T>): Promise<T> {
      const turn = turns.get(owner) ?? { last: Promise.resolve(), begunAtMs: -Infinity, asked: new Map() }
      turns.set(owner, turn)
      const asked = turn.asked.get(question)
      // The same question has the same kind of answer.
      if (asked !== undefined) return asked as Promise<T>
      const answer = turn.last.then(async () => {
        const ms = pauseMs(owner, turn)
        if (ms > 0) await clock.sleep(ms)
        // Who comes from now on may know of what this look does not see.
        turn.asked.delete(question)
        turn.begunAtMs = clock.monotonicMs()
        return ask()
      })
      turn.asked.set(question, answer)
      const settle = (): void => {
        // While some wait it is kept, for when it began.
        if (turn.last === over && !places.has(owner)) turns.delete(owner)
      }
      const over: Promise<void> = answer.then(settle, settle)
      turn.last = over
      return answer
    },
  }
}
