import { getEventListeners } from 'node:events'
import { problem } from '@landfall/shared'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createAuthorization } from '../src/adapters/authorization.js'
import { createOwner } from '../src/owner.js'
import { isReadable } from '../src/source.js'
import type { Unauthenticated, Upload } from '../src/types.js'
import { createFastClock, fileOf, openBrowser, type Tab, type TabOptions, until } from './browser.js'
import { type FakeServer, type Seen, startFakeServer, staysQuiet } from './fake-server.js'

const KIB = 1024
const MIB = 1024 * KIB

let server: FakeServer
let browser: ReturnType<typeof openBrowser>
const tabs: Tab[] = []
const others: FakeServer[] = []

const openTab = (options: Partial<TabOptions> = {}): Tab => {
  const tab = browser.tab({ endpoint: server.endpoint, ...options })
  tabs.push(tab)
  return tab
}
const settled = (upload: Upload): ReturnType<Upload['settled']> =>
  upload.settled({ signal: AbortSignal.timeout(15_000) })
const tagOf = ({ headers }: Seen): unknown => headers['landfall-owner']
const waitsForOwner = (upload: Upload | null): boolean => {
  const { activity } = upload?.snapshot() ?? {}
  return activity?.state === 'waiting' && activity.why === 'other-owner'
}
const heardOf = (tab: Tab): Unauthenticated['reason'][] => {
  const heard: Unauthenticated['reason'][] = []
  tab.uploader.on('unauthenticated', ({ reason }) => heard.push(reason))
  return heard
}
const pinOf = (tab: Tab, scope = 'alice'): Promise<string | null> =>
  tab.ports.journal.owner(tab.ports.namespaceOf(scope), (pinned) => pinned)

/** Waits, and then expects that the client has asked only who is signed in. */
async function onlyLooks(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 100))
  const before = server.seen.length
  await new Promise((resolve) => setTimeout(resolve, 300))
  expect(server.seen.slice(before).filter(({ query }) => !query.has('open'))).toEqual([])
}

beforeEach(async () => {
  server = await startFakeServer()
  browser = openBrowser()
})
afterEach(async () => {
  for (const tab of tabs.splice(0)) await tab.kill()
  for (const other of [server, ...others.splice(0)]) await other.close()
})

describe('the owner tag', () => {
  it('is asked for before anything is declared, pinned, and sent with every request', async () => {
    const tab = openTab()
    expect(await settled(tab.uploader.add(fileOf(3 * MIB)))).toMatchObject({ ok: true })
    const [first, ...rest] = server.seen
    expect([first?.method, first?.query.has('open'), first && tagOf(first)]).toEqual(['GET', true, undefined])
    expect(rest.length).toBeGreaterThan(3)
    expect(new Set(rest.map(tagOf))).toEqual(new Set(['alice-tag']))
    expect(await pinOf(tab)).toBe('alice-tag')
  })

  it('is asked for at the start already, when there is nothing to upload, and never again', async () => {
    const tab = openTab()
    await tab.uploader.start()
    await until('it is pinned', () => server.seen.length === 1)
    while ((await pinOf(tab)) === null) await new Promise((resolve) => setTimeout(resolve, 5))
    await tab.kill()
    const later = openTab()
    await later.uploader.start()
    await staysQuiet(server)
    expect(await settled(later.uploader.add(fileOf(10)))).toMatchObject({ ok: true })
    expect(server.seen.filter(({ query }) => query.has('open'))).toHaveLength(1)
  })

  it('of the application is sent at once, and the server is not asked', async () => {
    const tab = openTab({ ownerTag: 'alice-tag' })
    expect(await settled(tab.uploader.add(fileOf(10)))).toMatchObject({ ok: true })
    expect(server.seen.filter(({ query }) => query.has('open'))).toEqual([])
    expect(await pinOf(tab)).toBe('alice-tag')
  })

  it('of the application replaces an older one in the journal, as after the database was made again', async () => {
    const before = openTab()
    await settled(before.uploader.add(fileOf(10)))
    await before.kill()
    server.owner = 'alice-by-another-key'
    const stuck = openTab()
    const held = stuck.uploader.add(fileOf(10, 2))
    await until('it waits', () => waitsForOwner(held))
    await stuck.kill()
    const told = openTab({ ownerTag: 'alice-by-another-key' })
    expect(await settled(told.uploader.add(fileOf(10, 3)))).toMatchObject({ ok: true })
    await told.kill()
    const after = openTab()
    expect(await settled(after.uploader.add(fileOf(10, 4)))).toMatchObject({ ok: true })
  })

  it('is waited for while offline, and then the upload continues', async () => {
    server.fault = () => ({ kind: 'dropped' })
    const tab = openTab()
    const upload = tab.uploader.add(fileOf(10))
    tab.clock.setOnline(false)
    await until('it waits for the network', () => {
      const { activity } = upload.snapshot()
      return activity.state === 'waiting' && activity.why === 'network'
    })
    expect(server.count('PUT')).toBe(0)
    server.fault = () => null
    tab.clock.setOnline(true)
    expect(await settled(upload)).toMatchObject({ ok: true })
  })

  it('ends no upload, whatever the server answers when it is asked for the tag', async () => {
    server.fault = ({ query }) => (query.has('open') ? { kind: 'problem', problem: problem('invalid-request') } : null)
    const upload = openTab().uploader.add(fileOf(10))
    await until('it was asked for several times', () => server.count('GET') > 2)
    expect(upload.snapshot().point).toBe('intended')
    server.fault = () => null
    expect(await settled(upload)).toMatchObject({ ok: true })
  })

  it('is the same for two tabs that pin at once', async () => {
    const [one, two] = [openTab(), openTab()]
    await Promise.all([one.uploader.start(), two.uploader.start()])
    const outcomes = await Promise.all([one, two].map((tab, n) => settled(tab.uploader.add(fileOf(10, n)))))
    expect(outcomes).toMatchObject([{ ok: true }, { ok: true }])
    expect(await Promise.all([pinOf(one), pinOf(two)])).toEqual(['alice-tag', 'alice-tag'])
  })

  it('that a proxy drops is asked for again, and the upload waits', async () => {
    let dropped = 2
    server.fault = ({ method }) =>
      method === 'PUT' && dropped-- > 0 ? { kind: 'problem', problem: problem('owner-required') } : null
    const upload = openTab().uploader.add(fileOf(10))
    expect(await settled(upload)).toMatchObject({ ok: true })
    expect(server.seen.filter(({ query }) => query.has('open')).length).toBeGreaterThan(1)
  })
})

describe('another user is signed in', () => {
  it('nothing is sent, whatever state the uploads are in, and all of them resume when the right user is back', async () => {
    server.outcome = ({ operation }) => (operation.file.name === 'finishing' ? 'hang' : 'reference')
    const before = openTab({ copies: { maxBytes: 0 } })
    const lacking = before.uploader.add(fileOf(2 * MIB, 1, 'lacking'))
    server.fault = ({ method, offset }) =>
      method === 'PATCH' && offset === 0 && server.count('PATCH') > 1 ? { kind: 'black-hole' } : null
    await until('a part is there', () => (server.operations.get(lacking.id)?.bytes.length ?? 0) > 0)
    await before.kill()
    server.fault = () => null

    const tab = openTab({ concurrency: 1 })
    const heard = heardOf(tab)
    await tab.uploader.start()
    await until('it needs its file', () => tab.uploader.get(lacking.id)?.snapshot().activity.state === 'needs-file')
    const finishing = tab.uploader.add(fileOf(10, 2, 'finishing'))
    await until('it is finishing', () => finishing.snapshot().activity.state === 'finishing')
    const paused = tab.uploader.add(fileOf(10, 5, 'paused'))
    paused.pause()
    let flows = false
    server.fault = ({ method }) => (method === 'PATCH' && !flows ? { kind: 'black-hole' } : null)
    const sending = tab.uploader.add(fileOf(4 * MIB, 3, 'sending'))
    await until('it is sending', () => server.seen.some(({ method, id }) => method === 'PATCH' && id === sending.id))
    const waiting = tab.uploader.add(fileOf(10, 4, 'waiting'))

    // The cookie now belongs to another user, without notice to this page.
    server.owner = 'bob-tag'
    const ofAlice = new Set(server.operations.keys())
    const from = server.seen.length
    flows = true
    // The running request breaks, and the long poll ends.
    server.change(finishing.id, { stalled: true })
    sending.pause()
    sending.resume()
    await until('all that would send wait for her', () => [sending, waiting].every(waitsForOwner))
    tab.uploader.get(lacking.id)?.provide(fileOf(2 * MIB, 1, 'lacking'))
    paused.resume()
    const added = tab.uploader.add(fileOf(10, 6, 'added'))
    await until('the others too', () => [tab.uploader.get(lacking.id), paused, added].every(waitsForOwner))
    await onlyLooks()
    expect(heard).toEqual(['other-owner'])
    expect([...server.operations.keys()].filter((id) => !ofAlice.has(id))).toEqual([])
    // Every request in that time named the first user, and was refused.
    expect(new Set(server.seen.slice(from).map(tagOf))).toEqual(new Set(['alice-tag']))
    for (const upload of [sending, waiting, paused, added]) {
      expect(upload.snapshot()).toMatchObject({ problem: { code: 'other-owner' } })
      expect(upload.snapshot().point).not.toBe('failed')
    }

    server.owner = 'alice-tag'
    server.outcome = () => 'reference'
    server.change(finishing.id, { stalled: false })
    server.drive()
    tab.clock.wake()
    for (const upload of [sending, waiting, paused, added, finishing, tab.uploader.get(lacking.id)])
      expect(upload && (await settled(upload))).toMatchObject({ ok: true })
    expect(heard).toEqual(['other-owner'])
  }, 30_000)

  it('a page that is opened for the first user during that time sends nothing either, and start() checks at once', async () => {
    const first = openTab()
    server.fault = ({ method }) => (method === 'PUT' ? { kind: 'black-hole' } : null)
    first.uploader.add(fileOf(10))
    await until('it is being declared', () => server.count('PUT') === 1)
    await first.kill()
    server.fault = () => null
    server.owner = 'bob-tag'
    const tab = openTab()
    const heard = heardOf(tab)
    await tab.uploader.start()
    const upload = tab.uploader.get(tab.uploader.snapshot().uploads[0]?.id ?? '')
    await until('it waits for her', () => waitsForOwner(upload))
    expect(server.operations.size).toBe(0)
    await until('it is told', () => heard.length > 0)
    server.owner = 'alice-tag'
    void tab.uploader.start()
    await until('it goes on', () => !waitsForOwner(upload))
    expect(heard).toEqual(['other-owner'])
  })

  it('an answer about another user is not believed, whatever it says', async () => {
    const tab = openTab()
    await settled(tab.uploader.add(fileOf(10)))
    // A server that ignores the tag, as one behind a proxy that drops it.
    const patched: unknown[] = []
    server.fault = (seen) => {
      if (seen.method === 'PUT' || seen.method === 'DELETE') {
        seen.headers['landfall-owner'] = 'bob-tag'
        server.owner = 'bob-tag'
      }
      if (seen.method === 'PATCH') patched.push(seen)
      return null
    }
    const upload = tab.uploader.add(fileOf(10, 2))
    await until('it is held', () => waitsForOwner(upload))
    expect(upload.snapshot().point).toBe('intended')
    expect(patched).toEqual([])
    void upload.cancel()
    await onlyLooks()
    expect(tab.uploader.get(upload.id)?.snapshot().point).toBe('cancelled')
  })

  it('an answer that names no owner is ignored and reported once, and a problem that names no owner is not final', async () => {
    const tab = openTab({ ownerTag: 'alice-tag' })
    const warned: string[] = []
    tab.uploader.on('warning', ({ code }) => warned.push(code))
    server.owner = null
    const upload = tab.uploader.add(fileOf(10))
    await until('it was tried several times', () => server.count('PUT') > 3)
    expect(upload.snapshot().point).toBe('intended')
    server.fault = ({ method }) => (method === 'PUT' ? { kind: 'problem', problem: problem('too-large') } : null)
    const before = server.count('PUT')
    await until('and is again', () => server.count('PUT') > before + 2)
    expect(upload.snapshot()).toMatchObject({ point: 'intended', problem: { code: 'too-large' } })
    expect(warned).toEqual(['no-owner'])
    server.owner = 'alice-tag'
    server.fault = () => null
    expect(await settled(upload)).toMatchObject({ ok: true })
  })

  it('nothing is sent to a server that knows no owner tags', async () => {
    server.owner = null
    const tab = openTab()
    const warned: string[] = []
    tab.uploader.on('warning', ({ code }) => warned.push(code))
    const upload = tab.uploader.add(fileOf(10))
    await until('it was asked several times', () => server.count('GET') > 3)
    expect([server.count('PUT'), upload.snapshot().point]).toEqual([0, 'intended'])
    expect(warned).toEqual(['no-owner'])
  })

  it('the application is asked for its credentials again at each check', async () => {
    let asked = 0
    const tab = openTab({ headers: () => ({ Authorization: `token ${(asked += 1)}` }) })
    await settled(tab.uploader.add(fileOf(10)))
    expect(asked).toBe(1)
    server.owner = 'bob-tag'
    const upload = tab.uploader.add(fileOf(10, 2))
    await until('it waits for her', () => waitsForOwner(upload))
    const before = asked
    tab.clock.wake()
    await until('it has looked', () => asked > before)
    server.owner = 'alice-tag'
    tab.clock.wake()
    expect(await settled(upload)).toMatchObject({ ok: true })
  })
})

describe('the namespace', () => {
  it('one scope at two endpoints shares neither records nor tags nor locks', async () => {
    const second = await startFakeServer()
    others.push(second)
    second.owner = 'alice-at-the-second'
    server.fault = ({ method }) => (method === 'PATCH' ? { kind: 'black-hole' } : null)
    const one = openTab()
    const upload = one.uploader.add(fileOf(10))
    await until('it is being sent', () => server.count('PATCH') === 1)
    const two = openTab({ endpoint: second.endpoint })
    await two.uploader.start()
    expect(two.uploader.snapshot().uploads).toEqual([])
    expect(await settled(two.uploader.add(fileOf(10, 2)))).toMatchObject({ ok: true })
    expect([...second.operations.keys()]).not.toContain(upload.id)
    expect(await Promise.all([pinOf(one), pinOf(two)])).toEqual(['alice-tag', 'alice-at-the-second'])
    await two.uploader.purge()
    expect(one.uploader.snapshot().uploads).toHaveLength(1)
    expect(await Promise.all([pinOf(one), pinOf(two)])).toEqual(['alice-tag', null])
  })

  it('a purge removes the tag too, and this page still sends only with the tag that it has used', async () => {
    const tab = openTab()
    await settled(tab.uploader.add(fileOf(10)))
    await tab.uploader.purge()
    expect(await pinOf(tab)).toBeNull()
    server.owner = 'bob-tag'
    const before = server.operations.size
    const upload = tab.uploader.add(fileOf(10, 2))
    await until('it waits for her', () => waitsForOwner(upload))
    expect(server.operations.size).toBe(before)
    // The tag is in the database again, together with the upload that waits for the user.
    expect(await pinOf(tab)).toBe('alice-tag')
  })

  it('records that an earlier version kept by scope alone are taken over once, without their copies', async () => {
    const old = openTab({ scope: 'nobody' })
    await old.uploader.start()
    const id = '0192f0c1-0000-7000-8000-00000000000a'
    await old.ports.journal.update('alice', id, () => ({
      version: 1,
      id,
      scope: 'alice',
      kind: null,
      file: { name: 'a.bin', size: 10, type: 'application/octet-stream' },
      metadata: {},
      addedAtMs: 0,
      paused: false,
      digest: null,
      copy: 'verified',
      standing: { point: 'intended' },
    }))
    await old.kill()
    const tab = openTab()
    await tab.uploader.start()
    const upload = tab.uploader.get(id)
    await until('it asks for its file', () => upload?.snapshot().activity.state === 'needs-file')
    upload?.provide(fileOf(10))
    expect(upload && (await settled(upload))).toMatchObject({ ok: true })
    expect(await tab.ports.journal.load('alice')).toEqual([])
  })
})

describe('a newer server', () => {
  it('a point that this version does not know is followed, is never final, and no byte is sent for it', async () => {
    server.outcome = () => 'hang'
    const tab = openTab()
    const upload = tab.uploader.add(fileOf(10))
    await until('it is finishing', () => upload.snapshot().activity.state === 'finishing')
    const [puts, patches] = [server.count('PUT'), server.count('PATCH')]
    const polls = server.count('GET')
    server.change(upload.id, { recoveryPoint: 'scanned' as never })
    await until('it has heard of it', () => server.count('GET') > polls)
    await new Promise((resolve) => setTimeout(resolve, 200))
    expect(upload.snapshot()).toMatchObject({ point: 'received', activity: { state: 'finishing' } })
    expect([server.count('PUT'), server.count('PATCH')]).toEqual([puts, patches])
    server.outcome = () => 'reference'
    server.change(upload.id, { recoveryPoint: 'received' })
    server.drive()
    expect(await settled(upload)).toMatchObject({ ok: true })
  })

  it('one operation that cannot be read does not hide the others, and is not declared again', async () => {
    server.outcome = () => 'hang'
    const tab = openTab()
    const [odd, plain] = [tab.uploader.add(fileOf(10, 1)), tab.uploader.add(fileOf(10, 2))]
    await until('both are finishing', () =>
      [odd, plain].every((upload) => upload.snapshot().activity.state === 'finishing'),
    )
    const puts = server.count('PUT')
    server.change(odd.id, { digest: 'sha-512=:AAAA:', createdAt: 7 as never })
    server.outcome = ({ operation }) => (operation.id === plain.id ? 'reference' : 'hang')
    server.drive()
    expect(await settled(plain)).toMatchObject({ ok: true })
    expect(odd.snapshot()).toMatchObject({ point: 'received', activity: { state: 'finishing' } })
    expect(server.count('PUT')).toBe(puts)
  })
})

describe('a signal that lives as long as its page', () => {
  it('keeps no listener of the requests that were made during its life', async () => {
    const { signal } = new AbortController()
    const clock = createFastClock()
    const authorization = createAuthorization(undefined, () => {})
    const owner = createOwner({
      scope: 'alice',
      given: undefined,
      journal: { owner: async (_namespace, choose) => choose(null) },
      clock,
      ask: async () => ({ ok: true, value: 'alice-tag' }),
      onOther: () => {},
      onUntold: () => {},
    })
    owner.keep(signal)
    const use = async (): Promise<void> => {
      expect(await owner.read(signal)).toEqual({ ok: true, value: 'alice-tag' })
      expect(await isReadable(new Blob(['a']), 0, clock, signal)).toBe(true)
      await authorization.read(signal)
      owner.hurry()
      await new Promise((resolve) => setTimeout(resolve, 1))
    }
    await use()
    const before = getEventListeners(signal, 'abort').length
    for (let n = 0; n < 10; n++) await use()
    expect(getEventListeners(signal, 'abort').length).toBe(before)
  })
})
