import { OTHER_OWNER, problemCode } from '@landfall/shared'
import { ended, linked, unlessEnded } from './live.js'
import { breathe } from './pace.js'
import type { Answer, Clock, Journal, Owner, Refusal } from './ports.js'

/** Somebody else stays for minutes, not for seconds; whoever comes back is seen by the page's signs of life before. */
const LOOK_FIRST_MS = 15_000
const LOOK_MAX_MS = 300_000

const noAnswer: Refusal = { ok: false, consequence: 'retry', status: null, problem: null, retryAfterMs: null }
const otherOwner: Refusal = { ...noAnswer, consequence: 'authenticate', status: 412, problem: OTHER_OWNER }

/** Of `GET /operations?open`, asked with the pinned tag if there is one: the tag of whoever is signed in. */
export type AskWhose = (pinned: string | null, signal: AbortSignal) => Promise<Answer<string | null>>

export interface OwnerOptions {
  readonly scope: string
  /** What the application knows by itself. */
  readonly given: string | undefined
  readonly journal: Pick<Journal, 'owner'>
  readonly clock: Clock
  readonly ask: AskWhose
  /** Somebody else is signed in: told once for each time. */
  readonly onOther: () => void
  /** An answer did not say whose uploads it is about: told once. */
  readonly onUntold: () => void
}

/**
 * A request is made by whoever the cookie says, and that changes without a word to this page: in another tab, or while it
 * was frozen. So the first owner that the server names is pinned, and nothing is sent but with that tag.
 */
export function createOwner({ scope, given, journal, clock, ask, onOther, onUntold }: OwnerOptions): Owner {
  let pinned: string | null = given ?? null
  /** The pin is in the journal, or is being written there. */
  let pinning: Promise<string | null> | null = null
  /** `doubted`: an answer was about somebody else, which may be old by now. Only a new look decides. */
  let standing: 'ours' | 'doubted' | 'other' = 'ours'
  /** The server has missed a tag that was sent: it is asked before anything else is sent. */
  let isLost = false
  let hasToldUntold = false
  /** Doubts that were wrong: should answers contradict each other for ever, they do so ever more slowly. */
  let alarms = 0
  let life: AbortSignal = AbortSignal.abort()
  let looking: { life: AbortSignal; answer: Promise<Answer<string>> } | null = null
  let changed = new AbortController()
  const listeners = new Set<() => void>()

  const change = (): void => {
    changed.abort()
    changed = new AbortController()
  }
  const doubt = (): void => {
    if (standing !== 'ours') return
    standing = 'doubted'
    change()
  }
  const untold = (): void => {
    if (!hasToldUntold) onUntold()
    hasToldUntold = true
  }

  /** The first one holds, whichever tab has pinned it; but what this page has sent once it goes on to send. */
  const pin = (found: string | null): Promise<string | null> =>
    journal.owner(scope, (was) => given ?? was ?? pinned ?? found).then((stored) => (pinned ??= stored))

  const look = async (signal: AbortSignal): Promise<Answer<string>> => {
    const answer = await ask(pinned, signal)
    // No upload was asked about: whatever was said is the end of none.
    if (!answer.ok) return answer.consequence === 'authenticate' ? answer : { ...answer, consequence: 'retry' }
    if (answer.value === null) {
      untold()
      return { ...noAnswer, status: 200 }
    }
    const tag = pinned ?? (await (pinning = pin(answer.value)))
    if (tag !== answer.value) {
      doubt()
      return otherOwner
    }
    isLost = false
    return { ok: true, value: tag }
  }
  /** One request for all who wait. */
  const looked = (): Promise<Answer<string>> => {
    if (looking?.life === life) return looking.answer
    const own = { life, answer: look(life) }
    looking = own
    void own.answer.finally(() => {
      if (looking === own) looking = null
    })
    return own.answer
  }

  const pause = async (looks: number, signal: AbortSignal): Promise<void> => {
    const awake = linked(signal, changed.signal)
    const wake = (): void => awake.abort()
    const stops = [clock.onWake(wake), clock.onFocus(wake), awake.unlink]
    await clock.sleep(Math.min(LOOK_MAX_MS, LOOK_FIRST_MS * 2 ** Math.min(looks, 8)), awake.signal)
    for (const stop of stops) stop()
  }

  const keep = async (signal: AbortSignal): Promise<void> => {
    await (pinning ??= pin(null))
    for (let looks = 0; !signal.aborted;) {
      if (pinned !== null && standing === 'ours') {
        looks = 0
        const next = linked(signal, changed.signal)
        await ended(next.signal)
        next.unlink()
        continue
      }
      const answer = await looked()
      if (signal.aborted) return
      if (!answer.ok) {
        if (answer.problem !== null && problemCode(answer.problem) === 'other-owner' && standing === 'doubted') {
          standing = 'other'
          onOther()
        }
        if (standing === 'other') await pause(looks++, signal)
        else await breathe(clock, looks++, answer.retryAfterMs, signal, () => {})
      } else if (standing !== 'ours') {
        if (standing === 'doubted') await breathe(clock, alarms++, null, signal, () => {})
        standing = 'ours'
        for (const listener of listeners) listener()
      }
    }
  }

  return {
    async read(signal) {
      if (standing !== 'ours') return otherOwner
      await unlessEnded((pinning ??= pin(null)), signal)
      if (pinned !== null && !isLost) return { ok: true, value: pinned }
      const answer = await unlessEnded(looked(), signal)
      return answer ?? noAnswer
    },
    judge(sent, { said, status, refusal }) {
      const code = refusal?.problem ? problemCode(refusal.problem) : null
      if ((said !== null && said !== sent) || code === 'other-owner') {
        doubt()
        return otherOwner
      }
      if (code === 'owner-required') isLost = true
      // A 401 comes before anybody is known.
      if (said !== null || status === 401) return refusal
      if (refusal === null) untold()
      return { ...(refusal ?? noAnswer), status, consequence: 'retry' }
    },
    isOther: () => standing !== 'ours',
    keep(signal) {
      life = signal
      void keep(signal)
    },
    hurry: change,
    onBack: (listener) => void listeners.add(listener),
    forget() {
      pinning = null
    },
  }
}
