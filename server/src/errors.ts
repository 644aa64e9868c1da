/**
 * What can go wrong while the server works, by code. A fault is not a final "no": what is final is a stored problem.
 *
 * - `ledger-unavailable`: the database cannot be written now (away, locked by another process, full). Transient.
 * - `storage-unavailable`: the blob store cannot be reached or written now. Transient.
 * - `storage-full`: no space left for bytes. Transient.
 * - `write-past-tx`: `onReference` wrote through `db` instead of `tx`. The write was not done.
 * - `transaction-closed`: a `tx` was used after its transaction had ended, or with COMMIT or ROLLBACK by hand.
 * - `statement-refused`: two statements in one text, or a PRAGMA that would harm everybody. Nothing was run.
 * - `hook-timeout`: an application's hook took longer than its time limit; what it wrote was rolled back.
 * - `writer-held`: a transaction kept SQLite's one writer for too long without ending, and was rolled back.
 * - `lease-lost`: somebody else has taken over; nothing was changed.
 * - `setup`: a setting or an environment that cannot work; said at start.
 * - `ambiguous-operation`: an operation id without its owner, which several owners use.
 */
export type UploadErrorCode =
  | 'ledger-unavailable'
  | 'storage-unavailable'
  | 'storage-full'
  | 'write-past-tx'
  | 'transaction-closed'
  | 'statement-refused'
  | 'hook-timeout'
  | 'writer-held'
  | 'lease-lost'
  | 'setup'
  | 'ambiguous-operation'

/** A fault with a code; `cause` holds what was caught. Messages carry no URLs, tokens or file contents. */
export class UploadError extends Error {
  override readonly name = 'UploadError'
  readonly code: UploadErrorCode
  constructor(code: UploadErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.code = code
  }
}

/** The code of a fault, also where a library (Drizzle does) has wrapped it in an error of its own. */
export function faultCode(error: unknown): UploadErrorCode | null {
  for (let at = error, depth = 0; at instanceof Error && depth < 8; at = at.cause, depth++) {
    if (at instanceof UploadError) return at.code
  }
  return null
}

/** One line for logs and for `lastError`: the messages of the error and of its causes. */
export function faultMessage(error: unknown): string {
  const messages: string[] = []
  for (let at = error, depth = 0; at !== undefined && at !== null && depth < 8; depth++) {
    messages.push(
      at instanceof Error ? at.message : typeof at === 'string' ? at : 'something that is no Error was thrown',
    )
    at = at instanceof Error ? at.cause : undefined
  }
  return messages.join(' <- ').slice(0, 1000)
}
