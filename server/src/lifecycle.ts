import { takenOver } from './blobs/file/directory-lock.js'
import { ownerTagOf } from './http/owner-tag.js'
import { boundOf } from './lib/backoff.js'
import { endsWithin } from './lib/deadline.js'
import type { Logger } from './lib/log.js'
import { remembered } from './lib/remembered.js'
import type { Opened } from './operate/health.js'
import type { Operator } from './operate/operator.js'
import type { RestoreMarks } from './operate/restore-marks.js'
import { serveOperator, type ServedOperator } from './operate/socket.js'
import type { BlobStore } from './ports/blob-store.js'
import type { Clock } from './ports/clock.js'
import type { LedgerLeases } from './ports/ledger/leases.js'
import type { LedgerMarks } from './ports/ledger/marks.js'
import type { Completer } from './sequence/completer.js'
import type { Leases } from './sequence/leases.js'
import type { Timekeeping } from './sequence/timekeeping.js'
import type { Watch } from './sequence/watch.js'

/** How often the ledger's restore mark is advanced. The mark may not detect a backup that is younger than this. */
const MARK_EVERY_MS = 60_000
/** How long what runs may take when a newer instance of this process waits for the directory. */
const TAKEOVER_MS = 5_000
/** The time that a blob store in good order needs to close its files and to release its directory. */
const RELEASE_MS = 100
/** Between the attempts of `start()`: a database that is being upgraded is back soon, a wrong setting is not. */
const START_PAUSES = { firstMs: 1_000, mostMs: 60_000 }

export interface Lifecycle {
  /** Opens the tables and the blob store and starts the completer, once. After a failure the next call tries again. */
  ready(): Promise<void>
  /** The same without waiting, repeated until it works. */
  start(): void
  opened(): Opened
  draining(): boolean
  /** null: the tables are not open yet. */
  knownTag(owner: string): string | null
  ownerTag(owner: string): Promise<string>
  close(limits: { withinMs: number; announcedMs: number }): Promise<void>
}

/** How one instance begins and ends: in which order its parts are opened, and in which they stop. */
export function createLifecycle(deps: {
  ledger: LedgerMarks & LedgerLeases
  blobs: BlobStore
  leases: Leases
  watch: Watch
  completer: Completer
  timekeeping: Timekeeping
  restoreMarks: RestoreMarks
  operator: Operator
  clock: Clock
  log: Logger
  settings: { migrate: 'automatic' | 'off'; completer: 'automatic' | 'manual'; operatorSocket: boolean }
}): Lifecycle {
  const { ledger, blobs, leases, watch, completer, timekeeping, restoreMarks, clock, log, settings } = deps
  let draining = false
  let opened: Opened = 'nothing'
  let tagOf: ((owner: string) => string) | null = null
  let opening: Promise<void> | null = null
  let markTimer: ReturnType<typeof setInterval> | null = null
  let socket: ServedOperator | null = null

  const ready = (): Promise<void> =>
    (opening ??= open().catch((error: unknown) => {
      opening = null
      throw error
    }))

  async function openTables() {
    const found = await ledger.migrate(settings.migrate === 'off' ? 'check' : 'apply')
    const key = await ledger.ownerKey()
    // A request needs its owner's tag twice, and the next request often has the same owner.
    const tag = (tagOf ??= remembered((owner: string) => ownerTagOf(key, owner)))
    return { ...found, tag }
  }

  async function open(): Promise<void> {
    const { identity, store } = await openTables()
    opened = 'tables'
    await blobs.open(identity, store)
    opened = 'store'
    if (store === 'new') await ledger.rememberStore()
    await timekeeping.begin()
    await restoreMarks.begin()
    markTimer ??= setInterval(() => void advanceMark(), MARK_EVERY_MS).unref()
    // The directory's lock proves that all earlier holders of leases are dead, so nothing has to wait until their
    // leases expire.
    if (blobs.exclusive) await ledger.forgetOtherHolders(leases.holder)
    if (settings.completer !== 'manual') completer.start()
    opened = 'all'
    if (settings.operatorSocket && blobs.directory !== undefined) socket = await openSocket(blobs.directory)
  }

  const advanceMark = (): Promise<void> =>
    restoreMarks.advance().catch((error: unknown) => log.warn({ err: error }, 'the restore mark could not be set'))

  /** Uploads do not depend on the socket. */
  async function openSocket(directory: string): Promise<ServedOperator | null> {
    try {
      const served = await serveOperator(deps.operator, directory)
      if (served.outcome === 'none') log.warn(served.why)
      return served
    } catch (error) {
      log.warn({ err: error }, 'no socket could be opened for commands: stop this process before you use them')
      return null
    }
  }

  const ending = new AbortController()
  let starting: Promise<void> | null = null

  async function keepStarting(): Promise<void> {
    for (let failedBefore = 0; !ending.signal.aborted; failedBefore += 1)
      try {
        return await ready()
      } catch (error) {
        log.error({ err: error }, 'uploads cannot start; the start will be tried again')
        await clock.sleep(boundOf(START_PAUSES, failedBefore), ending.signal)
      }
  }

  async function close({ withinMs, announcedMs }: { withinMs: number; announcedMs: number }): Promise<void> {
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
    if (markTimer !== null) {
      clearInterval(markTimer)
      await endsWithin(advanceMark(), leftMs())
    }
    // A store that does not answer is left to close by itself.
    if (!(await endsWithin(blobs.close(), Math.max(RELEASE_MS, leftMs()))))
      log.warn('the blob store did not close in time')
  }

  blobs.onTakenOver?.(async () => {
    log.warn('a newer instance in this process takes over the directory of blobs: this one ends')
    const begun = opening
    opening = Promise.reject(takenOver())
    opening.catch(() => {})
    // Whatever is still being opened would begin after the end.
    await begun?.catch(() => {})
    await close({ withinMs: TAKEOVER_MS, announcedMs: 0 })
  })

  return {
    ready,
    start: () => void (starting ??= keepStarting()),
    opened: () => opened,
    draining: () => draining,
    knownTag: (owner) => tagOf?.(owner) ?? null,
    ownerTag: async (owner) => (tagOf ?? (await openTables()).tag)(owner),
    close,
  }
}
