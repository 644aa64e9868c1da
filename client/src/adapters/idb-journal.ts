import { promisifyRequest } from 'idb-keyval'
import type { Change, JournalRecord } from '../operation.js'
import type { Clock, Journal } from '../ports.js'
import { openStore } from './idb-store.js'

/** Safari is known to leave a database in the state of opening permanently. No upload waits for that. */
const PATIENCE_MS = 3_000

/**
 * How long the journal remembers that a record was removed. A tab that was frozen for longer writes its record again
 * and asks the server, which answers with the outcome. The application then gets this outcome once more.
 */
const REMEMBER_REMOVED_MS = 7 * 24 * 3_600_000

/** All keys `[scope, id]` of a scope. Arrays sort element by element, and `[]` sorts after every string. */
export const rangeOf = (scope: string): IDBKeyRange => IDBKeyRange.bound([scope], [scope, []])

/**
 * One write after which a crash finds either all of it or nothing. Strict durability is not requested: records survive
 * a killed browser with the relaxed one too, and after the loss of a machine the server still knows the truth.
 */
const written = (store: IDBObjectStore): Promise<void> => promisifyRequest(store.transaction)

const isObject = (value: unknown): value is object => typeof value === 'object' && value !== null
const isRecord = (value: unknown): value is JournalRecord =>
  isObject(value) && 'version' in value && value.version === 1

/**
 * Takes the place of a record that was removed on purpose. A record that is missing without a tombstone was not removed
 * on purpose: see `Journal`.
 */
interface Tombstone {
  readonly removedAtMs: number
}
const isTombstone = (value: unknown): value is Tombstone =>
  isObject(value) && !('version' in value) && 'removedAtMs' in value && typeof value.removedAtMs === 'number'

/** A page of another version has written this record. It is neither read nor overwritten. */
class ForeignRecord extends Error {
  override readonly name = 'ForeignRecord'
  constructor() {
    super('the record was written by another version of the page')
  }
}

interface Pin {
  readonly owner: string
}

/** The records in IndexedDB, in a database of their own, keyed by scope. */
export function createIdbJournal(clock: Pick<Clock, 'wallMs'>): Journal {
  const use = openStore('landfall-journal', 'operations')

  /** Removes tombstones that no tab needs any more. */
  const forget = (scope: string, nowMs: number): Promise<void> =>
    use('readwrite', async (store) => {
      const range = rangeOf(scope)
      const [keys, values] = await Promise.all([
        promisifyRequest(store.getAllKeys(range)),
        promisifyRequest<unknown[]>(store.getAll(range)),
      ])
      values.forEach((value, at) => {
        const key = keys[at]
        if (key !== undefined && isStale(value, nowMs)) store.delete(key)
      })
      await written(store)
    })

  return {
    async load(scope) {
      const all = await use('readonly', (store) => promisifyRequest<unknown[]>(store.getAll(rangeOf(scope))))
      const nowMs = clock.wallMs()
      // Nothing waits for it. What it does not remove, the next page removes.
      if (all.some((value) => isStale(value, nowMs))) void forget(scope, nowMs).catch(() => {})
      return all.filter(isRecord)
    },
    update: (scope, id, change, known) =>
      use('readwrite', async (store) => {
        const key = [scope, id]
        const stored = await promisifyRequest<unknown>(store.get(key))
        if (isTombstone(stored)) return undefined
        if (stored !== undefined && !isRecord(stored)) throw new ForeignRecord()
        const next = change(stored ?? known)
        if (next === undefined) store.put({ removedAtMs: clock.wallMs() } satisfies Tombstone, key)
        else if (next !== stored) store.put(next, key)
        await written(store)
        return next
      }),
    purge: (scope) =>
      use('readwrite', async (store) => {
        const keys = await promisifyRequest(store.getAllKeys(rangeOf(scope)))
        for (const key of keys) {
          if (Array.isArray(key) && key.length > 1) store.put({ removedAtMs: clock.wallMs() } satisfies Tombstone, key)
          // This key holds the pinned owner.
          else store.delete(key)
        }
        await written(store)
      }),
    owner: (scope, change) =>
      use('readwrite', async (store) => {
        // This key is within the scope's range, before all its records.
        const pinned = (await promisifyRequest<Pin | undefined>(store.get([scope])))?.owner ?? null
        const next = change(pinned)
        if (next !== null && next !== pinned) store.put({ owner: next } satisfies Pin, [scope])
        await written(store)
        return next
      }),
    adopt: (from, to) =>
      use('readwrite', async (store) => {
        const all = await promisifyRequest<unknown[]>(store.getAll(rangeOf(from)))
        for (const record of all.filter(isRecord)) {
          store.delete([from, record.id])
          // Its copy has the old name and is removed with it.
          store.put({ ...record, scope: to, copy: 'none' } satisfies JournalRecord, [to, record.id])
        }
        await written(store)
      }),
  }
}

const isStale = (value: unknown, nowMs: number): boolean =>
  isTombstone(value) && nowMs - value.removedAtMs > REMEMBER_REMOVED_MS

const keyOf = (scope: string, id: string): string => JSON.stringify([scope, id])

/** A journal in memory, which lives as long as the page. */
export function createMemoryJournal(): Journal {
  const records = new Map<string, JournalRecord>()
  const removed = new Set<string>()
  const remove = (key: string): void => {
    records.delete(key)
    removed.add(key)
  }
  const pins = new Map<string, string>()
  return {
    load: async (scope) => [...records.values()].filter((record) => record.scope === scope),
    async update(scope, id, change, known) {
      const key = keyOf(scope, id)
      if (removed.has(key)) return undefined
      const next = change(records.get(key) ?? known)
      if (next === undefined) remove(key)
      else records.set(key, next)
      return next
    },
    async purge(scope) {
      for (const [key, record] of records) if (record.scope === scope) remove(key)
      pins.delete(scope)
    },
    async owner(scope, change) {
      const next = change(pins.get(scope) ?? null)
      if (next !== null) pins.set(scope, next)
      return next
    },
    // A journal in memory has nothing of an earlier version.
    adopt: async () => {},
  }
}

/** What this page knows of one record. */
interface Held {
  readonly scope: string
  readonly id: string
  /** The record as the store has last confirmed it. */
  stored: JournalRecord | undefined
  /** The record with the changes that are not stored yet. */
  record: JournalRecord | undefined
  /** Changes that are not stored yet, in order. */
  unsaved: Change[]
  /** The record belongs to another version of the page. This page continues in memory. */
  isForeign: boolean
}

const applied = (changes: readonly Change[], to: JournalRecord | undefined): JournalRecord | undefined =>
  changes.reduce((record, change) => change(record), to)

/**
 * Falls back to memory if the journal cannot be read or written, and never blocks. What could not be stored is kept as
 * *changes*. The next write that succeeds applies them to what is stored then. A record that was kept as a whole would
 * undo what other tabs have written since.
 */
export function createResilientJournal(
  store: Journal,
  clock: Pick<Clock, 'sleep'>,
  onDegraded: (cause: unknown) => void,
): Journal {
  const holds = new Map<string, Held>()
  /** The owner tags of scopes. */
  const pins = new Map<string, string>()
  /** Records with changes that could not be stored when they were made. */
  const behind = new Set<Held>()
  let isCatchingUp = false
  let hasTold = false
  const degraded = (cause: unknown): void => {
    if (!hasTold) onDegraded(cause)
    hasTold = true
  }
  const attempt = async <T>(work: () => Promise<T>): Promise<{ value: T } | null> => {
    const over = new AbortController()
    try {
      const tooLong = clock.sleep(PATIENCE_MS, over.signal).then(() => null)
      const done = await Promise.race([work().then((value) => ({ value })), tooLong])
      if (done === null) throw new Error('the database does not answer')
      return done
    } catch (cause) {
      degraded(cause)
      return null
    } finally {
      over.abort()
    }
  }
  const isSaved = async (held: Held): Promise<boolean> => {
    const done = await attempt(() => save(held))
    if (done === null && held.unsaved.length > 0) behind.add(held)
    return done !== null
  }
  /**
   * Stores what was kept while the store failed. It runs after the first write that succeeds, whichever upload that
   * belongs to.
   */
  const catchUp = async (): Promise<void> => {
    if (isCatchingUp) return
    isCatchingUp = true
    for (const held of behind) {
      if (!(await isSaved(held))) break
    }
    isCatchingUp = false
  }
  const holdOf = (scope: string, id: string): Held => {
    const key = keyOf(scope, id)
    const held = holds.get(key) ?? { scope, id, stored: undefined, record: undefined, unsaved: [], isForeign: false }
    holds.set(key, held)
    return held
  }

  /** Brings all unsaved changes into the store, even if the store answers after the caller has stopped waiting. */
  const save = async (held: Held): Promise<void> => {
    const { scope, id } = held
    let saved: readonly Change[] = []
    const takeUnsaved: Change = (was) => {
      // Read the list here and not earlier: a slow write may have stored some of the changes since.
      saved = [...held.unsaved]
      return applied(saved, was)
    }
    try {
      held.stored = await store.update(scope, id, takeUnsaved, held.stored)
    } catch (cause) {
      if (!(cause instanceof ForeignRecord)) throw cause
      held.isForeign = true
      held.unsaved = []
      behind.delete(held)
      throw cause
    }
    // A removed record stays removed, whatever changes were still waiting for it.
    held.unsaved = held.stored === undefined ? [] : held.unsaved.filter((change) => !saved.includes(change))
    held.record = applied(held.unsaved, held.stored)
    if (held.unsaved.length === 0) behind.delete(held)
    if (held.stored === undefined) holds.delete(keyOf(scope, id))
  }

  return {
    async load(scope) {
      const fromStore = (await attempt(() => store.load(scope)))?.value ?? []
      for (const record of fromStore) {
        const held = holdOf(scope, record.id)
        held.stored = record
        held.record = applied(held.unsaved, record)
      }
      const own = [...holds.values()].filter((held) => held.scope === scope)
      return own.flatMap(({ record }) => (record === undefined ? [] : [record]))
    },
    async update(scope, id, change, known) {
      const held = holdOf(scope, id)
      held.record = change(held.record ?? known)
      if (held.isForeign) return held.record
      held.unsaved.push(change)
      if ((await isSaved(held)) && behind.size > 0) void catchUp()
      return held.record
    },
    async purge(scope) {
      pins.delete(scope)
      for (const [key, held] of holds) {
        if (held.scope !== scope) continue
        holds.delete(key)
        behind.delete(held)
      }
      await attempt(() => store.purge(scope))
    },
    async owner(scope, change) {
      // The browser may have deleted the site's data. This page still knows whose uploads they are.
      const next = (pinned: string | null): string | null => change(pinned ?? pins.get(scope) ?? null)
      const result = await attempt(() => store.owner(scope, next))
      const pin = result === null ? next(null) : result.value
      if (pin !== null) pins.set(scope, pin)
      return pin
    },
    async adopt(from, to) {
      await attempt(() => store.adopt(from, to))
    },
  }
}
