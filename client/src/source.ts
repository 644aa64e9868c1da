import type { Prefix } from '@landfall/shared'
import type { LiveOperation, Session } from './live.js'
import { noted } from './operation.js'
import type { DigestOutcome, Ports, Refusal } from './ports.js'
import type { Obstacle, Step } from './step.js'

/** What hashing needs of a step; it goes on between steps, until the run ends. */
export interface DigestContext extends Pick<Ports, 'digester'> {
  readonly live: LiveOperation
  readonly lifetime: AbortSignal
}

/** The digest of the source at hand: computed once, noted in the journal, and continued behind a proven prefix. */
export function digestOf({ live, digester, lifetime }: DigestContext): Promise<DigestOutcome> {
  const { session } = live
  const { source } = session
  if (source === null) return Promise.resolve({ ok: false, why: 'unavailable' })
  return (session.digesting ??= (async () => {
    const outcome = await digester.digest(source, { from: session.prefixState, signal: lifetime })
    if (session.source !== source) return outcome
    // Stopped, or the worker died: the next one who asks begins again (then on the page's own thread).
    if (!outcome.ok && outcome.why !== 'unreadable') session.digesting = null
    if (outcome.ok) {
      session.sourceDigest = outcome.digest
      await live.amend((stored) => (stored?.digest === null ? noted({ digest: outcome.digest })(stored) : stored))
      // All bytes are there already: the loop looks again, and sends it late.
      if (live.record().standing.point === 'received') live.interrupt()
    }
    return outcome
  })())
}

function use(session: Session, source: Blob | null): void {
  Object.assign(session, {
    source,
    pick: null,
    repicked: false,
    fromCopy: false,
    digesting: null,
    sourceDigest: null,
    prefixState: null,
  } satisfies Partial<Session>)
}

/** The source is no good; the loop looks for another one. No byte of it is sent any more. */
export async function lose({ live, source: copies }: Step, why: Session['lacking']): Promise<Obstacle> {
  const { fromCopy } = live.session
  use(live.session, null)
  live.session.lacking = why
  // What the server got so far decides whether a source is needed at all.
  live.session.offsetKnown = false
  if (fromCopy) await dropCopy(live, copies)
  return { obstacle: 'interrupted' }
}

export async function dropCopy(live: LiveOperation, copies: Ports['source']): Promise<void> {
  const { scope, id } = live.record()
  await live.amend(noted({ copy: 'none' }))
  // What cannot be dropped now goes with the next sweep.
  await copies.drop(scope, id).catch(() => {})
}

/** Bytes that may be sent: as picked, a proven new pick, or a verified copy. */
export async function sourceFor(step: Step): Promise<Blob | Obstacle | Refusal> {
  const { session } = step.live
  if (session.pick !== null) return prove(step, session.pick)
  return session.source ?? (await verifiedCopy(step)) ?? { obstacle: step.signal.aborted ? 'interrupted' : 'file' }
}

/** A new pick, proven by size and by the digest of what the server has accepted, before a byte is sent. */
async function prove(step: Step, pick: Blob): Promise<Blob | Obstacle | Refusal> {
  const { live, ledger, digester, signal } = step
  const { session } = live
  const reject = (why: Session['lacking']): Obstacle => {
    session.pick = null
    session.lacking = why
    return { obstacle: 'file' }
  }
  const { file, standing } = live.record()
  if (pick.size !== file.size) return reject('source-changed')
  if (standing.point === 'declared' && standing.acceptedBytes > 0) {
    const prefix = await ledger.prefix(live.id, signal)
    if (!prefix.ok) return prefix
    const seen = await prefixDigest(digester, pick, prefix.value, signal)
    if (signal.aborted || (!seen.ok && seen.why === 'unavailable')) return { obstacle: 'interrupted' }
    if (!seen.ok) return reject('source-unreadable')
    if (seen.digest !== prefix.value.digest) return reject('source-changed')
    use(session, pick)
    session.prefixState = seen.state
  } else use(session, pick)
  session.repicked = true
  return pick
}

/** As the server has it: of all bytes at once, or as a chain over parts (see `Prefix`). */
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

async function verifiedCopy(step: Step): Promise<Blob | null> {
  const { live, digester, signal, source: copies } = step
  const { copy, digest, file, scope, id } = live.record()
  if (copy === 'none') return null
  const blob = await copies.read(scope, id).catch(() => null)
  if (blob !== null && blob.size === file.size && (copy === 'verified' || digest !== null)) {
    const whole = copy === 'verified' ? null : await digester.digest(blob, { signal })
    if (signal.aborted) return null
    if (whole === null || (whole.ok && whole.digest === digest)) {
      if (whole !== null) await live.amend(noted({ copy: 'verified' }))
      use(live.session, blob)
      live.session.fromCopy = true
      return blob
    }
  }
  await dropCopy(live, copies)
  return null
}
