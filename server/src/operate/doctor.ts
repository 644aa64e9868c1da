import { faultCode, faultMessage } from '../lib/errors.js'
import type { BlobStore, CheckResult, StoreCheck } from '../ports/blob-store.js'
import type { Clock } from '../ports/clock.js'
import type { LedgerInventory } from '../ports/ledger/inventory.js'
import type { LedgerMarks } from '../ports/ledger/marks.js'
import { silentAfterMs } from './health.js'

/** The result of one check. */
export interface Check extends CheckResult {
  readonly name:
    | 'database'
    | 'tables'
    | 'store'
    | 'identity'
    | 'space'
    | StoreCheck['name']
    | 'clock'
    | 'completer'
    | 'operations'
    | 'effects'
}

const HOUR_MS = 60 * 60_000
const DAY_MS = 24 * HOUR_MS
const CLOCK_WARNING_MS = 1_000
const CLOCK_FAILURE_MS = 60_000
const LITTLE_SPACE = 0.05
const LITTLE_SPACE_BYTES = 5 * 1024 ** 3

const ok = (found: string): CheckResult => ({ state: 'ok', found, advice: null })
const warning = (found: string, advice: string): CheckResult => ({ state: 'warning', found, advice })
const failed = (found: string, advice: string): CheckResult => ({ state: 'failed', found, advice })

type CheckOne = (name: Check['name'], look: () => Promise<CheckResult>, advice: string) => Promise<void>

/** Checks everything that uploads depend on, changes nothing that matters, and says what to do. */
export async function diagnose(
  deps: { ledger: LedgerInventory & LedgerMarks; blobs: BlobStore; clock: Clock },
  {
    completerIntervalMs,
    expiresAfterMs,
    automatic,
    start,
  }: {
    completerIntervalMs: number
    expiresAfterMs: number
    automatic: boolean
    /** Why the ledger and its store could not be opened. Null: they are open. */
    start: { readonly error: unknown } | null
  },
): Promise<Check[]> {
  const { ledger, clock } = deps
  const checks: Check[] = []
  const check: CheckOne = async (name, look, advice) => {
    const result = await look().catch((error: unknown) => failed(faultMessage(error), advice))
    checks.push({ name, ...result })
  }

  await check(
    'database',
    async () => {
      const startMs = clock.monotonicMs()
      await ledger.advanceMark({ mark: 0, restored: null })
      return ok(`can be read and written, a commit takes ${(clock.monotonicMs() - startMs).toFixed(1)} ms`)
    },
    'Check that the database can be reached, that this user may write to it, and that its disk is not full.',
  )
  await check(
    'tables',
    async () => {
      await ledger.migrate('check')
      return ok('all tables, indexes and triggers exist')
    },
    'Run `landfall migrate`, or start a server: it creates what is missing, and counts again what triggers count.',
  )
  if (start === null) {
    await checkStore(deps, check)
    checks.push(...((await deps.blobs.examine?.({ expiresAfterMs })) ?? []))
  } else if (checks.every(({ state }) => state !== 'failed'))
    await check(
      faultCode(start.error) === 'setup' ? 'identity' : 'store',
      () => Promise.reject(start.error),
      'Nothing can be stored until this is fixed: give the server the store that belongs to its database. A directory must be mounted, writable for this user, and used by no other process. A bucket must exist and be accessible with these credentials and this prefix.',
    )
  await check(
    'clock',
    async () => {
      const before = clock.now()
      const { nowAt } = await ledger.health()
      const apartMs = Math.abs(nowAt - (before + clock.now()) / 2)
      const found = `the clocks of this process and the database differ by ${Math.round(apartMs)} ms`
      if (apartMs > CLOCK_FAILURE_MS) return failed(found, 'Set the clocks (NTP): nothing expires until they agree.')
      return apartMs > CLOCK_WARNING_MS ? warning(found, 'Set the clocks (NTP).') : ok(found)
    },
    'Check that the database can be reached.',
  )
  await check(
    'completer',
    async () => {
      const { heartbeatAt, nowAt } = await ledger.health()
      const advice = automatic
        ? 'Start a server, or find out in its log why its completer does not run.'
        : 'Nothing drives abandoned uploads: start a server, or call uploads.runOnce() regularly.'
      if (heartbeatAt === null) return warning('has never run', advice)
      const agoMs = Math.max(0, nowAt - heartbeatAt)
      const found = `was last alive ${duration(agoMs)} ago`
      return agoMs > silentAfterMs(completerIntervalMs) ? warning(found, advice) : ok(found)
    },
    'Check that the database can be reached.',
  )
  await check(
    'operations',
    async () => {
      const { openOperations, stalledOperations } = await ledger.health()
      return stalledOperations > 0
        ? warning(
            `${openOperations} open, ${stalledOperations} of them stalled`,
            'See the cause with `landfall operations list --stalled`, fix it, and then run `landfall operations retry`.',
          )
        : ok(`${openOperations} open, none stalled`)
    },
    'Check that the database can be reached.',
  )
  await check(
    'effects',
    async () => {
      const { dueEffects, givenUpEffects } = await ledger.health()
      return givenUpEffects > 0
        ? warning(
            `${dueEffects} to be delivered, ${givenUpEffects} given up`,
            'See the cause with `landfall operations list --given-up`, fix it, and then run `landfall operations retry`.',
          )
        : ok(`${dueEffects} to be delivered, none given up`)
    },
    'Check that the database can be reached.',
  )
  return checks
}

async function checkStore(
  { ledger, blobs }: { ledger: LedgerInventory & LedgerMarks; blobs: BlobStore },
  check: CheckOne,
): Promise<void> {
  await check(
    'store',
    async () => {
      const { syncMs } = await blobs.probe()
      return ok(`bytes can be written, synced, read and removed (${syncMs.toFixed(1)} ms)`)
    },
    'Check that the directory of blobs is mounted and that this user may write to it, or that the bucket exists and these credentials may use it.',
  )
  await check(
    'identity',
    async () => {
      const { restoredAt } = await ledger.mark()
      if (restoredAt !== null)
        return warning(
          `the ledger was found to be older than its store on ${new Date(restoredAt).toISOString()}: it was restored from a backup`,
          'Run `landfall reconcile` and read its report: blobs that the ledger does not know are kept until you give them up with --accept-restored.',
        )
      return ok(`ledger ${(await ledger.health()).identity} and its own store`)
    },
    'Each environment needs its own directory of blobs, or its own prefix of a bucket. The file store.json says to which database this one belongs.',
  )
  await check(
    'space',
    async () => {
      const room = (await blobs.room?.()) ?? null
      const { freeBytes, totalBytes } = room ?? (await blobs.probe())
      if (freeBytes === null || totalBytes === null) return ok('the store reports no limit')
      const found = `${sizeOf(freeBytes)} of ${sizeOf(totalBytes)} free`
      if (room?.isFull === true)
        return failed(
          `${found}, and ${sizeOf(room.reserveBytes)} are kept free: bytes and new uploads are refused (507)`,
          'Free space on the disk, cancel or remove uploads, or lower the reserve (--reserve-bytes). Clients wait, and none of their uploads is lost.',
        )
      return freeBytes < LITTLE_SPACE_BYTES && freeBytes < totalBytes * LITTLE_SPACE
        ? warning(found, 'Free space: uploads wait while the disk is full, and none is lost.')
        : ok(found)
    },
    'Check that the directory of blobs is mounted, or that the bucket can be reached.',
  )
}

/** In MiB below 1 GiB, so that a small reserve does not read as 0.0 GiB. */
const sizeOf = (bytes: number): string =>
  bytes < 1024 ** 3 ? `${Math.round(bytes / 1024 ** 2)} MiB` : `${(bytes / 1024 ** 3).toFixed(1)} GiB`
const duration = (ms: number): string =>
  ms < 60_000
    ? `${Math.round(ms / 1000)} s`
    : ms < DAY_MS
      ? ms < HOUR_MS
        ? `${Math.round(ms / 60_000)} min`
        : `${(ms / HOUR_MS).toFixed(1)} h`
      : `${(ms / DAY_MS).toFixed(1)} days`
