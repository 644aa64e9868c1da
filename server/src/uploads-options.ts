import type { Limits } from './kinds/admission.js'
import { type AllowedOrigins, isOrigin } from './http/same-site.js'
import { EFFECT_SETTINGS } from './effects/effects.js'
import {
  aFunction,
  anything,
  CENTURY_MS,
  exactly,
  group,
  having,
  listOf,
  mediaTypes,
  milliseconds,
  nullable,
  oneOf,
  optional,
  recordOf,
  rule,
  wholeNumber,
  yesOrNo,
} from './lib/options.js'

const WEEK_MS = 7 * 24 * 60 * 60_000
/** Seven days, the longest that AWS signs (Signature Version 4). */
const LONGEST_SIGNED_SECONDS = 7 * 24 * 60 * 60
/** A rate's interval is measured in microseconds, and a time in microseconds must still be a whole number. */
const LONGEST_RATE_MS = 366 * 24 * 60 * 60_000
/** A token of RFC 9110, section 5.6.2. */
const HEADER_NAME = /^[\w!#$%&'*+.^`|~-]+$/
/** A node prolongs its leases three times while they last, and each time costs a query of the database. */
const SHORTEST_LEASE_MS = 100

const isKind = (entry: unknown): boolean =>
  typeof entry === 'object' && entry !== null && 'onReferenceTimeoutMs' in entry && 'effects' in entry

/** What `createUploads` may be given: for each name what it may be, and its default. */
export const UPLOADS_OPTIONS = {
  ledger: having('a ledger: sqliteLedger(db) or postgresLedger(db)', 'migrate', 'declare', 'refer'),
  blobs: having('a blob store: fileBlobs({ … }) or s3Blobs({ … })', 'open', 'append', 'seal', 'read'),
  authenticate: aFunction(),
  // Checked below, after a function has returned them.
  kinds: anything(),
  limits: group({
    maxSizeBytes: optional(wholeNumber(0), 1024 ** 4),
    maxMetadataBytes: optional(wholeNumber(2, 1024 ** 3), 16 * 1024),
    maxOpenPerOwner: optional(wholeNumber(1), 1_000),
    quotaBytes: optional(aFunction<Limits['quotaBytes']>(), () => () => null),
    quotaFiles: optional(aFunction<Limits['quotaFiles']>(), () => () => null),
    declarationsPerOwner: optional(
      nullable(exactly({ count: wholeNumber(1, 1_000_000_000), perMs: milliseconds(1, LONGEST_RATE_MS) })),
      { count: 36_000, perMs: 60 * 60_000 },
    ),
  }),
  migrate: optional(oneOf('automatic', 'off'), 'automatic'),
  expiresAfterMs: optional(milliseconds(1, CENTURY_MS), WEEK_MS),
  // A client that was away for this long still learns why its upload ended, and not only that it did.
  retention: group({
    finalMs: optional(nullable(milliseconds(0, CENTURY_MS)), 30 * 24 * 60 * 60_000),
    effectsMs: optional(nullable(milliseconds(0, CENTURY_MS)), WEEK_MS),
  }),
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
  allowedOrigins: optional(
    rule<AllowedOrigins>(
      'a list of origins such as https://app.example, or a function',
      (value) =>
        typeof value === 'function' ||
        (Array.isArray(value) && value.every((entry) => typeof entry === 'string' && isOrigin(entry))),
    ),
    [],
  ),
  allowedHeaders: optional(
    listOf('header names', (entry) => HEADER_NAME.test(entry)),
    [],
  ),
  basePath: optional(
    rule<string>(
      'a path that begins with a slash',
      (value) => typeof value === 'string' && /^(\/[^?#]*)?$/.test(value),
    ),
  ),
  inlineTypes: optional(mediaTypes, []),
  operatorSocket: optional(yesOrNo, true),
  signedUrlSeconds: optional(wholeNumber(1, LONGEST_SIGNED_SECONDS)),
  logger: optional(having('a logger such as pino', 'debug', 'info', 'warn', 'error')),
  metrics: optional(having('openMetrics()', 'count', 'observe')),
  clock: optional(having('a clock', 'now', 'monotonicMs', 'sleep')),
}

/** What `kinds` must be, or what its function must return. */
export const KINDS = { kinds: recordOf('kinds, each made with kind({ … })', isKind) }
