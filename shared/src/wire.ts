import * as v from 'valibot'
import {
  digestSchema,
  fileFactsSchema,
  isWellFormed,
  jsonObjectSchema,
  type JsonObject,
  type Operation,
  operationIdSchema,
  operationSchema,
} from './operation.js'
import { type Problem, problemSchema } from './problem.js'

/**
 * The body of `PUT /operations/{id}`: declare or continue.
 *
 * `digest: 'pending'` says that the digest will follow. A value can be set once, and another value is refused.
 */
export const declareRequestSchema = v.object({
  kind: v.optional(v.pipe(v.string(), v.minLength(1), v.maxLength(64), v.check(isWellFormed))),
  file: fileFactsSchema,
  metadata: v.optional(jsonObjectSchema),
  digest: v.optional(v.union([v.literal('pending'), digestSchema])),
})
export type DeclareRequest = v.InferOutput<typeof declareRequestSchema>

/** The answer of `GET /operations?ids=…` and `GET /operations?open`. `next` is the cursor of the following page. */
export const operationListSchema = v.object({
  // Only the ids are checked here. Each operation is then parsed separately.
  operations: v.array(v.object({ id: operationIdSchema })),
  next: v.optional(v.string()),
})
export interface OperationList {
  operations: Operation[]
  /**
   * Ids of operations that a newer server has written in another form. They exist, and nothing more is known about
   * them.
   */
  unreadable: string[]
  next?: string
}

/**
 * The answer of `GET /operations/{id}/prefix`: the digest of the first `offset` stored bytes. With it, the client
 * proves that a newly picked file is the same one before it sends a byte of it.
 *
 * Without `partBytes` it is the SHA-256 of these bytes. Some stores cannot read an unfinished upload back. They set
 * `partBytes`, and the digest is then the last link of a chain over parts of so many bytes (the last part may have
 * fewer). Link n is the SHA-256 of the text of link n - 1 (for the first part: of nothing) followed by the text of the
 * SHA-256 of part n. Both texts have the form of `digest`.
 */
export const prefixSchema = v.object({
  offset: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
  digest: digestSchema,
  partBytes: v.optional(v.pipe(v.number(), v.safeInteger(), v.minValue(1))),
})
export type Prefix = v.InferOutput<typeof prefixSchema>

export type Parsed<T> = { ok: true; value: T } | { ok: false; detail: string }

function parse<T>(schema: v.GenericSchema<unknown, T>, input: unknown): Parsed<T> {
  const result = v.safeParse(schema, input, { abortEarly: true })
  if (result.success) return { ok: true, value: result.output }
  const issue = result.issues[0]
  const path = v.getDotPath(issue)
  return { ok: false, detail: path === null ? issue.message : `${path}: ${issue.message}` }
}

export const parseDeclareRequest = (input: unknown): Parsed<DeclareRequest> => parse(declareRequestSchema, input)
export const parseOperation = (input: unknown): Parsed<Operation> =>
  parse(operationSchema as v.GenericSchema<unknown, Operation>, input)
/** An operation that cannot be parsed does not make the others unreadable. */
export function parseOperationList(input: unknown): Parsed<OperationList> {
  const list = parse(operationListSchema, input)
  if (!list.ok) return list
  const { operations: known, next } = list.value
  const { operations: entries } = input as { operations: readonly unknown[] }
  const operations: Operation[] = []
  const unreadable: string[] = []
  for (const [index, { id }] of known.entries()) {
    const operation = parseOperation(entries[index])
    if (operation.ok) operations.push(operation.value)
    else unreadable.push(id)
  }
  return { ok: true, value: { operations, unreadable, ...(next === undefined ? {} : { next }) } }
}
export const parsePrefix = (input: unknown): Parsed<Prefix> => parse(prefixSchema, input)
export const parseProblem = (input: unknown): Parsed<Problem> => parse(problemSchema, input)

/**
 * How many operations one `GET /operations?ids=` may name: 40 UUIDs stay far below the 8 KiB that common proxies allow
 * for a request line.
 */
export const MAX_IDS_PER_REQUEST = 40

/**
 * How many seconds a `GET` may ask to wait for a change. More is reduced to this. It is below the usual idle time-outs
 * of proxies.
 */
export const MAX_WAIT_SECONDS = 20

/** The types of a server's kinds as a client sees them: the metadata that goes in, and the data that comes back. */
export interface KindTypes {
  readonly metadata: JsonObject
  readonly data: unknown
}

/**
 * The type-only bridge from `createUploads` to `createUploader<typeof uploads>()`. It is never a value, so that nothing
 * of the server reaches the client's bundle.
 */
export interface TypedUploads<Kinds extends Record<string, KindTypes> = Record<string, KindTypes>> {
  readonly '~kinds'?: Kinds
}
export type KindsOf<Uploads extends TypedUploads> = NonNullable<Uploads['~kinds']>
