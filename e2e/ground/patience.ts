import { setTimeout as sleep } from 'node:timers/promises'

export class TooLate extends Error {}

/** @throws TooLate after `ms`, with the text that `what` gives at that time */
export async function within<T>(work: Promise<T>, ms: number, what: string | (() => string)): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(tooLate(what, ms)), ms)
  })
  return Promise.race([work, late]).finally(() => clearTimeout(timer))
}

/**
 * Asks again and again until there is an answer. An answer of null, undefined or false means "not yet".
 *
 * @throws TooLate after `withinMs`, with the text that `what` gives at that time
 */
export async function until<T>(
  ask: () => Promise<T | null | undefined | false> | T | null | undefined | false,
  withinMs: number,
  what: string | (() => string),
  everyMs = 50,
): Promise<T> {
  for (const deadline = performance.now() + withinMs; ; await sleep(everyMs)) {
    const answer = await ask()
    if (answer !== null && answer !== undefined && answer !== false) return answer
    if (performance.now() > deadline) throw tooLate(what, withinMs)
  }
}

const tooLate = (what: string | (() => string), ms: number): TooLate =>
  new TooLate(`${typeof what === 'string' ? what : what()}: not within ${ms} ms`)
