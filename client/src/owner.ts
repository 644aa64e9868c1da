import { OTHER_OWNER, problemCode } from '@landfall/shared'
import { ended, linked, unlessEnded } from './live.js'
import { backOff } from './pace.js'
import type { Answer, Clock, Journal, Owner, Refusal } from './ports.js'

/**
 * Another user stays signed in for minutes rather than seconds. If the right user comes back, the events of the page
 * show it earlier.
 */
const LOOK_FIRST_MS = 15_000
const LOOK_MAX_MS = 300_000

const noAnswer: Refusal = { ok: false, consequence: 'retry', status: null, problem: null, retryAfterMs: null }
const otherOwner: Refusal = { ...noAnswer, consequence: 'authenticate', status: 412, problem: OTHER_OWNER }

/**
 * Asks `GET /operations?open`, with the pinned tag if there is one. The answer is the tag of the user who is signed in.
 */
export type AskWhose = (pinned: string | null, signal: AbortSignal) => Promise<Answer<string | null>>

export interface OwnerOptions {
  readonly scope: string
  /** The tag that the application has given. */
  readonly given: string | undefined
  readonly journal: Pick<Journal, 'owner'>
  readonly clock: Clock
  readonly ask: AskWhose
  /** Another user is signed in. Called once each time that happens. */
  readonly onOther: () => void
  /** An answer did not say whose uploads it is about. Called once. */
  readonly onUntold: () => void
}

/**
 * The cookie decides which user makes a request, and it can change without notice to this page: in another tab, or
 * while the page was frozen. So the first owner that the server names is pinned, and nothing is sent without that tag.
 */
export function createOwner({ scope, given, journal, clock, ask, onOther, onUntold }: OwnerOptions): Owner {
  let pinned: string | null = given ?? null
  /** The pin is in the journal, or is being written there. */
  let pinning: Promise<string | null> | null = null
  /** `doubted`: an answer was about another user, but it may be outdated. Only a new request decides. */
  let standing: 'ours' | 'doubted' | 'other' = 'ours'
  /** The server did not find a tag that was sent. It is asked before anything else is sent. */
  let isLost = false
  let hasToldUntold = false
  /** How many doubts were wrong. If answers keep contradicting each other, they do so with longer and longer pauses. */
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

  /** The first pin holds, whichever tab has made it. But this page keeps the tag that it has sent once. */
  const pin = (found: string | null): Promise<string | null> =>
    journal.owner(scope, (was) => given ?? was ?? pinned ?? found).then((stored) => (pinned ??= stored))

  const look = async (signal: AbortSignal): Promise<Answer<string>> => {
    const answer = await ask(pinned, signal)
    // This request asked about no upload, so no answer to it can end one.
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
  /** One request for all callers that wait. */
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
        else await backOff(clock, looks++, answer.retryAfterMs, signal, () => {})
      } else if (standing !== 'ours') {
        if (standing === 'doubted') await backOff(clock, alarms++, null, signal, () => {})
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
      // A 401 comes before the server knows any user.
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
