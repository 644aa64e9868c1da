/**
 * What can go wrong while the server works, by code. A fault is not a final "no": a final answer is a stored problem.
 *
 * - `ledger-unavailable`: the database cannot be written now (unreachable, locked by another process, full). Transient.
 * - `storage-unavailable`: the blob store cannot be reached or written now. Transient.
 * - `storage-full`: no space left for bytes. Transient.
 * - `write-past-tx`: `onReference` wrote through `db` instead of `tx`. The write was not done.
 * - `transaction-closed`: a `tx` was used after its transaction had ended, or with COMMIT or ROLLBACK by hand.
 * - `statement-refused`: two statements in one text, or a PRAGMA that would harm others. Nothing was run.
 * - `hook-timeout`: an application's hook took longer than its time limit. What it wrote was rolled back.
 * - `writer-held`: a transaction blocked SQLite's only writer for too long without ending, and was rolled back.
 * - `lease-lost`: another holder has taken over. Nothing was changed.
 * - `setup`: a setting or an environment that cannot work. Reported at the start.
 * - `ambiguous-operation`: several owners use the operation id, and it was given without its owner.
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

/** A fault with a code. `cause` is the error that was caught. Messages contain no URLs, tokens or file contents. */
export class UploadError extends Error {
  override readonly name = 'UploadError'
  readonly code: UploadErrorCode
  constructor(code: UploadErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.code = code
  }
}

/** The code of a fault, even if a library (as Drizzle does) has wrapped it in another error. */
export function faultCode(error: unknown): UploadErrorCode | null {
  for (let at = error, depth = 0; at instanceof Error && depth < 8; at = at.cause, depth++) {
    if (at instanceof UploadError) return at.code
  }
  return null
}

/** A longer chain of causes would not be read. */
const DEEPEST = 8
const LONGEST_TEXT = 1_000

/** The error and its causes, the outermost first. */
function chainOf(error: unknown): unknown[] {
  const chain: unknown[] = []
  for (let at = error; at !== undefined && at !== null && chain.length < DEEPEST;) {
    chain.push(at)
    at = at instanceof Error ? at.cause : undefined
  }
  return chain
}

/** What libraries add to errors: Drizzle the parameters of the statement, the drivers what the database reports. */
interface Told {
  readonly code?: unknown
  readonly constraint?: unknown
  readonly constraint_name?: unknown
  readonly query?: unknown
  readonly params?: unknown
  readonly parameters?: unknown
  readonly args?: unknown
}

const textIn = (value: unknown): string | null => (typeof value === 'string' && value !== '' ? value : null)
const constraintOf = ({ constraint, constraint_name: name }: Told): string | null => textIn(constraint) ?? textIn(name)

/**
 * The text of a fault, for logs, for `lastError` and for people. For the error and each of its causes it contains the
 * name, the message, the code and the constraint. It never contains the parameters of a statement, which are the owner,
 * the file's name and the metadata: neither as Drizzle writes them into its message, nor where the database repeats one
 * of them.
 */
export function faultMessage(error: unknown): string {
  const chain = chainOf(error)
  const hide = hiding(chain)
  return chain
    .map((at) => hide(linkText(at)))
    .join(' <- ')
    .slice(0, LONGEST_TEXT)
}

function linkText(at: unknown): string {
  if (typeof at === 'string') return at
  if (!(at instanceof Error)) return 'something other than an Error was thrown'
  const told = at as Told
  // Drizzle's message is the statement with all its parameters. What went wrong is in its cause.
  const message = textIn(told.query) !== null && Array.isArray(told.params) ? 'a statement failed' : at.message
  const isPlain = at instanceof UploadError || /^(error|drizzlequeryerror|problemerror)$/i.test(at.name)
  const named = isPlain || message.startsWith(at.name) ? message : `${at.name}: ${message}`
  const code = at instanceof UploadError ? null : textIn(told.code)
  const more = [code !== null && !message.includes(code) ? code : null, constraintOf(told)].filter(
    (one) => one !== null,
  )
  return more.length === 0 ? named : `${named} (${more.join(', ')})`
}

/** Shorter values occur in any text by chance. In quotation marks they are parameters. */
const LEAST_HIDDEN = 4

/** Replaces the values of the statement's parameters in a text. */
function hiding(chain: readonly unknown[]): (text: string) => string {
  const values = new Set<string>()
  for (const at of chain) {
    if (!(at instanceof Error)) continue
    const { params, parameters, args } = at as Told
    for (const given of [params, parameters, args])
      if (Array.isArray(given))
        for (const value of given) if (typeof value === 'string' && value !== '') values.add(value)
  }
  const longestFirst = [...values].toSorted((a, b) => b.length - a.length)
  return (text) => {
    let hidden = text
    for (const value of longestFirst) {
      for (const quote of ['"', "'"]) hidden = hidden.replaceAll(quote + value + quote, `${quote}…${quote}`)
      if (value.length >= LEAST_HIDDEN) hidden = hidden.replaceAll(value, '…')
    }
    return hidden
  }
}

/**
 * A fault that any logger may log. Loggers write every property of an error, and libraries put the parameters of
 * statements, requests and answers there. It has the text of `faultMessage`, the code, and where it was thrown.
 */
export function loggable(error: unknown): Error {
  const told = (error instanceof Error ? error : {}) as Told
  const safe = new Error(faultMessage(error))
  const name = error instanceof Error ? error.name : 'Error'
  const frames = (error instanceof Error ? (error.stack ?? '') : '').replace(
    told instanceof Error ? told.message : '',
    '',
  )
  safe.name = name
  safe.stack = [`${name}: ${safe.message}`, ...frames.split('\n').filter((line) => /^\s+at \S/.test(line))].join('\n')
  const code = chainOf(error)
    .map((at) => textIn((at as Told | null)?.code))
    .find((one) => one !== null)
  return code === undefined ? safe : Object.assign(safe, { code })
}

/** The code of an error of the operating system, such as `ENOENT`; empty for any other error. */
export const codeOf = (error: unknown): string =>
  error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : ''
