import { isOpen } from '@landfall/shared'
import type { BlobStore, StoredBlob } from '../ports/blob-store.js'
import type { Clock } from '../ports/clock.js'
import type { Claim, LedgerInventory } from '../ports/ledger/inventory.js'
import type { LedgerMarks } from '../ports/ledger/marks.js'

/**
 * What a comparison of the ledger with the store has found.
 *
 * - `missing`: bytes that a row relies on do not exist, or too few of them. Nothing can restore them.
 * - `set-aside`: the bytes of such a row are in quarantine and can be taken back from there.
 * - `leftover`: bytes of an upload that ended without a reference, or whose reference was removed.
 * - `upload-remains`: parts and tails that only the upload of a stored blob needed.
 * - `unknown`: bytes for which the ledger has no row. A row exists before its bytes, and a tombstone replaces it only
 *   when the bytes are removed.
 * - `overdue`: bytes that were in quarantine for long enough and are still unknown.
 * - `foreign`: a file that Landfall has not made. It is never touched.
 */
export type FindingType = 'missing' | 'set-aside' | 'leftover' | 'upload-remains' | 'unknown' | 'overdue' | 'foreign'

export interface Finding {
  readonly type: FindingType
  /** The blob's key, or its name if it is foreign. */
  readonly blob: string
  readonly operation: { readonly owner: string; readonly id: string; readonly point: string } | null
  /** The size in the store. Null: it does not exist there. */
  readonly sizeBytes: number | null
  /** What was done about it. */
  readonly action: 'none' | 'taken-back' | 'quarantined' | 'deleted'
}

export interface ReconcileReport {
  readonly applied: boolean
  readonly operations: number
  readonly blobs: number
  readonly found: Readonly<Record<FindingType, number>>
  readonly done: Readonly<Record<Exclude<Finding['action'], 'none'>, number>>
  /** The number of blobs in quarantine that are not overdue. */
  readonly quarantined: number
  /** Why nothing was deleted or set aside. Without `apply`: why nothing would be. */
  readonly refused: string | null
  /** What still differs. It should be 0. Quarantined and foreign blobs do not count. */
  readonly difference: number
  readonly tookMs: number
}

export interface ReconcileProgress {
  readonly doing: 'looking' | 'applying'
  readonly operations: number
  /** The number of operations in the ledger. */
  readonly of: number
}

export interface ReconcileOptions {
  /** Changes the store. Without it, reconcile only reports. Default false. */
  readonly apply?: boolean
  /**
   * Continues even if more blobs would be removed than allowed: 1 %, in small stores up to 10 but never more than half.
   * Default false.
   */
  readonly force?: boolean
  /**
   * The ledger is right although its mark is older than the store's: what was stored after its backup is given up.
   * Default false.
   */
  readonly acceptRestored?: boolean
  /** How long unknown blobs stay in quarantine. In milliseconds, default 7 days. */
  readonly quarantineMs?: number
  /** Awaited: a slow callback slows reconcile down, and nothing accumulates. */
  readonly onFinding?: (finding: Finding) => void | Promise<void>
  readonly onProgress?: (progress: ReconcileProgress) => void
  readonly signal?: AbortSignal
}

const WEEK_MS = 7 * 24 * 60 * 60_000
const PAGE = 1_000
const MOST_DELETED = 0.01
/** A few leftovers are normal in a small store too, but not that most of it would be removed. */
const FEW_DELETED = 10
const removalLimit = (blobs: number): number => Math.max(blobs * MOST_DELETED, Math.min(FEW_DELETED, blobs / 2))

/**
 * Compares the ledger with the store in both directions, page by page, while the server runs. A row exists before its
 * bytes, so a page of blobs is listed first and its rows are read second. Whatever differs is checked once more before
 * anything is done about it.
 */
export async function reconcile(
  deps: { ledger: LedgerInventory & LedgerMarks; blobs: BlobStore; clock: Clock },
  options: ReconcileOptions = {},
): Promise<ReconcileReport> {
  const { ledger, blobs, clock } = deps
  const { apply = false, force = false, acceptRestored = false, quarantineMs = WEEK_MS } = options
  const startedAtMs = clock.monotonicMs()
  const { restoredAt } = await ledger.mark()
  const { operations: of } = await ledger.health()

  const firstPass = await compare('looking', async () => 'none', apply ? undefined : options.onFinding)
  const toRemove = firstPass.found.leftover + firstPass.found.unknown + firstPass.found.overdue
  const refused = refusal(firstPass, toRemove)
  if (!apply) return report(firstPass, refused)
  // What is found only now counts as well, because the first pass may be hours old.
  const most = Math.floor(removalLimit(firstPass.blobs))
  let gone = 0
  let refusedNow = refused
  const applied = await compare('applying', act, options.onFinding)
  // This comes last: if anything was refused or interrupted, the restored ledger has to be accepted again.
  if (acceptRestored && refusedNow === null) await ledger.advanceMark({ mark: 0, restored: false })
  return report(applied, refusedNow)

  function refusal({ found, blobs: count }: Seen, wanted: number): string | null {
    if (found.unknown + found.overdue > 0 && restoredAt !== null && !acceptRestored)
      return `the ledger is older than its store: it was restored from a backup, and ${found.unknown + found.overdue} blobs that it does not know may be files of users. Restore a newer backup, or give them up with --accept-restored`
    if (wanted > removalLimit(count) && !force)
      return `${wanted} of ${count} blobs would be removed, more than 1 % and more than a few: check whether this is the right database, and then use --force`
    return null
  }

  /** Both guards again, for each finding, because the first pass did not count what was found after it. */
  function refusalNow({ type }: Finding): string | null {
    if (refusedNow !== null) return refusedNow
    if ((type === 'unknown' || type === 'overdue') && restoredAt !== null && !acceptRestored)
      return 'a blob that the restored ledger does not know was found after the first pass: run reconcile again'
    if (gone >= most && !force)
      return `more blobs would be removed than the first pass had found, and more than the ${most} that are allowed: run reconcile again, and then use --force`
    return null
  }

  async function act(finding: Finding): Promise<Finding['action']> {
    if (finding.type === 'set-aside') return (await blobs.quarantine.takeBack(finding.blob)) ? 'taken-back' : 'none'
    if (finding.type === 'leftover' || finding.type === 'unknown' || finding.type === 'overdue') {
      refusedNow = refusalNow(finding)
      if (refusedNow !== null) return 'none'
      gone += 1
    } else if (refusedNow !== null) return 'none'
    switch (finding.type) {
      case 'leftover': // the row is final, and stays so
        await blobs.remove(finding.blob)
        return 'deleted'
      case 'upload-remains':
        await blobs.uploadRemains?.remove(finding.blob)
        return 'deleted'
      case 'unknown':
        await blobs.quarantine.add(finding.blob, clock.now())
        return 'quarantined'
      case 'overdue':
        await blobs.quarantine.remove(finding.blob)
        return 'deleted'
      default:
        return 'none'
    }
  }

  interface Seen {
    operations: number
    blobs: number
    quarantined: number
    found: Record<FindingType, number>
    done: Record<Exclude<Finding['action'], 'none'>, number>
  }

  async function compare(
    doing: ReconcileProgress['doing'],
    decide: (finding: Finding) => Promise<Finding['action']>,
    onFinding: ReconcileOptions['onFinding'],
  ): Promise<Seen> {
    const seen: Seen = {
      operations: 0,
      blobs: 0,
      quarantined: 0,
      found: { missing: 0, 'set-aside': 0, leftover: 0, 'upload-remains': 0, unknown: 0, overdue: 0, foreign: 0 },
      done: { 'taken-back': 0, quarantined: 0, deleted: 0 },
    }
    const inQuarantine = new Set<string>()
    const tell = async (finding: Omit<Finding, 'action'>): Promise<void> => {
      options.signal?.throwIfAborted()
      seen.found[finding.type] += 1
      const action = await decide({ ...finding, action: 'none' })
      if (action !== 'none') seen.done[action] += 1
      await onFinding?.({ ...finding, action })
    }
    // The quarantine should be small. It is read first, because what is set aside later must not be overdue at once.
    for await (const { key, sizeBytes, sinceAt } of blobs.quarantine.list()) {
      inQuarantine.add(key)
      const [claim] = await claimOf(key)
      if (claim !== undefined && counts(claim) > 0) continue
      if ((await ledger.attendedMs(sinceAt)) < quarantineMs) seen.quarantined += 1
      else await tell({ type: 'overdue', blob: key, operation: null, sizeBytes })
    }

    for await (const { page, after, upTo } of pages(blobs.list())) {
      options.signal?.throwIfAborted()
      const stored = new Map<string, number>()
      const withRemains = new Set<string>()
      for (const { key, name, sizeBytes, hasUploadRemains } of page) {
        if (hasUploadRemains === true && key !== null) withRemains.add(key)
        if (key === null) await tell({ type: 'foreign', blob: name, operation: null, sizeBytes })
        else stored.set(key, sizeBytes)
      }
      seen.blobs += page.length
      for (let from = after; ;) {
        const claims = await ledger.claims({ after: from, upTo, limit: PAGE })
        seen.operations += claims.length
        for (const claim of claims) {
          const sizeBytes = stored.get(claim.blobKey) ?? null
          stored.delete(claim.blobKey)
          if (differs(claim, sizeBytes) !== null) await again(claim.blobKey)
          else if (withRemains.has(claim.blobKey)) await remainsAgain(claim.blobKey)
        }
        const last = claims.at(-1)
        if (claims.length < PAGE || last === undefined) break
        from = last.blobKey
      }
      for (const key of stored.keys()) await again(key)
      options.onProgress?.({ doing, operations: seen.operations, of })
    }
    return seen

    /**
     * Checks a difference once more, the blob first: what appeared or went away since the first check is no difference.
     */
    async function again(key: string): Promise<void> {
      const sizeBytes = await blobs.sizeOf(key)
      const [claim] = await claimOf(key)
      if (claim === undefined) {
        if (sizeBytes !== null) await tell({ type: 'unknown', blob: key, operation: null, sizeBytes })
        return
      }
      const type = differs(claim, sizeBytes)
      if (type === null) return
      const { owner, id, point } = claim
      await tell({
        type: type === 'missing' && inQuarantine.has(key) ? 'set-aside' : type,
        blob: key,
        operation: { owner, id, point },
        sizeBytes,
      })
    }

    /** Only for blobs that are referenced: no upload needs these files any more. */
    async function remainsAgain(key: string): Promise<void> {
      const [claim] = await claimOf(key)
      if (claim === undefined || !claim.referenced || claim.leased) return
      if (!(await blobs.uploadRemains?.found(key))) return
      const { owner, id, point, sizeBytes } = claim
      await tell({ type: 'upload-remains', blob: key, operation: { owner, id, point }, sizeBytes })
    }
  }

  async function claimOf(key: string): Promise<Claim[]> {
    const found = await ledger.claims({ after: before(key), upTo: key, limit: 1 })
    return found.filter(({ blobKey }) => blobKey === key)
  }

  function report(seen: Seen, why: string | null): ReconcileReport {
    const { found, done } = seen
    return {
      applied: apply,
      operations: seen.operations,
      blobs: seen.blobs,
      found,
      done,
      quarantined: seen.quarantined + done.quarantined,
      refused: why,
      difference:
        found.missing +
        found['set-aside'] +
        found.leftover +
        found['upload-remains'] +
        found.unknown +
        found.overdue -
        done['taken-back'] -
        done.quarantined -
        done.deleted,
      tookMs: Math.round(clock.monotonicMs() - startedAtMs),
    }
  }
}

/** How many bytes the row relies on. */
function counts({ point, referenced, removed, sizeBytes, offset }: Claim): number {
  if (referenced) return sizeBytes
  if (removed || !isOpen(point)) return 0
  return point === 'declared' ? offset : sizeBytes
}

function differs(claim: Claim, sizeBytes: number | null): 'missing' | 'leftover' | null {
  const expected = counts(claim)
  const isFinal = !claim.referenced && !isOpen(claim.point)
  // A leased row is left to the holder of its lease. Final ones are cleaned up by the completer while that is due.
  if (claim.leased || claim.cleanupDue) return null
  if (isFinal) return sizeBytes === null ? null : 'leftover'
  if (sizeBytes === null) return expected > 0 || claim.referenced ? 'missing' : null
  return sizeBytes < expected ? 'missing' : null
}

const DIGITS = '0123456789abcdef'
/** Sorts after every smaller key and before this one: keys are hexadecimal, and all have the same length. */
function before(key: string): string {
  const smaller = DIGITS[DIGITS.indexOf(key.slice(-1)) - 1]
  return key.slice(0, -1) + (smaller === undefined ? '' : `${smaller}~`)
}

async function* pages(
  blobs: AsyncIterable<StoredBlob>,
): AsyncIterable<{ page: StoredBlob[]; after: string; upTo: string | null }> {
  let page: StoredBlob[] = []
  let after = ''
  for await (const blob of blobs) {
    page.push(blob)
    if (page.length < PAGE) continue
    const upTo = page.findLast(({ key }) => key !== null)?.key ?? after
    yield { page, after, upTo }
    after = upTo
    page = []
  }
  yield { page, after, upTo: null }
}
