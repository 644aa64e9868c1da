import * as v from 'valibot'
import { type Problem, problemSchema } from './problem.js'

/**
 * The recovery points of an operation, in order. Each is a fact that is already true.
 *
 * `cancelled`, `expired` and `rejected` are final for the client. Their bytes may still have to be removed.
 */
export const POINTS = [
  'declared',
  'received',
  'sealed',
  'verified',
  'referenced',
  'completed',
  'cancelled',
  'expired',
  'rejected',
] as const
export type Point = (typeof POINTS)[number]

/**
 * Where each point may move. A point only ever moves to the right (invariant 7). One commit may pass several points,
 * because a drive records cheap points together with the next one.
 */
export const NEXT = {
  declared: ['received', 'sealed', 'verified', 'referenced', 'cancelled', 'expired', 'rejected'],
  received: ['sealed', 'verified', 'referenced', 'cancelled', 'rejected'],
  sealed: ['verified', 'referenced', 'cancelled', 'rejected'],
  verified: ['referenced', 'cancelled', 'rejected'],
  referenced: ['completed'],
  completed: [],
  cancelled: [],
  expired: [],
  rejected: [],
} as const satisfies Record<Point, readonly Point[]>

/** The points before the reference: the operation is still open. */
export const OPEN_POINTS = ['declared', 'received', 'sealed', 'verified'] as const satisfies readonly Point[]
export type OpenPoint = (typeof OPEN_POINTS)[number]

/** The points that end an operation without a reference. */
export const FINAL_POINTS = ['cancelled', 'expired', 'rejected'] as const satisfies readonly Point[]
export type FinalPoint = (typeof FINAL_POINTS)[number]

export const canMove = (from: Point, to: Point): boolean => (NEXT[from] as readonly Point[]).includes(to)
export const isOpen = (point: string): point is OpenPoint => (OPEN_POINTS as readonly string[]).includes(point)
export const isFinal = (point: string): point is FinalPoint => (FINAL_POINTS as readonly string[]).includes(point)
export const isReferenced = (point: string): point is 'referenced' | 'completed' =>
  point === 'referenced' || point === 'completed'

/**
 * An operation's id: a UUID of any version, made by the client before anything leaves the browser. It is unique per
 * owner, and never used again. Upper case is accepted and means the same id.
 *
 * @see RFC 9562 section 4
 */
export const operationIdSchema = v.pipe(
  v.string(),
  v.regex(/^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i, 'an operation id is a UUID'),
  v.toLowerCase(),
)

/** Parses an operation's id. Returns null for anything that is not one. */
export function parseOperationId(value: unknown): string | null {
  const parsed = v.safeParse(operationIdSchema, value)
  return parsed.success ? parsed.output : null
}

/** SHA-256 of a whole file in the form of RFC 9530: `sha-256=:<base64>:`. */
export const digestSchema = v.pipe(
  v.string(),
  v.regex(/^sha-256=:[A-Za-z0-9+/]{43}=:$/, 'a digest is written sha-256=:<base64>:'),
)

export type JsonValue = null | boolean | number | string | JsonValue[] | { [key: string]: JsonValue }
export type JsonObject = { [key: string]: JsonValue }

/** With the flag `u`, half of a surrogate pair matches only if its other half is missing. */
const LONE_SURROGATE = /\p{Surrogate}/u

/**
 * Whether a text can be written as UTF-8 and read back unchanged. `"\ud83c"`, half of an emoji, is a JavaScript string
 * and valid JSON, but a database stores it as U+FFFD. The stored operation would then differ from its own declaration.
 * `String.prototype.isWellFormed` tells the same, but browsers from before 2023 do not have it.
 */
export const isWellFormed = (text: string): boolean => !LONE_SURROGATE.test(text)

const NOT_WELL_FORMED = 'text that is not well formed: it contains half of a surrogate pair'

/** Deeper than any metadata needs to be, and far below what recursion can handle. */
const MAX_DEPTH = 32

const isJson = (value: unknown, depth: number): boolean => {
  if (typeof value === 'number') return Number.isFinite(value)
  if (typeof value === 'string') return isWellFormed(value)
  if (typeof value !== 'object' || value === null) return typeof value === 'boolean' || value === null
  return depth < MAX_DEPTH && Object.entries(value).every(([key, item]) => isWellFormed(key) && isJson(item, depth + 1))
}

export const jsonObjectSchema: v.GenericSchema<JsonObject> = v.custom<JsonObject>(
  (value) => typeof value === 'object' && value !== null && !Array.isArray(value) && isJson(value, 0),
  'a JSON object of well-formed text, at most 32 levels deep',
)

const textSchema = (maxLength: number) =>
  v.pipe(
    v.string(),
    v.maxLength(maxLength),
    v.check(isWellFormed, NOT_WELL_FORMED),
    // Neither a file's name nor its type needs them, and they harm headers, logs and shells.
    v.check((text) => !/[\u0000-\u001f\u007f]/.test(text), 'control characters are not allowed'), // oxlint-disable-line no-control-regex -- they are what is looked for
  )

/**
 * What the client declares about its file. `size` is in bytes. `lastModified` is in milliseconds since 1970, and is not
 * one of the facts that identify the file.
 */
export const fileFactsSchema = v.object({
  name: textSchema(1024),
  size: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
  type: textSchema(255),
  lastModified: v.optional(v.pipe(v.number(), v.safeInteger())),
})
export type FileFacts = v.InferOutput<typeof fileFactsSchema>

/**
 * The recovery point in a message from outside. A newer server may have points that this version does not know; such a
 * point becomes `unknown`. Then the operation is in progress, and nothing else may be concluded.
 */
const saidPointSchema = v.pipe(
  v.string(),
  v.transform((said): Point | 'unknown' => POINTS.find((point) => point === said) ?? 'unknown'),
)

const instantSchema = v.pipe(v.string(), v.isoTimestamp())

/** The row that says "this blob belongs to this owner". There is exactly one per operation. */
export const referenceSchema = v.object({
  operationId: operationIdSchema,
  /** In bytes. */
  size: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
  /** Media type: from the content where it can be recognised, otherwise as declared. */
  type: v.string(),
  digest: digestSchema,
  /** Which side reported the digest first. In both cases it was computed over the stored bytes. */
  digestSource: v.picklist(['client', 'server']),
  storedAt: instantSchema,
  /** A path to the stored blob. */
  url: v.string(),
  /** What `onReference` returned. */
  data: v.unknown(),
})

/** The operation, as `PUT` and `GET` return it. */
export const operationSchema = v.pipe(
  v.object({
    id: operationIdSchema,
    kind: v.string(),
    recoveryPoint: saidPointSchema,
    /** The attempts ran out. An operator's `retry` clears it. It is never a final state. */
    stalled: v.boolean(),
    file: fileFactsSchema,
    metadata: jsonObjectSchema,
    /** Acknowledged bytes, which are durable on the server. Never decreases. */
    offset: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
    /** A path, because proxies report wrong schemes and hosts. */
    uploadUrl: v.string(),
    digest: v.nullable(digestSchema),
    reference: v.nullable(referenceSchema),
    /** Explains a final state or a stall. */
    problem: v.nullable(problemSchema),
    createdAt: instantSchema,
    updatedAt: instantSchema,
    expiresAt: v.nullable(instantSchema),
  }),
  v.check(({ recoveryPoint, problem }) => !isFinal(recoveryPoint) || problem !== null, 'a final operation says why'),
)

export type Reference<Data = unknown> = Omit<v.InferOutput<typeof referenceSchema>, 'data'> & { data: Data }
export type Operation<Data = unknown> = Omit<v.InferOutput<typeof operationSchema>, 'reference' | 'problem'> & {
  reference: Reference<Data> | null
  problem: Problem | null
}
