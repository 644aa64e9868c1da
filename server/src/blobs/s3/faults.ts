import { UploadError } from '../../lib/errors.js'

/** What the SDK throws, as far as it is of interest here. */
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
 * Nothing is there under that name. A HEAD has no body: of a bucket that is gone it says the same, so that who draws a
 * conclusion from it looks for the store itself.
 */
export function isMissing(error: unknown): boolean {
  const { name, status } = failureOf(error)
  return name !== 'NoSuchBucket' && (status === 404 || ['NotFound', 'NoSuchKey', 'NoSuchUpload'].includes(name))
}

/** `If-None-Match: *` found something. */
export const isTaken = (error: unknown): boolean => failureOf(error).status === 412

/** The parts are not those of the ledger. */
export const isPartMismatch = (error: unknown): boolean =>
  ['InvalidPart', 'InvalidPartOrder', 'EntityTooSmall'].includes(failureOf(error).name)

/** The bucket has no rules. */
export const hasNoLifecycle = (error: unknown): boolean => failureOf(error).name === 'NoSuchLifecycleConfiguration'

/** In a word, for who counts them. */
export const outcomeOf = (error: unknown): string =>
  isMissing(error) ? 'missing' : isTaken(error) ? 'taken' : failureOf(error).name

/** Answers that another attempt cannot change. */
export function isFinal(error: unknown): boolean {
  const { name, status } = failureOf(error)
  if (['RequestTimeout', 'SlowDown', 'RequestTimeTooSkewed'].includes(name)) return false
  // 409: another one is being written at this moment.
  return status !== null && status >= 400 && status < 500 && ![408, 409, 429].includes(status)
}

/** A fault of the object store, by what an operator can do about it. Never reads as "absent". */
export function s3Fault(error: unknown, call: string): UploadError {
  if (error instanceof UploadError) return error
  const { name, status } = failureOf(error)
  if (status === 507 || ['QuotaExceeded', 'InsufficientCapacity', 'XMinioStorageFull'].includes(name))
    return new UploadError('storage-full', `the object store takes no more bytes (${name})`, { cause: error })
  const why =
    status === 403 || status === 401
      ? `refuses ${call}: see the credentials and what they permit (${name}, ${status})`
      : name === 'NoSuchBucket'
        ? `has no such bucket (${call})`
        : `cannot be used now (${call}: ${status === null ? name : `${name}, ${status}`})`
  return new UploadError('storage-unavailable', `the object store ${why}`, { cause: error })
}
