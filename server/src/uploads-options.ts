import type { Limits } from './access.js'
import { EFFECT_SETTINGS } from './effects.js'
import {
  aFunction,
  anything,
  CENTURY_MS,
  group,
  having,
  listOf,
  mediaTypes,
  milliseconds,
  oneOf,
  optional,
  recordOf,
  wholeNumber,
} from './options.js'

const WEEK_MS = 7 * 24 * 60 * 60_000
/** Seven days, as AWS signs at most (Signature Version 4). */
const LONGEST_SIGNED_SECONDS = 7 * 24 * 60 * 60
/** A node prolongs its leases three times while they last, and each of that is a question to the database. */
const SHORTEST_LEASE_MS = 100

/** A list of origins as `Origin` has them (RFC 6454): canonical where the scheme is the web's, or an application's own. */
const isOrigin = (entry: string): boolean =>
  /^https?:/i.test(entry)
    ? URL.canParse(entry) && new URL(entry).origin === entry
    : /^[a-z][a-z0-9+.-]*:\/\/[^/?#\s]+$/.test(entry)

const isKind = (entry: unknown): boolean =>
  typeof entry === 'object' && entry !== null && 'onReferenceTimeoutMs' in entry && 'effects' in entry

/** What `createUploads` may be given, by name: what it may be, and its default. */
export const UPLOADS_OPTIONS = {
  ledger: having('a ledger: sqliteLedger(db) or postgresLedger(db)', 'migrate', 'declare', 'refer'),
  blobs: having('a blob store: fileBlobs({ … }) or s3Blobs({ … })', 'open', 'append', 'seal', 'read'),
  authenticate: aFunction(),
  // Looked at below, when a function has answered them.
  kinds: anything(),
  limits: group({
    maxSizeBytes: optional(wholeNumber(0), 1024 ** 4),
    maxMetadataBytes: optional(wholeNumber(2, 1024 ** 3), 16 * 1024),
    maxOpenPerOwner: optional(wholeNumber(1), 1_000),
    quotaBytes: optional(aFunction<Limits['quotaBytes']>(), () => () => null),
  }),
  expiresAfterMs: optional(milliseconds(1, CENTURY_MS), WEEK_MS),
  completer: optional(oneOf('automatic', 'manual'), 'automatic'),
  completerIntervalMs: optional(milliseconds(10)),
  leaseMs: optional(milliseconds(SHORTEST_LEASE_MS), 30_000),
  digestGraceMs: optional(milliseconds(0), 60_000),
  maxAttempts: optional(wholeNumber(1), 20),
  effects: group({
    backoff: group({
      firstMs: optional(milliseconds(1), EFFECT_SETTINGS.backoff.firstMs),
      mostMs: optional(milliseconds(1), EFFECT_SETTINGS.backoff.mostMs),
    }),
    maxAttempts: optional(wholeNumber(1), EFFECT_SETTINGS.maxAttempts),
  }),
  allowedOrigins: optional(listOf('origins such as https://app.example', isOrigin), []),
  inlineTypes: optional(mediaTypes, []),
  signedUrlSeconds: optional(wholeNumber(1, LONGEST_SIGNED_SECONDS)),
  logger: optional(having('a logger such as pino', 'debug', 'info', 'warn', 'error')),
  metrics: optional(having('openMetrics()', 'count', 'observe')),
  clock: optional(having('a clock', 'now', 'monotonicMs', 'sleep')),
}

/** What `kinds` must be, or what its function answers. */
export const KINDS = { kinds: recordOf('kinds, each made with kind({ … })', isKind) }
