import { createStore, promisifyRequest, type UseStore } from 'idb-keyval'
import type { JournalRecord } from '../operation.js'
import type { Clock, Journal } from '../ports.js'

/** Safari is known to leave a database opening for ever; no upload waits for that. */
const PATIENCE_MS = 3_000

/** All keys `[scope, id]` of a scope: arrays sort element by element, and `[]` sorts behind every string. */
export const rangeOf = (scope: string): IDBKeyRange => IDBKeyRange.bound([scope], [scope, []])

/**
 * One write after which a crash finds all or nothing. Strict durability is not asked for: records survive a killed
 * browser with the relaxed one too, and a lost machine is answered by the server's own truth.
 */
const written = (store: IDBObjectStore): Promise<void> => promisifyRequest(store.transaction)

const isRecord = (value: unknown): value is JournalRecord =>
  typeof value === 'object' && value !== null && 'version' in value && value.version === 1

interface Pin {
  readonly owner: string
}

/** The records in IndexedDB, in a database of their own, keyed by scope. */
export function createIdbJournal(): Journal {
  let opened: UseStore | null = null
  const use: UseStore = (mode, work) => (opened ??= createStore('landfall-journal', 'operations'))(mode, work)
  return {
    load: async (scope) => {
      const all = await use('readonly', (store) => promisifyRequest<unknown[]>(store.getAll(rangeOf(scope))))
      return all.filter(isRecord)
    },
    update: (scope, id, change) =>
      use('readwrite', async (store) => {
        const key = [scope, id]
        const stored = await promisifyRequest<JournalRecord | undefined>(store.get(key))
        const next = change(stored)
        if (next === undefined) store.delete(key)
        else if (next !== stored) store.put(next, key)
        await written(store)
        return next
      }),
    purge: (scope) =>
      use('readwrite', (store) => {
        store.delete(rangeOf(scope))
        return written(store)
      }),
    owner: (scope, change) =>
      use('readwrite', async (store) => {
        // Within the scope's range, before all its records.
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
          // Its copy lies under the old name, and goes with it.
          store.put({ ...record, scope: to, copy: 'none' } satisfies JournalRecord, [to, record.id])
        }
        await written(store)
      }),
  }
}

const keyOf = (scope: string, id: string): string => JSON.stringify([scope, id])

/** Records for as long as the page lives. */
export function createMemoryJournal(): Journal {
  const records = new Map<string, JournalRecord>()
  const pins = new Map<string, string>()
  return {
    load: async (scope) => [...records.values()].filter((record) => record.scope === scope),
    async update(scope, id, change) {
      const next = change(records.get(keyOf(scope, id)))
      if (next === undefined) records.delete(keyOf(scope, id))
      else records.set(keyOf(scope, id), next)
      return next
    },
    async purge(scope) {
      for (const [key, record] of records) if (record.scope === scope) records.delete(key)
      pins.delete(scope)
    },
    async owner(scope, change) {
      const next = change(pins.get(scope) ?? null)
      if (next !== null) pins.set(scope, next)
      return next
    },
    // Nothing of an earlier version.
    adopt: async () => {},
  }
}

/**
 * A journal that cannot be read or written degrades to memory, and blocks nothing: what could not be stored is kept
 * here, and stored with the next write that succeeds.
 */
export function createResilientJournal(
  stored: Journal,
  clock: Pick<Clock, 'sleep'>,
  onDegraded: (cause: unknown) => void,
): Journal {
  const memory = createMemoryJournal()
  const unsaved = new Set<string>()
  let hasTold = false
  const attempt = async <T>(work: () => Promise<T>): Promise<{ value: T } | null> => {
    const over = new AbortController()
    try {
      const tooLong = clock.sleep(PATIENCE_MS, over.signal).then(() => null)
      const done = await Promise.race([work().then((value) => ({ value })), tooLong])
      if (done === null) throw new Error('the database does not answer')
      return done
    } catch (cause) {
      if (!hasTold) onDegraded(cause)
      hasTold = true
      return null
    } finally {
      over.abort()
    }
  }

  return {
    async load(scope) {
      const fromStore = (await attempt(() => stored.load(scope)))?.value ?? []
      for (const record of fromStore) {
        if (!unsaved.has(record.id)) await memory.update(scope, record.id, () => record)
      }
      return memory.load(scope)
    },
    async update(scope, id, change) {
      const records = await memory.load(scope)
      const known = records.find((record) => record.id === id)
      const result = await attempt(() => stored.update(scope, id, (was) => change(unsaved.has(id) ? known : was)))
      if (result === null) unsaved.add(id)
      else unsaved.delete(id)
      return memory.update(scope, id, (was) => (result === null ? change(was) : result.value))
    },
    async purge(scope) {
      await memory.purge(scope)
      await attempt(() => stored.purge(scope))
    },
    async owner(scope, change) {
      const result = await attempt(() => stored.owner(scope, change))
      return memory.owner(scope, result === null ? change : () => result.value)
    },
    async adopt(from, to) {
      await attempt(() => stored.adopt(from, to))
    },
  }
}
