import type { KindTypes, TypedUploads } from '@landfall/shared'
import type { Hono } from 'hono'
import { createAdmit, type Limits } from './access.js'
import { type Authenticate, createApp } from './app.js'
import { createHolderName } from './boot.js'
import { createCancel } from './cancel.js'
import { createClockGuard, systemClock } from './clock.js'
import { type Completer, createCompleter, type Pass } from './completer.js'
import type { Env } from './context.js'
import { createDrive, LOOK_AGAIN_MS } from './drive.js'
import { createEffects, EFFECT_SETTINGS, type EffectSettings, longestPauseMs } from './effects.js'
import { UploadError } from './errors.js'
import { createHealth, type Health, type Opened } from './health.js'
import { type Kind, kind, type KindFor } from './kinds.js'
import { createLeases } from './leases.js'
import { createLogger, type Logger } from './log.js'
import { meteredBlobs, meteredLedger, NO_METRICS } from './metering.js'
import type { BlobStore, Clock, Ledger, Metrics } from './ports.js'
import { createOperator, type Operator } from './operator.js'
import { serveOperator, type ServedOperator } from './operator-socket.js'
import { takenOver } from './blobs/directory-lock.js'
import { createReceive } from './receive.js'
import { createSendFile } from './routes/files.js'
import { createTusLibrary } from './routes/tus-library.js'
import { createSteps } from './steps.js'
import { createTide } from './tide.js'
import { createTimekeeping } from './timekeeping.js'
import { createWatch } from './watch.js'

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
  /** How long after its last byte an unfinished upload is given up. In milliseconds, default 7 days. */
  expiresAfterMs?: number
  /** `automatic` (default) starts with the mounting of `routes`; `manual` only works in `runOnce`. */
  completer?: 'automatic' | 'manual'
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
  /** Origins of other sites whose pages may upload here. Default: none, and no CORS. */
  allowedOrigins?: readonly string[]
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
  /** Mount it: `app.route('/uploads', uploads.routes)`. The first use starts the completer, unless it is `manual`. */
  readonly routes: Hono<Env>
  /** Creates or upgrades the ledger's tables and opens the blob store; the first request does it otherwise. */
  ready(): Promise<void>
  /**
   * Takes a reference back in the application's own transaction: it is gone when that commits, and its bytes go by an
   * effect after it. False when there is none.
   *
   * @param owner Name it wherever the id came from a client: two owners may use the same id.
   * @throws UploadError `ambiguous-operation` without `owner`, when several owners use the id; nothing is removed.
   */
  remove(tx: Tx, operationId: string, owner?: string): Promise<boolean>
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

const DEFAULT_LIMITS: Limits = {
  maxSizeBytes: 1024 ** 4,
  maxMetadataBytes: 16 * 1024,
  maxOpenPerOwner: 1_000,
  quotaBytes: () => null,
}
const WEEK_MS = 7 * 24 * 60 * 60_000
/** Of a backup that is younger than this the ledger's mark may not tell. */
const TIDE_MS = 60_000
/** After a start the clients get this long to come back before anything expires. */
const SETTLE_MS = 10 * 60_000
/** How long what runs may take when a newer instance of this process waits for the directory. */
const TAKEN_OVER_MS = 5_000
/** Beyond the longest pause that was ever drawn. */
const MARGIN_MS = 60_000

/**
 * Uploads that end as exactly one reference in the application's own database.
 *
 * @throws UploadError `setup` at once for settings that cannot work, and on anything but Node.
 */
export function createUploads<Tx, const K extends Kinds<Tx>>(options: UploadsOptions<Tx, K>): Uploads<Tx, TypesOf<K>> {
  checkRuntime()
  const metrics = options.metrics ?? NO_METRICS
  const ledger = meteredLedger(options.ledger, metrics)
  const blobs = meteredBlobs(options.blobs, metrics)
  metrics.observe(async () => ({ ...(await ledger.pulse()), ...(await ledger.backlog()) }))
  const kinds: Kinds<Tx> = typeof options.kinds === 'function' ? options.kinds(kind) : options.kinds
  if (Object.keys(kinds).length === 0) throw new UploadError('setup', 'kinds: declare at least one')
  const clock = options.clock ?? systemClock
  const log = options.logger ?? createLogger('warn')
  const limits = { ...DEFAULT_LIMITS, ...options.limits }
  const expiresAfterMs = options.expiresAfterMs ?? WEEK_MS
  const leaseMs = options.leaseMs ?? 30_000
  const allowedOrigins = options.allowedOrigins ?? []

  const guard = createClockGuard(clock, Math.min(SETTLE_MS, expiresAfterMs))
  const alone = (): boolean => blobs.exclusive
  const leases = createLeases({ ledger, clock, log, holder: createHolderName(), leaseMs, alone, metrics })
  const watch = createWatch({ ledger, clock, log, alone })
  const settings = {
    digestGraceMs: options.digestGraceMs ?? 60_000,
    maxAttempts: options.maxAttempts ?? 20,
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
  const effectSettings = { ...EFFECT_SETTINGS, ...options.effects }
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
    settings: { intervalMs: options.completerIntervalMs ?? 5_000, leaseMs },
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
  let opening: Promise<void> | null = null
  const ready = (): Promise<void> =>
    (opening ??= open().catch((error: unknown) => {
      opening = null
      throw error
    }))

  async function open(): Promise<void> {
    const { identity, store } = await ledger.migrate()
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
    if (options.operatorSocket !== false && blobs.directory !== undefined) socket = await openSocket(blobs.directory)
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
    log,
    clock,
    ready,
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
        inlineTypes: options.inlineTypes ?? [],
        crossOrigin: allowedOrigins.length > 0,
        signedUrlSeconds: options.signedUrlSeconds ?? null,
      }),
    },
  })

  const uploads: Uploads<Tx, TypesOf<K>> = {
    get routes() {
      // Mounting is the start; what fails is said by every request until it works.
      ready().catch((error: unknown) => log.error({ err: error }, 'uploads cannot start'))
      return app
    },
    ready,
    remove: (tx, operationId, owner) => ledger.remove(tx, operationId, owner ?? null),
    async runOnce(once) {
      await ready()
      await timekeeping.look()
      return completer.runOnce(once)
    },
    operator,
    health,
    async close({ withinMs = 10_000, announcedMs = 0 } = {}) {
      draining = true
      if (announcedMs > 0) await clock.sleep(announcedMs)
      const deadline = clock.monotonicMs() + withinMs
      watch.close()
      timekeeping.stop()
      if (socket?.outcome === 'served') await socket.close()
      // At once: a request must not wait for its acknowledgement until the completer's last drive has ended.
      await Promise.all([completer.stop(withinMs), leases.close(withinMs)])
      // And for what the completer had taken meanwhile.
      await leases.close(Math.max(0, deadline - clock.monotonicMs()))
      if (tides !== null) {
        clearInterval(tides)
        await tide.advance().catch((error: unknown) => log.warn({ err: error }, 'the mark could not be set'))
      }
      await blobs.close()
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
