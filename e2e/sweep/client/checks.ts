import { isDeepStrictEqual } from 'node:util'
import type { Stored } from '../../truth/stored.js'
import type { Note, StoredRecord } from '../../clients/swept-page.js'

/** One visit of a run. A run's visits are in the order in which they happened. */
export interface VisitSeen {
  /** The journal as the visit found it. */
  readonly journal: readonly StoredRecord[]
  readonly notes: Note[]
  /** Whether the page was killed. */
  died: boolean
  /** What must never be seen, recorded at the moment at which it was seen. */
  readonly early: string[]
}

const DONE = new Set(['referenced', 'completed'])

const of = (notes: readonly Note[], kind: Note['note'], id: string): Note[] =>
  notes.filter((note) => note.note === kind && 'id' in note && note.id === id)

/** The journal is never ahead of the server, and never behind what has left the page. Called while no page is open. */
export function afterDeath(stored: Stored, visits: readonly VisitSeen[], journal: readonly StoredRecord[]): string[] {
  const found: string[] = []
  const notes = visits.flatMap((visit) => visit.notes)
  for (const id of idsOf(notes)) {
    const record = journal.find((each) => each.id === id)
    const operation = stored.operations.find((each) => each.id === id)
    const point = operation?.point ?? 'no row'
    const say = (words: string): void => void found.push(`journal: ${words} (${id} ${point})`)
    if (record === undefined) {
      const isToldDone = of(notes, 'told', id).length > 0 && of(notes, 'acknowledging', id).length > 0
      const isWithdrawn = of(notes, 'cancelling', id).length > 0 && (operation === undefined || point === 'cancelled')
      if (operation !== undefined && !isToldDone && !isWithdrawn) say('the server has an operation without a record')
      if (of(notes, 'promised', id).length > 0 && operation !== undefined && point !== 'cancelled' && !isToldDone)
        say('a promised cancellation is forgotten')
      continue
    }
    if (of(notes, 'acknowledged', id).length > 0) say('a record of what was acknowledged')
    if (of(notes, 'promised', id).length > 0 && !['cancelled', 'received'].includes(record.standing.point))
      say(`a promised cancellation became ${record.standing.point}`)
    const { standing } = record
    if (standing.point !== 'intended' && standing.point !== 'cancelled' && operation === undefined)
      say(`${standing.point}, of which the server knows nothing`)
    if (operation === undefined) continue
    if (standing.point === 'declared' && (standing.acceptedBytes ?? 0) > operation.offset)
      say(`accepted ${standing.acceptedBytes} bytes, the server has ${operation.offset}`)
    if (standing.point === 'received' && operation.offset < operation.size) say('received, but bytes are missing')
    if (standing.point === 'referenced' && !DONE.has(point)) say('referenced, which it is not')
  }
  return found
}

/** Checks what the user was told, and what is left, after the last visit ended undisturbed. */
export function inTheEnd(
  stored: Stored,
  visits: readonly VisitSeen[],
  left: readonly StoredRecord[],
  /** The references as the server shows them now, by operation. */
  shown: ReadonlyMap<string, unknown>,
): string[] {
  const found: string[] = []
  const notes = visits.flatMap((visit) => visit.notes)
  for (const id of idsOf(notes)) {
    const operation = stored.operations.find((each) => each.id === id)
    const reference = stored.references.find((each) => each.id === id)
    const say = (words: string): void => void found.push(`told: ${words} (${id} ${operation?.point ?? 'no row'})`)
    const told = of(notes, 'told', id)
    for (const note of told) {
      if (note.note !== 'told') continue
      if (note.ok !== (reference !== undefined))
        say(note.ok ? 'success without a reference' : 'failure with a reference')
      if (!note.ok && note.problem !== 'cancelled') say(`failure: ${note.problem}`)
      if (note.reference === null || reference === undefined) continue
      if (!isDeepStrictEqual(note.reference, shown.get(id))) say('another reference than the one that the server shows')
    }
    const wasCancelled = of(notes, 'cancelling', id).length > 0
    const wasPromised = of(notes, 'promised', id).length > 0
    if (wasPromised && operation !== undefined && operation.point !== 'cancelled' && reference === undefined)
      say('a promised cancellation that never came')
    if (told.length === 0 && operation !== undefined && !(wasCancelled && operation.point === 'cancelled'))
      say('the user was never told')
    toldByVisit(id, visits, say)
  }
  for (const { id, standing } of left) found.push(`journal: a record is left (${id} ${standing.point})`)
  return found
}

/**
 * Each visit that was not killed tells the outcome that it finds, until it is acknowledged. An acknowledged outcome is
 * not told again.
 */
function toldByVisit(id: string, visits: readonly VisitSeen[], say: (words: string) => void): void {
  visits.forEach((visit, index) => {
    const record = visit.journal.find((each) => each.id === id)
    const told = of(visit.notes, 'told', id).length
    if (index > 0 && record === undefined && told > 0) say('told again after it was acknowledged')
    if (record !== undefined && record.standing.point !== 'cancelled' && told === 0 && !visit.died)
      say(`visit ${index + 1} found it ${record.standing.point} and told nothing`)
    if (told > 1) say(`told ${told} times by one visit`)
    if (record?.copy === 'verified' && of(visit.notes, 'asked', id).length > 0)
      say('asked for a file of which there is a verified copy')
  })
}

/** Finds operations that the run did not make. Every `add` makes at most one operation. */
export function strangers(stored: Stored, before: ReadonlySet<string>, visits: readonly VisitSeen[]): string[] {
  const own = new Set(idsOf(visits.flatMap(({ notes }) => notes)))
  return stored.operations
    .filter(({ id }) => !before.has(id) && !own.has(id))
    .map(({ id, point }) => `an operation that the run did not make (${id} ${point})`)
}

export const idsOf = (notes: readonly Note[]): string[] =>
  notes.flatMap((note) => (note.note === 'added' ? [note.id] : []))
