import { setTimeout as pause } from 'node:timers/promises'
import { OWNER } from '../../clients/page.js'
import type { Moment, Note } from '../../clients/swept-page.js'
import { within } from '../../ground/patience.js'
import { builtPage } from '../../ground/repository.js'
import { type Site, startSite } from '../../ground/site.js'
import { OWNER_HEADER } from '../../programs/landfall.js'
import type { Stored } from '../../truth/stored.js'
import type { Outcome } from '../campaign.js'
import { type History, type Known, newHistory, violations } from '../invariants.js'
import { digestOf } from '../scenarios.js'
import { acknowledgedOf } from '../upload.js'
import { openWorld, type ServerWorld } from '../world.js'
import { afterDeath, idsOf, inTheEnd, strangers, type VisitSeen } from './checks.js'
import { createDesk, type Desk } from './desk.js'
import type { ClientScenario } from './scenarios.js'
import { NoPage, openVisitor, type Visit, type Visitor } from './visits.js'

/** What the user does after the kill. */
export interface ClientVariant {
  /**
   * `back`: the user returns at once. `gone`: the user returns only after the server has done everything that it can do
   * alone.
   */
  readonly user: 'back' | 'gone'
  /** The moment of the next visit at which the page is killed again. */
  readonly again?: Moment
}

export interface ClientResult extends Outcome {
  readonly scenario: string
  readonly kill: Moment
  readonly variant: ClientVariant
}

/** One browser with its profile and one server. Runs follow one another, and the stored data grows with them. */
export interface ClientLane {
  /** The moments of a visit that nothing disturbs, and those of the visit after a kill at `base`. */
  record(scenario: ClientScenario): Promise<{ moments: Moment[]; base: Moment; resuming: Moment[] }>
  run(scenario: ClientScenario, kill: Moment, variant: ClientVariant): Promise<ClientResult>
  close(): Promise<void>
}

const PAGE = builtPage('sweep')
const SETTLE_MS = 60_000
/** How long the page may work in the background after everything was over. */
const IDLE_MS = 300
/**
 * Two things happen now and then that are not the client's fault. On a machine so busy that IndexedDB takes seconds,
 * the client continues without a journal and says so. And a browser in which a process was killed sometimes opens no
 * page any more.
 */
const ATTEMPTS = 3

interface Place {
  readonly world: ServerWorld
  readonly site: Site
  readonly desk: Desk
  readonly visitor: Visitor
}

async function openPlace(page: string): Promise<Place> {
  const world = await openWorld()
  const desk = createDesk()
  const site = await startSite({
    directory: page,
    own: desk,
    forward: { path: '/uploads', port: world.proxy.port, headers: { [OWNER_HEADER]: OWNER } },
  })
  return { world, site, desk, visitor: await openVisitor(site.origin, desk) }
}

async function closePlace({ world, site, visitor }: Place): Promise<void> {
  await visitor.close()
  await site.close()
  await world.close()
}

class Degraded extends Error {}

export async function openClientLane(firstSeed: number, page = PAGE): Promise<ClientLane> {
  let place = await openPlace(page)
  let history: History = newHistory()
  let seed = firstSeed
  let before: ReadonlySet<string> = new Set()

  /** Checks what is stored, without any client. */
  async function check(seen: readonly VisitSeen[], scenario: ClientScenario, quiet: boolean): Promise<string[]> {
    const { world } = place
    const stored = quiet ? await world.untilQuiet(90_000) : await world.stored()
    const notes = seen.flatMap((visit) => visit.notes)
    const known = notes.flatMap((note) => (note.note === 'added' ? [knownOf(note, notes, scenario, stored)] : []))
    return [
      ...(await violations(stored, known, { quiet, history, received: quiet ? world.received : null })),
      ...strangers(stored, before, seen),
    ]
  }

  function knownOf(
    { id, seed: which }: Extract<Note, { note: 'added' }>,
    notes: readonly Note[],
    { sizesBytes, options }: ClientScenario,
    stored: Stored,
  ): Known {
    const first = notes.find((note) => note.note === 'added')
    const sizeBytes = sizesBytes[first?.note === 'added' ? which - first.seed : 0] ?? 0
    const told = notes.findLast((note) => note.note === 'told' && note.id === id)
    const isCancelled =
      options.cancels && stored.operations.some((each) => each.id === id && each.point === 'cancelled')
    return {
      id,
      sizeBytes,
      sha256: digestOf(sizeBytes, which),
      told: told?.note === 'told' ? (told.ok ? 'success' : 'failure') : isCancelled ? 'failure' : null,
      acknowledged: acknowledgedOf(place.world.proxy.requests, id),
      attended: true,
      ...(isCancelled ? { doomed: 'cancelled' } : {}),
    }
  }

  /** The references as the server shows them to anyone who asks. */
  async function shownOf(seen: readonly VisitSeen[]): Promise<Map<string, unknown>> {
    const shown = new Map<string, unknown>()
    for (const id of idsOf(seen.flatMap(({ notes }) => notes))) {
      const url = `${place.world.proxy.origin}/uploads/operations/${id}`
      const answer = await fetch(url, { headers: { [OWNER_HEADER]: OWNER } })
      if (answer.ok) shown.set(id, ((await answer.json()) as { reference: unknown }).reference)
    }
    return shown
  }

  /**
   * Opens a page and collects its reports. While the page waits for the answer to a report, the stored data is read.
   */
  async function enter(kill: Moment | null): Promise<{ visit: Visit; seen: VisitSeen; finished: Promise<void> }> {
    const { desk, visitor, world } = place
    const notes: Note[] = []
    const early: string[] = []
    let finish = (): void => {}
    let fail = (_error: Error): void => {}
    const finished = new Promise<void>((resolve, reject) => {
      finish = resolve
      fail = reject
    })
    finished.catch(() => {})
    desk.onNote = async (note) => {
      notes.push(note)
      if (note.note === 'finished') finish()
      if (note.note === 'warned' && note.code === 'journal-in-memory') fail(new Degraded('without a journal'))
      if (note.note !== 'told' || !note.ok) return
      const { references } = await world.stored()
      if (!references.some(({ id }) => id === note.id))
        early.push(`told success before there is a reference (${note.id})`)
    }
    const visit = await visitor.visit(kill)
    return { visit, finished, seen: { journal: visit.journal, notes, died: false, early } }
  }

  /** Follows one visit from its beginning to the death of the page, or to the end of all its work. */
  async function live(
    { visit, seen, finished }: Awaited<ReturnType<typeof enter>>,
    { options }: ClientScenario,
    files: { sizeBytes: number; seed: number }[],
    patienceMs: number,
  ): Promise<void> {
    visit.begin({ ...options, files })
    const died = visit.died.then(() => void (seen.died = true))
    await within(Promise.race([died, finished]), SETTLE_MS, () => `a visit, which said ${JSON.stringify(seen.notes)}`)
    if (!seen.died && patienceMs > 0) await Promise.race([died, pause(patienceMs)])
  }

  const filesOf = ({ sizesBytes }: ClientScenario): { sizeBytes: number; seed: number }[] =>
    sizesBytes.map((sizeBytes) => ({ sizeBytes, seed: (seed += 1) }))

  async function renew(): Promise<void> {
    await closePlace(place).catch(() => {})
    place = await openPlace(page)
    history = newHistory()
    before = new Set()
  }

  async function start(): Promise<void> {
    place.world.proxy.forget()
    before = new Set((await place.world.stored()).operations.map(({ id }) => id))
  }

  /** If the application leaves outcomes unacknowledged, a later visit acknowledges them. */
  async function tidy(scenario: ClientScenario): Promise<void> {
    if (!scenario.options.acknowledges)
      await live(await enter(null), { ...scenario, options: { ...scenario.options, acknowledges: true } }, [], 0)
  }

  /** Makes the visits of one run, and checks everything between them. */
  async function visits(
    scenario: ClientScenario,
    kill: Moment,
    variant: ClientVariant,
  ): Promise<ClientResult['violations']> {
    await start()
    const found: string[] = []
    const seen: VisitSeen[] = []
    const first = await enter(kill)
    if (scenario.isFirstVisit === true) await first.visit.forget()
    seen.push(first.seen)
    await live(first, scenario, filesOf(scenario), IDLE_MS)
    const plans = [...(variant.again === undefined ? [] : [variant.again]), null]
    for (const plan of plans) {
      const next = await enter(plan)
      found.push(...afterDeath(await place.world.stored(), seen, next.seen.journal))
      found.push(...(await check(seen, scenario, variant.user === 'gone')))
      seen.push(next.seen)
      const options = plan === null ? { ...scenario.options, acknowledges: true } : scenario.options
      await live(next, { ...scenario, options }, [], plan === null ? 0 : IDLE_MS)
    }
    found.push(...(await check(seen, scenario, true)))
    // One more visit: no outcome may be told again, and no record may be left.
    const last = await enter(null)
    await live(last, scenario, [], 0)
    const all = [...seen, last.seen]
    found.push(...inTheEnd(await place.world.stored(), all, last.seen.journal, await shownOf(all)))
    return [...found, ...seen.flatMap(({ early }) => early), ...(seen.some(({ died }) => died) ? [] : [NOT_REACHED])]
  }

  async function record(scenario: ClientScenario): ReturnType<ClientLane['record']> {
    await start()
    const first = await enter(null)
    if (scenario.isFirstVisit === true) await first.visit.forget()
    await live(first, scenario, filesOf(scenario), IDLE_MS)
    const moments = await first.visit.moments()
    const found = await check([first.seen], scenario, true)
    if (found.length > 0) throw new Error(`without any kill:\n${found.join('\n')}`)
    allNumbered(moments)
    await tidy(scenario)
    const all = moments.filter(({ name }) => scenario.base.test(name))
    const base = all[Math.floor(all.length / 2)]
    if (base === undefined) throw new Error(`${scenario.name}: nothing matches ${scenario.base}`)
    await start()
    const second = await enter(base)
    await live(second, scenario, filesOf(scenario), IDLE_MS)
    const third = await enter(null)
    await live(third, scenario, [], IDLE_MS)
    const resuming = await third.visit.moments()
    await tidy(scenario)
    return { moments, base, resuming }
  }

  /** If the place does not work and the client is not to blame, repeats the work in another place. */
  async function patiently<T>(work: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await work()
      } catch (error) {
        await renew()
        if (attempt === ATTEMPTS || !(error instanceof Degraded || error instanceof NoPage)) throw error
      }
    }
  }

  return {
    record: (scenario) => patiently(() => record(scenario)),

    async run(scenario, kill, variant) {
      const startMs = performance.now()
      const result = (outcome: ClientResult['outcome'], found: readonly string[]): ClientResult => ({
        scenario: scenario.name,
        kill,
        variant,
        outcome,
        violations: found,
        tookMs: performance.now() - startMs,
      })
      try {
        const found = await patiently(() => visits(scenario, kill, variant))
        const bad = found.filter((words) => words !== NOT_REACHED)
        if (bad.length > 0) await renew()
        return result(bad.length > 0 ? 'bad' : found.length > 0 ? 'not reached' : 'ok', bad)
      } catch (error) {
        return result('bad', [error instanceof Error ? (error.stack ?? error.message) : String(error)])
      }
    },
    close: () => closePlace(place),
  }

  /**
   * Every request that reached the server must have been numbered in the page. Otherwise the sweep would never kill the
   * page at some of them.
   */
  function allNumbered(moments: readonly Moment[]): void {
    const numbered = moments.filter(({ name, when }) => when === 'before' && / \/uploads\//.test(name)).length
    const sent = place.world.proxy.requests.length
    if (sent !== numbered) throw new Error(`${sent} requests were sent, ${numbered} were numbered`)
  }
}

const NOT_REACHED = 'not reached'
