import { EFFECT_SETTINGS, type EffectSettings } from './effects/effects.js'
import type { Authenticate } from './http/app.js'
import { type AllowedOrigins, isOrigin } from './http/same-site.js'
import type { Limits } from './kinds/admission.js'
import type { Kind, KindFor } from './kinds/kind.js'
import type { Logger } from './lib/log.js'
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
import type { BlobStore } from './ports/blob-store.js'
import type { Clock } from './ports/clock.js'
import type { Ledger } from './ports/ledger.js'
import type { Retention } from './ports/ledger/inventory.js'
import type { Metrics } from './ports/metrics.js'

// The kinds have different types of metadata and data. They share the type of the transaction.
export type Kinds<Tx> = Readonly<Record<string, Kind<Tx>>>

export interface UploadsOptions<Tx, K extends Kinds<Tx>> {
  /** The application's own database. */
  ledger: Ledger<Tx>
  blobs: BlobStore
  /**
   * Returns the owner of a request; null is 401. Everything is limited to this owner: operations of other owners do not
   * exist for it.
   */
  authenticate: Authenticate
  /**
   * What can be uploaded, by name: an object, or a function that gets a `kind` which knows the type of the ledger's
   * `tx`.
   */
  kinds: K | ((kind: KindFor<Tx>) => K)
  limits?: Partial<Limits>
  /**
   * `automatic` (default): the start creates and upgrades the ledger's tables if they are not up to date. `off`: the
   * start changes no tables. If they are not as this version needs them, it fails with `setup` and says what is
   * missing. Then call `migrate`, or run `landfall migrate`, when you deploy.
   */
  migrate?: 'automatic' | 'off'
  /** How long after its last byte an unfinished upload is given up. In milliseconds, default 7 days. */
  expiresAfterMs?: number
  /** `automatic` (default) starts with the first request, `start()` or `ready()`. `manual` works only in `runOnce`. */
  completer?: 'automatic' | 'manual'
  /**
   * How long data of ended operations is kept: see `Retention`. Each value is whole milliseconds from 0; null keeps it
   * permanently. Default: 30 days for operations (`finalMs`), 7 days for delivered effects (`effectsMs`).
   *
   * `finalMs` counts from the moment at which an operation was cancelled, rejected or expired, or at which its
   * reference was removed. After that time the row with its file name, metadata and problem is deleted together with
   * its effects. What is left is a tombstone of about 100 bytes: the id, a keyed hash of the owner, and how it ended.
   * So the id is never used again, and each request about it is answered with 410 and how it ended.
   *
   * An operation is kept as long as its reference exists, because a repeated PUT is compared with it and the client may
   * ask for it again. `remove` and `forgetOwner` start the time of `finalMs`.
   */
  retention?: Partial<Retention>
  /** How often the completer looks for operations that make no progress. In milliseconds, default 5,000. */
  completerIntervalMs?: number
  /** How long the leases of a node that died keep other nodes away. In milliseconds, default 30,000. */
  leaseMs?: number
  /** How long the server waits for a promised digest after the last byte. In milliseconds, default 60,000. */
  digestGraceMs?: number
  /** How often a hook may fail before its operation is `stalled`. Default 20. */
  maxAttempts?: number
  /** How often an effect is tried, and with which pauses. Default: 25 times, which is about three days. */
  effects?: Partial<EffectSettings>
  /**
   * Origins of other sites whose pages may upload here, such as `https://app.example` or `capacitor://localhost`; or a
   * function that gets the origin of the request. Default: none, and no CORS.
   */
  allowedOrigins?: AllowedOrigins
  /** Additional request headers that such pages send, for CORS: a CSRF token, an API key. Default: none. */
  allowedHeaders?: readonly string[]
  /**
   * The path under which clients reach `routes`, such as `/uploads`. Default: taken from each request, which is wrong
   * only behind a proxy that removes a prefix.
   */
  basePath?: string
  /** Media types that a browser may show in place, such as `image/*`. Default: none; the browser saves files. */
  inlineTypes?: readonly string[]
  /**
   * `GET /files/{id}` redirects to an address of the blob store. Anybody who has that address can read the file for
   * this long. In seconds. Default: none, and the bytes go through this server. The store sends type and disposition,
   * but not the other headers that keep uploaded content from running. So use it only for a store on another origin
   * than your pages.
   */
  signedUrlSeconds?: number
  /**
   * Whether the commands `landfall operations`, `reconcile` and `doctor` reach this process: through a socket in the
   * directory of `fileBlobs` that only the process's own user may open (0600). Default true. Other stores have no
   * socket.
   */
  operatorSocket?: boolean
  /** pino, or anything like it. Default: pino at level `warn` on standard error. */
  logger?: Logger
  /** Counts what happens: `openMetrics()` from `@landfall/server/metrics`. Default: nothing is counted. */
  metrics?: Metrics
  /** For tests. */
  clock?: Clock
}

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
