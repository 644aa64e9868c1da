import type { Prefix } from '@landfall/shared'
import { ended, linked, type LiveOperation, type Reading, type Session, unlessEnded } from './live.js'
import { noted } from './operation.js'
import type { Clock, DigestOutcome, Ports, Refusal } from './ports.js'
import { READ_AGAIN_MS, reader } from './read.js'
import type { Obstacle, Step } from './step.js'

/** What hashing needs of a step. Hashing continues between steps, until the run ends. */
export interface DigestContext extends Pick<Ports, 'digester'> {
  readonly live: LiveOperation
  readonly lifetime: AbortSignal
}

/** How long until a file that could not be read is checked again. It doubles after each failure, up to four times. */
const LOOK_AGAIN_MS = 2_500

/**
 * The digest of the current source. It is computed once, recorded in the journal, and continued after a proven prefix.
 */
export function digestOf({ live, digester, lifetime }: DigestContext): Promise<DigestOutcome> {
  const { session } = live
  const { source } = session
  if (source === null) return Promise.resolve({ ok: false, why: 'unavailable' })
  session.digesting ??= reading(lifetime, async (signal, isCurrent) => {
    const outcome = await digester.digest(source, { from: session.prefixState, signal })
    // The session has another source now, or the digest was started again.
    if (!isCurrent(session.digesting)) return { ok: false, why: 'stopped' }
    // The hashing was stopped, or the worker died. The next caller starts again (without a worker, on the page's own
    // thread).
    if (!outcome.ok && outcome.why !== 'unreadable') session.digesting = null
    if (outcome.ok) {
      session.sourceDigest = outcome.digest
      session.isConsistent ||= session.expectedDigest === outcome.digest
      await live.amend((stored) => (stored?.digest === null ? noted({ digest: outcome.digest })(stored) : stored))
    }
    return outcome
  })
  return session.digesting.outcome
}

/**
 * Reads in the background until the run ends or `stop` is called. `isCurrent` tells whether the session still waits for
 * it.
 */
function reading<T>(
  lifetime: AbortSignal,
  read: (signal: AbortSignal, isCurrent: (known: Reading<unknown> | null) => boolean) => Promise<T>,
): Reading<T> {
  const controller = linked(lifetime)
  const own: Reading<T> = {
    stop: () => controller.abort(),
    outcome: read(controller.signal, (known) => known === own).finally(controller.unlink),
  }
  return own
}

/** Discards everything that was read of the source so far. */
function stopReading(session: Session): void {
  session.digesting?.stop()
  session.confirming?.stop()
  Object.assign(session, {
    digesting: null,
    sourceDigest: null,
    confirming: null,
    prefixState: null,
  } satisfies Partial<Session>)
}

/** Reads all of the file again from now on. Callers that wait for its digest get this one. */
export function digestAnew(context: DigestContext): Promise<DigestOutcome> {
  stopReading(context.live.session)
  return digestOf(context)
}

function use(session: Session, source: Blob | null, expectedDigest: string | null): void {
  stopReading(session)
  Object.assign(session, {
    source,
    pick: null,
    repicked: false,
    spare: null,
    fromCopy: false,
    expectedDigest,
    isConsistent: false,
  } satisfies Partial<Session>)
}

function useCopy(session: Session, copy: Blob, digest: string): void {
  const { source, spare, fromCopy } = session
  use(session, copy, digest)
  Object.assign(session, {
    copy,
    fromCopy: true,
    sourceDigest: digest,
    isConsistent: true,
    spare: fromCopy || source === null ? spare : source,
  } satisfies Partial<Session>)
}

/** The source cannot be used, and the loop looks for another one. No further byte of it is sent. */
export async function lose({ live, source: copies }: Step, why: Session['lacking']): Promise<Obstacle> {
  const { session } = live
  const { fromCopy, source, spare } = session
  use(session, null, null)
  session.lacking = why
  // The bytes that the server has so far decide whether a source is needed at all.
  session.offsetKnown = false
  if (fromCopy) session.copy = null
  // A read that failed says nothing about the next one. Bytes that differ do.
  if (why === 'source-unreadable') session.attempts += 1
  else if (fromCopy) await dropCopy(live, copies)
  session.spare = why === 'source-unreadable' && !fromCopy ? source : spare
  return { obstacle: 'interrupted' }
}

export async function dropCopy(live: LiveOperation, copies: Ports['source']): Promise<void> {
  const { scope, id } = live.record()
  await live.amend(noted({ copy: 'none' }))
  // If it cannot be dropped now, the next sweep drops it.
  await copies.drop(scope, id).catch(() => {})
}

/** The bytes that may be sent: a verified copy, the file as picked, or a proven new pick. */
export async function sourceFor(step: Step): Promise<Blob | Obstacle | Refusal> {
  const { live, clock, signal } = step
  const { session } = live
  const { digest } = live.record()
  if (session.pick !== null) return prove(step, session.pick)
  if (session.copy !== null && !session.fromCopy && digest !== null) {
    useCopy(session, session.copy, digest)
  }
  const source = session.source ?? (await verifiedCopy(step))
  if (signal.aborted) return { obstacle: 'interrupted' }
  if (source !== null) return source
  const { spare } = session
  return spare !== null && (await isReadable(spare, 0, clock, signal)) ? prove(step, spare) : { obstacle: 'file' }
}

/**
 * Whether one byte can be read, which shows that the file still exists. A read that never ends is abandoned when the
 * signal ends.
 */
export const isReadable = async (
  blob: Blob,
  atBytes: number,
  clock: Pick<Clock, 'sleep'>,
  signal: AbortSignal,
): Promise<boolean> => Boolean(await unlessEnded(reader(clock)(blob.slice(atBytes, atBytes + 1), signal), signal))

/** Waits for a new pick, or until a file that could not be read can be read again. */
export async function untilReadable(
  live: LiveOperation,
  { clock, source: copies }: Pick<Ports, 'clock' | 'source'>,
  signal: AbortSignal,
): Promise<void> {
  const { session } = live
  for (let attempts = session.attempts; !signal.aborted; attempts += 1) {
    const { scope, id, copy } = live.record()
    if (session.spare === null && copy === 'none') return ended(signal)
    await clock.sleep(LOOK_AGAIN_MS * 2 ** Math.min(attempts, 4), signal)
    const kept = copy === 'none' ? null : await copies.read(scope, id).catch(() => null)
    for (const blob of [kept, session.spare]) if (blob !== null && (await isReadable(blob, 0, clock, signal))) return
  }
}

/** Proves a new pick by its size and by the digest of what the server has accepted, before a byte is sent. */
async function prove(step: Step, pick: Blob): Promise<Blob | Obstacle | Refusal> {
  const { live, ledger, digester, signal } = step
  const { session } = live
  const reject = (why: Session['lacking']): Obstacle => {
    session.pick = null
    session.lacking = why
    if (why === 'source-unreadable') {
      session.attempts += 1
      session.spare = pick
    } else if (session.spare === pick) session.spare = null
    return { obstacle: 'file' }
  }
  const { file, standing, digest } = live.record()
  if (pick.size !== file.size) return reject('source-changed')
  if (standing.point === 'declared' && standing.acceptedBytes > 0) {
    const prefix = await ledger.prefix(live.id, signal)
    if (!prefix.ok) return prefix
    const seen = await prefixDigest(digester, pick, prefix.value, signal)
    if (signal.aborted || (!seen.ok && seen.why === 'unavailable')) return { obstacle: 'interrupted' }
    if (!seen.ok) return reject('source-unreadable')
    if (seen.digest !== prefix.value.digest) return reject('source-changed')
    use(session, pick, digest)
    session.prefixState = seen.state
  } else use(session, pick, digest)
  session.repicked = true
  return pick
}

/**
 * Whether the digest is of one version of the file. In Firefox and WebKit a `File` is not a snapshot: if it is edited
 * while it is read, there is no error. Two readings of the whole file that agree and do not overlap in time are of one
 * version, the one that existed between them. The first reading gave the digest. The second is the sending, and the
 * server compares it. So the bytes that were sent before the first reading ended are read once more and compared with
 * what the server has, before the digest is sent. Null if sending may continue. With `mustKnow` false it is also null
 * while that is not known yet.
 */
export async function confirm(
  step: Step,
  source: Blob,
  acceptedBytes: number,
  mustKnow: boolean,
): Promise<Obstacle | Refusal | null> {
  const { live, ledger, digester, lifetime, signal } = step
  const { session } = live
  // All of the file is still to be sent.
  if (acceptedBytes === 0) session.isConsistent = true
  if (session.isConsistent) return null
  const notYet: Obstacle | null = mustKnow ? { obstacle: 'interrupted' } : null
  if (session.confirming === null) {
    const prefix = await ledger.prefix(live.id, signal)
    if (!prefix.ok) return prefix
    // The copy was finished while the server answered. What is read now would not be read after the digest.
    if (session.sourceDigest === null) return notYet
    session.confirming = reading(lifetime, async (reads, isCurrent) => {
      const seen = await prefixDigest(digester, source, prefix.value, reads)
      if (!isCurrent(session.confirming)) return 'unknown'
      if (seen.ok && seen.digest !== prefix.value.digest) return 'source-changed'
      if (!seen.ok && seen.why === 'unreadable') return 'source-unreadable'
      session.isConsistent = seen.ok
      // The reading was stopped, or the worker died. The next step starts it again.
      session.confirming = null
      return 'unknown'
    })
  }
  const { outcome: confirming } = session.confirming
  const outcome = mustKnow
    ? await unlessEnded(confirming, signal)
    : await Promise.race([confirming, Promise.resolve('unknown')])
  if (outcome === 'source-changed' || outcome === 'source-unreadable') return lose(step, outcome)
  return notYet
}

/** The digest in the server's form: of all bytes at once, or as a chain over parts (see `Prefix`). */
async function prefixDigest(
  digester: Ports['digester'],
  pick: Blob,
  { offset, partBytes }: Prefix,
  signal: AbortSignal,
): Promise<DigestOutcome | { ok: true; digest: string; state: null }> {
  if (partBytes === undefined) return digester.digest(pick.slice(0, offset), { signal })
  let link = ''
  for (let at = 0; at < offset; at += partBytes) {
    const part = await digester.digest(pick.slice(at, Math.min(at + partBytes, offset)), { signal })
    if (!part.ok) return part
    const next = await digester.digest(new Blob([link, part.digest]), { signal })
    if (!next.ok) return next
    link = next.digest
  }
  return { ok: true, digest: link, state: null }
}

/** Null if there is no copy, or if it cannot be read now. It is dropped only if it is not the file. */
async function verifiedCopy(step: Step): Promise<Blob | null> {
  const { live, digester, clock, signal, source: copies } = step
  const { copy, digest, file, scope, id } = live.record()
  if (copy === 'none') return null
  const read = (): Promise<Blob | null> => copies.read(scope, id)
  const readAgain = (): Promise<Blob | null | undefined> =>
    clock
      .sleep(READ_AGAIN_MS, signal)
      .then(read)
      .catch(() => undefined)
  const blob = await read().catch(readAgain)
  const misread = (): null => {
    live.session.lacking = 'source-unreadable'
    live.session.attempts += 1
    return null
  }
  if (blob === undefined) return misread()
  if (blob?.size === file.size && digest !== null) {
    // This also checks a copy that an earlier page has verified: while that page existed, WebKit's copy was still the
    // picked file.
    const whole = await digester.digest(blob, { signal })
    if (signal.aborted) return null
    if (!whole.ok) return whole.why === 'unavailable' ? verifiedCopy(step) : misread()
    if (whole.digest === digest) {
      if (copy !== 'verified') await live.amend(noted({ copy: 'verified' }))
      useCopy(live.session, blob, digest)
      return blob
    }
  }
  await dropCopy(live, copies)
  return null
}
