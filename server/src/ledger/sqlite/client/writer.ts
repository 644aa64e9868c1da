import { setTimeout as sleep } from 'node:timers/promises'
import { UploadError } from '../../../lib/errors.js'
import { type Connection, isBusy } from './connection.js'

/**
 * SQLite's one writer as a queue with group commit. Jobs that wait at the same time run in one transaction, each in its
 * own savepoint, and share the one fsync of its commit.
 */
export interface Writer {
  /**
   * Runs a synchronous job and resolves when it is committed. The job runs again if another job of its group broke the
   * group.
   */
  write<T>(work: (connection: Connection) => T): Promise<T>
  /**
   * Waits for the writer and keeps it until `commit` or `rollback`. A `repeatable` hold may share a transaction with
   * other jobs. The queue recognises slow holds by their `label`, and then runs them alone. `onTakenAway` is called
   * when the hold was idle for too long and has lost the writer.
   */
  hold(options: { label: string; repeatable: boolean; onTakenAway?: (why: UploadError) => void }): Promise<Hold>
  /** Runs a job outside of any transaction (PRAGMA, VACUUM). */
  alone<T>(work: (connection: Connection) => T): Promise<T>
  close(): void
}

export interface Hold {
  /** @throws UploadError `transaction-closed` after the end of the hold, `writer-held` after it has lost the writer. */
  use<T>(statement: (connection: Connection) => T): T
  /**
   * Runs `last` as the final statements, and resolves when everything is committed. If `last` throws, everything is
   * rolled back.
   */
  commit(last?: (connection: Connection) => void): Promise<void>
  rollback(): Promise<void>
}

export interface WriterSettings {
  /**
   * How long a job waits while another process has locked the database before it is refused. In milliseconds, default
   * 5,000.
   */
  busyTimeoutMs: number
  /** How long a transaction may keep the writer without a statement. In milliseconds, default 5,000. */
  idleLimitMs: number
}

/** A group commits at the latest after this many jobs or this time, so that no job waits long for others. */
const GROUP_JOBS = 64
const GROUP_MS = 20
/** A label whose last hold took longer than this is not grouped again, because the other jobs would wait for it. */
const SLOW_HOLD_MS = 10
/**
 * How long a hook may keep the writer without a statement: at first, and after it was idle several times. All other
 * jobs wait for it.
 */
const HOOK_IDLE_MS = 2_000
const LEAST_IDLE_MS = 250
const GRACE_MS = 20
/**
 * Longer than the longest pause after which a hook is tried again (5 minutes). After a shorter time, the hook could
 * break a group again.
 */
const APART_MS = 10 * 60_000
const BUSY_RETRY_MS = { first: 2, most: 50 }

/** The savepoint around each job. Only the writer may use this name. */
export const JOB_SAVEPOINT = 'landfall_job'
const SAVEPOINT = `SAVEPOINT ${JOB_SAVEPOINT}`
const RELEASE = `RELEASE ${JOB_SAVEPOINT}`
const ROLLBACK_TO = `ROLLBACK TO ${JOB_SAVEPOINT}`

type Job = {
  readonly waitingSince: number
  reject(error: unknown): void
} & (
  | { readonly type: 'write' | 'alone'; work(connection: Connection): unknown; resolve(value: unknown): void }
  | {
      readonly type: 'hold'
      readonly label: string
      readonly repeatable: boolean
      readonly onTakenAway: (why: UploadError) => void
      grant(hold: Hold): void
    }
)

/** A job of the group that has run and only waits for the commit. */
interface Outcome {
  readonly job: Job
  committed(): void
  failed(error: unknown): void
}

export function createWriter(open: () => Promise<Connection>, settings: WriterSettings): Writer {
  const queue: Job[] = []
  const lastHoldMs = new Map<string, number>()
  /**
   * Jobs and labels of groups whose commit failed. They run alone: a job once, and the holds of a label until the
   * stored time.
   */
  const apartJobs = new WeakSet<Job>()
  const apartUntil = new Map<string, number>()
  /** The idle limit of labels whose holds have been idle. It is halved each time, and grows again after commits. */
  const patienceMs = new Map<string, number>()
  let draining = false
  let closed = false
  let connection: Connection | null = null

  const enqueue = (job: Job): void => {
    if (closed) return job.reject(new UploadError('ledger-unavailable', 'the database was closed'))
    queue.push(job)
    if (draining) return
    draining = true
    // Wait two turns of the event loop. A microtask would start before the other jobs of this turn have arrived (1.4
    // jobs per commit with 16 uploads at a time), and one turn before those of the next (4.9). With two turns it is
    // 6.4.
    setImmediate(() => setImmediate(() => void drain()))
  }

  async function drain(): Promise<void> {
    for (let job = queue[0]; job !== undefined; job = queue[0]) {
      try {
        connection ??= await open()
        if (job.type === 'alone') runAlone(connection)
        else if (await begin(connection)) await runGroup(connection)
      } catch (error) {
        for (const waiting of queue.splice(0)) waiting.reject(error)
      }
    }
    draining = false
    if (closed) connection?.close()
  }

  function runAlone(on: Connection): void {
    const job = queue.shift()
    if (job?.type !== 'alone') return
    try {
      job.resolve(job.work(on))
    } catch (error) {
      job.reject(error)
    } finally {
      if (on.inTransaction) on.exec('ROLLBACK')
    }
  }

  /**
   * Begins the transaction. It refuses the jobs that have waited too long, so that their callers can decide. The others
   * keep waiting.
   */
  async function begin(on: Connection): Promise<boolean> {
    for (let pauseMs = BUSY_RETRY_MS.first; queue.length > 0; pauseMs = Math.min(pauseMs * 2, BUSY_RETRY_MS.most)) {
      try {
        // `exec`, not a kept statement: one that has met a locked database stays in progress, and then forbids
        // savepoints.
        on.exec('BEGIN IMMEDIATE')
        return true
      } catch (error) {
        if (!isBusy(error)) throw error
        await sleep(pauseMs)
        const now = performance.now()
        while (queue[0] !== undefined && now - queue[0].waitingSince > settings.busyTimeoutMs)
          queue
            .shift()
            ?.reject(
              new UploadError('ledger-unavailable', 'the database is locked by another process', { cause: error }),
            )
      }
    }
    return false
  }

  async function runGroup(on: Connection): Promise<void> {
    const outcomes: Outcome[] = []
    try {
      if (await runJobs(on, outcomes)) on.exec('COMMIT')
      else return
    } catch (error) {
      if (on.inTransaction) on.exec('ROLLBACK')
      for (const { job } of outcomes) if (job.type === 'hold') apartUntil.set(job.label, performance.now() + APART_MS)
      if (outcomes.length > 1) apart(outcomes)
      else for (const outcome of outcomes) outcome.failed(error)
      return
    }
    for (const outcome of outcomes) outcome.committed()
  }

  /** False if the transaction is gone already. Then all of its jobs have been told or queued again. */
  async function runJobs(on: Connection, outcomes: Outcome[]): Promise<boolean> {
    const startedAt = performance.now()
    for (let job = queue[0]; job !== undefined; job = queue[0]) {
      if (outcomes.length >= GROUP_JOBS || performance.now() - startedAt > GROUP_MS) break
      if (job.type === 'alone' || (outcomes.length > 0 && mustBeAlone(job))) break
      on.run(SAVEPOINT)
      queue.shift()
      const failure = job.type === 'hold' ? await runHold(on, job, outcomes) : runWrite(on, job, outcomes)
      if (!on.inTransaction) {
        brokenBy(job, failure, outcomes)
        return false
      }
      if (failure !== null) on.run(ROLLBACK_TO)
      on.run(RELEASE)
      failure?.tell()
      if (mustBeAlone(job)) break
    }
    return true
  }

  const mustBeAlone = (job: Job): boolean =>
    apartJobs.has(job) ||
    (job.type === 'hold' &&
      (!job.repeatable ||
        performance.now() < (apartUntil.get(job.label) ?? 0) ||
        (lastHoldMs.get(job.label) ?? 0) > SLOW_HOLD_MS))

  /**
   * Called when the COMMIT failed. It does not say for which job, because a deferred constraint is checked only there.
   * Each job of the group is tried again in its own commit, and each hook by its caller. So the fault reaches the job
   * that caused it.
   */
  function apart(outcomes: readonly Outcome[]): void {
    const writes = outcomes.map(({ job }) => job).filter(({ type }) => type === 'write')
    for (const job of writes) apartJobs.add(job)
    queue.unshift(...writes)
    const error = new UploadError('ledger-unavailable', 'the commit failed because of this or another transaction')
    for (const { job, failed } of outcomes) if (job.type === 'hold') failed(error)
  }

  /**
   * Called when SQLite has rolled back the whole group, for example by RAISE(ROLLBACK) or on a full disk. The jobs that
   * did not cause it are tried again.
   */
  function brokenBy(offender: Job, failure: Failure | null, outcomes: readonly Outcome[]): void {
    const innocent = outcomes.filter((outcome) => outcome.job !== offender)
    failure?.tell()
    queue.unshift(...innocent.filter(({ job }) => job.type === 'write').map(({ job }) => job))
    const error = new UploadError('ledger-unavailable', 'another transaction of the same commit rolled everything back')
    for (const outcome of outcomes) if (outcome.job.type !== 'write' || outcome.job === offender) outcome.failed(error)
  }

  function runWrite(
    on: Connection,
    job: Extract<Job, { type: 'write' | 'alone' }>,
    outcomes: Outcome[],
  ): Failure | null {
    try {
      const value = job.work(on)
      outcomes.push({ job, committed: () => job.resolve(value), failed: (error) => job.reject(error) })
      return null
    } catch (error) {
      return { tell: () => job.reject(error) }
    }
  }

  async function runHold(
    on: Connection,
    job: Extract<Job, { type: 'hold' }>,
    outcomes: Outcome[],
  ): Promise<Failure | null> {
    const startedAt = performance.now()
    const firstMs = job.repeatable ? Math.min(settings.idleLimitMs, HOOK_IDLE_MS) : settings.idleLimitMs
    const limitMs = patienceMs.get(job.label) ?? firstMs
    const ended = await new Promise<HoldEnd>((end) => job.grant(createHold(on, limitMs, job.onTakenAway, end)))
    lastHoldMs.set(job.label, performance.now() - startedAt)
    if (job.repeatable && ended.type === 'idle')
      patienceMs.set(job.label, Math.max(Math.min(LEAST_IDLE_MS, firstMs), limitMs / 2))
    if (ended.type === 'commit' && limitMs < firstMs) patienceMs.set(job.label, Math.min(firstMs, limitMs * 2))
    if (ended.type === 'idle') return { tell: () => {} }
    if (ended.type === 'rollback') return { tell: ended.told }
    outcomes.push({ job, committed: ended.committed, failed: ended.failed })
    return null
  }

  return {
    write: <T>(work: (on: Connection) => T) =>
      new Promise<T>((resolve, reject) => {
        enqueue({
          type: 'write',
          work,
          resolve,
          reject,
          waitingSince: performance.now(),
        })
      }),
    alone: <T>(work: (on: Connection) => T) =>
      new Promise<T>((resolve, reject) => {
        enqueue({
          type: 'alone',
          work,
          resolve,
          reject,
          waitingSince: performance.now(),
        })
      }),
    hold: ({ label, repeatable, onTakenAway = () => {} }) =>
      new Promise<Hold>((grant, reject) => {
        enqueue({ type: 'hold', label, repeatable, onTakenAway, grant, reject, waitingSince: performance.now() })
      }),
    close() {
      closed = true
      if (!draining) connection?.close()
    },
  }
}

interface Failure {
  /** Reports the failure to the caller, after the writer is in order again. */
  tell(): void
}

type HoldEnd =
  | { readonly type: 'commit'; committed(): void; failed(error: unknown): void }
  | { readonly type: 'rollback'; told(): void }
  /** The hold has lost the writer. */
  | { readonly type: 'idle' }

function createHold(
  connection: Connection,
  idleLimitMs: number,
  onTakenAway: (why: UploadError) => void,
  end: (how: HoldEnd) => void,
): Hold {
  let closedBy: UploadError | null = null
  let grace: ReturnType<typeof setTimeout> | undefined
  const close = (why: UploadError): void => {
    closedBy = why
    clearTimeout(idle)
    clearTimeout(grace)
  }
  const takeAway = (): void => {
    const why = new UploadError(
      'writer-held',
      `a transaction kept the database's only writer for ${idleLimitMs} ms without a statement, and was rolled back. Do not wait for other things within a transaction`,
    )
    close(why)
    end({ type: 'idle' })
    onTakenAway(why)
  }
  // If this whole process was suspended, the next statement arrives within this short grace time.
  const idle = setTimeout(() => (grace = setTimeout(takeAway, GRACE_MS)), idleLimitMs)
  const check = (): void => {
    if (closedBy !== null) throw closedBy
  }
  const ended = new UploadError('transaction-closed', 'the transaction has ended')

  return {
    use(statement) {
      check()
      clearTimeout(grace)
      idle.refresh()
      return statement(connection)
    },
    commit(last) {
      return new Promise((resolve, reject) => {
        try {
          check()
          last?.(connection)
        } catch (error) {
          if (closedBy === null) {
            close(ended)
            end({ type: 'rollback', told: () => reject(error) })
          } else reject(error)
          return
        }
        close(ended)
        end({ type: 'commit', committed: resolve, failed: reject })
      })
    },
    rollback() {
      return new Promise((resolve) => {
        if (closedBy !== null) return resolve()
        close(ended)
        end({ type: 'rollback', told: resolve })
      })
    },
  }
}
