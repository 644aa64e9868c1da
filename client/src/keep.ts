import type { LiveOperation } from './live.js'
import { isSettled, noted } from './operation.js'
import { SMALL_BYTES } from './pace.js'
import type { Ports } from './ports.js'
import { digestAnew, digestOf, dropCopy } from './source.js'

/** Copies files beside the uploads, one at a time, for after a closed tab. */
export interface Keeper {
  /** Queues an upload's file; it is copied once bytes of some upload went out. */
  offer(live: LiveOperation, lifetime: AbortSignal): void
  /** Bytes went out: from now on copying delays no first byte. */
  begin(): void
}

interface Offer {
  readonly live: LiveOperation
  readonly lifetime: AbortSignal
}

export function createKeeper(ports: Pick<Ports, 'source' | 'digester'>, onNoCopy: (cause: unknown) => void): Keeper {
  const offers: Offer[] = []
  let hasBegun = false
  let isWorking = false

  const work = async (): Promise<void> => {
    if (!hasBegun || isWorking) return
    isWorking = true
    for (let offer = takeNext(offers); offer !== undefined; offer = takeNext(offers)) {
      try {
        if (!offer.lifetime.aborted) await keepOne(ports, offer.live, offer.lifetime, onNoCopy)
      } catch (cause) {
        // Written whole or not at all; full disks and private windows come here.
        onNoCopy(cause)
      }
    }
    isWorking = false
  }
  return {
    offer(live, lifetime) {
      offers.push({ live, lifetime })
      void work()
    },
    begin() {
      hasBegun = true
      void work()
    },
  }
}

/** Big files on their way first; then from the end of the queue, since those at its front are sent soon. */
function takeNext(offers: Offer[]): Offer | undefined {
  const urgent = offers.findIndex(({ live }) => {
    const { standing, file } = live.record()
    return standing.point === 'declared' && file.size > SMALL_BYTES
  })
  return urgent < 0 ? offers.pop() : offers.splice(urgent, 1)[0]
}

/** A copy helps only while bytes are to be sent, and only where it can be proven: by a digest computed in the background. */
function isWanted(live: LiveOperation, digester: Ports['digester']): boolean {
  const { standing, copy } = live.record()
  const isSending = standing.point === 'intended' || standing.point === 'declared'
  return !live.gone() && isSending && copy === 'none' && digester.inBackground()
}

async function keepOne(
  { source, digester }: Pick<Ports, 'source' | 'digester'>,
  live: LiveOperation,
  lifetime: AbortSignal,
  onNoCopy: (cause: unknown) => void,
): Promise<void> {
  const { session } = live
  const { scope, id } = live.record()
  const file = session.source
  if (file === null || !isWanted(live, digester)) return
  const wasDigested = session.sourceDigest !== null
  const isKept = await source.keep(scope, id, file)
  if (isKept === false) onNoCopy(new Error('no room for a copy'))
  if (!isKept) return
  // Read before it was copied, or after it, but not meanwhile: then two readings that agree are of one version.
  const hasOverlapped = !wasDigested && session.digesting !== null && session.source === file
  const context = { live, digester, lifetime }
  const whole = await (hasOverlapped ? digestAnew(context) : digestOf(context))
  if (!whole.ok && !wasDigested) {
    // Nobody could ever tell what it is a copy of.
    if (!lifetime.aborted) await source.drop(scope, id)
    return
  }
  // Not noted before: until here a digest that was already known could be of the very moments of copying.
  await live.amend(noted({ copy: 'made' }))
  const copy = whole.ok ? await source.read(scope, id) : null
  // Read back whole: in a private window a `File` in IndexedDB is only a reference to the file on the disk.
  const again = copy === null ? null : await digester.digest(copy, { signal: lifetime })
  if (whole.ok && again?.ok) {
    // The record's digest too: a new pick may turn out not to be the file that was begun.
    if (again.digest === whole.digest && again.digest === live.record().digest) {
      await live.amend(noted({ copy: 'verified' }))
      session.copy = copy
    } else await dropCopy(live, source)
  }
  // It may have ended meanwhile, when there was nothing to drop yet.
  if (live.gone() || isSettled(live.record().standing)) await source.drop(scope, id)
}
