import type { Problem } from '@landfall/shared'
import { acceptedBytes, type Change, isSettled, type JournalRecord } from './operation.js'
import { CHUNK_MIN_BYTES } from './pace.js'
import type { DigestOutcome, DigestState, Journal } from './ports.js'
import { createProgressMeter, type ProgressMeter } from './progress.js'
import type { Activity, UploadSnapshot } from './types.js'

/** The source is being read in the background, or was read. */
export interface Reading<T> {
  readonly outcome: Promise<T>
  stop(): void
}

/**
 * What this page knows of an operation in addition to the record. It is lost with the page, and correctness never
 * depends on it.
 */
export interface Session {
  /** The file that was picked, or a proven new pick. Its bytes may be sent. */
  source: Blob | null
  /** A file that was provided and is not proven yet. */
  pick: Blob | null
  /** `source` was a new pick. If a digest is known, the digest of `source` must equal it before a byte is sent. */
  repicked: boolean
  /** A file that was picked in this page and could not be read. It is tried again, and proven like a new pick. */
  spare: Blob | null
  /** Why there is no source, once that is known. */
  lacking: 'source-missing' | 'source-changed' | 'source-unreadable'
  /** The copy that was verified in this page. It is preferred, because no user edits it. */
  copy: Blob | null
  /** `source` is the copy that this package made. */
  fromCopy: boolean
  /** The last PUT was answered, and nothing has failed since. The upload continues at `acceptedBytes`. */
  offsetKnown: boolean
  /** The digest that the server has recorded, by its last answer. */
  recordedDigest: string | null
  /** A PUT that carried the digest was answered. */
  digestSent: boolean
  /** The hash of `source`, running or done. */
  digesting: Reading<DigestOutcome> | null
  sourceDigest: string | null
  /** The digest that was known before this source was hashed. The source must have it. */
  expectedDigest: string | null
  /**
   * `sourceDigest` is of one version of the file, and may be sent to the server. All of the file was read twice with
   * the same result. The second reading began after the first one ended, or will end before the server compares.
   */
  isConsistent: boolean
  /** The bytes that were accepted before the digest was complete are being read again. */
  confirming: Reading<Session['lacking'] | 'unknown'> | null
  /** The hash of the proven prefix, from which hashing continues. */
  prefixState: DigestState | null
  chunkBytes: number
  lastChunkMs: number
  /** Faults since the last accepted byte, including reads that failed. */
  attempts: number
  stalled: boolean
  problem: Problem | null
}

/** One operation in this page: the record with its single writer, what is happening, and what is shown of it. */
export interface LiveOperation {
  readonly id: string
  readonly session: Session
  readonly meter: ProgressMeter
  record(): JournalRecord
  /** Whether the record was removed, in this tab or in another one. */
  gone(): boolean
  /**
   * The only way to change the record. The change is shown at once and then applied to what is stored. Resolves when it
   * is stored. What another tab has stored in the meantime wins.
   */
  amend(change: Change): Promise<void>
  activity(): Activity
  doing(activity: Activity): void
  /** Makes a signal for the next step. `interrupt` ends the signal, so that the loop reads the record again. */
  begin(outer: AbortSignal): { signal: AbortSignal; end: () => void }
  interrupt(): void
  changed(): void
  snapshot(): UploadSnapshot
}

const newSession = (source: Blob | null): Session => ({
  source,
  pick: null,
  repicked: false,
  spare: null,
  copy: null,
  fromCopy: false,
  lacking: 'source-missing',
  offsetKnown: false,
  recordedDigest: null,
  digestSent: false,
  digesting: null,
  sourceDigest: null,
  expectedDigest: null,
  isConsistent: false,
  confirming: null,
  prefixState: null,
  chunkBytes: CHUNK_MIN_BYTES,
  lastChunkMs: 0,
  attempts: 0,
  stalled: false,
  problem: null,
})

/** Makes a signal that ends with any of the others, and that can be released from them. */
export function linked(...outer: AbortSignal[]): AbortController & { unlink: () => void } {
  const controller = new AbortController()
  const end = (): void => controller.abort()
  for (const signal of outer) {
    if (signal.aborted) end()
    signal.addEventListener('abort', end)
  }
  return Object.assign(controller, {
    unlink: () => {
      for (const signal of outer) signal.removeEventListener('abort', end)
    },
  })
}

/** Resolves when the signal ends. */
export const ended = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })

/**
 * Resolves with the result of the work, or with nothing if the signal ends first. It leaves no listener on the signal,
 * which may live for days.
 */
export async function unlessEnded<T>(work: Promise<T>, signal: AbortSignal): Promise<T | void> {
  const within = linked(signal)
  try {
    return await Promise.race([work, ended(within.signal)])
  } finally {
    within.unlink()
  }
}

export function createLive(
  first: JournalRecord,
  options: {
    source: Blob | null
    recovered: boolean
    journal: Pick<Journal, 'update'>
    onChange: (live: LiveOperation) => void
  },
): LiveOperation {
  const { scope, id } = first
  const session = newSession(options.source)
  const meter = createProgressMeter(first.file.size)
  let record = first
  let gone = false
  let activity: Activity = { state: 'idle' }
  let step: AbortController | null = null
  let shown: UploadSnapshot | null = null
  let writing = Promise.resolve()
  let unwritten = 0

  const changed = (): void => {
    shown = null
    options.onChange(live)
  }
  const adopt = (next: JournalRecord | undefined): void => {
    if (next === record) return
    const turned = next?.standing.point !== record.standing.point
    if (next === undefined) gone = true
    else {
      if (next.standing.point === 'intended') meter.restart()
      record = next
    }
    if (turned) live.interrupt()
    changed()
  }

  const write = async (before: Promise<void>, change: Change): Promise<void> => {
    await before
    const stored = await options.journal.update(scope, id, change)
    unwritten -= 1
    // While more is to be written, what is shown is ahead of what is stored, and must not go back.
    if (unwritten === 0 && !same(stored, record)) adopt(stored)
  }

  const live: LiveOperation = {
    id,
    session,
    meter,
    record: () => record,
    gone: () => gone,
    amend(change) {
      if (gone) return Promise.resolve()
      adopt(change(record))
      unwritten += 1
      return (writing = write(writing, change))
    },
    activity: () => activity,
    doing(next) {
      if (JSON.stringify(next) === JSON.stringify(activity)) return
      activity = next
      changed()
    },
    begin(outer) {
      const controller = linked(outer)
      step = controller
      return { signal: controller.signal, end: controller.unlink }
    },
    interrupt: () => step?.abort(),
    changed,
    snapshot: () => (shown ??= snapshotOf(live, options.recovered)),
  }
  return live
}

const same = (a: JournalRecord | undefined, b: JournalRecord): boolean => JSON.stringify(a) === JSON.stringify(b)

const IDLE: Activity = { state: 'idle' }

function snapshotOf(live: LiveOperation, recovered: boolean): UploadSnapshot {
  const record = live.record()
  const { id, kind, metadata, file, standing } = record
  return Object.freeze({
    id,
    kind,
    metadata,
    file,
    point: standing.point,
    activity: isSettled(standing) ? IDLE : live.activity(),
    progress: live.meter.read(acceptedBytes(record)),
    recovered,
    reference: standing.point === 'referenced' ? standing.reference : null,
    problem: standing.point === 'failed' ? standing.problem : live.session.problem,
  })
}
