import type { Problem } from '@landfall/shared'
import { acceptedBytes, type Change, isSettled, type JournalRecord } from './operation.js'
import { CHUNK_MIN_BYTES } from './pace.js'
import type { DigestOutcome, DigestState, Journal } from './ports.js'
import { createProgressMeter, type ProgressMeter } from './progress.js'
import type { Activity, UploadSnapshot } from './types.js'

/** The source is being read in the background, or was. */
export interface Reading<T> {
  readonly outcome: Promise<T>
  stop(): void
}

/** What this page knows of an operation beside the record: gone with the page, and never needed to be right. */
export interface Session {
  /** Proven, or as picked: its bytes may be sent. */
  source: Blob | null
  /** Provided, and not proven yet. */
  pick: Blob | null
  /** `source` was a new pick: where a digest is known, its own must equal that one before a byte of it is sent. */
  repicked: boolean
  /** Picked in this page and not in use: what could not be read. Tried again, and proven like a new pick. */
  spare: Blob | null
  /** Why there is no source, once that is known. */
  lacking: 'source-missing' | 'source-changed' | 'source-unreadable'
  /** The copy that was verified in this page: preferred, because nobody edits it. */
  copy: Blob | null
  /** `source` is our copy. */
  fromCopy: boolean
  /** The last PUT answered, and nothing has gone wrong since: `acceptedBytes` is where to go on. */
  offsetKnown: boolean
  /** What the server has recorded, as last heard. */
  recordedDigest: string | null
  /** A PUT that carried the digest was answered. */
  digestSent: boolean
  /** The hash of `source` under way, or done. */
  digesting: Reading<DigestOutcome> | null
  sourceDigest: string | null
  /** What the digest had to be, as known before this source was hashed. */
  expectedDigest: string | null
  /**
   * `sourceDigest` is of one version of the file, and may be told: all of it was read twice with the same outcome, the
   * second time from after the first one was over, or will be before the server compares.
   */
  isConsistent: boolean
  /** What was accepted before the digest was complete, being read again. */
  confirming: Reading<Session['lacking'] | 'unknown'> | null
  /** The hash of the proven prefix, to continue from. */
  prefixState: DigestState | null
  chunkBytes: number
  lastChunkMs: number
  /** Faults since the last accepted byte, reads that failed among them. */
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
  /** The record was removed, here or in another tab. */
  gone(): boolean
  /**
   * The only way to change the record: shown at once, then applied to what is stored. Resolves when it is stored; what
   * another tab has stored meanwhile wins.
   */
  amend(change: Change): Promise<void>
  activity(): Activity
  doing(activity: Activity): void
  /** A signal for the next step, which `interrupt` ends, so that the loop looks at the record again. */
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

/** A signal that ends with any of the others, and can be let go of. */
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

/** What comes of the work, or nothing when the signal ends first. Leaves nothing on the signal, which may live for days. */
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
    // While more is to be written, what is shown is ahead of what is stored, and must not fall back.
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
