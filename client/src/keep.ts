import type { LiveOperation } from './live.js'
import { isSettled, noted } from './operation.js'
import { SMALL_BYTES } from './pace.js'
import type { Ports } from './ports.js'
import { digestAnew, digestOf, dropCopy } from './source.js'

/**
 * Copies files into the browser's storage, one at a time, so that their uploads can continue after the tab was closed.
 */
export interface Keeper {
  /** Queues an upload's file. It is copied after bytes of some upload were sent. */
  offer(live: LiveOperation, lifetime: AbortSignal): void
  /** Bytes were sent: from now on, copying does not delay a first byte. */
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
        // A copy is written as a whole or not at all. Full disks and private windows cause this error.
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

/**
 * Big files that are being uploaded come first. Then the end of the queue, because the files at its front are sent soon
 * anyway.
 */
function takeNext(offers: Offer[]): Offer | undefined {
  const urgent = offers.findIndex(({ live }) => {
    const { standing, file } = live.record()
    return standing.point === 'declared' && file.size > SMALL_BYTES
  })
  return urgent < 0 ? offers.pop() : offers.splice(urgent, 1)[0]
}

/**
 * A copy helps only while bytes are still to be sent, and only if it can be proven by a digest that is computed in the
 * background.
 */
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
  // The file was read before or after it was copied, but not at the same time. Then two readings that agree are of one
  // version.
  const hasOverlapped = !wasDigested && session.digesting !== null && session.source === file
  const context = { live, digester, lifetime }
  const whole = await (hasOverlapped ? digestAnew(context) : digestOf(context))
  if (!whole.ok && !wasDigested) {
    // Nothing could ever prove what this is a copy of.
    if (!lifetime.aborted) await source.drop(scope, id)
    return
  }
  // Note it only now: up to here, a digest that was already known could come from the time of copying.
  await live.amend(noted({ copy: 'made' }))
  const copy = whole.ok ? await source.read(scope, id) : null
  // Read the copy back completely: in a private window, a `File` in IndexedDB is only a reference to the file on the
  // disk.
  const again = copy === null ? null : await digester.digest(copy, { signal: lifetime })
  if (whole.ok && again?.ok) {
    // Compare the record's digest too: a new pick may turn out to be another file than the one whose upload was begun.
    if (again.digest === whole.digest && again.digest === live.record().digest) {
      await live.amend(noted({ copy: 'verified' }))
      session.copy = copy
    } else await dropCopy(live, source)
  }
  // The upload may have ended before there was a copy to drop.
  if (live.gone() || isSettled(live.record().standing)) await source.drop(scope, id)
}
