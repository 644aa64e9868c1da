import type { Problem } from '@landfall/shared'
import { UploadError } from '../lib/errors.js'

// How an application's hook ends within its transaction.

/** The lease, the digest or the point has changed, so everything is rolled back. Callers never see this error. */
export class Lost extends Error {}

/** Rolls the application's transaction back. Callers never see this error. */
export class Rejected extends Error {
  readonly problem: Problem
  constructor(why: Problem) {
    super(why.title)
    this.problem = why
  }
}

/** The hook's time limit has passed. Whatever it does later has no effect. */
export const hookTimeout = (limitMs: number) => (): UploadError =>
  new UploadError('hook-timeout', `onReference took longer than ${limitMs} ms`)
