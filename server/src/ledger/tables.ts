import type { JsonObject, JsonValue, Point, Problem } from '@landfall/shared'
import type { EffectType } from '../ports/ledger/effects.js'
import type { Intent } from '../ports/ledger/operations.js'
import type { ContentFacts } from '../ports/operation.js'
import { definition, like } from './columns.js'

// The ledger's current tables, with each column defined once. From here come the Drizzle schemas of both engines, the
// columns that statements read and insert, and the records that are made from rows. The migrations of each engine
// record how the tables came about, and never change once they are released. A test compares their result with these
// definitions.

/** What a new row of `landfall_operations` is filled from. */
export type Declaration = Intent & { readonly ownerHash: string }
const operation = definition<Declaration>()
const AT_ONCE = () => 0

export const OPERATIONS = operation.table(
  'landfall_operations',
  {
    owner: operation.key({ fill: ({ owner }) => owner }),
    id: operation.key({ fill: ({ id }) => id }),
    kind: operation.text({ fill: ({ kind }) => kind }),
    point: operation.text({ fill: () => 'declared' }, like<Point>()),
    stalled: operation.flag({ default: 0 }),
    fileName: operation.text({ forgotten: '', fill: ({ file }) => file.name }),
    fileSize: operation.big({ fill: ({ file }) => file.size }),
    fileType: operation.text({ forgotten: '', fill: ({ file }) => file.type }),
    fileLastModified: operation.big({
      forgotten: null,
      null: true,
      fill: ({ file }) => file.lastModified ?? null,
    }),
    metadata: operation.json({ forgotten: '{}', fill: ({ metadata }) => metadata }, like<JsonObject>()),
    validated: operation.json({ forgotten: 'null', fill: ({ validated }) => validated }, like<JsonValue>()),
    uploadMetadata: operation.text({
      forgotten: null,
      null: true,
      fill: ({ uploadMetadata }) => uploadMetadata,
    }),
    facts: operation.text({ forgotten: '', hidden: true, fill: ({ facts }) => facts }),
    offset: operation.big({ default: 0 }),
    digest: operation.text({
      forgotten: null,
      null: true,
      fill: ({ digest }) => (digest === 'pending' ? null : digest),
    }),
    digestPending: operation.flag({ forgotten: 0, default: 0, fill: ({ digest }) => digest === 'pending' }),
    digestDueAt: operation.big({ null: true }),
    blobKey: operation.key({ fill: ({ blobKey }) => blobKey }),
    blobState: operation.json({ forgotten: 'null', default: 'null' }, like<JsonValue>()),
    receivedAt: operation.big({ null: true }),
    tailBase: operation.big({ null: true }),
    prepared: operation.json({ forgotten: '{}', default: '{}' }, like<JsonObject>()),
    content: operation.json({ forgotten: 'null', default: 'null' }, like<ContentFacts | null>()),
    leaseHolder: operation.text({ null: true }),
    leasePurpose: operation.text({ null: true, hidden: true }),
    leaseToken: operation.big({ default: 0, hidden: true }),
    leaseExpiresAt: operation.big({ null: true, hidden: true }),
    /** Whether another holder wants the lease. 0: no. 1: as soon as the client stops sending. 2: at once. */
    leaseAsked: operation.small({ default: 0, hidden: true }),
    uncleanHolder: operation.text({ null: true }),
    attempts: operation.int({ default: 0 }),
    // An empty file needs nothing more from its client, so it is due at once.
    dueAt: operation.big({
      null: true,
      afterMs: ({ file, expiresAfterMs }) => (file.size === 0 ? 0 : expiresAfterMs),
    }),
    problem: operation.json({ forgotten: 'null', default: 'null' }, like<Problem | null>()),
    lastError: operation.text({ forgotten: null, null: true }),
    cleanupDue: operation.flag({ default: 0 }),
    removedAt: operation.big({ null: true }),
    createdAt: operation.big({ afterMs: AT_ONCE }),
    updatedAt: operation.big({ afterMs: AT_ONCE }),
    expiresAt: operation.big({ afterMs: ({ expiresAfterMs }) => expiresAfterMs }),
    /** Whether it owes effects. If it does, SQLite looks up the effects themselves. */
    owesEffects: operation.int({ default: 0, hidden: true, only: 'sqlite' }),
    /** How many effects it owes. The row counts them, because two nodes may deliver the last two at the same time. */
    owedEffects: operation.int({ default: 0, hidden: true, only: 'postgres' }),
    /** The owner as its tombstone names it. An older version of the server does not write this column. */
    ownerHash: operation.text({ null: true, hidden: true, fill: ({ ownerHash }) => ownerHash }),
    forgottenAt: operation.big({ null: true, hidden: true }),
  },
  {
    key: ['owner', 'id'],
    indexes: [
      { name: 'landfall_operations_blob_key', on: ['blobKey'], unique: true },
      { name: 'landfall_operations_due', on: ['dueAt'], where: `due_at IS NOT NULL` },
      {
        name: 'landfall_operations_open',
        on: ['owner', 'createdAt', 'id'],
        where: `point IN ('declared', 'received', 'sealed', 'verified')`,
      },
      {
        name: 'landfall_operations_incomplete',
        on: ['updatedAt'],
        where: `point = 'referenced' AND owes_effects = 0`,
        only: 'sqlite',
      },
      {
        name: 'landfall_operations_incomplete',
        on: ['owedEffects', 'updatedAt'],
        where: `point = 'referenced'`,
        only: 'postgres',
      },
      { name: 'landfall_operations_asked', on: ['leaseHolder'], where: `lease_asked > 0` },
      {
        name: 'landfall_operations_ended',
        on: ['updatedAt'],
        where: `cleanup_due = 0 AND lease_holder IS NULL AND (point IN ('cancelled', 'expired', 'rejected') OR removed_at IS NOT NULL)`,
      },
      { name: 'landfall_operations_forgotten', on: ['forgottenAt'], where: `forgotten_at IS NOT NULL` },
    ],
    checks: {
      landfall_operations_point: `point IN ('declared', 'received', 'sealed', 'verified', 'referenced', 'completed', 'cancelled', 'expired', 'rejected')`,
      landfall_operations_offset: `"offset" >= 0 AND "offset" <= file_size`,
      landfall_operations_whole: `point NOT IN ('received', 'sealed', 'verified', 'referenced', 'completed') OR "offset" = file_size`,
    },
  },
)

/** What a reference is made from, in addition to its operation's row. */
export interface Referring {
  readonly content: ContentFacts
  readonly digestSource: 'client' | 'server'
  readonly data: JsonValue
}
const reference = definition<Referring>()
/** The statement copies the value from the operation's row. */
const COPIED = () => null

export const REFERENCES = reference.table(
  'landfall_references',
  {
    owner: reference.key({ hidden: true, fill: COPIED }),
    operationId: reference.key({ hidden: true, fill: COPIED }),
    blobKey: reference.key({ fill: COPIED }),
    size: reference.big({ fill: COPIED }),
    type: reference.text({ fill: ({ content }) => content.type }),
    digest: reference.text({ fill: ({ content }) => content.digest }),
    digestSource: reference.text({ fill: ({ digestSource }) => digestSource }, like<'client' | 'server'>()),
    storedAt: reference.big({ fill: COPIED }),
    data: reference.json({ fill: ({ data }) => data }, like<JsonValue>()),
  },
  {
    // An operation never has more than one reference (invariant 2), and no blob is in two references.
    key: ['operationId', 'owner'],
    indexes: [{ name: 'landfall_references_blob_key', on: ['blobKey'], unique: true }],
  },
)

/** An effect as it is recorded. */
export interface Owing {
  readonly effectId: string
  readonly owner: string
  readonly operationId: string
  readonly kind: string
  readonly name: string
  readonly type: EffectType
  readonly payload: JsonValue
}
const effect = definition<Owing>()

export const EFFECTS = effect.table(
  'landfall_effects',
  {
    effectId: effect.key({ fill: ({ effectId }) => effectId }),
    owner: effect.key({ fill: ({ owner }) => owner }),
    operationId: effect.key({ fill: ({ operationId }) => operationId }),
    name: effect.text({ fill: ({ name }) => name }),
    type: effect.text({ fill: ({ type }) => type }, like<EffectType>()),
    payload: effect.json({ fill: ({ payload }) => payload }, like<JsonValue>()),
    attempts: effect.int({ default: 0 }),
    dueAt: effect.big({ null: true, afterMs: AT_ONCE }),
    deliveredAt: effect.big({ null: true }),
    lastError: effect.text({ null: true }),
    createdAt: effect.big({ hidden: true, afterMs: AT_ONCE }),
    kind: effect.text({ default: '', fill: ({ kind }) => kind }),
    holder: effect.text({ null: true, hidden: true }),
    givenUpAt: effect.big({ null: true }),
  },
  {
    key: ['effectId'],
    indexes: [
      { name: 'landfall_effects_name', on: ['owner', 'operationId', 'name'], unique: true },
      { name: 'landfall_effects_target', on: ['kind', 'name', 'dueAt'], where: `due_at IS NOT NULL` },
      { name: 'landfall_effects_given_up', on: ['givenUpAt'], where: `given_up_at IS NOT NULL` },
      { name: 'landfall_effects_delivered', on: ['deliveredAt'], where: `delivered_at IS NOT NULL` },
    ],
  },
)

const { key, text, big, small, table } = definition()

/** Receivers that have answered 410. Nothing is sent to them until an operator asks for it. */
export const DISABLED_TARGETS = table(
  'landfall_disabled_targets',
  { kind: text({}), name: text({}), disabledAt: big({}) },
  { key: ['kind', 'name'] },
)

/** What an owner has open and what it stores. Triggers keep these numbers up to date. */
export const USAGE = table(
  'landfall_usage',
  {
    owner: key({}),
    openOperations: big({ default: 0 }),
    reservedBytes: big({ default: 0 }),
    storedBytes: big({ default: 0 }),
    storedReferences: big({ default: 0 }),
    /** Microseconds since 1970; see `rate.ts`. */
    declaredUntilUs: big({ default: 0 }),
    /** Whether the latest declaration came too soon. One statement decides this and returns it. */
    declarationRefused: small({ default: 0, only: 'postgres' }),
  },
  { key: ['owner'] },
)

/**
 * The remains of operations that ended long ago or whose owner was forgotten, so that their ids are never used again.
 * `point` says how each one ended; `completed` means that its reference was removed. SQLite's migrations make this
 * table WITHOUT ROWID.
 */
export const TOMBSTONES = table(
  'landfall_tombstones',
  { id: key({}), ownerHash: key({}), point: text({}) },
  {
    key: ['id', 'ownerHash'],
    checks: { landfall_tombstones_point: `point IN ('completed', 'cancelled', 'expired', 'rejected')` },
  },
)

/** Facts about the ledger as a whole: its identity, the version of its tables, and others. */
export const META = table('landfall_meta', { key: text({}), value: text({}) }, { key: ['key'] })
