import type { Problem } from '@landfall/shared'
import { UploadError } from '../errors.js'

// How an application's hook ends within its transaction.

/** The lease, the digest or the point is another now: everything is rolled back. Never seen outside. */
export class Lost extends Error {}

/** Rolls the application's transaction back; never seen outside. */
export class Rejected extends Error {
  readonly problem: Problem
  constructor(why: Problem) {
    super(why.title)
    this.problem = why
  }
}

/** Ends the waiting for a hook from outside; what the hook does later is nobody's any more. */
export function createPatience(limitMs: number) {
  let giveUp = (_why: UploadError): void => {}
  const given = new Promise<never>((_resolve, reject) => (giveUp = reject))
  given.catch(() => {})
  const timer = setTimeout(
    () => giveUp(new UploadError('hook-timeout', `onReference took longer than ${limitMs} ms`)),
    limitMs,
  )
  return {
    giveUp: (why: UploadError): void => giveUp(why),
    wait<T>(work: Promise<T>): Promise<T> {
      work.catch(() => {})
      return Promise.race([work, given]).finally(() => clearTimeout(timer))
    },
  }
}
