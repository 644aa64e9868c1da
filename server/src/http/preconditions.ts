import parseRange from 'range-parser'

/** The validators of a stored file, whose bytes never change. */
export interface Validators {
  /** A strong entity tag, with its quotes. */
  readonly etag: string
  /** Milliseconds since 1970. A date in a header has whole seconds. */
  readonly lastModifiedMs: number
}

/** Reads a header of the request. Undefined if it is missing. */
export type ReadHeader = (name: string) => string | undefined

/**
 * Evaluates the conditions of a GET or HEAD in the order of RFC 9110 section 13.2.2. An invalid date is ignored.
 *
 * @see https://www.rfc-editor.org/rfc/rfc9110#section-13.2.2
 */
export function judgeConditions(
  read: ReadHeader,
  { etag, lastModifiedMs }: Validators,
): 'send' | 'unchanged' | 'failed' {
  const changedAt = toSeconds(lastModifiedMs)
  const ifMatch = read('If-Match')
  const unmodifiedSince = httpDate(read('If-Unmodified-Since'))
  if (ifMatch !== undefined ? !lists(ifMatch, etag, 'strong') : unmodifiedSince !== null && changedAt > unmodifiedSince)
    return 'failed'
  const ifNoneMatch = read('If-None-Match')
  const modifiedSince = httpDate(read('If-Modified-Since'))
  if (
    ifNoneMatch !== undefined ? lists(ifNoneMatch, etag, 'weak') : modifiedSince !== null && changedAt <= modifiedSince
  )
    return 'unchanged'
  return 'send'
}

/** In bytes. `end` is exclusive. */
export interface ByteRange {
  readonly start: number
  readonly end: number
}

/**
 * The single range that a GET asks for. Null: the whole file. More than one range, a unit other than bytes, and a range
 * of another file than this one (`If-Range`) get the whole file. An empty file is sent whole too, because some clients
 * put a range into every request.
 *
 * @see https://www.rfc-editor.org/rfc/rfc9110#section-14.2
 */
export function judgeRange(
  read: ReadHeader,
  sizeBytes: number,
  validators: Validators,
): ByteRange | 'unsatisfiable' | null {
  const set = /^bytes\s*=(.*)$/i.exec(read('Range') ?? '')?.[1]
  if (set === undefined || sizeBytes === 0 || !isOfThisFile(read('If-Range'), validators)) return null
  const ranges = parseRange(
    sizeBytes,
    `bytes=${set
      .split(',')
      .map((one) => withinFile(one, sizeBytes))
      .join(',')}`,
  )
  if (ranges === -1) return 'unsatisfiable'
  const [only, another] = ranges === -2 ? [] : ranges
  return only === undefined || another !== undefined ? null : { start: only.start, end: only.end + 1 }
}

/**
 * The last 5,000 bytes of a file of 1,000 are the whole file (section 14.1.2). `range-parser` calls them unsatisfiable.
 */
function withinFile(range: string, sizeBytes: number): string {
  const suffix = /^\s*-\s*(\d+)\s*$/.exec(range)?.[1]
  return suffix !== undefined && Number(suffix) > sizeBytes ? '0-' : range
}

/**
 * A date counts only if it is exactly the file's: a file that changed twice in that second would have the same date.
 */
function isOfThisFile(ifRange: string | undefined, { etag, lastModifiedMs }: Validators): boolean {
  if (ifRange === undefined) return true
  const tag = ifRange.trim()
  return tag === etag || httpDate(tag) === toSeconds(lastModifiedMs)
}

function lists(header: string, etag: string, comparison: 'strong' | 'weak'): boolean {
  const tags = header.split(',').map((tag) => tag.trim())
  return tags.some((tag) => tag === '*' || tag === etag || (comparison === 'weak' && tag === `W/${etag}`))
}

const toSeconds = (ms: number): number => Math.floor(ms / 1000)

const FIXED = /^[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT$/
const RFC_850 = /^[A-Z][a-z]{5,8}, \d{2}-[A-Z][a-z]{2}-\d{2} \d{2}:\d{2}:\d{2} GMT$/
const ASCTIME = /^[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d{2}:\d{2}:\d{2} \d{4}$/

/** Seconds since 1970 in any of the three forms of RFC 9110 section 5.6.7. Null for anything else. */
function httpDate(text: string | undefined): number | null {
  if (text === undefined) return null
  const date = FIXED.test(text) || RFC_850.test(text) ? text : ASCTIME.test(text) ? `${text} GMT` : ''
  const ms = Date.parse(date)
  return Number.isNaN(ms) ? null : toSeconds(ms)
}
