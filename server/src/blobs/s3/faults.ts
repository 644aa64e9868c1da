import { UploadError } from '../../lib/errors.js'

/** The fields of an SDK error that matter here. */
interface Failure {
  readonly name: string
  readonly status: number | null
}

function failureOf(error: unknown): Failure {
  if (!(error instanceof Error)) return { name: 'unknown', status: null }
  const { $metadata, Code } = error as { $metadata?: { httpStatusCode?: number }; Code?: string }
  return { name: Code ?? error.name, status: $metadata?.httpStatusCode ?? null }
}

/**
 * Nothing exists under that name. The answer to a HEAD has no body, so it is the same for a bucket that does not exist.
 * A caller that draws a conclusion from it must also check that the store itself exists.
 */
export function isMissing(error: unknown): boolean {
  const { name, status } = failureOf(error)
  return name !== 'NoSuchBucket' && (status === 404 || ['NotFound', 'NoSuchKey', 'NoSuchUpload'].includes(name))
}

/** `If-None-Match: *` found an object. */
export const isTaken = (error: unknown): boolean => failureOf(error).status === 412

/** The parts in the store are not those of the ledger. */
export const isPartMismatch = (error: unknown): boolean =>
  ['InvalidPart', 'InvalidPartOrder', 'EntityTooSmall'].includes(failureOf(error).name)

/** The bucket has no lifecycle rules. */
export const hasNoLifecycle = (error: unknown): boolean => failureOf(error).name === 'NoSuchLifecycleConfiguration'

/** The outcome in one word, for metrics. */
export const outcomeOf = (error: unknown): string =>
  isMissing(error) ? 'missing' : isTaken(error) ? 'taken' : failureOf(error).name

/** Whether another attempt cannot change this answer. */
export function isFinal(error: unknown): boolean {
  const { name, status } = failureOf(error)
  if (['RequestTimeout', 'SlowDown', 'RequestTimeTooSkewed'].includes(name)) return false
  // 409: another object is being written under this name at this moment.
  return status !== null && status >= 400 && status < 500 && ![408, 409, 429].includes(status)
}

/**
 * Turns a fault of the object store into an UploadError, by what an operator can do about it. A fault is never taken
 * for "absent".
 */
export function s3Fault(error: unknown, call: string): UploadError {
  if (error instanceof UploadError) return error
  const { name, status } = failureOf(error)
  if (status === 507 || ['QuotaExceeded', 'InsufficientCapacity', 'XMinioStorageFull'].includes(name))
    return new UploadError('storage-full', `the object store takes no more bytes (${name})`, { cause: error })
  const why =
    status === 403 || status === 401
      ? `refuses ${call}: check the credentials and their permissions (${name}, ${status})`
      : name === 'NoSuchBucket'
        ? `has no such bucket (${call})`
        : `cannot be used now (${call}: ${status === null ? name : `${name}, ${status}`})`
  return new UploadError('storage-unavailable', `the object store ${why}`, { cause: error })
}
