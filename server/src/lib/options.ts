import * as v from 'valibot'
import { UploadError } from './errors.js'

// The vocabulary in which options are described: one line says what an option may be and what its default is.

/** `holds` decides. `what` is the text for people: "leaseMs must be a whole number from 100 to 3600000, not 0". */
export const rule = <T>(what: string, holds: (value: unknown) => boolean) =>
  v.custom<T>(holds, ({ input }) => `must be ${what}, not ${kindOf(input)}`)

/** Shows the value itself only if it cannot be a secret. */
function kindOf(value: unknown): string {
  if (typeof value === 'number' || typeof value === 'boolean' || value === null) return String(value)
  if (Array.isArray(value)) return 'an array'
  return value === undefined ? 'undefined' : `${/^[aeiou]/.test(typeof value) ? 'an' : 'a'} ${typeof value}`
}

/** In effect permanent, and still a valid date (ECMA-262 ends after 8.64e15 ms). */
export const CENTURY_MS = 100 * 365 * 24 * 60 * 60_000
/** A timer of Node that is set to more than this fires at once. */
export const LONGEST_TIMER_MS = 2 ** 31 - 1

export const wholeNumber = (least: number, most: number = Number.MAX_SAFE_INTEGER) =>
  rule<number>(
    `a whole number from ${least} to ${most}`,
    (value) => Number.isSafeInteger(value) && Number(value) >= least && Number(value) <= most,
  )
export const milliseconds = (least: number, most = LONGEST_TIMER_MS) => wholeNumber(least, most)
export const yesOrNo = rule<boolean>('true or false', (value) => typeof value === 'boolean')
export const text = rule<string>('a text', (value) => typeof value === 'string')
export const nonEmptyText = rule<string>(
  'a text that is not empty',
  (value) => typeof value === 'string' && value !== '',
)
export const oneOf = <const Word extends string>(...words: readonly Word[]) =>
  rule<Word>(words.map((word) => `'${word}'`).join(' or '), (value) => (words as readonly unknown[]).includes(value))
// The interfaces define its parameters. Here only the type `function` is checked.
export const aFunction = <F extends (...args: never[]) => unknown>() =>
  rule<F>('a function', (value) => typeof value === 'function')

/** An object of an interface, recognised by the methods that it must have. */
export const having = <T>(what: string, ...methods: readonly string[]) =>
  rule<T>(
    what,
    (value) => typeof value === 'object' && value !== null && methods.every((name) => isMethod(value, name)),
  )
const isMethod = (value: object, name: string): boolean =>
  typeof (value as Readonly<Record<string, unknown>>)[name] === 'function'

export const listOf = (what: string, holds: (entry: string) => boolean) =>
  rule<readonly string[]>(
    `a list of ${what}`,
    (value) => Array.isArray(value) && value.every((entry) => typeof entry === 'string' && holds(entry)),
  )
export const recordOf = <T>(what: string, holds: (entry: unknown) => boolean) =>
  rule<Readonly<Record<string, T>>>(
    `an object of ${what}`,
    (value) => typeof value === 'object' && value !== null && Object.values(value).every((entry) => holds(entry)),
  )
const MEDIA_TYPES = /^[\w!#$&^.+-]+\/(\*|[\w!#$&^.+-]+)$/
export const mediaTypes = listOf(
  'media types such as image/png or image/*',
  (entry) => entry.trim() === '*/*' || MEDIA_TYPES.test(entry.trim()),
)

/** Options within an option. If it is missing, all of them have their defaults. */
export const group = <const E extends v.ObjectEntries>(entries: E) =>
  v.optional(v.strictObject(entries), {} as v.InferInput<v.StrictObjectSchema<E, undefined>>)

export { nullable, optional, strictObject as exactly, unknown as anything } from 'valibot'

/**
 * Reads the options that `what` was given. `undefined` is the default, as if the option were missing. `entries` must
 * describe each option of the type of `given`, otherwise it does not compile.
 *
 * @throws UploadError `setup` that names each wrong option, what it may be and what it is, and each option that does
 * not exist.
 */
export function readOptions<const E extends v.ObjectEntries, Given extends object>(
  what: string,
  entries: E & Readonly<Record<keyof Given, unknown>>,
  given: Given,
): v.InferOutput<v.StrictObjectSchema<E, undefined>> {
  const parsed = v.safeParse(v.strictObject<E>(entries), given)
  if (parsed.success) return parsed.output
  throw new UploadError('setup', parsed.issues.map((issue) => `${what}: ${messageOf(issue, entries)}`).join('\n'))
}

function messageOf(issue: v.BaseIssue<unknown>, entries: v.ObjectEntries): string {
  const path = v.getDotPath(issue)
  if (issue.type !== 'strict_object') return path === null ? issue.message : `${path} ${issue.message}`
  if (path === null) return `must be an object with options, not ${kindOf(issue.input)}`
  if (issue.expected === 'never') return `${path}: there is no such option${meant(path, entries)}`
  if (issue.expected?.startsWith('"') === true) return `${path} is required`
  return `${path} must be an object with options, not ${kindOf(issue.input)}`
}

/** The option on the same level that was probably meant by a mistyped name. */
function meant(path: string, entries: v.ObjectEntries): string {
  const wanted = path.slice(path.lastIndexOf('.') + 1).toLowerCase()
  const near = namesOf(entries).find((name) => distance(wanted, name.toLowerCase()) <= 2)
  return near === undefined ? '' : `; did you mean ${near}?`
}

const namesOf = (entries: v.ObjectEntries): string[] =>
  Object.entries(entries).flatMap(([name, schema]) => {
    const inner = 'wrapped' in schema ? schema.wrapped : schema
    const within = typeof inner === 'object' && inner !== null && 'entries' in inner ? inner.entries : {}
    return [name, ...Object.keys(within as object)]
  })

/** The number of letters to insert, remove or replace (Levenshtein). */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, n) => n)
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i]
    for (let j = 1; j <= b.length; j += 1)
      next[j] = Math.min((next[j - 1] ?? 0) + 1, (row[j] ?? 0) + 1, (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1))
    row = next
  }
  return row[b.length] ?? 0
}
