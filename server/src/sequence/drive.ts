import { type Backoff, boundOf } from '../lib/backoff.js'
import { isOpen, isReferenced, problem } from '@landfall/shared'
import type { ClockGuard } from './clock.js'
import { faultCode, faultMessage, UploadError } from '../lib/errors.js'
import type { Held } from './leases.js'
import type { Logger } from '../lib/log.js'
import type { Changes, LedgerLeases } from '../ports/ledger/leases.js'
import type { Clock } from '../ports/clock.js'
import type { Metrics } from '../ports/metrics.js'
import type { OperationRecord } from '../ports/operation.js'
import type { LedgerReferences, Referred } from '../ports/ledger/references.js'
import { askPatiently, createRecorder, DigestArrived, type Recorder } from './recorder.js'
import { rules } from './rules.js'
import type { LedgerOperations } from '../ports/ledger/operations.js'
import { createSteps, rejected, type StepDeps } from './steps.js'

export interface DriveSettings {
  /** How long a digest that was promised is waited for after the last byte. Default 60,000. */
  readonly digestGraceMs: number
  /** How often an application's hook may fail before the operation is `stalled`. Default 20. */
  readonly maxAttempts: number
  readonly backoff: Backoff
  /** How long what is true already is tried to be recorded while the ledger is away. */
  readonly patienceMs: number
}

export interface DriveDeps<Tx> extends StepDeps<Tx> {
  readonly ledger: LedgerOperations & LedgerLeases & LedgerReferences<Tx>
  readonly clock: Clock
  readonly guard: ClockGuard
  readonly log: Logger
  readonly metrics: Metrics
  readonly settings: DriveSettings
  /** Called with the time until an operation that was left is due again. */
  readonly onDue: (inMs: number) => void
}

export interface DriveRequest {
  /** Of whoever wrote under the lease before, with what it has noted. */
  readonly recorder?: Recorder
  /** Called after each record, and with how it was left. */
  readonly onRecorded?: (operation: OperationRecord) => void
}

/** Drives one operation as far as it goes without the client, and gives the lease back. Never rejects; answers how it stands, as far as is known. */
export type Drive = (held: Held, request?: DriveRequest) => Promise<OperationRecord>

/** Blobs up to this size are verified so quickly that nothing needs to be recorded before. */
const QUICK_BYTES = 8 * 1024 * 1024
/** A hook that takes longer than this must not keep the client waiting for the acknowledgement of its bytes. */
const RECORD_EARLY_MS = 100
/** When to look again at what another version must drive. */
export const LOOK_AGAIN_MS = 60_000

/** Faults of the surroundings: they pass, and are no reason to give an operation up. */
const PASSING: ReadonlySet<string | null> = new Set([
  'ledger-unavailable',
  'storage-unavailable',
  'storage-full',
  'lease-lost',
])
/** The bound of the pause after such a fault: soon enough for a blink, and no storm upon a database that comes back. */
const PASSING_PAUSE_MS = 4_000
/** A hook that kept everybody from writing comes back the later for it: so many times later, up to a bound of this. */
const HELD = { factor: 10, mostMs: 20_000 }

/** The bound of the pause before the next attempt of a hook that failed with `error`, after `failedBefore` earlier ones. */
export function pauseBoundMs(backoff: Backoff, failedBefore: number, error: unknown): number {
  const usualMs = boundOf(backoff, failedBefore)
  if (faultCode(error) !== 'writer-held') return usualMs
  return Math.max(usualMs, Math.min(backoff.mostMs, HELD.mostMs, usualMs * HELD.factor))
}

/**
 * From the last durable byte to the reference. By the ledger's clock, which knows of earlier attempts; what is recorded
 * in one commit has one time, and took as long as this drive.
 */
const lagOf = ({ receivedAt, reference }: OperationRecord, droveMs: number): number =>
  Math.max(droveMs, reference === null || receivedAt === null ? 0 : reference.storedAt - receivedAt)

/**
 * THE sequence: called by the tus routes, by `PUT /operations/{id}` and by the completer.
 *
 * A step answers what to record and records nothing itself; the loop is the only writer, by compare-and-set. What is
 * cheap to repeat (seal, verify) is only noted, and recorded in one commit with what follows.
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
      onRecorded(await recorder.writePatiently(changes, 'decision', settings.patienceMs))
    const leave = async (dueInMs: number | null): Promise<OperationRecord> => {
      await record({ dueInMs, release: true })
      if (dueInMs !== null) deps.onDue(dueInMs)
      return recorder.view()
    }
    const leaveUntil = async (at: number, dueAt: 'expiry' | 'digest-due'): Promise<OperationRecord> => {
      const inMs = at - clock.now()
      // What is over by the clock, and yet to be waited for, is so because the clock is not trusted.
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
              // In one commit with the lease's end: else a row that owes nothing could keep a lease, and be due, for ever.
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
          // Decided without the digest that has come meanwhile: once more, with it.
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

  /** Step 6. Null: go on in the loop. */
  async function refer(
    recorder: Recorder,
    held: Held,
    record: (changes: Changes) => Promise<void>,
  ): Promise<OperationRecord | null> {
    const operation = recorder.view()
    let early: Promise<void> = Promise.resolve()
    const timer = setTimeout(() => {
      // What fails here is said by what comes after.
      if (Object.keys(recorder.noted()).length > 0) early = record({}).catch(() => {})
    }, RECORD_EARLY_MS)
    let referred: Referred | null = null
    try {
      referred = await steps.refer(held, operation, recorder.noted())
    } finally {
      clearTimeout(timer)
      // With the commit the lease is given back: what comes after it changes nothing, and nobody waits for it.
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

  /** A transient failure never becomes a final state: it is kept, and tried again later. */
  async function afterFault(error: unknown, recorder: Recorder, held: Held): Promise<OperationRecord> {
    const operationId = held.lease.id
    try {
      // An unknown outcome of a COMMIT is read again before anything else.
      const now = await askPatiently(() => ledger.find(held.lease), clock, settings.patienceMs)
      if (now !== null && (isReferenced(now.point) || now.leaseHolder !== held.lease.holder)) return now
      // Its owner was forgotten, and it was cancelled with that.
      if (now === null && (await ledger.tombstone(held.lease)) !== null)
        return { ...recorder.recorded(), point: 'cancelled', problem: problem('cancelled') }
      const before = recorder.view().attempts
      // Stopped from outside: no failure of the step.
      const passing = held.signal.aborted || PASSING.has(faultCode(error))
      const attempts = passing ? before : before + 1
      const stalled = attempts >= settings.maxAttempts && isOpen(recorder.view().point)
      const dueInMs = stalled
        ? null
        : 50 + Math.random() * (passing ? PASSING_PAUSE_MS : pauseBoundMs(settings.backoff, before, error))
      log.warn({ operationId, attempts, dueInMs, stalled, err: error }, 'a step failed')
      const failure: Changes = { attempts, stalled, lastError: faultMessage(error), dueInMs, release: true }
      const left = await recorder.writePatiently(
        stalled ? { ...failure, problem: problem('stalled') } : failure,
        'fact',
        settings.patienceMs,
      )
      if (dueInMs !== null) deps.onDue(dueInMs)
      return left
    } catch (unrecorded) {
      // The lease stays in the ledger until it expires; then the completer finds the operation as it was.
      if (!(unrecorded instanceof UploadError && unrecorded.code === 'lease-lost'))
        log.error({ operationId, err: unrecorded }, 'how a step failed could not be recorded')
      return recorder.recorded()
    }
  }
}
