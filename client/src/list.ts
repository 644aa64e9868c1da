import type { FileFacts, JsonObject } from '@landfall/shared'
import { v7 as newId } from 'uuid'
import { createEventHub, type EventHub } from './events.js'
import { createFollower } from './follow.js'
import { createKeeper, type Keeper } from './keep.js'
import { createLive, ended, linked, type LiveOperation } from './live.js'
import { isSettled, type JournalRecord } from './operation.js'
import { createTurns } from './pace.js'
import type { Ports } from './ports.js'
import { run } from './run.js'
import { dropCopy } from './source.js'
import type { RunContext } from './step.js'
import type { Uploader, UploaderSnapshot } from './types.js'
import { createHandle, type Handle, uploadError } from './upload.js'

type AnyUploader = Uploader<Record<string, { metadata: JsonObject; data: unknown }>>

interface Entry extends Handle {
  readonly live: LiveOperation
  /** The file that was copied, or is queued to be copied. */
  offered: Blob | null
  /** The drive that is running. The next drive waits for it. */
  driving: Promise<void>
}

/** How many requests may run at once that must not wait for an upload's turn. */
const ASIDES = 1

const AFTER_FAULT_MS = 30_000

/** The list of uploads of one scope, over any ports. `open` is called at the first `start`. */
export function createUploadList(
  { scope, concurrency }: { scope: string; concurrency: number },
  open: (telling: EventHub) => Ports,
): AnyUploader {
  const entries = new Map<string, Entry>()
  const listeners = new Set<() => void>()
  const telling = createEventHub(() => {
    // While the ports are being opened, nothing can be scheduled yet. The first change follows right after.
    if (context === null) shown = null
    else changed()
  })
  let context: (RunContext & { keeper: Keeper }) | null = null
  /** Covers the time between `start` and `close`, except the time in the back/forward cache. */
  let epoch: AbortController | null = null
  let started: Promise<void> | null = null
  let isClosed = false
  let isRecovered = false
  let forgetPage: (() => void) | null = null
  let shown: UploaderSnapshot<Record<string, { metadata: JsonObject; data: unknown }>> | null = null
  let isNotifying = false

  const opened = (): RunContext & { keeper: Keeper } => {
    if (context !== null) return context
    const ports = open(telling)
    ports.owner.onBack(() => {
      context?.follower.hurry()
      for (const { live } of entries.values()) {
        const activity = live.activity()
        if (activity.state !== 'waiting' || activity.why !== 'other-owner') continue
        live.session.attempts = 0
        live.interrupt()
      }
    })
    const keeper = createKeeper(ports, (cause) => telling.warn('no-copy', cause))
    return (context = {
      ...ports,
      keeper,
      turns: createTurns(concurrency),
      asides: createTurns(ASIDES),
      follower: createFollower(ports.ledger, ports.clock),
      onSent(live) {
        keeper.begin()
        offer(entries.get(live.id))
      },
    })
  }

  const namespace = (): string => opened().namespaceOf(scope)

  const changed = (): void => {
    shown = null
    if (isNotifying || listeners.size === 0) return
    isNotifying = true
    opened().clock.frame(() => {
      isNotifying = false
      for (const listener of listeners) listener()
    })
  }

  const offer = (entry: Entry | undefined): void => {
    const source = entry?.live.session.source
    if (!entry || !source || !epoch || entry.offered === source || entry.live.session.fromCopy) return
    entry.offered = source
    opened().keeper.offer(entry.live, epoch.signal)
  }

  const enter = (record: JournalRecord, source: Blob | null, recovered: boolean): Entry => {
    const { journal, follower } = opened()
    const live = createLive(record, {
      source,
      recovered,
      journal,
      onChange(changedLive) {
        if (changedLive.gone()) entries.delete(changedLive.id)
        changed()
      },
    })
    const handle = createHandle(live, () => follower.hurry())
    const entry: Entry = { ...handle, live, offered: null, driving: Promise.resolve() }
    entries.set(record.id, entry)
    changed()
    return entry
  }

  const drive = (entry: Entry, signal: AbortSignal): void => {
    entry.live.doing({ state: 'waiting', why: 'turn', untilMs: null })
    const driveNext = async (before: Promise<void>): Promise<void> => {
      await before
      try {
        await driveOne(entry, opened(), telling, signal)
      } catch (cause) {
        // This cannot happen. But an upload must not stop permanently because of a bug in Landfall.
        telling.fault(cause)
        await opened().clock.sleep(AFTER_FAULT_MS, signal)
        await driveNext(Promise.resolve())
      }
    }
    entry.driving = driveNext(entry.driving)
    offer(entry)
  }

  const go = (): AbortSignal => {
    const { signal } = (epoch ??= new AbortController())
    opened().owner.keep(signal)
    for (const entry of entries.values()) drive(entry, signal)
    return signal
  }
  const halt = (): void => {
    epoch?.abort()
    epoch = null
    for (const entry of entries.values()) entry.offered = null
  }

  const recover = async (signal: AbortSignal): Promise<void> => {
    const { journal, source } = opened()
    // Records of a version that did not separate endpoints. The uploader that starts first takes them over.
    const adopted = journal.adopt(scope, namespace())
    const [records] = await Promise.all([journal.load(namespace()), adopted])
    if (signal.aborted) return
    for (const record of records) {
      if (!entries.has(record.id)) drive(enter(record, null, true), signal)
    }
    isRecovered = true
    changed()
    const wanted = records.filter(({ copy, standing }) => copy !== 'none' && !isSettled(standing))
    void source.sweep(namespace(), new Set(wanted.map(({ id }) => id))).catch(() => {})
  }

  const uploader: AnyUploader = {
    add(file: File, options: { kind?: string; metadata?: JsonObject } = {}) {
      if (isClosed) throw uploadError('closed')
      if (started === null) void uploader.start()
      const record: JournalRecord = {
        version: 1,
        id: newId(),
        scope: namespace(),
        kind: options.kind ?? null,
        file: factsOf(file),
        // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- what was JSON is JSON
        metadata: JSON.parse(JSON.stringify(options.metadata ?? {})) as JsonObject,
        addedAtMs: opened().clock.wallMs(),
        paused: false,
        digest: null,
        copy: 'none',
        standing: { point: 'intended' },
      }
      const entry = enter(record, file, false)
      // The record is queued before the drive starts, so that no byte is sent before the journal has it.
      void entry.live.amend((stored) => stored ?? record)
      if (epoch !== null) drive(entry, epoch.signal)
      return entry.upload
    },
    get: (id) => entries.get(id)?.upload ?? null,
    on: (event, handler) => {
      // The two outcome events have the names of the points that they report.
      const settled = [...entries.values()].filter(({ live }) => live.record().standing.point === event)
      const outcomes = settled.map(({ upload }) => upload)
      return telling.on(event, handler, outcomes)
    },
    subscribe(listener) {
      const own = (): void => listener()
      listeners.add(own)
      return () => void listeners.delete(own)
    },
    snapshot() {
      // Ids are UUIDs of version 7, so their order is the order of adding.
      const inOrder = [...entries.values()].toSorted((a, b) => (a.live.id < b.live.id ? -1 : 1))
      return (shown ??= {
        uploads: inOrder.map(({ live }) => live.snapshot()),
        recovered: isRecovered,
        warnings: telling.warnings(),
      })
    },
    start() {
      isClosed = false
      if (started !== null) {
        opened().owner.hurry()
        for (const { upload, live } of entries.values()) if (!live.record().paused) upload.resume()
        return started
      }
      const { clock } = opened()
      // What was being loaded when the page was hidden is loaded again.
      forgetPage = clock.onPage({ hidden: halt, shown: () => void recover(go()) })
      return (started = recover(go()))
    },
    async close() {
      isClosed = true
      started = null
      forgetPage?.()
      halt()
      const drives = [...entries.values()].map(({ driving }) => driving)
      await Promise.all(drives)
      // If the uploader was started again in the meantime, the digester is still needed.
      if (epoch === null) context?.digester.close()
    },
    async purge(ofScope = scope) {
      const { journal, source, owner, namespaceOf } = opened()
      const own = ofScope === scope ? [...entries.values()] : []
      await Promise.all(own.map(({ live }) => live.amend(() => undefined)))
      for (const name of [namespaceOf(ofScope), ofScope]) {
        await journal.purge(name)
        await source.purge(name).catch(() => {})
      }
      if (ofScope === scope) owner.forget()
      for (const { settle } of own) settle()
    },
  }
  return uploader
}

/**
 * Drives one upload while its lock is held, until it is acknowledged, cancelled or removed, or until the uploader
 * stops.
 */
async function driveOne(entry: Entry, context: RunContext, telling: EventHub, signal: AbortSignal): Promise<void> {
  const { live, settle } = entry
  const { scope } = live.record()
  while (!signal.aborted && !live.gone()) {
    // Any tab may repeat a cancellation, so it waits for no other tab.
    if (live.record().standing.point === 'cancelled') await run(live, context, signal)
    else {
      const waiting = live.begin(signal)
      const elsewhere = (): void => live.doing({ state: 'waiting', why: 'another-tab', untilMs: null })
      const hold = await context.exclusive.hold(`landfall:${scope}:${live.id}`, elsewhere, waiting.signal)
      waiting.end()
      if (hold === null) continue
      const within = linked(signal, hold.lost)
      try {
        // Take over what another tab has stored since. That is the truth.
        await live.amend((stored) => stored)
        await run(live, context, within.signal)
        await conclude(entry, context, telling, within.signal)
      } finally {
        within.unlink()
        hold.release()
      }
    }
  }
  live.doing({ state: 'idle' })
  settle()
  if (live.gone()) await context.source.drop(scope, live.id).catch(() => {})
}

/** Reports an outcome, and keeps the lock until it is acknowledged, so that no other tab reports it too. */
async function conclude(
  { live, upload, settle }: Entry,
  { source }: RunContext,
  telling: EventHub,
  signal: AbortSignal,
): Promise<void> {
  const { standing, copy } = live.record()
  if (!isSettled(standing) || live.gone()) return
  settle()
  if (copy !== 'none') await dropCopy(live, source)
  telling.outcome(standing.point, upload)
  const waiting = live.begin(signal)
  if (!live.gone()) await ended(waiting.signal)
  waiting.end()
}

const CONTROL = /[\u0000-\u001f\u007f]/g // oxlint-disable-line no-control-regex -- the wire refuses them

/**
 * The facts of a file in the form that the wire accepts. A name that no server would accept is no reason to refuse the
 * file.
 */
const factsOf = ({ name, size, type, lastModified }: File): FileFacts => ({
  name: name.replace(CONTROL, '_').slice(0, 1024),
  size,
  type: type.replace(CONTROL, '').slice(0, 255),
  lastModified,
})
