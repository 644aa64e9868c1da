import { createHash } from 'node:crypto'
import { problem } from '@landfall/shared'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { noted } from '../src/operation.js'
import type { Upload, UploadSnapshot } from '../src/types.js'
import { bytesOf, fileOf, openBrowser, type Tab, type TabOptions, until } from './browser.js'
import { type FakeServer, startFakeServer, staysQuiet } from './fake-server.js'

const KIB = 1024
const MIB = 1024 * KIB
const SIZE = 4 * MIB

let server: FakeServer
let browser: ReturnType<typeof openBrowser>
const tabs: Tab[] = []

const openTab = (options: Partial<TabOptions> = {}): Tab => {
  const tab = browser.tab({ endpoint: server.endpoint, ...options })
  tabs.push(tab)
  return tab
}
const settled = (upload: Upload): ReturnType<Upload['settled']> =>
  upload.settled({ signal: AbortSignal.timeout(15_000) })
const bytesAt = (id: string): Buffer => server.operations.get(id)?.bytes ?? Buffer.alloc(0)
const isStored = (id: string, size = SIZE, seed = 1): boolean => Buffer.from(bytesOf(size, seed)).equals(bytesAt(id))
const journal = async (tab: Tab, scope = 'alice') => tab.ports.journal.load(tab.ports.namespaceOf(scope))

/** Lets the server stop answering PATCHes once it has so many bytes, until `open` is called. */
function dam(bytes: number): { open(): void } {
  let isOpen = false
  server.fault = ({ method, id }) =>
    !isOpen && method === 'PATCH' && bytesAt(id ?? '').length >= bytes ? { kind: 'black-hole' } : null
  return {
    open: () => {
      isOpen = true
    },
  }
}

/** One upload that a killed tab left in the middle. */
async function leaveBehind(options: Partial<TabOptions> = {}, wanted: 'verified' | 'none' = 'verified') {
  const flood = dam(MIB)
  const tab = openTab(options)
  const upload = tab.uploader.add(fileOf(SIZE))
  await until('a part is there', () => bytesAt(upload.id).length >= MIB)
  let copy = 'none'
  while (copy !== wanted) {
    await new Promise((resolve) => setTimeout(resolve, 10))
    copy = (await journal(tab))[0]?.copy ?? ''
  }
  await tab.kill()
  flood.open()
  return { id: upload.id, offset: bytesAt(upload.id).length, patches: server.count('PATCH') }
}
const again = async (options: Partial<TabOptions> = {}) => {
  const tab = openTab(options)
  await tab.uploader.start()
  const [snapshot] = tab.uploader.snapshot().uploads
  const upload = snapshot === undefined ? null : tab.uploader.get(snapshot.id)
  if (upload === null) throw new Error('nothing was recovered')
  return { tab, upload }
}
const needsFile = async (upload: Upload): Promise<UploadSnapshot['activity']> => {
  await until('it needs the file', () => upload.snapshot().activity.state === 'needs-file')
  return upload.snapshot().activity
}

beforeEach(async () => {
  server = await startFakeServer()
  browser = openBrowser()
})
afterEach(async () => {
  for (const tab of tabs.splice(0)) await tab.kill()
  await server.close()
})

describe('after a killed tab', () => {
  it('the upload resumes by itself from the verified copy, at the acknowledged offset', async () => {
    const { id, offset, patches } = await leaveBehind()
    const { upload } = await again()
    expect(upload.id).toBe(id)
    expect(upload.snapshot()).toMatchObject({ recovered: true, point: 'declared' })
    expect(upload.snapshot().progress.acceptedBytes).toBeGreaterThan(0)
    expect(await settled(upload)).toMatchObject({ ok: true, reference: { digestSource: 'client' } })
    expect(isStored(id)).toBe(true)
    const later = server.seen.filter(({ method }) => method === 'PATCH').slice(patches)
    expect(Math.min(...later.map((patch) => patch.offset))).toBe(offset)
    expect(server.operations.size).toBe(1)
  })

  it('the copy is dropped when there is a reference', async () => {
    await leaveBehind()
    const { tab, upload } = await again()
    await settled(upload)
    while ((await tab.ports.source.read(tab.ports.namespaceOf('alice'), upload.id)) !== null)
      await new Promise((resolve) => setTimeout(resolve, 5))
    expect((await journal(tab))[0]).toMatchObject({ copy: 'none', standing: { point: 'referenced' } })
  })

  it('the copy is dropped after a cancellation', async () => {
    await leaveBehind()
    const { tab, upload } = await again()
    await upload.cancel()
    await settled(upload)
    while ((await tab.ports.source.read(tab.ports.namespaceOf('alice'), upload.id)) !== null)
      await new Promise((resolve) => setTimeout(resolve, 5))
    expect(await journal(tab)).toEqual([])
  })

  it('no copy is made over the budget, and the user is asked for the file', async () => {
    await leaveBehind({ copies: { maxBytes: MIB } }, 'none')
    const { upload } = await again()
    expect(await needsFile(upload)).toEqual({ state: 'needs-file', why: 'source-missing' })
    upload.provide(fileOf(SIZE))
    expect(await settled(upload)).toMatchObject({ ok: true })
    expect(isStored(upload.id)).toBe(true)
  })

  it('without a worker no copy is made, and the user is asked for the file, which is proven on this thread', async () => {
    await leaveBehind({ worker: false }, 'none')
    const { upload } = await again({ worker: false })
    await needsFile(upload)
    upload.provide(fileOf(SIZE))
    expect(await settled(upload)).toMatchObject({ ok: true })
    expect(isStored(upload.id)).toBe(true)
  })

  it('a copy that is not the file is never sent', async () => {
    const { id, patches } = await leaveBehind()
    const spy = openTab({ scope: 'nobody' })
    await spy.uploader.start()
    await spy.ports.source.drop(spy.ports.namespaceOf('alice'), id)
    await spy.ports.source.keep(spy.ports.namespaceOf('alice'), id, fileOf(SIZE, 2))
    await spy.ports.journal.update(spy.ports.namespaceOf('alice'), id, noted({ copy: 'made' }))
    const { tab, upload } = await again()
    expect(await needsFile(upload)).toEqual({ state: 'needs-file', why: 'source-missing' })
    expect(server.count('PATCH')).toBe(patches)
    expect(await tab.ports.source.read(tab.ports.namespaceOf('alice'), id)).toBeNull()
  })

  it('a copy that was not verified yet is verified before it is used', async () => {
    const { id } = await leaveBehind()
    const spy = openTab({ scope: 'nobody' })
    await spy.uploader.start()
    await spy.ports.journal.update(spy.ports.namespaceOf('alice'), id, noted({ copy: 'made' }))
    const { tab, upload } = await again()
    expect(await settled(upload)).toMatchObject({ ok: true })
    expect(tab.digester.digested).toBeGreaterThan(0)
    expect(isStored(id)).toBe(true)
  })

  it('no file is needed if all bytes were accepted', async () => {
    server.outcome = () => 'hang'
    const tab = openTab({ worker: false })
    const upload = tab.uploader.add(fileOf(SIZE))
    await until('all is there', () => bytesAt(upload.id).length === SIZE)
    await tab.kill()
    server.outcome = () => 'reference'
    const { upload: recovered } = await again({ worker: false })
    server.drive()
    expect(await settled(recovered)).toMatchObject({ ok: true })
  })

  it('an upload that was not declared yet is declared under the same id', async () => {
    server.fault = () => ({ kind: 'black-hole' })
    const tab = openTab()
    const first = tab.uploader.add(fileOf(SIZE))
    await until('it was tried', () => server.seen.length > 0)
    await tab.kill()
    server.fault = () => null
    const { upload } = await again()
    expect(upload.id).toBe(first.id)
    await needsFile(upload)
    upload.provide(fileOf(SIZE))
    expect(await settled(upload)).toMatchObject({ ok: true })
  })
})

describe('a new pick', () => {
  const changed = (at: number): File => {
    const bytes = bytesOf(SIZE)
    bytes[at] = (bytes[at] ?? 0) ^ 1
    return new File([bytes], 'a.bin', { type: 'application/octet-stream', lastModified: 1_700_000_000_000 })
  }

  it.each([null, 100_000, 50_000_000])(
    'with one byte changed in the accepted prefix is not sent at all, and the right file can still be provided (parts of %s)',
    async (partBytes) => {
      server.partBytes = partBytes
      const { id, patches } = await leaveBehind({ copies: { maxBytes: 0 } }, 'none')
      const { upload } = await again()
      await needsFile(upload)
      upload.provide(changed(1000))
      await until('it is refused', () => {
        const { activity } = upload.snapshot()
        return activity.state === 'needs-file' && activity.why === 'source-changed'
      })
      expect(server.count('PATCH')).toBe(patches)
      upload.provide(fileOf(SIZE))
      expect(await settled(upload)).toMatchObject({ ok: true })
      expect(isStored(id)).toBe(true)
    },
  )

  it('with another size is refused without asking for the prefix', async () => {
    await leaveBehind({ copies: { maxBytes: 0 } }, 'none')
    const prefixes = server.count('PREFIX')
    const { upload } = await again()
    await needsFile(upload)
    upload.provide(fileOf(SIZE + 1))
    await until('it is refused', () => {
      const { activity } = upload.snapshot()
      return activity.state === 'needs-file' && activity.why === 'source-changed'
    })
    expect(server.count('PREFIX')).toBe(prefixes)
  })

  it('with one byte changed behind the prefix is not sent at all when the digest is known, and the right file can still be provided', async () => {
    const { id, offset } = await leaveBehind({ copies: { maxBytes: 0 } }, 'none')
    // The digest of the true file was recorded by an earlier page.
    server.change(id, { digest: `sha-256=:${createHash('sha256').update(bytesOf(SIZE)).digest('base64')}:` })
    const { upload } = await again()
    await needsFile(upload)
    upload.provide(changed(SIZE - 5))
    await until('it is refused', () => {
      const { activity } = upload.snapshot()
      return activity.state === 'needs-file' && activity.why === 'source-changed'
    })
    expect(bytesAt(upload.id).length).toBe(offset)
    expect(upload.snapshot().point).toBe('declared')
    upload.provide(fileOf(SIZE))
    expect(await settled(upload)).toMatchObject({ ok: true })
    expect(isStored(id)).toBe(true)
  })

  it('that cannot be read is reported as unreadable', async () => {
    await leaveBehind({ copies: { maxBytes: 0 } }, 'none')
    const { upload } = await again()
    await needsFile(upload)
    upload.provide(unreadable(fileOf(SIZE)))
    await until('it is refused', () => {
      const { activity } = upload.snapshot()
      return activity.state === 'needs-file' && activity.why === 'source-unreadable'
    })
  })
})

it('a page that is left while it reads its journal recovers the uploads when it comes back', async () => {
  const { id } = await leaveBehind()
  const tab = openTab()
  const started = tab.uploader.start()
  tab.clock.hide()
  await started
  expect(tab.uploader.get(id)).toBeNull()
  tab.clock.show()
  await until('it is recovered', () => tab.uploader.snapshot().recovered)
  const upload = tab.uploader.get(id)
  expect(upload && (await settled(upload))).toMatchObject({ ok: true })
})

/** Like a file that was changed on disk: its size is known, but its bytes cannot be read. */
function unreadable<T extends Blob>(file: T): T {
  const slice = (from?: number, to?: number): Blob => {
    const part = Blob.prototype.slice.call(file, from, to)
    part.arrayBuffer = async () => {
      throw new DOMException('changed on disk', 'NotReadableError')
    }
    return part
  }
  return Object.assign(file, { slice })
}

it('a file that changes on disk in the middle is distinguished from a broken network', async () => {
  const file = fileOf(SIZE)
  const tab = openTab({ copies: { maxBytes: 0 } })
  const upload = tab.uploader.add(file)
  await until('a part is there', () => bytesAt(upload.id).length > 0)
  unreadable(file)
  expect(await needsFile(upload)).toEqual({ state: 'needs-file', why: 'source-unreadable' })
  upload.provide(fileOf(SIZE))
  expect(await settled(upload)).toMatchObject({ ok: true })
  expect(isStored(upload.id)).toBe(true)
})

describe('two tabs', () => {
  it('the second waits, and takes over when the first dies', async () => {
    const flood = dam(MIB)
    const first = openTab()
    const { id } = first.uploader.add(fileOf(SIZE))
    await until('a part is there', () => bytesAt(id).length >= MIB)
    let copy = ''
    while (copy !== 'verified') {
      await new Promise((resolve) => setTimeout(resolve, 10))
      copy = (await journal(first))[0]?.copy ?? ''
    }
    const { upload } = await again()
    await until('it waits', () => upload.snapshot().activity.state === 'waiting')
    expect(upload.snapshot().activity).toMatchObject({ why: 'another-tab' })
    flood.open()
    await first.kill()
    expect(await settled(upload)).toMatchObject({ ok: true })
    expect(isStored(id)).toBe(true)
    expect(server.operations.size).toBe(1)
  })

  it('a cancellation in the second ends an upload that runs in the first', async () => {
    dam(MIB)
    const first = openTab()
    const mine = first.uploader.add(fileOf(SIZE))
    await until('a part is there', () => bytesAt(mine.id).length >= MIB)
    const { upload } = await again()
    await upload.cancel()
    await until('the server knows', () => server.operations.get(mine.id)?.operation.recoveryPoint === 'cancelled')
    expect(await settled(upload)).toMatchObject({ ok: false, problem: { code: 'cancelled' } })
  })

  it('the second forgets an upload that the first has acknowledged', async () => {
    server.outcome = () => 'hang'
    const first = openTab()
    const mine = first.uploader.add(fileOf(10))
    await until('it is finishing', () => mine.snapshot().activity.state === 'finishing')
    const { tab: second, upload } = await again()
    server.outcome = () => 'reference'
    server.drive()
    await settled(mine)
    await mine.acknowledge()
    await until('it left the list', () => second.uploader.snapshot().uploads.length === 0)
    await expect(settled(upload)).rejects.toMatchObject({ name: 'UploadError', code: 'forgotten' })
  })
})

describe('the event referenced', () => {
  it('is sent again after a reload until the upload is acknowledged, and never afterwards', async () => {
    const tab = openTab()
    const told: string[] = []
    tab.uploader.on('referenced', (upload) => void told.push(upload.reference.operationId))
    const upload = tab.uploader.add(fileOf(10))
    await until('it is told', () => told.length === 1)
    await tab.kill()
    const later = openTab()
    later.uploader.on('referenced', async (same) => {
      told.push(same.id)
      await same.acknowledge()
    })
    await later.uploader.start()
    await until('it is told again', () => told.length === 2)
    await until('it is acknowledged', () => later.uploader.snapshot().uploads.length === 0)
    await later.kill()
    const last = openTab()
    last.uploader.on('referenced', () => void told.push('never'))
    await last.uploader.start()
    await new Promise((resolve) => setTimeout(resolve, 100))
    expect(told).toEqual([upload.id, upload.id])
  })

  it('reaches a handler that is added late', async () => {
    const tab = openTab()
    const upload = tab.uploader.add(fileOf(10))
    await settled(upload)
    const told: string[] = []
    tab.uploader.on('referenced', (late) => void told.push(late.id))
    await until('it is told', () => told.length === 1)
  })

  it('is not acknowledged by a handler that throws, and there is a warning', async () => {
    const tab = openTab()
    const warnings: string[] = []
    tab.uploader.on('warning', ({ code }) => void warnings.push(code))
    tab.uploader.on('referenced', () => {
      throw new Error('broken page')
    })
    await settled(tab.uploader.add(fileOf(10)))
    await until('it is warned of', () => warnings.includes('handler-failed'))
    expect(tab.uploader.snapshot().uploads).toHaveLength(1)
  })
})

describe('scopes', () => {
  it('no request carries an operation of another scope, and its own user finds it again', async () => {
    const { id } = await leaveBehind()
    const before = server.seen.length
    const bob = openTab({ scope: 'bob' })
    await bob.uploader.start()
    expect(bob.uploader.snapshot().uploads).toEqual([])
    await settled(bob.uploader.add(fileOf(10)))
    const carrying = server.seen
      .slice(before)
      .filter((seen) => JSON.stringify([seen.path, [...seen.query]]).includes(id))
    expect(carrying).toEqual([])
    await bob.uploader.close()
    const { upload } = await again()
    expect(await settled(upload)).toMatchObject({ ok: true })
  })

  it('purge forgets records and copies of one scope only', async () => {
    const { id } = await leaveBehind()
    const bob = openTab({ scope: 'bob' })
    await bob.uploader.start()
    server.outcome = () => 'hang'
    bob.uploader.add(fileOf(10))
    await until('it is under way', () => server.operations.size === 2)
    await bob.uploader.purge('alice')
    expect(await journal(bob, 'alice')).toEqual([])
    expect(await bob.ports.source.read(bob.ports.namespaceOf('alice'), id)).toBeNull()
    expect(await journal(bob, 'bob')).toHaveLength(1)
  })

  it('purge of the own scope stops everything', async () => {
    dam(MIB)
    const tab = openTab()
    const upload = tab.uploader.add(fileOf(SIZE))
    await until('a part is there', () => bytesAt(upload.id).length >= MIB)
    await tab.uploader.purge()
    expect(tab.uploader.snapshot().uploads).toEqual([])
    await expect(settled(upload)).rejects.toMatchObject({ code: 'forgotten' })
    await staysQuiet(server)
  })
})

describe('start and close', () => {
  it('start, close and start in one tick leave the uploads running', async () => {
    const { upload: left } = { upload: await leaveBehind() }
    const tab = openTab()
    void tab.uploader.start()
    void tab.uploader.close()
    await tab.uploader.start()
    const upload = tab.uploader.get(left.id)
    expect(upload).not.toBeNull()
    if (upload !== null) expect(await settled(upload)).toMatchObject({ ok: true })
  })

  it('close stops requests at once, keeps the journal, and a later start continues with the same handle', async () => {
    const flood = dam(MIB)
    const { uploader } = openTab()
    const upload = uploader.add(fileOf(SIZE))
    await until('a part is there', () => bytesAt(upload.id).length >= MIB)
    await uploader.close()
    expect(upload.snapshot().activity).toEqual({ state: 'idle' })
    expect(() => uploader.add(fileOf(1))).toThrow(expect.objectContaining({ code: 'closed' }))
    await staysQuiet(server)
    flood.open()
    await uploader.start()
    expect(await settled(upload)).toMatchObject({ ok: true })
    expect(isStored(upload.id)).toBe(true)
  })

  it('the snapshot is the same object until something changed, and listeners are called at most once a frame', async () => {
    const { uploader } = openTab()
    await uploader.start()
    let calls = 0
    uploader.subscribe(() => (calls += 1))
    const before = uploader.snapshot()
    expect(uploader.snapshot()).toBe(before)
    const uploads = Array.from({ length: 20 }, (_, at) => uploader.add(fileOf(10, at, String(at))))
    const after = uploader.snapshot()
    expect(after).not.toBe(before)
    expect(after.uploads.map(({ id }) => id)).toEqual(uploads.map(({ id }) => id))
    const startMs = performance.now()
    for (const upload of uploads) await settled(upload)
    // Node has no frames. The timer that replaces them runs every 100 ms.
    expect(calls).toBeLessThanOrEqual(Math.ceil((performance.now() - startMs) / 100) + 2)
  })
})

it('a journal that cannot be written degrades to memory with one warning, and blocks nothing', async () => {
  Object.assign(globalThis, {
    indexedDB: {
      open() {
        throw new DOMException('not here', 'SecurityError')
      },
    },
  })
  const tab = openTab()
  const warnings: string[] = []
  tab.uploader.on('warning', ({ code }) => void warnings.push(code))
  const upload = tab.uploader.add(fileOf(SIZE))
  expect(await settled(upload)).toMatchObject({ ok: true })
  expect(warnings.filter((code) => code === 'journal-in-memory')).toHaveLength(1)
})

it('a warning is in the snapshot, and reaches a handler that is added late', async () => {
  Object.assign(globalThis, {
    indexedDB: {
      open() {
        throw new DOMException('not here', 'SecurityError')
      },
    },
  })
  const tab = openTab()
  await settled(tab.uploader.add(fileOf(10)))
  expect(tab.uploader.snapshot().warnings.map(({ code }) => code)).toContain('journal-in-memory')
  const warnings: string[] = []
  tab.uploader.on('warning', ({ code }) => void warnings.push(code))
  await until('it is told', () => warnings.length > 0)
  expect(warnings.filter((code) => code === 'journal-in-memory')).toHaveLength(1)
})

describe('site data that is deleted while an upload runs', () => {
  const deleteJournal = (): Promise<void> =>
    new Promise((resolve, reject) => {
      const deleting = indexedDB.deleteDatabase('landfall-journal')
      deleting.addEventListener('success', () => resolve())
      deleting.addEventListener('error', () => reject(new Error('it stays')))
    })

  it('the upload stays in the list and arrives, and its record is written again', async () => {
    const flood = dam(MIB)
    const tab = openTab()
    const upload = tab.uploader.add(fileOf(SIZE))
    await until('a part is there', () => bytesAt(upload.id).length >= MIB)
    await deleteJournal()
    flood.open()
    expect(await settled(upload)).toMatchObject({ ok: true })
    expect(tab.uploader.snapshot().uploads.map(({ id }) => id)).toEqual([upload.id])
    expect(isStored(upload.id)).toBe(true)
    expect(server.operations.size).toBe(1)
    expect(await journal(tab)).toMatchObject([{ id: upload.id, standing: { point: 'referenced' } }])
  })

  it('the user can still pause, resume and cancel it', async () => {
    dam(MIB)
    const tab = openTab()
    const upload = tab.uploader.add(fileOf(SIZE))
    await until('a part is there', () => bytesAt(upload.id).length >= MIB)
    await deleteJournal()
    upload.pause()
    await until('it is paused', () => upload.snapshot().activity.state === 'paused')
    await deleteJournal()
    upload.resume()
    await until('it goes on', () => upload.snapshot().activity.state === 'running')
    await deleteJournal()
    await upload.cancel()
    expect(await settled(upload)).toMatchObject({ ok: false, problem: { code: 'cancelled' } })
    expect(await journal(tab)).toEqual([])
  })
})

it('a journal that never answers blocks nothing', async () => {
  Object.assign(globalThis, { indexedDB: { open: () => ({}) } })
  const upload = openTab().uploader.add(fileOf(10))
  expect(await settled(upload)).toMatchObject({ ok: true })
})

it('the record is in the journal before the first request is sent', async () => {
  const tab = openTab()
  await tab.uploader.start()
  const { update } = tab.ports.journal
  let isWritten = false
  tab.ports.journal.update = async (...args) => {
    await new Promise((resolve) => setTimeout(resolve, 50))
    const result = await update(...args)
    isWritten = true
    return result
  }
  let wasWritten: boolean | null = null
  server.fault = () => {
    wasWritten ??= isWritten
    return null
  }
  await settled(tab.uploader.add(fileOf(10)))
  expect(wasWritten).toBe(true)
})

it('a final refusal of the server is not tried again on the next page', async () => {
  server.fault = ({ method }) => (method === 'PUT' ? { kind: 'problem', problem: problem('too-large') } : null)
  const tab = openTab()
  await settled(tab.uploader.add(fileOf(10)))
  await tab.kill()
  const requests = server.seen.length
  const { upload } = await again()
  expect(await settled(upload)).toMatchObject({ ok: false, problem: { code: 'too-large' } })
  expect(server.seen.length).toBe(requests)
})
