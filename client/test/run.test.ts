import { problem } from '@landfall/shared'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Upload } from '../src/types.js'
import { bytesOf, fileOf, openBrowser, type Tab, type TabOptions, until } from './browser.js'
import { type FakeServer, type Fault, startFakeServer, staysQuiet } from './fake-server.js'

const KIB = 1024
const MIB = 1024 * KIB

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
const storedBytes = (upload: Upload): Uint8Array => new Uint8Array(server.operations.get(upload.id)?.bytes ?? [])
/** Compared as buffers, because `toEqual` compares each of millions of elements. */
const isStored = (upload: Upload, size: number, seed = 1): boolean =>
  Buffer.from(bytesOf(size, seed)).equals(storedBytes(upload))
/** Causes the fault for the first `times` requests that match. */
const faultFor = (method: string, fault: Fault, times = 1): void => {
  let left = times
  server.fault = (seen) => (seen.method === method && left-- > 0 ? fault : null)
}
const offsets = (): number[] => server.seen.filter(({ method }) => method === 'PATCH').map(({ offset }) => offset)

beforeEach(async () => {
  server = await startFakeServer()
  browser = openBrowser()
})
afterEach(async () => {
  for (const tab of tabs.splice(0)) await tab.kill()
  await server.close()
})

describe('the whole way', () => {
  it('a small file costs a PUT, a PATCH and the shared long poll', async () => {
    const upload = openTab().uploader.add(fileOf(300 * KIB))
    const outcome = await settled(upload)
    expect(outcome).toMatchObject({ ok: true, reference: { operationId: upload.id, digestSource: 'client' } })
    expect(isStored(upload, 300 * KIB)).toBe(true)
    expect(server.count('PUT')).toBe(1)
    expect(server.count('PATCH')).toBe(1)
    // One GET asks for the owner, and the others ask for the outcome.
    expect(server.count('GET')).toBeLessThanOrEqual(3)
    expect(server.count('HEAD')).toBe(0)
  })

  it('an empty file costs no PATCH', async () => {
    const upload = openTab().uploader.add(fileOf(0))
    expect(await settled(upload)).toMatchObject({ ok: true })
    expect(server.count('PATCH')).toBe(0)
  })

  it('a big file is sent in growing chunks, and its digest before the last of them', async () => {
    const size = 5 * MIB + 17
    const upload = openTab().uploader.add(fileOf(size))
    expect(await settled(upload)).toMatchObject({ ok: true, reference: { digestSource: 'client' } })
    expect(isStored(upload, size)).toBe(true)
    const puts = server.seen.filter(({ method }) => method === 'PUT')
    expect(puts.map(({ body }) => (body as { digest: string }).digest === 'pending')).toEqual([true, false])
    const order = server.seen.map(({ method }) => method)
    expect(order.lastIndexOf('PUT')).toBeLessThan(order.lastIndexOf('PATCH'))
    expect(server.seen.find(({ method }) => method === 'PATCH')?.bytes).toBe(256 * KIB)
  })

  it('without a worker the digest is computed too, and sent before the last byte', async () => {
    const upload = openTab({ worker: false }).uploader.add(fileOf(3 * MIB))
    expect(await settled(upload)).toMatchObject({ ok: true, reference: { digestSource: 'client' } })
    const order = server.seen.map(({ method }) => method)
    expect(order.lastIndexOf('PUT')).toBeLessThan(order.lastIndexOf('PATCH'))
  })

  for (const worker of [true, false]) {
    it(`each declaration has a digest or promises one, also of an empty file (${worker ? 'with' : 'without'} a worker)`, async () => {
      const { uploader } = openTab({ worker })
      for (const [at, size] of [0, 10, 3 * MIB].entries()) {
        const outcome = await settled(uploader.add(fileOf(size, at, String(at))))
        expect(outcome).toMatchObject({ ok: true, reference: { digestSource: 'client' } })
      }
      // A kind that requires a digest refuses permanently a declaration that neither has nor promises one.
      const puts = server.seen.filter(({ method }) => method === 'PUT')
      expect(puts.filter(({ body }) => !(body as { digest?: string }).digest)).toEqual([])
    })
  }

  it('the last bytes wait for a digest that is slower than the network', async () => {
    const tab = openTab()
    let letGo = (): void => {}
    tab.digester.hold = new Promise((resolve) => (letGo = resolve))
    const upload = tab.uploader.add(fileOf(2 * MIB))
    await until('all other bytes are there', () => storedBytes(upload).length >= MIB)
    await new Promise((resolve) => setTimeout(resolve, 200))
    expect(storedBytes(upload).length).toBeLessThan(2 * MIB)
    expect(upload.snapshot()).toMatchObject({ point: 'declared', activity: { state: 'running' } })
    letGo()
    expect(await settled(upload)).toMatchObject({ ok: true, reference: { digestSource: 'client' } })
  })

  it('success is what the operation says, never what the last PATCH says', async () => {
    server.outcome = () => 'hang'
    const upload = openTab().uploader.add(fileOf(100 * KIB))
    await until('it is finishing', () => upload.snapshot().activity.state === 'finishing')
    await new Promise((resolve) => setTimeout(resolve, 100))
    expect(upload.snapshot()).toMatchObject({
      point: 'received',
      reference: null,
      progress: { acceptedBytes: 100 * KIB },
    })
    server.outcome = () => 'reference'
    server.drive()
    expect(await settled(upload)).toMatchObject({ ok: true })
  })

  it('a stall is shown, and is not final', async () => {
    server.outcome = () => 'hang'
    const upload = openTab().uploader.add(fileOf(100 * KIB))
    await until('it is finishing', () => upload.snapshot().activity.state === 'finishing')
    server.change(upload.id, { stalled: true, problem: problem('stalled') })
    await until('the stall is shown', () => {
      const { activity } = upload.snapshot()
      return activity.state === 'finishing' && activity.stalled
    })
    expect(upload.snapshot().problem?.code).toBe('stalled')
    server.outcome = () => 'reference'
    server.change(upload.id, { stalled: false, problem: null })
    server.drive()
    expect(await settled(upload)).toMatchObject({ ok: true })
  })
})

describe('faults', () => {
  const kinds: [string, Fault][] = [
    ['a dropped connection', { kind: 'dropped' }],
    ['a swallowed answer', { kind: 'swallowed' }],
    ['404 with HTML', { kind: 'html', status: 404 }],
    ['403 with HTML', { kind: 'html', status: 403 }],
    ['200 with HTML', { kind: 'html', status: 200 }],
    ['502 with HTML', { kind: 'html', status: 502 }],
    ['423 locked', { kind: 'problem', problem: problem('locked') }],
    ['503 unavailable', { kind: 'problem', problem: problem('unavailable') }],
    ['507 storage full', { kind: 'problem', problem: problem('storage-full') }],
    ['401', { kind: 'problem', problem: problem('unauthenticated') }],
  ]
  for (const method of ['PUT', 'PATCH', 'GET']) {
    for (const [name, fault] of kinds) {
      it(`after ${name} three times as the answer to ${method}, the upload continues with one operation and the right bytes`, async () => {
        faultFor(method, fault, 3)
        const upload = openTab().uploader.add(fileOf(700 * KIB))
        expect(await settled(upload)).toMatchObject({ ok: true })
        expect(server.operations.size).toBe(1)
        expect(isStored(upload, 700 * KIB)).toBe(true)
      })
    }
  }

  it('after HTML as an answer in the middle, the upload continues at its offset under the same id', async () => {
    let html = 0
    server.fault = ({ method, offset }) => {
      const isMiddle = (server.operations.values().next().value?.bytes.length ?? 0) > MIB
      return method !== 'GET' && isMiddle && offset === 0 && html++ < 6 ? { kind: 'html', status: 404 } : null
    }
    const upload = openTab().uploader.add(fileOf(4 * MIB))
    expect(await settled(upload)).toMatchObject({ ok: true })
    expect(html).toBeGreaterThan(6)
    expect(offsets().filter((offset) => offset === 0).length).toBeLessThanOrEqual(html + 1)
    const sent = server.seen.reduce((sum, { bytes }) => sum + bytes, 0)
    expect(sent).toBe(4 * MIB)
  })

  it('after a connection broke in the middle, only the bytes that were not kept are sent again', async () => {
    let cuts = 0
    server.fault = ({ method }) => (method === 'PATCH' && cuts++ === 2 ? { kind: 'cut', afterBytes: 100_000 } : null)
    const upload = openTab().uploader.add(fileOf(3 * MIB))
    expect(await settled(upload)).toMatchObject({ ok: true })
    expect(isStored(upload, 3 * MIB)).toBe(true)
    expect(server.seen.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(3 * MIB)
  })

  it('after the server ended a request early, the upload continues at the offset that it reported, without asking', async () => {
    let patches = 0
    server.fault = ({ method }) =>
      method === 'PATCH' && patches++ === 1 ? { kind: 'short', afterBytes: 70_000 } : null
    const upload = openTab({ worker: false }).uploader.add(fileOf(2 * MIB))
    expect(await settled(upload)).toMatchObject({ ok: true })
    expect(isStored(upload, 2 * MIB)).toBe(true)
    // One PUT declares it, and one sends its digest.
    expect(server.count('PUT')).toBe(2)
  })

  it('a connection that makes no progress is given up after the time limit of the watchdog', async () => {
    faultFor('PATCH', { kind: 'black-hole' })
    const startMs = Date.now()
    const upload = openTab().uploader.add(fileOf(8 * MIB))
    expect(await settled(upload)).toMatchObject({ ok: true })
    expect(Date.now() - startMs).toBeGreaterThan(1_400)
    expect(isStored(upload, 8 * MIB)).toBe(true)
  })

  it('after a 429 the upload waits as Retry-After says, and shows the wait', async () => {
    const tooMany = problem('too-many-open', { retryAfterSeconds: 10 })
    faultFor('PUT', { kind: 'problem', problem: tooMany, headers: { 'Retry-After': '10' } })
    const startMs = Date.now()
    const upload = openTab().uploader.add(fileOf(10))
    await until('it waits', () => upload.snapshot().activity.state === 'waiting' && server.count('PUT') === 1)
    expect(upload.snapshot()).toMatchObject({ activity: { why: 'server' }, problem: { code: 'too-many-open' } })
    await settled(upload)
    // 10 s, twenty times faster
    expect(Date.now() - startMs).toBeGreaterThanOrEqual(490)
  })

  it('resume() ends a wait', async () => {
    const tooMany = problem('too-many-open', { retryAfterSeconds: 3000 })
    faultFor('PUT', { kind: 'problem', problem: tooMany })
    const upload = openTab().uploader.add(fileOf(10))
    await until('it waits', () => upload.snapshot().activity.state === 'waiting' && server.count('PUT') === 1)
    upload.resume()
    expect(await settled(upload)).toMatchObject({ ok: true })
  })

  it('after a 401 the client asks for fresh headers, and the upload continues', async () => {
    let token = 0
    server.fault = ({ headers }) =>
      headers['authorization'] === 'token 2' ? null : { kind: 'problem', problem: problem('unauthenticated') }
    const unauthenticated: number[] = []
    const tab = openTab({ headers: async () => ({ Authorization: `token ${(token += 1)}` }) })
    tab.uploader.on('unauthenticated', () => unauthenticated.push(1))
    expect(await settled(tab.uploader.add(fileOf(10)))).toMatchObject({ ok: true })
    expect(token).toBe(2)
    expect(unauthenticated).toEqual([])
  })

  it('while there are no credentials nothing is sent, and the upload continues once there are', async () => {
    let asked = 0
    const tab = openTab({
      headers: () => {
        asked += 1
        if (asked === 1) throw new Error('the session is away')
        return asked === 2 ? Promise.reject(new Error('still')) : { Authorization: 'token' }
      },
    })
    expect(await settled(tab.uploader.add(fileOf(10)))).toMatchObject({ ok: true })
    expect(server.seen.map(({ headers }) => headers['authorization'])).not.toContain(undefined)
  })

  it('credentials that never come delay neither a pause nor the closing', async () => {
    const tab = openTab({ headers: () => new Promise<HeadersInit>(() => {}) })
    const upload = tab.uploader.add(fileOf(10))
    await until('it runs', () => upload.snapshot().activity.state === 'running')
    upload.pause()
    await until('it is paused', () => upload.snapshot().activity.state === 'paused')
    upload.resume()
    await tab.uploader.close()
    expect(server.seen).toEqual([])
  })

  it('a 401 that fresh headers do not resolve is reported once, and the upload waits', async () => {
    let isSignedIn = false
    server.fault = () => (isSignedIn ? null : { kind: 'problem', problem: problem('unauthenticated') })
    let told = 0
    const tab = openTab({ headers: () => ({ Authorization: 'stale' }) })
    tab.uploader.on('unauthenticated', () => (told += 1))
    const upload = tab.uploader.add(fileOf(10))
    await until('it asked several times', () => server.count('GET') > 3)
    await until('it waits for credentials', () => {
      const { activity } = upload.snapshot()
      return activity.state === 'waiting' && activity.why === 'authentication'
    })
    expect(told).toBe(1)
    isSignedIn = true
    void tab.uploader.start()
    expect(await settled(upload)).toMatchObject({ ok: true })
  })

  it('while offline the upload waits for the network, and continues when it is back', async () => {
    const tab = openTab()
    faultFor('PATCH', { kind: 'dropped' })
    const upload = tab.uploader.add(fileOf(10))
    tab.clock.setOnline(false)
    await until('it waits for the network', () => {
      const { activity } = upload.snapshot()
      return activity.state === 'waiting' && activity.why === 'network'
    })
    await staysQuiet(server)
    tab.clock.setOnline(true)
    expect(await settled(upload)).toMatchObject({ ok: true })
  })

  it('an operation that the server has lost is declared again under the same id', async () => {
    server.outcome = () => 'hang'
    const upload = openTab().uploader.add(fileOf(300 * KIB))
    await until('it is finishing', () => upload.snapshot().activity.state === 'finishing')
    server.operations.clear()
    server.outcome = () => 'reference'
    await until('it is declared again', () => server.count('PUT') > 1, 15_000)
    expect(await settled(upload)).toMatchObject({ ok: true, reference: { operationId: upload.id } })
    expect(isStored(upload, 300 * KIB)).toBe(true)
  })
})

describe('final answers', () => {
  it('a file that was removed before this browser knew of its reference fails with that reason', async () => {
    server.outcome = () => 'hang'
    const upload = openTab().uploader.add(fileOf(10))
    await until('it is finishing', () => upload.snapshot().activity.state === 'finishing')
    server.change(upload.id, { recoveryPoint: 'completed', reference: null, problem: problem('removed') })
    expect(await settled(upload)).toMatchObject({ ok: false, problem: { code: 'removed' } })
  })

  it("the application's refusal is final, keeps its code, and is reported until it is acknowledged", async () => {
    server.outcome = () => ({ reject: 'infected' })
    const tab = openTab()
    const told: string[] = []
    tab.uploader.on('failed', (upload) => void told.push(upload.problem.code))
    const upload = tab.uploader.add(fileOf(10))
    expect(await settled(upload)).toMatchObject({ ok: false, problem: { code: 'infected' } })
    await until('it was told', () => told.length > 0)
    await tab.uploader.close()
    const later = openTab()
    later.uploader.on('failed', (again) => void told.push(again.problem.code))
    await later.uploader.start()
    await until('it is told again', () => told.length === 2)
    await later.uploader.get(upload.id)?.acknowledge()
    expect(later.uploader.snapshot().uploads).toEqual([])
    await later.uploader.close()
    const last = openTab()
    await last.uploader.start()
    expect(last.uploader.snapshot()).toEqual({ uploads: [], recovered: true, warnings: [] })
    expect(told).toEqual(['infected', 'infected'])
  })

  for (const code of ['too-large', 'forbidden', 'operation-mismatch', 'removed'] as const) {
    it(`${code} as the answer to a PUT is final`, async () => {
      faultFor('PUT', { kind: 'problem', problem: problem(code) })
      const upload = openTab().uploader.add(fileOf(10))
      expect(await settled(upload)).toMatchObject({ ok: false, problem: { code } })
      expect(server.count('PATCH')).toBe(0)
    })
  }

  it('a final problem as the answer to a PATCH counts only after a PUT has confirmed it', async () => {
    faultFor('PATCH', { kind: 'problem', problem: problem('forbidden') })
    expect(await settled(openTab().uploader.add(fileOf(10)))).toMatchObject({ ok: true })
  })

  it('a cancellation from elsewhere in the middle is final', async () => {
    const upload = openTab().uploader.add(fileOf(6 * MIB))
    await until('it is under way', () => storedBytes(upload).length > 0)
    server.change(upload.id, { recoveryPoint: 'cancelled', problem: problem('cancelled') })
    expect(await settled(upload)).toMatchObject({ ok: false, problem: { code: 'cancelled' } })
  })
})

describe('cancel', () => {
  it('takes effect at once here, is repeated until the server confirms it, and removes the upload from the list', async () => {
    faultFor('DELETE', { kind: 'dropped' }, 2)
    const tab = openTab()
    const upload = tab.uploader.add(fileOf(6 * MIB))
    await until('it is under way', () => storedBytes(upload).length > 0)
    void upload.cancel()
    expect(upload.snapshot().point).toBe('cancelled')
    expect(await settled(upload)).toMatchObject({ ok: false, problem: { code: 'cancelled' } })
    expect(server.count('DELETE')).toBe(3)
    expect(server.operations.get(upload.id)?.operation.recoveryPoint).toBe('cancelled')
    expect(tab.uploader.get(upload.id)).toBeNull()
  })

  it('is still repeated after the tab was closed', async () => {
    let isAway = true
    server.fault = ({ method }) => (method === 'DELETE' && isAway ? { kind: 'dropped' } : null)
    const tab = openTab()
    const upload = tab.uploader.add(fileOf(6 * MIB))
    await until('it is under way', () => storedBytes(upload).length > 0)
    await upload.cancel()
    await tab.kill()
    isAway = false
    const later = openTab()
    await later.uploader.start()
    await until('the server knows', () => server.operations.get(upload.id)?.operation.recoveryPoint === 'cancelled')
    await until('it left the list', () => later.uploader.snapshot().uploads.length === 0)
  })

  it('after the reference leaves the upload a success', async () => {
    server.outcome = () => 'hang'
    const upload = openTab().uploader.add(fileOf(10))
    await until('it is finishing', () => upload.snapshot().activity.state === 'finishing')
    server.fault = ({ method }) => {
      if (method === 'DELETE') {
        server.outcome = () => 'reference'
        server.drive()
      }
      return null
    }
    void upload.cancel()
    expect(await settled(upload)).toMatchObject({ ok: true })
    expect(server.count('DELETE')).toBe(1)
  })

  it('of an operation that the server does not know ends with the 404', async () => {
    server.fault = ({ method }) => (method === 'PUT' ? { kind: 'dropped' } : null)
    const upload = openTab().uploader.add(fileOf(10))
    await until('it was tried', () => server.count('PUT') > 0)
    void upload.cancel()
    expect(await settled(upload)).toMatchObject({ ok: false, problem: { code: 'cancelled' } })
    expect(server.operations.size).toBe(0)
  })
})

describe('pause', () => {
  it('stops sending, also after a reload, and the upload resumes at the same offset', async () => {
    const tab = openTab()
    const upload = tab.uploader.add(fileOf(6 * MIB))
    await until('it is under way', () => storedBytes(upload).length > 0)
    upload.pause()
    await until('it is paused', () => upload.snapshot().activity.state === 'paused')
    await new Promise((resolve) => setTimeout(resolve, 50))
    const patches = server.count('PATCH')
    await new Promise((resolve) => setTimeout(resolve, 100))
    expect(server.count('PATCH')).toBe(patches)
    upload.resume()
    expect(await settled(upload)).toMatchObject({ ok: true })
    expect(isStored(upload, 6 * MIB)).toBe(true)
  })

  it('a paused upload gives its place to the next one', async () => {
    const tab = openTab({ concurrency: 1 })
    const first = tab.uploader.add(fileOf(6 * MIB))
    const second = tab.uploader.add(fileOf(10, 2, 'b.bin'))
    await until('the first is under way', () => storedBytes(first).length > 0)
    expect(second.snapshot().activity).toMatchObject({ state: 'waiting', why: 'turn' })
    first.pause()
    expect(await settled(second)).toMatchObject({ ok: true })
    first.resume()
    expect(await settled(first)).toMatchObject({ ok: true })
  })
})

describe('many', () => {
  it('uploads that wait for the server hold no place, so that the others continue', async () => {
    const names = new Set(['0', '1', '2', '3', '4', '5'])
    server.outcome = ({ operation }) => (names.has(operation.file.name) ? 'hang' : 'reference')
    const { uploader } = openTab()
    const uploads = Array.from({ length: 12 }, (_, at) => uploader.add(fileOf(20 * KIB, at, String(at))))
    for (const upload of uploads.slice(6)) expect(await settled(upload)).toMatchObject({ ok: true })
    for (const upload of uploads.slice(0, 6)) expect(upload.snapshot().activity.state).toBe('finishing')
    names.clear()
    server.drive()
    for (const upload of uploads) expect(await settled(upload)).toMatchObject({ ok: true })
  })

  it('200 files: at most three send at a time, one long poll, all complete', async () => {
    let open = 0
    let most = 0
    server.fault = () => null
    const { uploader, ports } = ((tab) => (void tab.uploader.start(), tab))(openTab())
    const { list } = ports.ledger
    let polls = 0
    let mostPolls = 0
    ports.ledger.list = async (...args) => {
      mostPolls = Math.max(mostPolls, (polls += 1))
      try {
        return await list(...args)
      } finally {
        polls -= 1
      }
    }
    const { send } = ports.transfer
    ports.transfer.send = async (...args) => {
      most = Math.max(most, (open += 1))
      try {
        return await send(...args)
      } finally {
        open -= 1
      }
    }
    const uploads = Array.from({ length: 200 }, (_, at) => uploader.add(fileOf(2 * KIB, at, String(at))))
    for (const upload of uploads) expect(await settled(upload)).toMatchObject({ ok: true })
    expect(most).toBeLessThanOrEqual(3)
    expect(mostPolls).toBe(1)
    expect(server.operations.size).toBe(200)
    expect(server.count('PUT')).toBe(200)
  })
})
