import type { KindTypes, TypedUploads } from '@landfall/shared'
import type { Hono } from 'hono'
import { createEffects, longestPauseMs } from './effects/effects.js'
import { createApp } from './http/app.js'
import type { Env } from './http/context.js'
import { createSendFile } from './http/files.js'
import { createNodeHandler, type NodeHandler } from './http/node-handler.js'
import { createTusLibrary } from './http/tus/library.js'
import { createAdmit } from './kinds/admission.js'
import { type Kind, kind } from './kinds/kind.js'
import { UploadError } from './lib/errors.js'
import { createHolderName } from './lib/holder-name.js'
import { createLogger, withSafeErrors } from './lib/log.js'
import { readOptions } from './lib/options.js'
import { createLifecycle } from './lifecycle.js'
import { createHealth, type Health } from './operate/health.js'
import { meteredBlobs, meteredLedger } from './operate/metering.js'
import { createOperator, type Operator } from './operate/operator.js'
import { createRestoreMarks } from './operate/restore-marks.js'
import type { Holdings } from './ports/ledger/references.js'
import { NO_METRICS } from './ports/metrics.js'
import { createCancel } from './sequence/cancel.js'
import { createClockGuard, systemClock } from './sequence/clock.js'
import { type Completer, createCompleter, type Pass } from './sequence/completer.js'
import { createDrive, LOOK_AGAIN_MS } from './sequence/drive.js'
import { createLeases } from './sequence/leases.js'
import { createReceive } from './sequence/receive.js'
import { createSteps } from './sequence/steps.js'
import { createTimekeeping } from './sequence/timekeeping.js'
import { createWatch } from './sequence/watch.js'
import { KINDS, type Kinds, UPLOADS_OPTIONS, type UploadsOptions } from './uploads-options.js'

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

/** After a start, nothing expires for this long, so that clients can come back first. */
const SETTLE_MS = 10 * 60_000
/** Added to the longest pause that was ever drawn. */
const MARGIN_MS = 60_000

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
  const operator = createOperator({
    ledger,
    blobs,
    clock,
    cancel,
    wake: () => completer.wake(0),
    ready: () => lifecycle.ready().then(timekeeping.look),
    completerIntervalMs: options.completerIntervalMs ?? 5_000,
    expiresAfterMs,
    automatic: options.completer !== 'manual',
  })

  const lifecycle = createLifecycle({
    ledger,
    blobs,
    leases,
    watch,
    completer,
    timekeeping,
    restoreMarks: createRestoreMarks({ ledger, blobs, log }),
    operator,
    clock,
    log,
    settings: checked,
  })

  const health = createHealth({
    ledger,
    ready: lifecycle.ready,
    opened: lifecycle.opened,
    draining: lifecycle.draining,
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
    start: lifecycle.start,
    ready: lifecycle.ready,
    ownerTag: lifecycle.knownTag,
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

  return {
    routes: app,
    node: createNodeHandler(() => app, basePath ?? ''),
    ready: lifecycle.ready,
    start: lifecycle.start,
    migrate: async () => void (await ledger.migrate('apply')),
    remove: (tx, operationId, owner) => ledger.remove(tx, operationId, owner ?? null),
    forgetOwner: (tx, owner) => ledger.forgetOwner(tx, owner),
    ownerTag: lifecycle.ownerTag,
    async runOnce(once) {
      await lifecycle.ready()
      await timekeeping.look()
      return completer.runOnce(once)
    },
    operator,
    health,
    close: ({ withinMs = 10_000, announcedMs = 0 } = {}) => lifecycle.close({ withinMs, announcedMs }),
  }
}

function checkRuntime(): void {
  const versions: Partial<Record<string, string>> = globalThis.process?.versions ?? {}
  if (versions['node'] === undefined || versions['bun'] !== undefined || versions['deno'] !== undefined)
    throw new UploadError('setup', 'Landfall runs on Node only: its durability was tested there')
}
