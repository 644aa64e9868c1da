import type { Problem } from '@landfall/shared'
import { UploadError } from '../lib/errors.js'

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

/** The hook's own time is over: what it does later has no effect any more. */
export const hookTimeout = (limitMs: number) => (): UploadError =>
  new UploadError('hook-timeout', `onReference took longer than ${limitMs} ms`)
