import { isOpen, isReferenced, problem } from '@landfall/shared'
import { type Backoff, boundOf } from '../lib/backoff.js'
import { faultCode, faultMessage, UploadError } from '../lib/errors.js'
import type { Logger } from '../lib/log.js'
import type { Clock } from '../ports/clock.js'
import type { Changes, LedgerLeases } from '../ports/ledger/leases.js'
import type { LedgerOperations } from '../ports/ledger/operations.js'
import type { LedgerReferences, Referred } from '../ports/ledger/references.js'
import type { Metrics } from '../ports/metrics.js'
import type { OperationRecord } from '../ports/operation.js'
import type { ClockGuard } from './clock.js'
import type { Held } from './leases.js'
import { askWithRetries, createRecorder, DigestArrived, type Recorder } from './recorder.js'
import { rules } from './rules.js'
import { createSteps, rejected, type StepDeps } from './steps.js'

export interface DriveSettings {
  /** How long the server waits for a promised digest after the last byte. Default 60,000. */
  readonly digestGraceMs: number
  /** How often an application's hook may fail before the operation is `stalled`. Default 20. */
  readonly maxAttempts: number
  readonly backoff: Backoff
  /** How long the recorder retries to write facts while the ledger is unavailable. */
  readonly patienceMs: number
}

export interface DriveDeps<Tx> extends StepDeps<Tx> {
  readonly ledger: LedgerOperations & LedgerLeases & LedgerReferences<Tx>
  readonly clock: Clock
  readonly guard: ClockGuard
  readonly log: Logger
  readonly metrics: Metrics
  readonly settings: DriveSettings
  /** Called with the time in which an operation that was left becomes due again. */
  readonly onDue: (inMs: number) => void
}

export interface DriveRequest {
  /** The recorder that wrote under this lease so far, with what it has noted. */
  readonly recorder?: Recorder
  /** Called after each record, and at the end with the operation as it was left. */
  readonly onRecorded?: (operation: OperationRecord) => void
}

/**
 * Drives one operation as far as possible without the client, and gives the lease back. Never rejects: it returns the
 * operation as far as its state is known.
 */
export type Drive = (held: Held, request?: DriveRequest) => Promise<OperationRecord>

/** Blobs up to this size are verified so quickly that nothing has to be recorded before that. */
const QUICK_BYTES = 8 * 1024 * 1024
/**
 * When a hook takes longer than this, the client must not wait for it: what was noted is recorded early, and the bytes
 * are acknowledged.
 */
const RECORD_EARLY_MS = 100
/** When to check again an operation that only another version of the application can drive. */
export const LOOK_AGAIN_MS = 60_000

/** Faults of the environment. They pass, so they are no reason to give up an operation. */
const PASSING: ReadonlySet<string | null> = new Set([
  'ledger-unavailable',
  'storage-unavailable',
  'storage-full',
  'lease-lost',
])
/**
 * The bound of the pause after such a fault: short enough for a brief outage, and long enough to keep all operations
 * from hitting a recovering database at once.
 */
const PASSING_PAUSE_MS = 4_000
/** A hook that kept all others from writing is retried later: `factor` times the usual pause, up to `mostMs`. */
const HELD = { factor: 10, mostMs: 20_000 }

/**
 * The upper bound of the pause before the next attempt of a hook that failed with `error` after `failedBefore` earlier
 * failures.
 */
export function pauseBoundMs(backoff: Backoff, failedBefore: number, error: unknown): number {
  const usualMs = boundOf(backoff, failedBefore)
  if (faultCode(error) !== 'writer-held') return usualMs
  return Math.max(usualMs, Math.min(backoff.mostMs, HELD.mostMs, usualMs * HELD.factor))
}

/**
 * The time from the last durable byte to the reference. The ledger's clock measures it, because the ledger knows of
 * earlier attempts. Facts that are recorded in one commit share one time; for those it is the duration of this drive.
 */
const lagOf = ({ receivedAt, reference }: OperationRecord, droveMs: number): number =>
  Math.max(droveMs, reference === null || receivedAt === null ? 0 : reference.storedAt - receivedAt)

/**
 * The whole sequence. The tus routes, `PUT /operations/{id}` and the completer call it.
 *
 * A step returns what to record and records nothing itself. The loop is the only writer, by compare-and-set. Steps that
 * are cheap to repeat (seal, verify) are only noted, and recorded in one commit with what follows.
 */
export function createDrive<Tx>(deps: DriveDeps<Tx>): Drive {
  const { ledger, clock, guard, log, metrics, settings } = deps
  const steps = createSteps(deps)

  return async function drive(
    held,
    { recorder = createRecorder(ledger, clock, held, metrics), onRecorded = () => {} } = {},
  ) {
    held.toDrive()
    const beganAtMs = clock.monotonicMs()
    const record = async (changes: Changes): Promise<void> =>
      onRecorded(await recorder.writeWithRetries(changes, 'decision', settings.patienceMs))
    const leave = async (dueInMs: number | null): Promise<OperationRecord> => {
      await record({ dueInMs, release: true })
      if (dueInMs !== null) deps.onDue(dueInMs)
      return recorder.view()
    }
    const leaveUntil = async (at: number, dueAt: 'expiry' | 'digest-due'): Promise<OperationRecord> => {
      const inMs = at - clock.now()
      // It is over by the clock, and still has to be waited for: that happens only when the clock is not trusted.
      if (inMs <= 0) return leave(guard.askAgainMs())
      await record({ dueAt, release: true })
      deps.onDue(inMs)
      return recorder.view()
    }

    try {
      for (;;) {
        const operation = recorder.view()
        const kind = deps.kinds[operation.kind] ?? null
        const next = rules(operation, {
          now: clock.now(),
          clockTrusted: guard.trusted(),
          kind: kind && { prepareSteps: Object.keys(kind.prepare), requiresDigest: kind.requireDigest },
        })
        try {
          switch (next.step) {
            case 'recover': // repeatable: looks, syncs what survived, cuts nothing that was acknowledged
              await record(await steps.recover(operation))
              break
            case 'await-bytes':
              return await leaveUntil(next.untilAt, 'expiry')
            case 'expire': // repeatable: looks once more before it ends anything
              await record(await steps.expire(operation))
              break
            case 'receive': // repeatable: says what is true
              await record({
                point: 'received',
                digestDueInMs:
                  kind?.requireDigest === true
                    ? Math.max(0, operation.expiresAt - clock.now())
                    : settings.digestGraceMs,
              })
              break
            case 'await-digest':
              return await leaveUntil(next.untilAt, 'digest-due')
            case 'give-up-digest': // repeatable: says what is true
              await record(rejected(problem('expired', { detail: 'The digest of the file did not arrive' })))
              break
            case 'seal': // repeatable: syncs and looks; what is sealed stays so
              recorder.note(await steps.seal(operation))
              break
            case 'verify': // repeatable: reads the stored bytes
              if (operation.file.size > QUICK_BYTES) await record({})
              recorder.note(await steps.verify(operation, held.signal))
              break
            case 'prepare': // repeatable: the application's step gets an idempotency key; a recorded result is used
              await record({})
              await record(await steps.prepare(operation, next.name, held.signal))
              break
            case 'refer': {
              // repeatable: one transaction, decided by the lease in it
              const referenced = await refer(recorder, held, record)
              if (referenced === null) break
              metrics.count({ type: 'finalised', lagMs: lagOf(referenced, clock.monotonicMs() - beganAtMs) })
              onRecorded(referenced)
              return referenced
            }
            case 'clean': // repeatable: deletes again what no committed row names
              if (recorder.noted().point !== undefined) await record({}) // the intent first, the bytes second
              await deps.blobs.remove(operation.blobKey)
              // In one commit with the end of the lease. Otherwise a row that owes nothing could keep its lease and
              // stay due permanently.
              await record({ cleanupDue: false, attempts: 0, lastError: null, dueInMs: null, release: true })
              return recorder.view()
            case 'leave':
              return await leave(LOOK_AGAIN_MS)
            case 'rest':
              return await leave(null)
            default:
              return next satisfies never
          }
        } catch (error) {
          // The step decided without the digest, which has arrived since. Decide again with it.
          if (!(error instanceof DigestArrived)) throw error
        }
      }
    } catch (error) {
      const left = await afterFault(error, recorder, held)
      onRecorded(left)
      return left
    } finally {
      held.end()
    }
  }

  /** Step 6. Null: the loop continues. */
  async function refer(
    recorder: Recorder,
    held: Held,
    record: (changes: Changes) => Promise<void>,
  ): Promise<OperationRecord | null> {
    const operation = recorder.view()
    let early: Promise<void> = Promise.resolve()
    const timer = setTimeout(() => {
      // A failure here needs no report: the next write fails in the same way and reports it.
      if (Object.keys(recorder.noted()).length > 0) early = record({}).catch(() => {})
    }, RECORD_EARLY_MS)
    let referred: Referred | null = null
    try {
      referred = await steps.refer(held, operation, recorder.noted())
    } finally {
      clearTimeout(timer)
      // The commit also gives the lease back, so a later early record changes nothing, and nothing has to wait for it.
      if (referred?.outcome !== 'referenced') await early
    }
    switch (referred.outcome) {
      case 'referenced':
        log.info({ operationId: operation.id, kind: operation.kind, bytes: operation.file.size }, 'referenced')
        if (Object.keys(deps.kinds[operation.kind]?.effects ?? {}).length > 0) deps.onDue(0)
        return referred.operation
      case 'rejected':
        await record(rejected(referred.problem))
        return null
      case 'lost':
        await recorder.refused()
        return null
    }
  }

  /** A transient failure never becomes a final state. It is stored, and the step is tried again later. */
  async function afterFault(error: unknown, recorder: Recorder, held: Held): Promise<OperationRecord> {
    const operationId = held.lease.id
    try {
      // If the outcome of a COMMIT is unknown, the operation is read again before anything else.
      const now = await askWithRetries(() => ledger.find(held.lease), clock, settings.patienceMs)
      if (now !== null && (isReferenced(now.point) || now.leaseHolder !== held.lease.holder)) return now
      // Its owner was forgotten, which also cancelled the operation.
      if (now === null && (await ledger.tombstone(held.lease)) !== null)
        return { ...recorder.recorded(), point: 'cancelled', problem: problem('cancelled') }
      const before = recorder.view().attempts
      // The drive was stopped from outside. That is no failure of the step.
      const passing = held.signal.aborted || PASSING.has(faultCode(error))
      const attempts = passing ? before : before + 1
      const stalled = attempts >= settings.maxAttempts && isOpen(recorder.view().point)
      const dueInMs = stalled
        ? null
        : 50 + Math.random() * (passing ? PASSING_PAUSE_MS : pauseBoundMs(settings.backoff, before, error))
      log.warn({ operationId, attempts, dueInMs, stalled, err: error }, 'a step failed')
      const failure: Changes = { attempts, stalled, lastError: faultMessage(error), dueInMs, release: true }
      const left = await recorder.writeWithRetries(
        stalled ? { ...failure, problem: problem('stalled') } : failure,
        'fact',
        settings.patienceMs,
      )
      if (dueInMs !== null) deps.onDue(dueInMs)
      return left
    } catch (unrecorded) {
      // The lease stays in the ledger until it expires. Then the completer finds the operation as it was.
      if (!(unrecorded instanceof UploadError && unrecorded.code === 'lease-lost'))
        log.error({ operationId, err: unrecorded }, 'the failure of a step could not be recorded')
      return recorder.recorded()
    }
  }
}
