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
const insert =
  (record: JournalRecord): Change =>
  () =>
    record

beforeEach(() => void Object.assign(globalThis, { indexedDB: new IDBFactory(), IDBKeyRange }))

/** What every journal keeps. */
const kinds: [string, () => Journal][] = [
  ['in IndexedDB', createIdbJournal],
  ['in memory', createMemoryJournal],
  ['resilient', () => createResilientJournal(createIdbJournal(), createFastClock(), () => {})],
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

    it('pins one owner tag for each scope, whoever comes first, and forgets it with the scope', async () => {
      const journal = create()
      const pin = (scope: string, tag: string) => journal.owner(scope, (was) => was ?? tag)
      const read = (scope: string) => journal.owner(scope, (was) => was)
      expect(await read('a')).toBeNull()
      expect(await Promise.all([pin('a', 'one'), pin('a', 'two'), pin('b', 'three')])).toEqual(['one', 'one', 'three'])
      await journal.update('a', 'x', insert(recordOf('x', 'a')))
      // It is no record.
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

    it('undefined removes, and what is not there stays so', async () => {
      const journal = create()
      await journal.update('alice', 'x', insert(recordOf('x')))
      expect(await journal.update('alice', 'x', () => undefined)).toBeUndefined()
      expect(await journal.update('alice', 'x', noted({ paused: true }))).toBeUndefined()
      expect(await journal.load('alice')).toEqual([])
    })
  })
}

describe('a journal whose database fails for a while', () => {
  it('loses nothing, and stores what it kept with the next write', async () => {
    const stored = createIdbJournal()
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
  })
})

describe('records', () => {
  it('move only from the point that the mover started at', () => {
    const record = cancelled(recordOf('x'))
    expect(moved('intended', { point: 'declared', acceptedBytes: 0 })(record)).toBe(record)
  })
  it('a settled one moves nowhere', () => {
    const failed: JournalRecord = {
      ...recordOf('x'),
      standing: { point: 'failed', problem: { type: 't', title: 't', status: 400, code: 'c' } },
    }
    expect(cancelled(failed)).toBe(failed)
    expect(moved('failed', { point: 'received' })(failed)).toBe(failed)
  })
  it('of another layout are left alone', async () => {
    const journal = createIdbJournal()
    await journal.update('alice', 'x', () => ({ ...recordOf('x'), version: 2 }) as unknown as JournalRecord) // oxlint-disable-line typescript/no-unsafe-type-assertion -- a later version's record
    expect(await journal.load('alice')).toEqual([])
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
  it('go after 30 days, and when no record wants them', async () => {
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
