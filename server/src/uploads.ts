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
import { createLogger, type Logger, withSafeErrors } from './lib/log.js'
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
import { createRestoreMarks } from './operate/restore-marks.js'
import { createTimekeeping } from './sequence/timekeeping.js'
import { KINDS, UPLOADS_OPTIONS } from './uploads-options.js'
import { createWatch } from './sequence/watch.js'

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

type TypesOf<K> = { [Name in keyof K & string]: K[Name] extends Kind<never, infer Types> ? Types : KindTypes }

export interface Uploads<
  Tx,
  Types extends Record<string, KindTypes> = Record<string, KindTypes>,
> extends TypedUploads<Types> {
  /**
   * Mount it: `app.route('/uploads', uploads.routes)`. Mounting uses neither database nor blob store, so that a build
   * may load the module. The first request, from any client, starts what `start()` starts.
   */
  readonly routes: Hono<Env>
  /**
   * The same routes for Node's own HTTP server and what is built on it: `app.use('/uploads', uploads.node)` in Express.
   * Mount it before any body parser, and do not mount `routes` as well.
   */
  readonly node: NodeHandler
  /**
   * Creates or upgrades the ledger's tables, opens the blob store and starts the completer, unless that is `manual`.
   * Without this call the first request does it.
   *
   * @throws the error that prevents it, at once. A later call tries again.
   */
  ready(): Promise<void>
  /**
   * Begins what `ready()` does without waiting for it, and tries again, with pauses of up to a minute, until it works
   * or `close()` is called. Each failure is logged. Call it in a process that gets no requests, such as a worker:
   * otherwise it never drives operations that make no progress. Landfall's timers do not keep a process alive, so the
   * worker needs something else that does.
   */
  start(): void
  /**
   * Creates or upgrades the ledger's tables, creates again what was dropped of them, and does nothing else. It is meant
   * for a deploy step whose database user may do more than the server's user. It is safe while servers run.
   *
   * @throws UploadError `setup` if that user lacks permissions, or if tables are missing that existed before
   */
  migrate(): Promise<void>
  /**
   * Removes a reference in the application's own transaction: it is gone when that transaction commits, and an effect
   * removes its bytes after that. False when there is none.
   *
   * @param owner Pass it whenever the id came from a client, because two owners may use the same id.
   * @throws UploadError `ambiguous-operation` without `owner`, when several owners use the id; nothing is removed.
   */
  remove(tx: Tx, operationId: string, owner?: string): Promise<boolean>
  /**
   * The right to erasure, in the application's own transaction. It removes all references of the owner as `remove`
   * does, cancels its open operations, and erases the owner, names, metadata and results from Landfall's tables. What
   * remains are tombstones, which identify the owner by a keyed hash. Bytes are removed after the commit. Until then
   * the rows remain, with a pseudonym and without any data of the owner. Effects that were not delivered yet are
   * dropped. A database keeps deleted content in its files until it uses the space again: SQLite and PostgreSQL until
   * `VACUUM`, backups and archived logs longer.
   *
   * An upload that is running loses its lease: none of its bytes is acknowledged after the commit. What the same owner
   * declares later under new ids is accepted, so end its sessions first.
   *
   * @returns what existed: `operations`, how many of them were open, `references`, and the `bytes` of these.
   */
  forgetOwner(tx: Tx, owner: string): Promise<Holdings>
  /**
   * The opaque tag that tells a client whose uploads an answer is about (the header `Landfall-Owner`). It is the same
   * on all nodes. For applications that render the page themselves: if you pass it to `createUploader({ ownerTag })`,
   * the page's first upload does not have to wait for an answer. The owner is what `authenticate` returns.
   *
   * Creates or upgrades the ledger's tables if needed. Rejects if the database cannot be used.
   */
  ownerTag(owner: string): Promise<string>
  /** Drives what is due, for `completer: 'manual'`. */
  runOnce(options?: { maxMs?: number }): Promise<Pass>
  /**
   * What only the person who runs the server may do: list all operations, retry and cancel them, reconcile, diagnose.
   */
  readonly operator: Operator
  /**
   * Whether this process can take requests: the database answers, tables and blob store are open, a completer of any
   * process is alive, and this process is not draining. It checks at most once a second, takes at most a second, and
   * opens what is not open yet, as a request does. `healthRoutes(uploads)` serves it.
   *
   * With `completer: 'manual'` the completer is checked only if `completerIntervalMs` says how often it is called.
   */
  health(): Promise<Health>
  /**
   * Drains: `health` reports it at once, running requests end at an acknowledged offset, leases are given back, and the
   * completer stops. Call it on SIGTERM, and close the HTTP server at the same time.
   *
   * @param options.withinMs How long that may take. In milliseconds, default 10,000.
   * @param options.announcedMs For this long, requests are still served while `health` reports the drain, so that a
   *   load balancer stops sending requests before the drain begins. In milliseconds, default 0.
   */
  close(options?: { withinMs?: number; announcedMs?: number }): Promise<void>
}

/** How often the restore mark is advanced. A backup that is younger than this may not be detected as one. */
const MARK_EVERY_MS = 60_000
/** After a start, nothing expires for this long, so that clients can come back first. */
const SETTLE_MS = 10 * 60_000
/** How long running work may take when a newer instance in this process waits for the directory. */
const TAKEOVER_MS = 5_000
/** How long a blob store in good order needs to close its files and to release its directory. */
const RELEASE_MS = 100
/** Added to the longest pause that was ever drawn. */
const MARGIN_MS = 60_000
/** Between the attempts of `start()`: a database that is being upgraded is back soon, a wrong setting stays wrong. */
const START_PAUSES = { firstMs: 1_000, mostMs: 60_000 }
/** A request needs its owner's tag twice, and the next request often has the same owner. */
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
  const log = withSafeErrors(options.logger ?? createLogger('warn'))
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
    // Retention does not depend on clients coming back, so it may begin right after a start.
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
  const restoreMarks = createRestoreMarks({ ledger, blobs, log })
  let markTimer: ReturnType<typeof setInterval> | null = null
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
    await restoreMarks.begin()
    markTimer ??= setInterval(() => {
      restoreMarks.advance().catch((error: unknown) => log.warn({ err: error }, 'the restore mark could not be set'))
    }, MARK_EVERY_MS).unref()
    // The directory's lock proves that all earlier holders of leases are dead, so nothing has to wait until their
    // leases expire.
    if (blobs.exclusive) await ledger.forgetOtherHolders(leases.holder)
    if (options.completer !== 'manual') completer.start()
    opened = 'all'
    if (checked.operatorSocket && blobs.directory !== undefined) socket = await openSocket(blobs.directory)
  }

  /** Uploads do not depend on the socket. */
  async function openSocket(directory: string): Promise<ServedOperator | null> {
    try {
      const served = await serveOperator(operator, directory)
      if (served.outcome === 'none') log.warn(served.why)
      return served
    } catch (error) {
      log.warn({ err: error }, 'no socket could be opened for commands: stop this process before you use them')
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
        log.error({ err: error }, 'uploads cannot start; the start will be tried again')
        await clock.sleep(boundOf(START_PAUSES, failedBefore), ending.signal)
      }
  }

  const health = createHealth({
    ledger,
    ready,
    opened: () => opened,
    draining: () => draining,
    // `options.blobs` and not the counted store: this only reads a known value, and happens with each declaration too.
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
      // Whatever is still being opened would begin after the end, and keep the directory's lock and the socket.
      if (opening !== null) await endsWithin(opening, leftMs())
      watch.close()
      timekeeping.stop()
      if (socket?.outcome === 'served') await socket.close()
      // Both at once: a request must not wait for its acknowledgement until the completer's last drive has ended.
      await Promise.all([completer.stop(withinMs), leases.close(withinMs)])
      // Once more, for leases that the completer had taken in the meantime.
      await leases.close(leftMs())
      const marked = async (): Promise<void> => {
        if (markTimer === null) return
        clearInterval(markTimer)
        await restoreMarks.advance().catch((error: unknown) => log.warn({ err: error }, 'the restore mark could not be set'))
      }
      await endsWithin(marked(), leftMs())
      // A store that does not answer is left to close by itself.
      if (!(await endsWithin(blobs.close(), Math.max(RELEASE_MS, leftMs()))))
        log.warn('the blob store did not close in time')
    },
  }
  options.blobs.onTakenOver?.(async () => {
    log.warn('a newer instance in this process takes over the directory of blobs: this one ends')
    const begun = opening
    opening = Promise.reject(takenOver())
    opening.catch(() => {})
    // Whatever is still being opened would begin after the end.
    await begun?.catch(() => {})
    await uploads.close({ withinMs: TAKEOVER_MS })
  })
  return uploads
}

function checkRuntime(): void {
  const versions: Partial<Record<string, string>> = globalThis.process?.versions ?? {}
  if (versions['node'] === undefined || versions['bun'] !== undefined || versions['deno'] !== undefined)
    throw new UploadError('setup', 'Landfall runs on Node only: its durability was tested there')
}
