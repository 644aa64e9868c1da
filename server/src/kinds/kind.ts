import {
  type FileFacts,
  type JsonObject,
  type JsonValue,
  type KindTypes,
  type Problem,
  problem,
} from '@landfall/shared'
import type { StandardSchemaV1 } from '@standard-schema/spec'
import { UploadError } from '../lib/errors.js'
import {
  aFunction,
  mediaTypes,
  milliseconds,
  optional,
  readOptions,
  recordOf,
  rule,
  wholeNumber,
  yesOrNo,
} from '../lib/options.js'
import type { Effect } from './effect.js'
import type { BlobFacts, OperationFacts } from './facts.js'
import { essenceOf, SVG } from './media-names.js'

const REJECTION = Symbol.for('landfall.rejection')

/** The final "no" of an application, as a value. */
export interface Rejection {
  readonly [REJECTION]: Problem
}

/**
 * The final "no" of the application, returned by `prepare` or `onReference`. The operation becomes `rejected` with this
 * code, its bytes are removed, and every later request gets the same answer.
 *
 * @param code Stable, for programs; lower case with dashes.
 * @param detail For people.
 */
export function reject(code: string, detail?: string): Rejection {
  return { [REJECTION]: problem('rejected', detail === undefined ? { code } : { code, detail }) }
}

export const rejectionOf = (value: unknown): Problem | null =>
  typeof value === 'object' && value !== null && REJECTION in value ? (value as Rejection)[REJECTION] : null

export interface PrepareContext<Metadata> {
  readonly operation: OperationFacts<Metadata>
  readonly blob: BlobFacts
  /** Fires when the time limit is over or the lease was lost: stop. */
  readonly signal: AbortSignal
  /** The same for every attempt at this step of this operation. Pass it to services that the step calls. */
  readonly idempotencyKey: string
}

// A step that returns nothing has done its work by running.
type PrepareResult = JsonValue | undefined | void

/**
 * A slow step before the reference, such as a virus scan. Runs at least once. Its result is recorded and passed to
 * `onReference`.
 */
export type PrepareStep<Metadata> = (context: PrepareContext<Metadata>) => Promise<PrepareResult | Rejection>

export interface ReferenceContext<Metadata> {
  readonly operation: OperationFacts<Metadata>
  readonly blob: BlobFacts
  /** What the `prepare` steps returned, by name. */
  readonly prepared: Readonly<Record<string, JsonValue>>
  readonly signal: AbortSignal
}

export interface KindOptions<Tx, Schema extends StandardSchemaV1, Data> {
  /** Any Standard Schema; its output must be JSON. Without one, any object is accepted as it is. */
  metadata?: Schema
  /**
   * Decides who may upload this. It is asked once, when the operation is declared. False is 403. A thrown `Response` or
   * `HTTPException` is the answer. Default: every signed-in owner.
   */
  authorize?: (context: {
    owner: string
    metadata: StandardSchemaV1.InferOutput<Schema>
    file: FileFacts
  }) => boolean | Promise<boolean>
  /**
   * The accepted media types, such as `image/*`. The type that is stored is one of them. Content with a signature is
   * judged by the signature alone. Content without one counts as declared only if files of that type have no signature
   * (text, JSON, CSV …): a file that is declared as an image, audio, video or archive without such content is rejected.
   * `image/*` does not accept SVG; name `image/svg+xml`. A file without a declared type and without a signature is
   * `application/octet-stream`. Default: all.
   */
  accept?: readonly string[]
  /** In bytes. Default: the server's limit. */
  maxSizeBytes?: number
  /** Wait for the client's digest until the operation expires, instead of one minute. Default false. */
  requireDigest?: boolean
  /** Slow steps between verification and the reference, in this order. */
  prepare?: Readonly<Record<string, PrepareStep<StandardSchemaV1.InferOutput<Schema>>>>
  /** Time limit of each `prepare` step in milliseconds. Default 10 minutes. */
  prepareTimeoutMs?: number
  /**
   * Runs inside the transaction that stores the reference: what it writes through `tx` is committed with the reference,
   * or not at all. It may run several times. Its result is stored and comes back to the client as `reference.data`.
   * Default: none. Then the row in `landfall_references` is the only record of the file, and `reference.data` is null.
   */
  onReference?: (tx: Tx, context: ReferenceContext<StandardSchemaV1.InferOutput<Schema>>) => Promise<Data | Rejection>
  /** Time limit of `onReference` in milliseconds. Default one minute. */
  onReferenceTimeoutMs?: number
  /**
   * The effects after the reference, by name: `standardWebhook(…)`, or a function. They are recorded in the reference's
   * transaction, and delivered after it at least once under a stable id. Failed ones are tried again for about three
   * days. Do not rename an effect: recorded effects whose name is no longer declared wait.
   */
  effects?: Readonly<Record<string, Effect<StandardSchemaV1.InferOutput<Schema>, NoInfer<Exclude<Data, Rejection>>>>>
}

const isEffect = (entry: unknown): boolean =>
  typeof entry === 'function' || (typeof entry === 'object' && entry !== null && 'deliver' in entry)

/** By name: what each option may be, and its default. */
export const OPTIONS = {
  metadata: optional(rule<StandardSchemaV1>('a Standard Schema, such as v.object({ … })', isStandardSchema)),
  authorize: optional(aFunction()),
  accept: optional(mediaTypes),
  maxSizeBytes: optional(wholeNumber(0)),
  requireDigest: optional(yesOrNo, false),
  prepare: optional(recordOf('functions', (entry) => typeof entry === 'function')),
  prepareTimeoutMs: optional(milliseconds(1), 10 * 60_000),
  onReference: optional(aFunction()),
  onReferenceTimeoutMs: optional(milliseconds(1), 60_000),
  effects: optional(recordOf('functions and receivers such as standardWebhook({ … })', isEffect)),
}

/** Some libraries (ArkType) make schemas that are functions. */
function isStandardSchema(value: unknown): boolean {
  return ((typeof value === 'object' && value !== null) || typeof value === 'function') && '~standard' in value
}

/** A kind. Its types of metadata and data exist only at compile time. */
export interface Kind<Tx, Types extends KindTypes = KindTypes> {
  readonly '~types'?: Types
  readonly metadata: StandardSchemaV1 | null
  readonly authorize:
    ((context: { owner: string; metadata: never; file: FileFacts }) => boolean | Promise<boolean>) | null
  readonly accept: readonly string[] | null
  readonly maxSizeBytes: number | null
  readonly requireDigest: boolean
  readonly prepare: Readonly<Record<string, PrepareStep<never>>>
  readonly prepareTimeoutMs: number
  readonly onReference: ((tx: Tx, context: ReferenceContext<never>) => Promise<unknown>) | null
  readonly onReferenceTimeoutMs: number
  readonly effects: Readonly<Record<string, Effect<never, never>>>
}

/**
 * What a client sends as metadata. `never` if JSON cannot represent what the schema accepts (a `Date`, for example), so
 * that a client which sends anything does not compile. Any object if the schema does not say what it accepts.
 */
type Input<Schema extends StandardSchemaV1> =
  unknown extends StandardSchemaV1.InferInput<Schema>
    ? JsonObject
    : AsJson<StandardSchemaV1.InferInput<Schema>> extends infer Sent extends JsonObject
      ? Sent
      : never

/** The type of what JSON cannot represent: no value fits it. */
declare const NO_JSON: unique symbol
type NoJson = typeof NO_JSON

/**
 * The same type without `undefined` in its optional members, which JSON omits. `NoJson` for what JSON cannot represent.
 */
type AsJson<T> = unknown extends T
  ? JsonValue
  : T extends JsonValue
    ? T
    : T extends bigint | symbol | undefined | ((...args: never[]) => unknown)
      ? NoJson
      : { -readonly [Name in keyof T]: AsJson<Exclude<T[Name], undefined>> }

/** `kind` for one type of transaction, as `createUploads` passes it to `kinds`. */
export type KindFor<Tx> = <Data, Schema extends StandardSchemaV1 = StandardSchemaV1<JsonObject, JsonObject>>(
  options: KindOptions<Tx, Schema, Data>,
) => Kind<Tx, { metadata: Input<Schema>; data: Exclude<Data, Rejection> }>

/**
 * Declares what an upload is for: its rules, its authorisation and what its reference means to the application.
 *
 * TypeScript infers the type of `tx` if `kinds` is a function (`kinds: (kind) => ({ photo: kind({ … }) })`). Otherwise
 * annotate it: `onReference: async (tx: SqliteTx<typeof schema>, …) => …`.
 *
 * @throws UploadError `setup`: an option that cannot work.
 */
export function kind<Tx, Data, Schema extends StandardSchemaV1 = StandardSchemaV1<JsonObject, JsonObject>>(
  options: KindOptions<Tx, Schema, Data>,
): Kind<Tx, { metadata: Input<Schema>; data: Exclude<Data, Rejection> }> {
  const checked = readOptions('kind', OPTIONS, options)
  // An import that is still undefined (a cycle) would silently leave the application without its rows.
  if ('onReference' in options && options.onReference === undefined)
    throw new UploadError(
      'setup',
      'kind: onReference must be a function, not undefined; omit the option if there is none',
    )
  return {
    metadata: options.metadata ?? null,
    authorize: (options.authorize as Kind<Tx>['authorize'] | undefined) ?? null,
    accept: options.accept ?? null,
    maxSizeBytes: options.maxSizeBytes ?? null,
    requireDigest: checked.requireDigest,
    prepare: options.prepare ?? {},
    prepareTimeoutMs: checked.prepareTimeoutMs,
    onReference: options.onReference ?? null,
    onReferenceTimeoutMs: checked.onReferenceTimeoutMs,
    effects: options.effects ?? {},
  }
}

/**
 * Whether a type is accepted. `image/*` accepts `image/png`. Types are compared without parameters and case, and by all
 * names of the same format. SVG can carry scripts: it is accepted if it is named in full, and by `*\/*`, but not by
 * `image/*`.
 */
export function accepts(accept: readonly string[] | null, type: string): boolean {
  if (accept === null) return true
  const essence = essenceOf(type)
  return accept.some((pattern) => {
    const wanted = essenceOf(pattern)
    return (
      wanted === '*/*' ||
      wanted === essence ||
      (wanted.endsWith('/*') && essence.startsWith(wanted.slice(0, -1)) && essence !== SVG)
    )
  })
}
