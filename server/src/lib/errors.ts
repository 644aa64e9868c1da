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

/** No chain of causes is longer that anybody reads. */
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

/** What libraries add to errors: Drizzle the parameters of the statement, the drivers what the database says. */
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
 * THE text of a fault, for logs, for `lastError` and for people: of the error and each of its causes the name, the
 * message, the code and the constraint. Never the parameters of a statement, which are the owner, the file's name and
 * the metadata: neither as Drizzle writes them into its message, nor where the database repeats one of them.
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
  if (!(at instanceof Error)) return 'something that is no Error was thrown'
  const told = at as Told
  // Its message is the statement with all that was given to it; what went wrong is its cause.
  const message = textIn(told.query) !== null && Array.isArray(told.params) ? 'a statement failed' : at.message
  const isPlain = at instanceof UploadError || /^(error|drizzlequeryerror|problemerror)$/i.test(at.name)
  const named = isPlain || message.startsWith(at.name) ? message : `${at.name}: ${message}`
  const code = at instanceof UploadError ? null : textIn(told.code)
  const more = [code !== null && !message.includes(code) ? code : null, constraintOf(told)].filter(
    (one) => one !== null,
  )
  return more.length === 0 ? named : `${named} (${more.join(', ')})`
}

/** Shorter ones stand in any text by chance; in quotation marks they are meant. */
const LEAST_HIDDEN = 4

/** Takes the values of the statement's parameters out of a text. */
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
 * A fault as it may be logged by any logger: loggers write every property of an error, and libraries put the parameters
 * of statements, requests and answers there. It has the text of `faultMessage`, the code, and where it was thrown.
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
