import { IDBFactory, IDBKeyRange } from 'fake-indexeddb'
import { beforeEach, describe, expect, it } from 'vitest'
import { createIdbJournal, createMemoryJournal, createResilientJournal } from '../src/adapters/idb-journal.js'
import { createIdbSource } from '../src/adapters/sources.js'
import { cancelled, type Change, type JournalRecord, moved, noted } from '../src/operation.js'
import type { Journal } from '../src/ports.js'
import { createFastClock } from './browser.js'

const recordOf = (id: string, scope = 'alice'): JournalRecord => ({
  version: 1,
  id,
  scope,
  kind: null,
  file: { name: 'a', size: 10, type: '' },
  metadata: {},
  addedAtMs: 0,
  paused: false,
  digest: null,
  copy: 'none',
  standing: { point: 'intended' },
})
const idbJournal = (wallMs = (): number => Date.now()): Journal => createIdbJournal({ wallMs })
const insert =
  (record: JournalRecord): Change =>
  () =>
    record

const asked = <T>(request: IDBRequest<T>): Promise<T> =>
  new Promise((resolve, reject) => {
    request.addEventListener('success', () => resolve(request.result))
    request.addEventListener('error', () => reject(request.error ?? new Error('IndexedDB')))
  })
const deleteDatabase = (name: string): Promise<unknown> => asked(indexedDB.deleteDatabase(name))
/** Reads and writes the journal's database without the journal. */
async function raw<T>(work: (store: IDBObjectStore) => IDBRequest<T>): Promise<T> {
  const database = await asked(indexedDB.open('landfall-journal'))
  try {
    return await asked(work(database.transaction('operations', 'readwrite').objectStore('operations')))
  } finally {
    database.close()
  }
}
const rawKeys = (): Promise<IDBValidKey[]> => raw((store) => store.getAllKeys())
const rawValues = (): Promise<unknown[]> => raw((store) => store.getAll())
const putRaw = (key: IDBValidKey, value: unknown): Promise<unknown> => raw((store) => store.put(value, key))
/** Waits for work that no call waits for. */
const settledSoon = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 50))

beforeEach(() => void Object.assign(globalThis, { indexedDB: new IDBFactory(), IDBKeyRange }))

/** What every journal must do. */
const kinds: [string, () => Journal][] = [
  ['in IndexedDB', idbJournal],
  ['in memory', createMemoryJournal],
  ['resilient', () => createResilientJournal(idbJournal(), createFastClock(), () => {})],
]
for (const [name, create] of kinds) {
  describe(name, () => {
    it('keeps scopes apart, whatever they are called', async () => {
      const journal = create()
      for (const scope of ['a', 'a,b', 'a/', 'ä', '', 'a\u0000']) {
        await journal.update(scope, 'x', insert(recordOf('x', scope)))
      }
      for (const scope of ['a', 'a,b', 'a/', 'ä', '', 'a\u0000']) {
        expect((await journal.load(scope)).map((record) => record.scope)).toEqual([scope])
      }
      await journal.purge('a')
      expect(await journal.load('a')).toEqual([])
      expect(await journal.load('a,b')).toHaveLength(1)
    })

    it('pins the first owner tag for each scope, and removes it with the scope', async () => {
      const journal = create()
      const pin = (scope: string, tag: string) => journal.owner(scope, (was) => was ?? tag)
      const read = (scope: string) => journal.owner(scope, (was) => was)
      expect(await read('a')).toBeNull()
      expect(await Promise.all([pin('a', 'one'), pin('a', 'two'), pin('b', 'three')])).toEqual(['one', 'one', 'three'])
      await journal.update('a', 'x', insert(recordOf('x', 'a')))
      // The pin is not a record.
      expect((await journal.load('a')).map(({ id }) => id)).toEqual(['x'])
      expect(await journal.owner('a', () => 'given')).toBe('given')
      await journal.purge('a')
      expect([await read('a'), await read('b')]).toEqual([null, 'three'])
    })

    it('changes what is stored at that moment', async () => {
      const journal = create()
      await journal.update('alice', 'x', insert(recordOf('x')))
      await Promise.all([
        journal.update('alice', 'x', noted({ paused: true })),
        journal.update('alice', 'x', noted({ copy: 'made' })),
        journal.update('alice', 'x', moved('intended', { point: 'declared', acceptedBytes: 5 })),
      ])
      expect(await journal.load('alice')).toEqual([
        { ...recordOf('x'), paused: true, copy: 'made', standing: { point: 'declared', acceptedBytes: 5 } },
      ])
    })

    it('removes a record when a change returns undefined, and does not write it again', async () => {
      const journal = create()
      await journal.update('alice', 'x', insert(recordOf('x')))
      expect(await journal.update('alice', 'x', () => undefined)).toBeUndefined()
      expect(await journal.update('alice', 'x', noted({ paused: true }), recordOf('x'))).toBeUndefined()
      expect(await journal.update('alice', 'x', insert(recordOf('x')))).toBeUndefined()
      expect(await journal.load('alice')).toEqual([])
    })

    it('what was purged is not written again by a tab that still has it', async () => {
      const journal = create()
      await journal.update('alice', 'x', insert(recordOf('x')))
      await journal.update('bob', 'y', insert(recordOf('y', 'bob')))
      await journal.purge('alice')
      expect(await journal.update('bob', 'y', noted({ paused: true }))).toMatchObject({ paused: true })
      if (name !== 'resilient')
        expect(await journal.update('alice', 'x', noted({ paused: true }), recordOf('x'))).toBeUndefined()
      expect(await journal.load('alice')).toEqual([])
    })
  })
}

describe('records that are missing', () => {
  it('are written again if the browser has deleted the site data and no tab has removed them', async () => {
    const journal = createResilientJournal(idbJournal(), createFastClock(), () => {})
    await journal.update('alice', 'x', insert({ ...recordOf('x'), digest: 'd' }))
    await deleteDatabase('landfall-journal')
    expect(await journal.update('alice', 'x', noted({ paused: true }))).toMatchObject({ paused: true, digest: 'd' })
    expect(await idbJournal().load('alice')).toEqual([{ ...recordOf('x'), paused: true, digest: 'd' }])
  })

  it('are not written again if another tab has removed them', async () => {
    const one = createResilientJournal(idbJournal(), createFastClock(), () => {})
    const other = createResilientJournal(idbJournal(), createFastClock(), () => {})
    await one.update('alice', 'x', insert(recordOf('x')))
    await other.load('alice')
    await other.update('alice', 'x', () => undefined)
    expect(await one.update('alice', 'x', noted({ paused: true }))).toBeUndefined()
    expect(await idbJournal().load('alice')).toEqual([])
  })

  it('are remembered as removed for seven days', async () => {
    let wallMs = 0
    const journal = idbJournal(() => wallMs)
    await journal.update('alice', 'x', insert(recordOf('x')))
    await journal.update('alice', 'x', () => undefined)
    wallMs = 7 * 24 * 3_600_000
    await journal.load('alice')
    expect(await journal.update('alice', 'x', noted({ paused: true }), recordOf('x'))).toBeUndefined()
    wallMs += 1
    await journal.load('alice')
    await settledSoon()
    expect(await rawKeys()).toEqual([])
  })
})

describe('a journal whose database fails for a while', () => {
  it('loses nothing, and stores what it kept with the next write', async () => {
    const stored = idbJournal()
    let isBroken = false
    const warnings: unknown[] = []
    const flaky: Journal = {
      ...stored,
      update: async (...args) => {
        if (isBroken) throw new DOMException('full', 'QuotaExceededError')
        return stored.update(...args)
      },
    }
    const journal = createResilientJournal(flaky, createFastClock(), (cause) => warnings.push(cause))
    await journal.update('alice', 'x', insert(recordOf('x')))
    isBroken = true
    await journal.update('alice', 'x', moved('intended', { point: 'declared', acceptedBytes: 5 }))
    await journal.update('alice', 'y', insert(recordOf('y')))
    expect(await journal.load('alice')).toHaveLength(2)
    isBroken = false
    await journal.update('alice', 'x', noted({ paused: true }))
    expect(warnings).toHaveLength(1)
    expect((await stored.load('alice'))[0]).toMatchObject({ paused: true, standing: { acceptedBytes: 5 } })
    // The changes of other uploads are stored too, although nothing changes those any more.
    await settledSoon()
    expect(await stored.load('alice')).toHaveLength(2)
  })

  /**
   * A journal whose updates do what `isBroken` says: they fail, or they answer after the journal has stopped waiting.
   */
  function troubled() {
    const stored = idbJournal()
    const trouble: { kind: 'none' | 'fails' | 'slow'; late: Promise<unknown>[] } = { kind: 'none', late: [] }
    const flaky: Journal = {
      ...stored,
      async update(...args) {
        if (trouble.kind === 'fails') throw new DOMException('full', 'QuotaExceededError')
        if (trouble.kind === 'none') return stored.update(...args)
        const late = new Promise((resolve) => setTimeout(resolve, 400)).then(() => stored.update(...args))
        trouble.late.push(late)
        return late
      },
    }
    const journal = createResilientJournal(flaky, createFastClock(), () => {})
    return { journal, stored, trouble }
  }
  for (const kind of ['fails', 'slow'] as const) {
    it(`keeps what another tab did while a write ${kind === 'fails' ? 'failed' : 'was slow'}: a cancellation`, async () => {
      const { journal, stored, trouble } = troubled()
      await journal.update('alice', 'x', insert(recordOf('x')))
      trouble.kind = kind
      await journal.update('alice', 'x', noted({ copy: 'made' }))
      trouble.kind = 'none'
      await stored.update('alice', 'x', cancelled)
      await journal.update('alice', 'x', noted({ digest: 'd' }))
      await Promise.all(trouble.late)
      expect(await stored.load('alice')).toEqual([
        { ...recordOf('x'), copy: 'made', digest: 'd', standing: { point: 'cancelled' } },
      ])
    })

    it(`keeps what another tab did while a write ${kind === 'fails' ? 'failed' : 'was slow'}: a removal`, async () => {
      const { journal, stored, trouble } = troubled()
      await journal.update('alice', 'x', insert(recordOf('x')))
      trouble.kind = kind
      await journal.update('alice', 'x', noted({ copy: 'made' }))
      trouble.kind = 'none'
      await stored.update('alice', 'x', () => undefined)
      expect(await journal.update('alice', 'x', noted({ digest: 'd' }))).toBeUndefined()
      await Promise.all(trouble.late)
      expect(await stored.load('alice')).toEqual([])
    })
  }

  it('applies a change only once if it was stored after the journal had stopped waiting', async () => {
    const { journal, stored, trouble } = troubled()
    await journal.update('alice', 'x', insert(recordOf('x')))
    trouble.kind = 'slow'
    await journal.update('alice', 'x', noted({ paused: true }))
    await Promise.all(trouble.late)
    trouble.kind = 'none'
    // Another tab resumes it.
    await stored.update('alice', 'x', noted({ paused: false }))
    expect(await journal.update('alice', 'x', noted({ digest: 'd' }))).toMatchObject({ paused: false, digest: 'd' })
  })
})

describe('a newer page that upgrades a database', () => {
  for (const [name, use] of [
    ['landfall-journal', () => idbJournal().update('alice', 'x', insert(recordOf('x')))],
    ['landfall-copies', () => createIdbSource({ clock: { wallMs: () => 0 } }).keep('alice', 'a', new Blob(['a']))],
  ] as const) {
    it(`is not delayed by this page (${name})`, async () => {
      await use()
      const opening = indexedDB.open(name, 2)
      let wasBlocked = false
      opening.addEventListener('blocked', () => (wasBlocked = true))
      const upgraded = await asked(opening)
      expect(wasBlocked).toBe(false)
      upgraded.close()
    })
  }

  it('is not overwritten, and this page continues in memory with a warning', async () => {
    const warnings: unknown[] = []
    const journal = createResilientJournal(idbJournal(), createFastClock(), (cause) => warnings.push(cause))
    await journal.update('alice', 'x', insert(recordOf('x')))
    const opening = indexedDB.open('landfall-journal', 2)
    opening.addEventListener('upgradeneeded', () => {
      opening.result.deleteObjectStore('operations')
      opening.result.createObjectStore('records')
    })
    const upgraded = await asked(opening)
    expect(await journal.update('alice', 'x', noted({ paused: true }))).toMatchObject({ paused: true })
    expect(warnings).toEqual([expect.objectContaining({ name: 'VersionError' })])
    expect([...upgraded.objectStoreNames]).toEqual(['records'])
    upgraded.close()
  })
})

describe('records', () => {
  it('move only from the point at which the caller started', () => {
    const record = cancelled(recordOf('x'))
    expect(moved('intended', { point: 'declared', acceptedBytes: 0 })(record)).toBe(record)
  })
  it('do not move any more once they are settled', () => {
    const failed: JournalRecord = {
      ...recordOf('x'),
      standing: { point: 'failed', problem: { type: 't', title: 't', status: 400, code: 'c' } },
    }
    expect(cancelled(failed)).toBe(failed)
    expect(moved('failed', { point: 'received' })(failed)).toBe(failed)
  })
  it('of another version are neither read nor overwritten, and this page continues in memory', async () => {
    const warnings: unknown[] = []
    const journal = createResilientJournal(idbJournal(), createFastClock(), (cause) => warnings.push(cause))
    await journal.update('alice', 'x', insert(recordOf('x')))
    const newer = { version: 2, id: 'x', scope: 'alice', wish: { paused: true } }
    // A newer page takes the record over.
    await putRaw(['alice', 'x'], newer)
    expect(await journal.update('alice', 'x', noted({ digest: 'd' }))).toMatchObject({ digest: 'd' })
    expect(await journal.update('alice', 'x', noted({ copy: 'made' }))).toMatchObject({ digest: 'd', copy: 'made' })
    await journal.update('alice', 'x', () => undefined)
    expect(await rawValues()).toEqual([newer])
    expect(await idbJournal().load('alice')).toEqual([])
    expect(warnings).toHaveLength(1)
  })
})

describe('copies', () => {
  const blob = new Blob(['0123456789'])
  it('stay within the budget, and a dropped one makes room', async () => {
    const source = createIdbSource({ maxBytes: 25, clock: { wallMs: () => 0 } })
    expect(await source.keep('alice', 'a', blob)).toBe(true)
    expect(await source.keep('bob', 'b', blob)).toBe(true)
    expect(await source.keep('alice', 'c', blob)).toBe(false)
    await source.drop('bob', 'b')
    expect(await source.keep('alice', 'c', blob)).toBe(true)
    expect(await (await source.read('alice', 'c'))?.text()).toBe('0123456789')
    const later = createIdbSource({ maxBytes: 25, clock: { wallMs: () => 0 } })
    expect(await later.keep('alice', 'd', blob)).toBe(false)
  })
  it('are counted also when others are dropped while one is written', async () => {
    const source = createIdbSource({ maxBytes: 25, clock: { wallMs: () => 0 } })
    await source.keep('alice', 'a', blob)
    const keeping = source.keep('alice', 'b', blob)
    await source.drop('alice', 'never kept')
    expect(await keeping).toBe(true)
    expect(await source.keep('alice', 'c', blob)).toBe(false)
  })
  it('are dropped after 30 days, and when they belong to no record', async () => {
    let wallMs = 0
    const source = createIdbSource({ clock: { wallMs: () => wallMs } })
    await source.keep('alice', 'wanted', blob)
    await source.keep('alice', 'unwanted', blob)
    await source.keep('bob', 'another', blob)
    // Another tab may be about to write its record.
    await source.sweep('alice', new Set(['wanted']))
    expect(await source.read('alice', 'unwanted')).not.toBeNull()
    wallMs = 2 * 3_600_000
    await source.sweep('alice', new Set(['wanted']))
    expect(await source.read('alice', 'wanted')).not.toBeNull()
    expect(await source.read('alice', 'unwanted')).toBeNull()
    expect(await source.read('bob', 'another')).not.toBeNull()
    wallMs = 31 * 24 * 3_600_000
    await source.sweep('alice', new Set(['wanted']))
    expect(await source.read('alice', 'wanted')).toBeNull()
    expect(await source.read('bob', 'another')).toBeNull()
  })
})
