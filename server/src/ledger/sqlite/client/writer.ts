import { setTimeout as sleep } from 'node:timers/promises'
import { UploadError } from '../../../lib/errors.js'
import { type Connection, isBusy } from './connection.js'

/**
 * SQLite's one writer as a queue with group commit: all jobs that wait are run in one transaction, a savepoint each,
 * and share its one fsync.
 */
export interface Writer {
  /** Runs a synchronous job; resolves when it is committed. It may be run again when a neighbour broke its group. */
  write<T>(work: (connection: Connection) => T): Promise<T>
  /**
   * Waits for the writer and keeps it until `commit` or `rollback`. `repeatable` holds may share a transaction with
   * neighbours, under a label by which slow ones are found and kept alone. `onTakenAway` is told when it was idle too long.
   */
  hold(options: { label: string; repeatable: boolean; onTakenAway?: (why: UploadError) => void }): Promise<Hold>
  /** Runs a job outside of any transaction (PRAGMA, VACUUM). */
  alone<T>(work: (connection: Connection) => T): Promise<T>
  close(): void
}

export interface Hold {
  /** @throws UploadError `transaction-closed` after its end, `writer-held` when it was taken away. */
  use<T>(statement: (connection: Connection) => T): T
  /** Runs `last` as the final statements; resolves when all is committed. A throw of `last` rolls back. */
  commit(last?: (connection: Connection) => void): Promise<void>
  rollback(): Promise<void>
}

export interface WriterSettings {
  /** How long a job waits while another process has the database locked, before it is refused. Default 5,000. */
  busyTimeoutMs: number
  /** How long a transaction may keep the writer without a statement. Default 5,000. */
  idleLimitMs: number
}

/** Commits at the latest after so many jobs or so long a time, so that nobody waits long for a neighbour. */
const GROUP_JOBS = 64
const GROUP_MS = 20
/** A hold that took longer than this last time is not grouped again: its neighbours would wait for it. */
const SLOW_HOLD_MS = 10
/** How long a hook may keep the writer without a statement at first, and at last: all others wait for it. */
const HOOK_IDLE_MS = 2_000
const LEAST_IDLE_MS = 250
const GRACE_MS = 20
/** Longer than the longest pause after which a hook is tried again (5 minutes): its neighbours would fail once more. */
const APART_MS = 10 * 60_000
const BUSY_RETRY_MS = { first: 2, most: 50 }

/** Around each job; only the writer may name it. */
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

/** What a job of the group still waits for: the commit. */
interface Outcome {
  readonly job: Job
  committed(): void
  failed(error: unknown): void
}

export function createWriter(open: () => Promise<Connection>, settings: WriterSettings): Writer {
  const queue: Job[] = []
  const lastHoldMs = new Map<string, number>()
  /** What shared a commit that failed is run alone: a job once more, the hooks of a label until that time. */
  const apartJobs = new WeakSet<Job>()
  const apartUntil = new Map<string, number>()
  /** For hooks that have been found idle, by label: less and less, until they behave. */
  const patienceMs = new Map<string, number>()
  let draining = false
  let closed = false
  let connection: Connection | null = null

  const enqueue = (job: Job): void => {
    if (closed) return job.reject(new UploadError('ledger-unavailable', 'the database was closed'))
    queue.push(job)
    if (draining) return
    draining = true
    // Two turns of the event loop: a microtask would start before the neighbours of this turn have arrived (1.4 jobs a
    // commit with 16 uploads at a time), one turn before those of the next (4.9); with two it is 6.4.
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

  /** Refuses the jobs that have waited too long, so that their callers can decide; the rest goes on waiting. */
  async function begin(on: Connection): Promise<boolean> {
    for (let pauseMs = BUSY_RETRY_MS.first; queue.length > 0; pauseMs = Math.min(pauseMs * 2, BUSY_RETRY_MS.most)) {
      try {
        // Not a kept statement: one that has met a locked database stays in progress, and would forbid savepoints.
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

  /** False: the transaction is gone already, and everybody knows. */
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
   * The COMMIT failed, and it does not say for whom: a deferred constraint shows only there. Each of the group is
   * tried again in a commit of its own, hooks by their callers; so the fault meets the one whose it is.
   */
  function apart(outcomes: readonly Outcome[]): void {
    const writes = outcomes.map(({ job }) => job).filter(({ type }) => type === 'write')
    for (const job of writes) apartJobs.add(job)
    queue.unshift(...writes)
    const error = new UploadError('ledger-unavailable', 'the commit failed for a neighbour or for this transaction')
    for (const { job, failed } of outcomes) if (job.type === 'hold') failed(error)
  }

  /** RAISE(ROLLBACK), a full disk: SQLite has undone the whole group. Its innocent members are tried again. */
  function brokenBy(offender: Job, failure: Failure | null, outcomes: readonly Outcome[]): void {
    const innocent = outcomes.filter((outcome) => outcome.job !== offender)
    failure?.tell()
    queue.unshift(...innocent.filter(({ job }) => job.type === 'write').map(({ job }) => job))
    const error = new UploadError('ledger-unavailable', 'a neighbour in the same commit rolled everything back')
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
    if (job.repeatable && ended.type === 'idle') patienceMs.set(job.label, Math.max(LEAST_IDLE_MS, limitMs / 2))
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
  /** Says so to whoever waits, after the writer is back in order. */
  tell(): void
}

type HoldEnd =
  | { readonly type: 'commit'; committed(): void; failed(error: unknown): void }
  | { readonly type: 'rollback'; told(): void }
  /** It was taken away. */
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
      `a transaction kept the database's only writer for ${idleLimitMs} ms without a statement and was rolled back; wait for other things before or after it`,
    )
    close(why)
    end({ type: 'idle' })
    onTakenAway(why)
  }
  // Where it was this process that stood still, the next statement comes in this moment.
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
