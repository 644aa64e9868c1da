import type { KindTypes, TypedUploads } from '@landfall/shared'
import type { Hono } from 'hono'
import { createAdmit, type Limits } from './kinds/admission.js'
import { type Authenticate, createApp } from './http/app.js'
import { boundOf } from './lib/backoff.js'
import { createHolderName } from './lib/holder-name.js'
import { createCancel } from './sequence/cancel.js'
import { createClockGuard, systemClock } from './sequence/clock.js'
import { type Completer, createCompleter, type Pass } from './sequence/completer.js'
import type { AllowedOrigins } from './http/same-site.js'
import type { Env } from './http/context.js'
import { createDrive, LOOK_AGAIN_MS } from './sequence/drive.js'
import { createEffects, type EffectSettings, longestPauseMs } from './effects/effects.js'
import { endsWithin } from './lib/deadline.js'
import { UploadError } from './lib/errors.js'
import { createHealth, type Health, type Opened } from './operate/health.js'
import { type Kind, kind, type KindFor } from './kinds/kind.js'
import { createLeases } from './sequence/leases.js'
import { createLogger, type Logger, tellingFaults } from './lib/log.js'
import { meteredBlobs, meteredLedger, NO_METRICS } from './operate/metering.js'
import { createNodeHandler, type NodeHandler } from './http/node-handler.js'
import type { BlobStore } from './ports/blob-store.js'
import type { Clock } from './ports/clock.js'
import type { Holdings } from './ports/ledger/references.js'
import type { Ledger } from './ports/ledger.js'
import type { Metrics } from './ports/metrics.js'
import type { Retention } from './ports/ledger/inventory.js'
import { ownerTagOf } from './http/owner-tag.js'
import { remembered } from './lib/remembered.js'
import { createOperator, type Operator } from './operate/operator.js'
import { serveOperator, type ServedOperator } from './operate/socket.js'
import { takenOver } from './blobs/file/directory-lock.js'
import { readOptions } from './lib/options.js'
import { createReceive } from './sequence/receive.js'
import { createSendFile } from './http/files.js'
import { createTusLibrary } from './http/tus/library.js'
import { createSteps } from './sequence/steps.js'
import { createTide } from './operate/restore-marks.js'
import { createTimekeeping } from './sequence/timekeeping.js'
import { KINDS, UPLOADS_OPTIONS } from './uploads-options.js'
import { createWatch } from './sequence/watch.js'

// The kinds' own types of metadata and data differ; what they share is the transaction.
export type Kinds<Tx> = Readonly<Record<string, Kind<Tx>>>

export interface UploadsOptions<Tx, K extends Kinds<Tx>> {
  /** The application's own database. */
  ledger: Ledger<Tx>
  blobs: BlobStore
  /** Who asks; null is 401. The answer scopes everything: another owner's operations do not exist. */
  authenticate: Authenticate
  /** What can be uploaded, by name: an object, or a function that gets a `kind` which knows the type of the ledger's `tx`. */
  kinds: K | ((kind: KindFor<Tx>) => K)
  limits?: Partial<Limits>
  /**
   * `automatic` (default): the start creates and upgrades the ledger's tables, where they are not in order already.
   * `off`: it changes none, and fails with `setup` and what is missing where they are not as this version needs them;
   * call `migrate`, or run `landfall migrate`, when you deploy.
   */
  migrate?: 'automatic' | 'off'
  /** How long after its last byte an unfinished upload is given up. In milliseconds, default 7 days. */
  expiresAfterMs?: number
  /** `automatic` (default) starts with the first request, `start()` or `ready()`; `manual` only works in `runOnce`. */
  completer?: 'automatic' | 'manual'
  /**
   * How long what has ended is kept: see `Retention`. Each value is whole milliseconds from 0; null keeps it permanently.
   * Default: 30 days for operations (`finalMs`), 7 days for delivered effects (`effectsMs`).
   *
   * `finalMs` counts from the moment at which an operation was cancelled, rejected or expired, or at which its reference
   * was removed. After it the row with its file name, metadata and problem is deleted together with its effects. What is
   * left is a tombstone of about 100 bytes: the id, a keyed hash of the owner, and how it ended. So the id is never used
   * again, and each request about it is answered with 410 and how it ended.
   *
   * An operation is kept as long as its reference exists, because it is what a repeated PUT is compared with and what
   * the client is told again. `remove` and `forgetOwner` begin its end.
   */
  retention?: Partial<Retention>
  /** How often the completer looks for what stands still. In milliseconds, default 5,000. */
  completerIntervalMs?: number
  /** How long a node that died keeps others away. In milliseconds, default 30,000. */
  leaseMs?: number
  /** How long a digest that the client promised is waited for after the last byte. In milliseconds, default 60,000. */
  digestGraceMs?: number
  /** How often a hook may fail before its operation is `stalled`. Default 20. */
  maxAttempts?: number
  /** How often an effect is tried, and with which pauses. Default: 25 times, which is about three days. */
  effects?: Partial<EffectSettings>
  /**
   * Origins of other sites whose pages may upload here, such as `https://app.example` or `capacitor://localhost`; or a
   * function that is asked with the origin that a request names. Default: none, and no CORS.
   */
  allowedOrigins?: AllowedOrigins
  /** Request headers of the application's own that such pages send, for CORS: a CSRF token, an API key. Default: none. */
  allowedHeaders?: readonly string[]
  /**
   * The path under which clients reach `routes`, such as `/uploads`. Default: as each request says, which is wrong only
   * behind a proxy that takes a prefix away.
   */
  basePath?: string
  /** Media types that a browser may show in place, such as `image/*`. Default: none; files are saved. */
  inlineTypes?: readonly string[]
  /**
   * `GET /files/{id}` answers with a redirect to an address of the store's own, which anybody who has it can read for so
   * long. In seconds; default: none, and the bytes go through this server. The store gives type and disposition, but not
   * the other headers that keep what was uploaded from running; so only for a store on another origin than the pages.
   */
  signedUrlSeconds?: number
  /**
   * Whether the commands `landfall operations`, `reconcile` and `doctor` reach this process: through a socket in the
   * directory of `fileBlobs` that only its own user may open (0600). Default true; other stores have none.
   */
  operatorSocket?: boolean
  /** pino, or anything like it. Default: pino at level `warn` on standard error. */
  logger?: Logger
  /** Who counts what happens: `openMetrics()` from `@landfall/server/metrics`. Default: nobody. */
  metrics?: Metrics
  /** For tests. */
  clock?: Clock
}

type TypesOf<K> = { [Name in keyof K & string]: K[Name] extends Kind<never, infer Types> ? Types : KindTypes }

export interface Uploads<
  Tx,
  Types extends Record<string, KindTypes> = Record<string, KindTypes>,
> extends TypedUploads<Types> {
  /**
   * Mount it: `app.route('/uploads', uploads.routes)`. Mounting touches neither database nor blob store, so that a build
   * may load the module. The first request, whoever sends it, starts what `start()` starts.
   */
  readonly routes: Hono<Env>
  /**
   * The same routes for Node's own HTTP server and what is built on it: `app.use('/uploads', uploads.node)` in Express.
   * Before any body parser. Do not mount `routes` as well.
   */
  readonly node: NodeHandler
  /**
   * Creates or upgrades the ledger's tables, opens the blob store and starts the completer, unless it is `manual`. The
   * first request does it otherwise.
   *
   * @throws What keeps it from that, at once; a later call tries again.
   */
  ready(): Promise<void>
  /**
   * Begins what `ready()` does without waiting for it, and tries again, with pauses of up to a minute, until it works or
   * `close()` is called; each failure is logged. A process that gets no requests, such as a worker, calls it: otherwise
   * nothing drives there what stands still. Landfall's timers keep no process alive; what the worker waits for does.
   */
  start(): void
  /**
   * Creates or upgrades the ledger's tables, and makes again what somebody has dropped of them, and nothing else: for a
   * deploy step whose database user may do more than the server's. Safe beside servers that run.
   *
   * @throws UploadError `setup` where that user may not, or where tables are gone that were there
   */
  migrate(): Promise<void>
  /**
   * Takes a reference back in the application's own transaction: it is gone when that commits, and its bytes go by an
   * effect after it. False when there is none.
   *
   * @param owner Name it wherever the id came from a client: two owners may use the same id.
   * @throws UploadError `ambiguous-operation` without `owner`, when several owners use the id; nothing is removed.
   */
  remove(tx: Tx, operationId: string, owner?: string): Promise<boolean>
  /**
   * The right to erasure, in the application's own transaction. It removes all references of the owner as `remove` does,
   * cancels its open operations, and erases the owner, names, metadata and results from Landfall's tables. What is left
   * are tombstones, which name the owner by a keyed hash. Bytes are removed after the commit. Until then the rows stay,
   * with a pseudonym and without anything of the owner's. Effects that were not delivered yet are dropped. A database
   * keeps deleted content in its files until it uses the space again: SQLite and PostgreSQL until `VACUUM`, backups and
   * archived logs longer.
   *
   * An upload that is running loses its lease: none of its bytes is acknowledged after the commit. What the same owner
   * declares later under new ids is accepted, so end its sessions first.
   *
   * @returns what there was: `operations`, how many of them were open, `references`, and the `bytes` of these.
   */
  forgetOwner(tx: Tx, owner: string): Promise<Holdings>
  /**
   * The opaque tag by which answers say whose uploads they are about (the header `Landfall-Owner`), the same on all nodes.
   * For applications that render the page themselves: given to `createUploader({ ownerTag })`, the page's first upload
   * waits for no answer. The owner is what `authenticate` answers.
   *
   * Creates or upgrades the ledger's tables where nobody has yet; rejects where the database cannot be used.
   */
  ownerTag(owner: string): Promise<string>
  /** Drives what is due, for `completer: 'manual'`. */
  runOnce(options?: { maxMs?: number }): Promise<Pass>
  /** What only whoever runs the server may do: look at all operations, retry and cancel them, reconcile, diagnose. */
  readonly operator: Operator
  /**
   * Whether this process can take requests: the database answers, tables and blob store are open, a completer of any
   * process is alive, and it does not drain. Looks at most once a second, takes at most one, and opens what is not open
   * yet, as a request does. `healthRoutes(uploads)` serves it.
   *
   * With `completer: 'manual'` the completer counts only where `completerIntervalMs` says how often it is called.
   */
  health(): Promise<Health>
  /**
   * Drains: `health` says so at once; running requests end at an acknowledged offset, leases are given back, the
   * completer stops. For SIGTERM; close the HTTP server beside it.
   *
   * @param options.withinMs How long that may take. In milliseconds, default 10,000.
   * @param options.announcedMs Serves as before for so long first, so that a load balancer that asks for health sends
   *   nothing any more when it begins. In milliseconds, default 0.
   */
  close(options?: { withinMs?: number; announcedMs?: number }): Promise<void>
}

/** Of a backup that is younger than this the ledger's mark may not tell. */
const TIDE_MS = 60_000
/** After a start the clients get this long to come back before anything expires. */
const SETTLE_MS = 10 * 60_000
/** How long what runs may take when a newer instance of this process waits for the directory. */
const TAKEN_OVER_MS = 5_000
/** What a blob store that is in order needs to close its files, and to give up its directory. */
const LETS_GO_MS = 100
/** Beyond the longest pause that was ever drawn. */
const MARGIN_MS = 60_000
/** Between the attempts of `start()`: a database that is upgraded is back soon, a setting that is wrong is not. */
const START_PAUSES = { firstMs: 1_000, mostMs: 60_000 }
/** A request asks for its owner's tag twice, and the next one is mostly the same owner's. */
const tagsOf = (key: string): ((owner: string) => string) => remembered((owner) => ownerTagOf(key, owner))

/**
 * Uploads that end as exactly one reference in the application's own database.
 *
 * @throws UploadError `setup` at once for settings that cannot work, and on anything but Node.
 */
export function createUploads<Tx, const K extends Kinds<Tx>>(options: UploadsOptions<Tx, K>): Uploads<Tx, TypesOf<K>> {
  checkRuntime()
  const checked = readOptions('createUploads', UPLOADS_OPTIONS, options)
  const metrics = options.metrics ?? NO_METRICS
  const ledger = meteredLedger(options.ledger, metrics)
  const blobs = meteredBlobs(options.blobs, metrics)
  metrics.observe(async () => ({ ...(await ledger.pulse()), ...(await ledger.backlog()) }))
  const kinds: Kinds<Tx> = typeof options.kinds === 'function' ? options.kinds(kind) : options.kinds
  readOptions('createUploads', KINDS, { kinds })
  if (Object.keys(kinds).length === 0) throw new UploadError('setup', 'kinds: declare at least one')
  const clock = options.clock ?? systemClock
  const log = tellingFaults(options.logger ?? createLogger('warn'))
  if (checked.signedUrlSeconds !== undefined && options.blobs.presign === undefined)
    throw new UploadError(
      'setup',
      'createUploads: signedUrlSeconds needs a blob store that signs addresses, as s3Blobs does',
    )
  const { limits, expiresAfterMs, leaseMs, allowedOrigins, retention } = checked
  const basePath = checked.basePath?.replace(/\/+$/, '')

  const guard = createClockGuard(clock, Math.min(SETTLE_MS, expiresAfterMs))
  const alone = (): boolean => blobs.exclusive
  const leases = createLeases({ ledger, clock, log, holder: createHolderName(), leaseMs, alone, metrics })
  const watch = createWatch({ ledger, clock, log, alone })
  const settings = {
    digestGraceMs: checked.digestGraceMs,
    maxAttempts: checked.maxAttempts,
    backoff: { firstMs: 500, mostMs: 5 * 60_000 },
    patienceMs: leaseMs,
  }
  const drive = createDrive({
    ledger,
    blobs,
    kinds,
    clock,
    guard,
    log,
    metrics,
    settings,
    onDue: (inMs) => completer.wake(inMs),
  })
  const effectSettings = checked.effects
  const effects = createEffects({
    ledger,
    blobs,
    kinds,
    clock,
    log,
    holder: leases.holder,
    settings: effectSettings,
    onFree: () => completer.wake(0),
  })
  const completer: Completer = createCompleter({
    ledger,
    leases,
    drive,
    effects,
    clock,
    log,
    settings: { intervalMs: options.completerIntervalMs ?? 5_000, leaseMs, retention },
    // Clients are not waited for here, so that it may begin at once after a start.
    clockTrusted: () => !guard.apart() && !guard.disturbed(),
  })
  const admit = createAdmit({ ledger, blobs: options.blobs, kinds, limits, expiresAfterMs })
  const cancel = createCancel({ ledger, leases, wake: () => completer.wake(0) })
  const receive = createReceive({
    ledger,
    blobs,
    leases,
    clock,
    log,
    metrics,
    drive,
    steps: createSteps({ ledger, blobs, kinds }),
    settings: { expiresAfterMs, patienceMs: leaseMs },
  })

  const timekeeping = createTimekeeping({
    ledger,
    clock,
    guard,
    log,
    settings: {
      leaseMs,
      effectLeaseMs: effects.leaseMs,
      longestPauses: {
        operationMs: Math.max(leaseMs, settings.backoff.mostMs, settings.digestGraceMs, LOOK_AGAIN_MS) + MARGIN_MS,
        effectMs: Math.max(effects.leaseMs, longestPauseMs(effectSettings)) + MARGIN_MS,
      },
    },
  })
  const tide = createTide({ ledger, blobs, log })
  let tides: ReturnType<typeof setInterval> | null = null
  let socket: ServedOperator | null = null
  const operator = createOperator({
    ledger,
    blobs,
    clock,
    cancel,
    wake: () => completer.wake(0),
    ready: () => ready().then(timekeeping.look),
    completerIntervalMs: options.completerIntervalMs ?? 5_000,
    expiresAfterMs,
    automatic: options.completer !== 'manual',
  })

  let draining = false
  let opened: Opened = 'nothing'
  let tagOf: ((owner: string) => string) | null = null
  let opening: Promise<void> | null = null
  const ready = (): Promise<void> =>
    (opening ??= open().catch((error: unknown) => {
      opening = null
      throw error
    }))

  async function open(): Promise<void> {
    const { identity, store } = await ledger.migrate(checked.migrate === 'off' ? 'check' : 'apply')
    tagOf = tagsOf(await ledger.ownerKey())
    opened = 'tables'
    await blobs.open(identity, store)
    opened = 'store'
    if (store === 'new') await ledger.rememberStore()
    await timekeeping.begin()
    await tide.begin()
    tides ??= setInterval(() => {
      tide.advance().catch((error: unknown) => log.warn({ err: error }, 'the mark could not be set'))
    }, TIDE_MS).unref()
    // The directory's lock proves that whoever held leases before is dead: nobody needs to wait for their expiry.
    if (blobs.exclusive) await ledger.forgetOtherHolders(leases.holder)
    if (options.completer !== 'manual') completer.start()
    opened = 'all'
    if (checked.operatorSocket && blobs.directory !== undefined) socket = await openSocket(blobs.directory)
  }

  /** Uploads do not depend on it. */
  async function openSocket(directory: string): Promise<ServedOperator | null> {
    try {
      const served = await serveOperator(operator, directory)
      if (served.outcome === 'none') log.warn(served.why)
      return served
    } catch (error) {
      log.warn({ err: error }, 'no socket could be opened for commands: they need this process to be stopped')
      return null
    }
  }

  const ending = new AbortController()
  let starting: Promise<void> | null = null
  const start = (): void => void (starting ??= keepStarting())

  async function keepStarting(): Promise<void> {
    for (let failedBefore = 0; !ending.signal.aborted; failedBefore += 1)
      try {
        return await ready()
      } catch (error) {
        log.error({ err: error }, 'uploads cannot start; this is tried again')
        await clock.sleep(boundOf(START_PAUSES, failedBefore), ending.signal)
      }
  }

  const health = createHealth({
    ledger,
    ready,
    opened: () => opened,
    draining: () => draining,
    // Not the counted store: it is asked for what it knows, with each declaration.
    isFull: async () => (await options.blobs.room?.())?.isFull === true,
    completerIntervalMs: options.completerIntervalMs ?? (options.completer === 'manual' ? null : 5_000),
  })

  const app = createApp({
    authenticate: options.authenticate,
    allowedOrigins,
    allowedHeaders: checked.allowedHeaders,
    basePath,
    log,
    clock,
    start,
    ready,
    ownerTag: (owner) => tagOf?.(owner) ?? null,
    operations: {
      ledger,
      blobs,
      leases,
      drive,
      watch,
      clock,
      admit,
      cancel,
      maxBodyBytes: limits.maxMetadataBytes + 16 * 1024,
    },
    tus: {
      ledger,
      leases,
      receive,
      watch,
      clock,
      log,
      library: createTusLibrary({ ledger, leases, drive, receive, admit, cancel, watch, clock, log, limits }),
      sendFile: createSendFile({
        blobs,
        inlineTypes: checked.inlineTypes,
        allowedOrigins,
        signedUrlSeconds: checked.signedUrlSeconds ?? null,
      }),
    },
  })

  const uploads: Uploads<Tx, TypesOf<K>> = {
    routes: app,
    node: createNodeHandler(() => app, basePath ?? ''),
    ready,
    start,
    migrate: async () => void (await ledger.migrate('apply')),
    remove: (tx, operationId, owner) => ledger.remove(tx, operationId, owner ?? null),
    forgetOwner: (tx, owner) => ledger.forgetOwner(tx, owner),
    async ownerTag(owner) {
      if (tagOf === null) {
        await ledger.migrate(checked.migrate === 'off' ? 'check' : 'apply')
        tagOf = tagsOf(await ledger.ownerKey())
      }
      return tagOf(owner)
    },
    async runOnce(once) {
      await ready()
      await timekeeping.look()
      return completer.runOnce(once)
    },
    operator,
    health,
    async close({ withinMs = 10_000, announcedMs = 0 } = {}) {
      draining = true
      ending.abort()
      if (announcedMs > 0) await clock.sleep(announcedMs)
      const endsAtMs = clock.monotonicMs() + withinMs
      const leftMs = (): number => Math.max(0, endsAtMs - clock.monotonicMs())
      // What is still being opened would begin after its end, and keep the directory's lock and the socket.
      if (opening !== null) await endsWithin(opening, leftMs())
      watch.close()
      timekeeping.stop()
      if (socket?.outcome === 'served') await socket.close()
      // At once: a request must not wait for its acknowledgement until the completer's last drive has ended.
      await Promise.all([completer.stop(withinMs), leases.close(withinMs)])
      // And for what the completer had taken meanwhile.
      await leases.close(leftMs())
      const marked = async (): Promise<void> => {
        if (tides === null) return
        clearInterval(tides)
        await tide.advance().catch((error: unknown) => log.warn({ err: error }, 'the mark could not be set'))
      }
      await endsWithin(marked(), leftMs())
      // A store that does not answer lets go in its own time.
      if (!(await endsWithin(blobs.close(), Math.max(LETS_GO_MS, leftMs()))))
        log.warn('the blob store did not close in time')
    },
  }
  options.blobs.onTakenOver?.(async () => {
    log.warn('a newer instance in this process takes over the directory of blobs: this one ends')
    const begun = opening
    opening = Promise.reject(takenOver())
    opening.catch(() => {})
    // What is still being opened would begin after its end.
    await begun?.catch(() => {})
    await uploads.close({ withinMs: TAKEN_OVER_MS })
  })
  return uploads
}

function checkRuntime(): void {
  const versions: Partial<Record<string, string>> = globalThis.process?.versions ?? {}
  if (versions['node'] === undefined || versions['bun'] !== undefined || versions['deno'] !== undefined)
    throw new UploadError('setup', 'Landfall runs on Node only: its durability rests on what was tested there')
}
