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
   * owner go one after the other; all who ask the same question before it is asked get one answer.
   */
  look<T>(owner: string, question: string, ask: () => Promise<T>): Promise<T>
}

/**
 * A page waits with one request, whatever it follows: more than one for each page of a user is a mistake or an attack;
 * but many people may share an owner. Who comes later is not refused at once, because a refusal would show as a fault.
 */
const WOKEN_PER_OWNER = 64
const PER_OWNER = 4 * WOKEN_PER_OWNER

export function createWaiters(): Waiters {
  const places = new Map<string, number>()
  const turns = new Map<string, { last: Promise<unknown>; readonly asked: Map<string, Promise<unknown>> }>()

  return {
    enter(owner) {
      const before = places.get(owner) ?? 0
      if (before >= PER_OWNER) return null
      places.set(owner, before + 1)
      return {
        woken: before < WOKEN_PER_OWNER,
        leave() {
          const left = (places.get(owner) ?? 1) - 1
          if (left === 0) places.delete(owner)
          else places.set(owner, left)
        },
      }
    },

    look<T>(owner: string, question: string, ask: () => Promise<T>): Promise<T> {
      const turn = turns.get(owner) ?? { last: Promise.resolve(), asked: new Map<string, Promise<unknown>>() }
      turns.set(owner, turn)
      const asked = turn.asked.get(question)
      // The same question has the same kind of answer.
      if (asked !== undefined) return asked as Promise<T>
      const answer = turn.last.then(() => {
        // Who comes from now on may know of what this look does not see.
        turn.asked.delete(question)
        return ask()
      })
      turn.asked.set(question, answer)
      const settle = (): void => {
        if (turn.last === over) turns.delete(owner)
      }
      const over: Promise<void> = answer.then(settle, settle)
      turn.last = over
      return answer
    },
  }
}
