import { type DeclareRequest, isReferenced, type Operation, problemCode } from '@landfall/shared'
import { isSettled, type JournalRecord, moved, noted, type Standing, type StandingAt, standingOf } from './operation.js'
import { breathe, CHUNK_MIN_BYTES, chunkEnd, nextChunkBytes, SMALL_BYTES } from './pace.js'
import { ended, type LiveOperation } from './live.js'
import type { Refusal } from './ports.js'
import { digestOf, lose, sourceFor } from './source.js'
import type { Activity } from './types.js'
import type { Obstacle, Reached, RunContext, Step, StepResult } from './step.js'

/** With a worker, how long the last bytes may wait for the digest: longer, and a slow hash is felt as a slow upload. */
const DIGEST_GRACE_MS = 2_000

/**
 * THE client sequence. Each step asks before it acts, returns where the operation stands then, and calls no other step;
 * only this loop moves the record and only this loop waits. Runs until there is an outcome, or `lifetime` ends.
 */
export async function run(live: LiveOperation, context: RunContext, lifetime: AbortSignal): Promise<void> {
  let place: (() => void) | null = null
  const leave = (): void => {
    place?.()
    place = null
  }
  try {
    while (!lifetime.aborted && !live.gone()) {
      const { standing, paused } = live.record()
      if (isSettled(standing)) return
      const { signal, end } = live.begin(lifetime)
      const sends = standing.point === 'intended' || standing.point === 'declared'
      if (!sends || paused) leave()
      if (sends && paused) {
        live.doing({ state: 'paused' })
        await ended(signal)
      } else if (sends && place === null) {
        live.doing({ state: 'waiting', why: 'turn', untilMs: null })
        place = await context.turns.take(signal)
      } else {
        const result = await take(standing, { ...context, live, signal, lifetime })
        if ('withdrawn' in result) await live.amend(() => undefined)
        if ('to' in result) {
          await record(live, standing, result)
          // The move has ended this step's signal; if a user's wish came in between, there is nothing to wait for.
          const isThere = live.record().standing.point === result.to.point
          if (result.after && isThere) await overcome(result.after, live, context, lifetime)
        }
        if ('obstacle' in result) {
          if (result.obstacle !== 'interrupted') leave()
          await overcome(result, live, context, signal)
        }
      }
      end()
    }
  } finally {
    leave()
  }
}

function take(standing: Exclude<Standing, StandingAt<'referenced' | 'failed'>>, step: Step): Promise<StepResult> {
  switch (standing.point) {
    case 'intended':
      // repeatable: the same id with the same facts is answered with the same operation
      return declare(step)
    case 'declared':
      // repeatable: after every fault the server is asked for the true offset first
      return send(standing, step)
    case 'received':
      // repeatable: only asks; a digest can be set once and is the same each time
      return follow(step)
    case 'cancelled':
      // repeatable: cancelling twice is cancelling once
      return withdraw(step)
    default:
      return standing satisfies never
  }
}

async function record(live: LiveOperation, from: Standing, { to, digest }: Reached): Promise<void> {
  const accepted = to.point === 'declared' && from.point === 'declared' && to.acceptedBytes > from.acceptedBytes
  if (accepted || (to.point === 'received' && from.point !== 'received')) live.session.attempts = 0
  const move = moved(from.point, to)
  await live.amend((stored) => move(digest ? noted({ digest })(stored) : stored))
}

async function overcome(
  obstacle: Obstacle,
  live: LiveOperation,
  { clock, owner }: RunContext,
  outer: AbortSignal,
): Promise<void> {
  if (obstacle.obstacle === 'interrupted') return
  if (obstacle.obstacle === 'file') {
    live.doing({ state: 'needs-file', why: live.session.lacking })
    return ended(outer)
  }
  if (obstacle.obstacle === 'other-owner') {
    // Already back: nobody would say it again.
    if (!owner.isOther()) return
    live.doing({ state: 'waiting', why: 'other-owner', untilMs: null })
    return ended(outer)
  }
  const { signal, end } = live.begin(outer)
  const { obstacle: why, retryAfterMs } = obstacle
  await breathe(clock, live.session.attempts++, retryAfterMs, signal, (untilMs) => live.doing(waitingFor(why, untilMs)))
  end()
}

async function declare(step: Step): Promise<StepResult> {
  const { live, clock, signal } = step
  live.doing({ state: 'running' })
  const { file, digest } = live.record()
  if (file.size <= SMALL_BYTES && digest === null && live.session.source !== null && step.digester.inBackground()) {
    await Promise.race([digestOf(step), clock.sleep(DIGEST_GRACE_MS, signal)])
  }
  return ask(step)
}

/** PUT: declares, continues, and carries the digest. Never while a PATCH of ours is in flight: steps do not overlap. */
async function ask(step: Step): Promise<StepResult> {
  const { live, ledger, signal, digester } = step
  live.doing({ state: 'running' })
  const request = requestOf(live.record(), digester.inBackground() && live.session.source !== null)
  const answer = await ledger.put(live.id, request, signal)
  if (!answer.ok) return signal.aborted ? { obstacle: 'interrupted' } : refused(live, answer, 'final-holds')
  live.session.offsetKnown = true
  live.session.digestSent = request.digest !== undefined && request.digest !== 'pending'
  return heard(live, answer.value)
}

const requestOf = ({ kind, file, metadata, digest }: JournalRecord, willFollow: boolean): DeclareRequest => ({
  ...(kind === null ? {} : { kind }),
  file,
  metadata,
  ...(digest === null ? (willFollow ? { digest: 'pending' as const } : {}) : { digest }),
})

function heard({ session }: LiveOperation, operation: Operation): StepResult {
  session.recordedDigest = operation.digest
  session.stalled = operation.stalled
  session.problem = operation.problem
  return { to: standingOf(operation), digest: operation.digest }
}

async function send(standing: StandingAt<'declared'>, step: Step): Promise<StepResult> {
  const { live, clock, digester, signal } = step
  const { session } = live
  if (!session.offsetKnown) return ask(step)
  live.doing({ state: 'running' })
  const source = await sourceFor(step)
  if (!(source instanceof Blob)) return 'ok' in source ? unanswered(step, source) : source
  if (digester.inBackground()) void digestOf(step)
  const { size } = live.record().file
  const end = chunkEnd(standing.acceptedBytes, size, session.chunkBytes, session.attempts > 0)
  if (session.repicked && live.record().digest !== null && session.sourceDigest === null) {
    // The whole pick must be the file that was begun, before a byte of it is sent: accepted bytes cannot be taken back.
    const whole = await Promise.race([digestOf(step), ended(signal)])
    if (!whole || signal.aborted || (!whole.ok && whole.why !== 'unreadable')) return { obstacle: 'interrupted' }
    if (!whole.ok) return lose(step, 'source-unreadable')
  } else if (end === size && digester.inBackground() && live.record().digest === null) {
    await Promise.race([digestOf(step), clock.sleep(DIGEST_GRACE_MS, signal)])
  }
  const { digest } = live.record()
  if (session.sourceDigest !== null && digest !== null && session.sourceDigest !== digest) {
    return lose(step, 'source-changed')
  }
  if (signal.aborted) return { obstacle: 'interrupted' }
  return digestIsOwed(live) ? ask(step) : sendChunk(step, source, standing.acceptedBytes, end)
}

const digestIsOwed = (live: LiveOperation): boolean =>
  live.record().digest !== null && live.session.recordedDigest === null && !live.session.digestSent

async function sendChunk(step: Step, source: Blob, offsetBytes: number, endBytes: number): Promise<StepResult> {
  const { live, clock, transfer, signal, onSent } = step
  const { session } = live
  const startMs = clock.nowMs()
  const { lastChunkMs } = session
  const chunk = { id: live.id, source, offsetBytes, endBytes, lastChunkMs, onSent: () => onSent(live) }
  const outcome = await transfer.send(chunk, signal)
  const gained = outcome.kind === 'accepted' ? outcome.offsetBytes - offsetBytes : 0
  if (outcome.kind === 'accepted' && gained > 0 && outcome.offsetBytes <= endBytes) {
    session.lastChunkMs = clock.nowMs() - startMs
    live.meter.measured(gained, session.lastChunkMs)
    if (endBytes - offsetBytes >= session.chunkBytes) {
      session.chunkBytes = nextChunkBytes(session.chunkBytes, session.lastChunkMs)
    }
    session.problem = null
    const { size } = live.record().file
    // The last 204 says "durable", never "there is a reference".
    return {
      to:
        outcome.offsetBytes === size
          ? { point: 'received' }
          : { point: 'declared', acceptedBytes: outcome.offsetBytes },
    }
  }
  session.offsetKnown = false
  if (outcome.kind === 'stopped' || signal.aborted) return { obstacle: 'interrupted' }
  if (outcome.kind === 'refused') return refused(live, outcome.refusal, 'put-decides')
  if (outcome.kind === 'accepted') return { obstacle: 'server', retryAfterMs: null }
  session.chunkBytes = CHUNK_MIN_BYTES
  // A file changed on disk looks like a broken connection; reading one byte of it tells them apart.
  const byte = source.slice(offsetBytes, offsetBytes + 1)
  const isReadable = await byte.arrayBuffer().then(
    () => true,
    () => false,
  )
  return isReadable ? { obstacle: 'network', retryAfterMs: null } : lose(step, 'source-unreadable')
}

async function follow(step: Step): Promise<StepResult> {
  const { live, follower, asides, signal } = step
  const { session } = live
  if (digestIsOwed(live)) {
    const place = await asides.take(signal)
    try {
      return await ask(step)
    } finally {
      place?.()
    }
  }
  const finishing = (): void => live.doing({ state: 'finishing', stalled: session.stalled })
  finishing()
  const operation = await follower.until(
    live.id,
    {
      isNews: (news) => news === null || standingOf(news).point !== 'received' || news.stalled !== session.stalled,
      onObstacle: (refusal, untilMs) =>
        refusal === null ? finishing() : live.doing(waitingFor(whyOf(refusal), untilMs)),
    },
    signal,
  )
  if (operation === undefined) return { obstacle: 'interrupted' }
  session.offsetKnown = false
  // The server does not know it (any more): declared again under the same id, after a breath.
  if (operation === null) return { to: { point: 'intended' }, after: { obstacle: 'server', retryAfterMs: null } }
  return heard(live, operation)
}

async function withdraw({ live, ledger, asides, signal }: Step): Promise<StepResult> {
  live.doing({ state: 'cancelling' })
  const place = await asides.take(signal)
  const answer = await ledger.cancel(live.id, signal)
  place?.()
  if (answer.ok) {
    const { recoveryPoint } = answer.value
    const goesOn = isReferenced(recoveryPoint) || recoveryPoint === 'unknown'
    return goesOn ? { to: { point: 'received' } } : { withdrawn: true }
  }
  if (signal.aborted) return { obstacle: 'interrupted' }
  if (answer.problem && problemCode(answer.problem) === 'already-referenced') return { to: { point: 'received' } }
  const isOver = answer.consequence === 'declare' || answer.consequence === 'final'
  return isOver ? { withdrawn: true } : refused(live, answer, 'put-decides')
}

type Why = Exclude<Obstacle, { readonly obstacle: 'interrupted' | 'file' }>['obstacle']

const whyOf = ({ consequence, status, problem }: Refusal): Why => {
  if (problem !== null && problemCode(problem) === 'other-owner') return 'other-owner'
  return consequence === 'authenticate' ? 'authentication' : status === null ? 'network' : 'server'
}

/** Nobody knows until when somebody else is signed in. */
const waitingFor = (why: Why, untilMs: number): Activity => ({
  state: 'waiting',
  why,
  untilMs: why === 'other-owner' ? null : untilMs,
})

/** Only our own problem with a final meaning, in answer to PUT, ends an operation; anything else passes. */
function refused(live: LiveOperation, refusal: Refusal, meaning: 'final-holds' | 'put-decides'): StepResult {
  const { problem, retryAfterMs } = refusal
  if (meaning === 'final-holds' && refusal.consequence === 'final' && problem !== null) {
    return { to: { point: 'failed', problem } }
  }
  live.session.problem = problem
  live.changed()
  return { obstacle: whyOf(refusal), retryAfterMs }
}

function unanswered({ live, signal }: Step, refusal: Refusal): StepResult {
  live.session.offsetKnown = false
  return signal.aborted ? { obstacle: 'interrupted' } : refused(live, refusal, 'put-decides')
}
