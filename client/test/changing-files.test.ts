/** Files that are edited while they are sent, reads that fail for a moment, and copies that differ from their file. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { createDigester } from '../src/adapters/worker-digester.js'
import { noted } from '../src/operation.js'
import type { Upload, UploadSnapshot } from '../src/types.js'
import { bytesOf, createFastClock, fileOf, openBrowser, type Tab, type TabOptions, until } from './browser.js'
import { type FakeServer, startFakeServer } from './fake-server.js'
import { breakReads, type LiveFile, liveFile } from './live-file.js'

const KIB = 1024
const MIB = 1024 * KIB
const SIZE = 4 * MIB
const SEEDS = 24

let server: FakeServer
let browser: ReturnType<typeof openBrowser>
const tabs: Tab[] = []
const repairs: (() => void)[] = []

const openTab = (options: Partial<TabOptions> = {}): Tab => {
  const tab = browser.tab({ endpoint: server.endpoint, ...options })
  tabs.push(tab)
  return tab
}
const settled = (upload: Upload): ReturnType<Upload['settled']> =>
  upload.settled({ signal: AbortSignal.timeout(15_000) })
const bytesAt = (id: string): Buffer => server.operations.get(id)?.bytes ?? Buffer.alloc(0)
const pointAt = (id: string): string => server.operations.get(id)?.operation.recoveryPoint ?? ''
const copyOf = async (tab: Tab): Promise<string> =>
  (await tab.ports.journal.load(tab.ports.namespaceOf('alice')))[0]?.copy ?? ''
const whyNot = ({ activity }: UploadSnapshot): string | null => (activity.state === 'needs-file' ? activity.why : null)
async function isCopied(tab: Tab): Promise<void> {
  const endMs = Date.now() + 8_000
  while ((await copyOf(tab)) !== 'verified') {
    if (Date.now() > endMs) throw new Error('never: there is a verified copy')
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}
/** Lets the server stop answering PATCHes once it has so many bytes. */
function dam(bytes: number): { open(): void } {
  let isOpen = false
  server.fault = ({ method, id }) =>
    !isOpen && method === 'PATCH' && bytesAt(id ?? '').length >= bytes ? { kind: 'dropped' } : null
  return {
    open: () => {
      isOpen = true
    },
  }
}
const broken = (): ReturnType<typeof breakReads> => {
  const reads = breakReads()
  repairs.push(reads.repair)
  return reads
}
/** The upload has ended: with a reference, with a final refusal, or with a reason for the user. */
const isOver = (upload: Upload): boolean => {
  const snapshot = upload.snapshot()
  return snapshot.point === 'referenced' || snapshot.point === 'failed' || whyNot(snapshot) !== null
}

beforeEach(async () => {
  server = await startFakeServer()
  browser = openBrowser()
})
afterEach(async () => {
  for (const repair of repairs.splice(0)) repair()
  for (const tab of tabs.splice(0)) await tab.kill()
  await server.close()
})

describe('a file that is edited while it is sent', () => {
  const begin = async (options: Partial<TabOptions>) => {
    const flood = dam(MIB)
    const live = liveFile(bytesOf(SIZE))
    const tab = openTab(options)
    const upload = tab.uploader.add(live.file)
    await until('a part is there', () => bytesAt(upload.id).length >= MIB)
    return { flood, live, tab, upload }
  }

  it('arrives unchanged, because the verified copy is sent', async () => {
    const { flood, live, tab, upload } = await begin({})
    await isCopied(tab)
    live.edit(0, bytesOf(SIZE, 2))
    flood.open()
    expect(await settled(upload)).toMatchObject({ ok: true, reference: { digestSource: 'client' } })
    expect(bytesAt(upload.id).equals(Buffer.from(bytesOf(SIZE)))).toBe(true)
  })

  for (const worker of [true, false]) {
    it(`is refused with a reason if there is no copy, and never becomes a mixture (${worker ? 'with' : 'without'} a worker)`, async () => {
      const { flood, live, upload } = await begin({ worker, copies: { maxBytes: 0 } })
      // The digest is complete, and it is that of the old bytes.
      await until('the digest is told', () => server.operations.get(upload.id)?.operation.digest !== null)
      live.edit(SIZE - 1000, bytesOf(1000, 2))
      flood.open()
      expect(await settled(upload)).toMatchObject({ ok: false, problem: { code: 'digest-mismatch' } })
    })

    it(`in front of and behind the bytes that are being hashed gets no reference, although stored and hashed bytes would be equal (${worker ? 'with' : 'without'} a worker)`, async () => {
      const live = liveFile(bytesOf(SIZE))
      const tab = openTab({ worker, copies: { maxBytes: 0 } })
      let letGo = (): void => {}
      tab.digester.hold = new Promise((resolve) => (letGo = resolve))
      const upload = tab.uploader.add(live.file)
      await until('the front is there', () => bytesAt(upload.id).length >= MIB)
      const isHashing = vi.fn((at: number, bytes: number) => {
        if (bytes !== MIB || at < 2 * MIB || isHashing.mock.results.some(({ value }) => value === true)) return false
        live.edit(10, bytesOf(10, 2))
        live.edit(SIZE - 10, bytesOf(10, 3))
        return true
      })
      live.onRead = isHashing
      letGo()
      await until('it is over', () => isOver(upload))
      expect(isHashing.mock.results.filter(({ value }) => value === true)).toHaveLength(1)
      expect(whyNot(upload.snapshot())).toBe('source-changed')
      expect(pointAt(upload.id)).toBe('declared')
    })
  }

  for (const worker of [true, false]) {
    it(`in front of and behind the bytes that are being hashed gets no reference if it is a new pick (${worker ? 'with' : 'without'} a worker)`, async () => {
      const { flood, tab: first, upload: left } = await begin({ worker, copies: { maxBytes: 0 } })
      await first.kill()
      // What the first page knew of it is lost. The server has a part of it, and no digest.
      server.change(left.id, { digest: null })
      const live = liveFile(bytesOf(SIZE))
      const tab = openTab({ worker, copies: { maxBytes: 0 } })
      await tab.uploader.start()
      await tab.ports.journal.update(tab.ports.namespaceOf('alice'), left.id, noted({ digest: null }))
      await tab.uploader.close()
      await tab.uploader.start()
      const upload = tab.uploader.get(left.id)
      if (upload === null) throw new Error('nothing was recovered')
      await until('it needs the file', () => whyNot(upload.snapshot()) !== null)
      let edits = 0
      live.onRead = (at, bytes) => {
        if (bytes !== MIB || at < 2 * MIB || (edits += 1) > 1) return
        live.edit(10, bytesOf(10, 2))
        live.edit(SIZE - 10, bytesOf(10, 3))
      }
      upload.provide(live.file)
      flood.open()
      await until('it is over', () => edits > 0 && isOver(upload))
      expect(whyNot(upload.snapshot())).toBe('source-changed')
      expect(pointAt(upload.id)).toBe('declared')
    })
  }

  it(
    'gets a reference only to one version of it, wherever and whenever it is edited',
    { timeout: 120_000 },
    async () => {
      const outcomes = new Map<string, number>()
      for (let seed = 1; seed <= SEEDS; seed += 1) {
        const random = randomOf(seed)
        const size = MIB + Math.floor(random() * 2 * MIB)
        const live = liveFile(bytesOf(size, seed), `${seed}.bin`)
        const versions = [live.bytes()]
        const tab = openTab({
          scope: `seed ${seed}`,
          worker: random() < 0.6,
          ...(random() < 0.5 ? {} : { copies: { maxBytes: 0 } }),
        })
        let reads = 0
        const editAt = Math.floor(random() * 18)
        live.onRead = () => {
          if ((reads += 1) !== editAt) return
          for (let edits = 1 + Math.floor(random() * 4); edits > 0; edits -= 1) {
            const at = Math.floor(random() * (size - 100))
            live.edit(at, bytesOf(1 + Math.floor(random() * 100), seed + edits))
          }
          versions.push(live.bytes())
        }
        // A browser copies what the file contains now. Node would copy what the file was made of.
        await tab.uploader.start()
        const { keep } = tab.ports.source
        tab.ports.source.keep = (scope, id, file) =>
          keep(scope, id, file === live.file ? new Blob([Uint8Array.from(live.bytes())]) : file)
        const upload = tab.uploader.add(live.file)
        await until(`seed ${seed} is over`, () => isOver(upload))
        const { point } = upload.snapshot()
        outcomes.set(point, (outcomes.get(point) ?? 0) + 1)
        if (point === 'referenced') {
          expect(
            versions.some((version) => version.equals(bytesAt(upload.id))),
            `seed ${seed}`,
          ).toBe(true)
        }
        await tab.kill()
      }
      expect(outcomes.get('referenced')).toBeGreaterThan(3)
      expect(SEEDS - (outcomes.get('referenced') ?? 0)).toBeGreaterThan(3)
    },
  )
})

describe('a copy that is finished while what was sent is compared with the server', () => {
  it('begins the digest again, and the upload arrives', async () => {
    const tab = openTab()
    await tab.uploader.start()
    const copying = gate()
    const comparing = gate()
    const { source, ledger } = tab.ports
    const { keep } = source
    source.keep = async (...args) => {
      await copying.pass()
      return keep(...args)
    }
    const { prefix } = ledger
    ledger.prefix = async (...args) => {
      const answer = await prefix(...args)
      await comparing.pass()
      return answer
    }
    const first = gate()
    tab.digester.hold = first.pass()
    const upload = tab.uploader.add(fileOf(SIZE))
    await until('the copy has begun', () => copying.waiting() && tab.digester.digested === 1)
    first.open()
    await until('the server is asked what it has', comparing.waiting)
    const second = gate()
    tab.digester.hold = second.pass()
    copying.open()
    await until('all of it is read again', () => tab.digester.digested === 2)
    comparing.open()
    await new Promise((resolve) => setTimeout(resolve, 50))
    second.open()
    expect(await settled(upload)).toMatchObject({ ok: true, reference: { digestSource: 'client' } })
    expect(bytesAt(upload.id).equals(Buffer.from(bytesOf(SIZE)))).toBe(true)
  })
})

/** Callers of `pass` wait until the gate is opened. */
function gate(): { pass(): Promise<void>; waiting(): boolean; open(): void } {
  let open = (): void => {}
  let isWaiting = false
  const opened = new Promise<void>((resolve) => (open = resolve))
  return {
    pass() {
      isWaiting = true
      return opened
    },
    waiting: () => isWaiting,
    open: () => open(),
  }
}

/** Mulberry32. */
function randomOf(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}

describe('a read that fails', () => {
  it('for a moment, as in WebKit when a link becomes a download, has no consequence', async () => {
    const flood = dam(MIB)
    const tab = openTab({ worker: false })
    const upload = tab.uploader.add(fileOf(SIZE))
    await until('a part is there', () => bytesAt(upload.id).length >= MIB)
    const states: string[] = []
    tab.uploader.subscribe(() => void states.push(upload.snapshot().activity.state))
    const reads = broken()
    flood.open()
    await until('a read is refused', () => reads.refused() > 0)
    reads.repair()
    expect(await settled(upload)).toMatchObject({ ok: true })
    expect(states).not.toContain('needs-file')
  })

  it('around each of eight reloads, as in WebKit, leaves the copy, which is sent', async () => {
    const flood = dam(MIB)
    const first = openTab()
    const { id } = first.uploader.add(fileOf(SIZE))
    await until('a part is there', () => bytesAt(id).length >= MIB)
    await isCopied(first)
    let tab = first
    for (let reload = 1; reload <= 8; reload += 1) {
      // Reads and requests break about 65 ms before the page learns that it is being left.
      const reads = broken()
      await new Promise((resolve) => setTimeout(resolve, 50))
      tab.clock.hide()
      await tab.kill()
      reads.repair()
      tab = openTab()
      await tab.uploader.start()
      expect(await copyOf(tab), `after reload ${reload}`).toBe('verified')
      expect(await tab.ports.source.read(tab.ports.namespaceOf('alice'), id)).not.toBeNull()
      const requests = server.seen.length
      await until('it goes on', () => server.seen.length > requests + 2)
    }
    flood.open()
    const upload = tab.uploader.get(id)
    expect(upload && (await settled(upload))).toMatchObject({ ok: true })
    expect(bytesAt(id).equals(Buffer.from(bytesOf(SIZE)))).toBe(true)
  })

  it('for longer sends no request without its body, leaves the copy, and the upload resumes by itself', async () => {
    const flood = dam(MIB)
    const tab = openTab()
    const upload = tab.uploader.add(fileOf(SIZE))
    await until('a part is there', () => bytesAt(upload.id).length >= MIB)
    await isCopied(tab)
    const reads = broken()
    flood.open()
    await until('the user is told', () => whyNot(upload.snapshot()) === 'source-unreadable')
    const patches = server.count('PATCH')
    await new Promise((resolve) => setTimeout(resolve, 300))
    expect(server.count('PATCH')).toBe(patches)
    expect(await copyOf(tab)).toBe('verified')
    reads.repair()
    expect(await settled(upload)).toMatchObject({ ok: true })
    expect(bytesAt(upload.id).equals(Buffer.from(bytesOf(SIZE)))).toBe(true)
  })

  it('of the picked file without a copy is repeated, and the file is proven before it is sent', async () => {
    const flood = dam(MIB)
    const live: LiveFile = liveFile(bytesOf(SIZE))
    const tab = openTab({ worker: false })
    const upload = tab.uploader.add(live.file)
    await until('a part is there', () => bytesAt(upload.id).length >= MIB)
    live.onRead = () => {
      throw new DOMException('unplugged', 'NotReadableError')
    }
    flood.open()
    await until('the user is told', () => whyNot(upload.snapshot()) === 'source-unreadable')
    live.onRead = () => {}
    expect(await settled(upload)).toMatchObject({ ok: true })
    expect(bytesAt(upload.id).equals(Buffer.from(bytesOf(SIZE)))).toBe(true)
  })

  it('of the picked file, which is another file when it can be read again, sends no byte of the other file', async () => {
    const flood = dam(MIB)
    const live: LiveFile = liveFile(bytesOf(SIZE))
    const tab = openTab({ worker: false })
    const upload = tab.uploader.add(live.file)
    await until('a part is there', () => bytesAt(upload.id).length >= MIB)
    live.onRead = () => {
      throw new DOMException('saved by renaming', 'NotReadableError')
    }
    flood.open()
    await until('the user is told', () => whyNot(upload.snapshot()) === 'source-unreadable')
    const offset = bytesAt(upload.id).length
    live.edit(0, bytesOf(SIZE, 2))
    live.onRead = () => {}
    await until('the user is told why', () => whyNot(upload.snapshot()) === 'source-changed')
    expect(bytesAt(upload.id).length).toBe(offset)
    upload.provide(fileOf(SIZE))
    expect(await settled(upload)).toMatchObject({ ok: true })
  })
})

describe('a copy', () => {
  const leaveBehind = async (): Promise<string> => {
    const flood = dam(MIB)
    const tab = openTab()
    const { id } = tab.uploader.add(fileOf(SIZE))
    await until('a part is there', () => bytesAt(id).length >= MIB)
    await isCopied(tab)
    await tab.kill()
    flood.open()
    return id
  }

  it('that an earlier page has verified is verified once more, because in WebKit it was the picked file until then', async () => {
    const id = await leaveBehind()
    const spy = openTab({ scope: 'nobody' })
    await spy.uploader.start()
    await spy.ports.source.drop(spy.ports.namespaceOf('alice'), id)
    await spy.ports.source.keep(spy.ports.namespaceOf('alice'), id, fileOf(SIZE, 2))
    const offset = bytesAt(id).length
    const tab = openTab()
    await tab.uploader.start()
    const upload = tab.uploader.get(id)
    await until('the file is asked for', () => upload !== null && whyNot(upload.snapshot()) === 'source-missing')
    expect(bytesAt(id).length).toBe(offset)
    expect(await tab.ports.source.read(tab.ports.namespaceOf('alice'), id)).toBeNull()
  })

  it('that cannot be read out of the database at first is not dropped', async () => {
    const id = await leaveBehind()
    const tab = openTab()
    const started = tab.uploader.start()
    const { read } = tab.ports.source
    let refusals = 5
    tab.ports.source.read = async (...args) => {
      if ((refusals -= 1) >= 0) throw new DOMException('Error looking up record', 'UnknownError')
      return read(...args)
    }
    await started
    const upload = tab.uploader.get(id)
    expect(upload && (await settled(upload))).toMatchObject({ ok: true })
    expect(refusals).toBeLessThan(0)
  })

  it('whose digest is not known is not used as a source', async () => {
    const id = await leaveBehind()
    const spy = openTab({ scope: 'nobody' })
    await spy.uploader.start()
    await spy.ports.journal.update(spy.ports.namespaceOf('alice'), id, noted({ copy: 'made', digest: null }))
    const stored = server.operations.get(id)
    if (stored !== undefined) stored.operation = { ...stored.operation, digest: null }
    const tab = openTab()
    await tab.uploader.start()
    const upload = tab.uploader.get(id)
    await until('the file is asked for', () => upload !== null && whyNot(upload.snapshot()) === 'source-missing')
  })
})

describe('the digest worker', () => {
  it('that always says that it was stopped does not keep the page busy, and the upload arrives once it works', async () => {
    const tab = openTab({ copies: { maxBytes: 0 } })
    const { digest } = tab.digester
    const stopped = vi.fn(async () => ({ ok: false, why: 'stopped' }) as const)
    tab.digester.digest = stopped
    const upload = tab.uploader.add(fileOf(MIB))
    await until('it was asked', () => stopped.mock.calls.length > 0)
    await new Promise((resolve) => setTimeout(resolve, 300))
    expect(stopped.mock.calls.length).toBeLessThan(50)
    tab.digester.digest = digest
    expect(await settled(upload)).toMatchObject({ ok: true, reference: { digestSource: 'client' } })
  })

  afterEach(() => void Reflect.deleteProperty(globalThis, 'Worker'))

  for (const [what, begin] of [
    ['whose script is missing', (worker: EventTarget) => setTimeout(() => worker.dispatchEvent(new Event('error')), 5)],
    ['that never says anything', () => {}],
  ] as const) {
    it(`${what} is not used any more, and the digest is computed on the page's own thread`, async () => {
      class SilentWorker extends EventTarget {
        constructor() {
          super()
          begin(this)
        }
        postMessage(): void {}
        terminate(): void {}
      }
      Object.assign(globalThis, { Worker: SilentWorker })
      const causes: unknown[] = []
      const digester = createDigester('/worker.js', createFastClock(), (cause) => causes.push(cause))
      const { signal } = new AbortController()
      expect(digester.inBackground()).toBe(true)
      expect(await digester.digest(new Blob(['landfall']), { signal })).toEqual({ ok: false, why: 'unavailable' })
      expect(await digester.digest(new Blob(['landfall']), { signal })).toMatchObject({ ok: true })
      expect(digester.inBackground()).toBe(false)
      expect(causes).toHaveLength(1)
    })
  }
})
