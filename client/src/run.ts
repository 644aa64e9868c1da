import { type DeclareRequest, isReferenced, type Operation, problemCode } from '@landfall/shared'
import { isSettled, moved, noted, type Standing, type StandingAt, standingOf } from './operation.js'
import { backOff, CHUNK_MIN_BYTES, chunkEnd, nextChunkBytes, SMALL_BYTES } from './pace.js'
import { ended, type LiveOperation, unlessEnded } from './live.js'
import type { Refusal } from './ports.js'
import { confirm, digestOf, isReadable, lose, sourceFor, untilReadable } from './source.js'
import type { Activity } from './types.js'
import type { Obstacle, Reached, RunContext, Step, StepResult } from './step.js'

/**
 * How long a small file waits for its digest, which is then part of the declaration. Otherwise it costs one more
 * request.
 */
const DIGEST_GRACE_MS = 2_000

/** SHA-256 of zero bytes. An empty file is received as soon as it is declared. */
const EMPTY_DIGEST = 'sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:'

/**
 * This many steps in a row may end without a result although nothing has interrupted them. Before each further step,
 * the client waits as it does after a fault. So a bug in this sequence may delay an upload, but it cannot freeze the
 * page.
 */
const VAIN_STEPS = 8

/**
 * THE client sequence. Each step asks before it acts, returns where the operation stands then, and calls no other step.
 * Only this loop moves the record, and only this loop waits. It runs until there is an outcome, or until `lifetime`
 * ends.
 */
export async function run(live: LiveOperation, context: RunContext, lifetime: AbortSignal): Promise<void> {
  let place: (() => void) | null = null
  let vainSteps = 0
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
          // The move has ended this step's signal. If the user has changed the point in between, there is nothing to
          // wait for.
          const isThere = live.record().standing.point === result.to.point
          if (result.after && isThere) await waitOut(result.after, live, context, lifetime)
        }
        if ('obstacle' in result) {
          if (result.obstacle !== 'interrupted') leave()
          await waitOut(result, live, context, signal)
        }
        const isVain = 'obstacle' in result && result.obstacle === 'interrupted' && !signal.aborted
        vainSteps = isVain ? vainSteps + 1 : 0
        if (vainSteps > VAIN_STEPS) {
          leave()
          await backOff(context.clock, vainSteps - VAIN_STEPS, null, signal, () => {})
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
      // repeatable: only asks
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

async function waitOut(
  obstacle: Obstacle,
  live: LiveOperation,
  context: RunContext,
  outer: AbortSignal,
): Promise<void> {
  const { clock, owner } = context
  if (obstacle.obstacle === 'interrupted') return
  if (obstacle.obstacle === 'file') {
    live.doing({ state: 'needs-file', why: live.session.lacking })
    return untilReadable(live, context, outer)
  }
  if (obstacle.obstacle === 'other-owner') {
    // If the right user is already back, no event will report it again.
    if (!owner.isOther()) return
    live.doing({ state: 'waiting', why: 'other-owner', untilMs: null })
    return ended(outer)
  }
  const { signal, end } = live.begin(outer)
  const { obstacle: why, retryAfterMs } = obstacle
  await backOff(clock, live.session.attempts++, retryAfterMs, signal, (untilMs) => live.doing(waitingFor(why, untilMs)))
  end()
}

async function declare(step: Step): Promise<StepResult> {
  const { live, clock, signal } = step
  live.doing({ state: 'running' })
  const { session } = live
  const { file } = live.record()
  if (file.size <= SMALL_BYTES && session.sourceDigest === null && session.source !== null) {
    await Promise.race([digestOf(step), clock.sleep(DIGEST_GRACE_MS, signal)])
  }
  // The file was read completely before a byte of it is sent.
  if (session.sourceDigest !== null) session.isConsistent = true
  return ask(step)
}

/**
 * The PUT. It declares or continues the operation, and carries the digest. It never runs while a PATCH of this
 * operation is in flight, because steps do not overlap.
 */
async function ask(step: Step): Promise<StepResult> {
  const { live, ledger, signal } = step
  live.doing({ state: 'running' })
  const { session } = live
  const { kind, file, metadata, digest } = live.record()
  const request: DeclareRequest = {
    ...(kind === null ? {} : { kind }),
    file,
    metadata,
    // `pending` is always followed by the digest, because the last byte is not sent before it. So nothing is ever
    // stored without a proof.
    digest: file.size === 0 ? EMPTY_DIGEST : session.isConsistent && digest !== null ? digest : 'pending',
  }
  const answer = await ledger.put(live.id, request, signal)
  if (!answer.ok) return signal.aborted ? { obstacle: 'interrupted' } : refused(live, answer, 'final-holds')
  session.offsetKnown = true
  session.digestSent = request.digest !== 'pending'
  return fromServer(live, answer.value)
}

function fromServer({ session }: LiveOperation, operation: Operation): StepResult {
  session.recordedDigest = operation.digest
  session.stalled = operation.stalled
  session.problem = operation.problem
  return { to: standingOf(operation), digest: operation.digest }
}

async function send(standing: StandingAt<'declared'>, step: Step): Promise<StepResult> {
  const { live, clock, signal } = step
  const { session } = live
  if (!session.offsetKnown) return ask(step)
  live.doing({ state: 'running' })
  const source = await sourceFor(step)
  if (!(source instanceof Blob)) return 'ok' in source ? unanswered(step, source) : source
  const { acceptedBytes } = standing
  const { size } = live.record().file
  const end = chunkEnd(acceptedBytes, size, session.chunkBytes, session.attempts > 0)
  // The last byte is not sent before the digest was sent: what is stored becomes a reference only if it is that file.
  // And no byte of a new pick is sent before that if a digest is known, because accepted bytes cannot be withdrawn.
  const mustKnow = end === size || (session.repicked && session.expectedDigest !== null)
  if (session.sourceDigest === null) {
    const digesting = digestOf(step)
    const whole = mustKnow ? await unlessEnded(digesting, signal) : null
    if (signal.aborted) return { obstacle: 'interrupted' }
    if (whole && !whole.ok)
      return whole.why === 'unreadable' ? lose(step, 'source-unreadable') : { obstacle: 'interrupted' }
  }
  if (session.sourceDigest !== null) {
    if (session.sourceDigest !== live.record().digest) return lose(step, 'source-changed')
    const unconfirmed = await confirm(step, source, acceptedBytes, mustKnow)
    if (unconfirmed !== null) return 'ok' in unconfirmed ? unanswered(step, unconfirmed) : unconfirmed
  }
  // In some browsers, a body that cannot be read causes no error, but silence until the watchdog ends it.
  if (!(await isReadable(source, acceptedBytes, clock, signal))) {
    return signal.aborted ? { obstacle: 'interrupted' } : lose(step, 'source-unreadable')
  }
  // The keeper of copies has started the digest again in the meantime.
  if (end === size && !isTold(live) && !digestIsOwed(live)) return { obstacle: 'interrupted' }
  return digestIsOwed(live) ? ask(step) : sendChunk(step, source, acceptedBytes, end)
}

const isTold = ({ session }: LiveOperation): boolean => session.recordedDigest !== null || session.digestSent

/**
 * Whether the digest must be sent now. A digest that may mix two versions of the file is not sent: the server would
 * believe it.
 */
const digestIsOwed = (live: LiveOperation): boolean =>
  live.session.isConsistent && live.session.sourceDigest !== null && !isTold(live)

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
    // The last 204 means "durable". It never means that there is a reference.
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
  // A file that changed on disk looks like a broken connection. Reading one byte of it tells the two apart.
  if (await isReadable(source, offsetBytes, clock, signal)) return { obstacle: 'network', retryAfterMs: null }
  return signal.aborted ? { obstacle: 'interrupted' } : lose(step, 'source-unreadable')
}

async function follow(step: Step): Promise<StepResult> {
  const { live, follower, signal } = step
  const { session } = live
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
  // The server does not know the operation (any more). It is declared again under the same id, after a pause.
  if (operation === null) return { to: { point: 'intended' }, after: { obstacle: 'server', retryAfterMs: null } }
  return fromServer(live, operation)
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

/** The client cannot know how long another user stays signed in. */
const waitingFor = (why: Why, untilMs: number): Activity => ({
  state: 'waiting',
  why,
  untilMs: why === 'other-owner' ? null : untilMs,
})

/**
 * Only one of Landfall's problems with a final meaning, as the answer to a PUT, ends an operation. Every other refusal
 * passes.
 */
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
