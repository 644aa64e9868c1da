import { EventEmitter } from 'node:events'
import { IDBFactory, IDBKeyRange } from 'fake-indexeddb'
import { createAuthorization } from '../src/adapters/authorization.js'
import { createBrowserClock } from '../src/adapters/browser-clock.js'
import { createHttpLedger } from '../src/adapters/http-ledger.js'
import { createIdbJournal, createResilientJournal } from '../src/adapters/idb-journal.js'
import { createIdbSource } from '../src/adapters/sources.js'
import { createTusTransfer } from '../src/adapters/tus-transfer.js'
import type { EventHub } from '../src/events.js'
import { hashBlob } from '../src/hash.js'
import { createUploadList } from '../src/list.js'
import { createOwner } from '../src/owner.js'
import type { Clock, Digester, Exclusive, Hold, Ports } from '../src/ports.js'
import { reader } from '../src/read.js'
import type { Uploader } from '../src/types.js'
import { NodeXhr } from './xhr.js'

// Hundreds of uploads listen to one signal, and each removes its listener again. (Node suspects a leak from eleven on.)
EventEmitter.defaultMaxListeners = 0

/** The clock runs this much faster than the wall clock: 30 s of patience are 1.5 s. */
const SPEED = 20

/** The browser's own clock, sped up. */
export function createFastClock(): Clock & {
  wake(): void
  setOnline(online: boolean): void
  hide(): void
  show(): void
} {
  const clock = createBrowserClock()
  const listeners = new Set<() => void>()
  let isOnline = true
  /** The listeners of a page that goes into the back/forward cache and comes out of it. */
  let page = { hidden: () => {}, shown: () => {} }
  const wake = (): void => {
    for (const listener of listeners) listener()
  }
  return {
    ...clock,
    nowMs: () => clock.nowMs() * SPEED,
    sleep: (ms, signal) => clock.sleep(ms / SPEED, signal),
    online: () => isOnline,
    onPage(told) {
      page = told
      return () => {}
    },
    hide: () => page.hidden(),
    show: () => page.shown(),
    onWake(listener) {
      listeners.add(listener)
      return () => void listeners.delete(listener)
    },
    wake,
    setOnline(online) {
      isOnline = online
      if (online) wake()
    },
  }
}

/** Hashes on this thread and pretends to do it in the background. `hold` keeps digests back. */
export function createTestDigester(
  clock: Pick<Clock, 'sleep'>,
): Digester & { hold: Promise<void>; digested: number; isAbsent: boolean } {
  return {
    hold: Promise.resolve(),
    digested: 0,
    isAbsent: false,
    inBackground() {
      return !this.isAbsent
    },
    async digest(blob, { from = null, signal }) {
      this.digested += 1
      await Promise.race([this.hold, new Promise((resolve) => signal.addEventListener('abort', resolve))])
      return hashBlob(blob, from, 1024 * 1024, reader(clock), signal)
    },
    close() {},
  }
}

/** The Web Locks of one browser. */
function createLocks(): { forTab: () => Exclusive & { releaseAll: () => void } } {
  const queues = new Map<string, (() => void)[]>()
  const release = (name: string): void => {
    const queue = queues.get(name) ?? []
    queue.shift()
    queue[0]?.()
  }
  return {
    forTab() {
      const held = new Set<{ name: string; lost: AbortController }>()
      return {
        hold: (name, onElsewhere, signal) =>
          new Promise((resolve) => {
            if (signal.aborted) return resolve(null)
            const queue = queues.get(name) ?? []
            queues.set(name, queue)
            const granted = (): void => {
              const entry = { name, lost: new AbortController() }
              held.add(entry)
              const hold: Hold = {
                lost: entry.lost.signal,
                release: () => {
                  if (held.delete(entry)) release(name)
                },
              }
              resolve(hold)
            }
            queue.push(granted)
            if (queue[0] === granted) return granted()
            onElsewhere()
            signal.addEventListener('abort', () => {
              const at = queue.indexOf(granted)
              if (at > 0) queue.splice(at, 1)
              resolve(null)
            })
          }),
        releaseAll() {
          for (const entry of held) {
            held.delete(entry)
            release(entry.name)
          }
        },
      }
    },
  }
}

export interface TabOptions {
  endpoint: string
  scope?: string
  concurrency?: number
  ownerTag?: string
  headers?: () => HeadersInit | Promise<HeadersInit>
  worker?: boolean
  copies?: { maxBytes: number }
}
export interface Tab {
  readonly uploader: Uploader
  readonly ports: Ports
  readonly clock: ReturnType<typeof createFastClock>
  readonly digester: ReturnType<typeof createTestDigester>
  /** Like `kill -9`: nothing is written any more, all connections are closed, and the locks are free. */
  kill(): Promise<void>
}

/** A browser profile with its databases and locks, which its tabs share. */
export function openBrowser(): { tab: (options: TabOptions) => Tab } {
  Object.assign(globalThis, { indexedDB: new IDBFactory(), IDBKeyRange, XMLHttpRequest: NodeXhr })
  const locks = createLocks()
  return { tab: (options) => openTab(options, locks.forTab()) }
}

function openTab(options: TabOptions, exclusive: Exclusive & { releaseAll: () => void }): Tab {
  const clock = createFastClock()
  const digester = createTestDigester(clock)
  digester.isAbsent = options.worker === false
  let isDead = false
  const { scope = 'alice', concurrency = 3 } = options
  /** After a kill, no call ever resolves. */
  const mortal = <T extends object>(port: T): T =>
    new Proxy(port, {
      get(target, name, receiver) {
        const member: unknown = Reflect.get(target, name, receiver)
        if (typeof member !== 'function') return member
        return (...args: unknown[]): unknown => (isDead ? new Promise(() => {}) : Reflect.apply(member, target, args))
      },
    })
  const portsOf = (telling: EventHub): Ports => {
    const { endpoint } = options
    const authorization = createAuthorization(options.headers, () => telling.unauthenticated('credentials'))
    const http = { endpoint, credentials: 'same-origin', authorization, clock, owner: () => owner } as const
    const { ledger, askWhose } = createHttpLedger(http)
    const journal = mortal(
      createResilientJournal(createIdbJournal(clock), clock, (cause) => telling.warn('journal-in-memory', cause)),
    )
    const namespaceOf = (of: string): string => JSON.stringify([endpoint, of])
    const owner = createOwner({
      scope: namespaceOf(scope),
      given: options.ownerTag,
      journal,
      clock,
      ask: (pinned, signal) => (isDead ? new Promise(() => {}) : askWhose(pinned, signal)),
      onOther: () => telling.unauthenticated('other-owner'),
      onUntold: () => telling.warn('no-owner'),
    })
    return {
      clock,
      namespaceOf,
      owner,
      digester,
      exclusive,
      ledger: mortal(ledger),
      transfer: mortal(createTusTransfer(http)),
      journal,
      source: mortal(createIdbSource({ ...options.copies, clock })),
    }
  }
  let ports: Ports | null = null
  const uploader: Uploader = createUploadList({ scope, concurrency }, (telling) => (ports = portsOf(telling)))
  return {
    uploader,
    get ports() {
      if (ports === null) throw new Error('not started')
      return ports
    },
    clock,
    digester,
    async kill() {
      isDead = true
      void uploader.close()
      exclusive.releaseAll()
      await new Promise((resolve) => setTimeout(resolve, 20))
    },
  }
}

/** Bytes that do not repeat within a megabyte. The same seed gives the same bytes. */
export function bytesOf(size: number, seed = 1): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(size)
  let state = seed * 2654435761 + 1
  for (let at = 0; at < size; at += 1) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0
    bytes[at] = state >>> 24
  }
  return bytes
}
export const fileOf = (size: number, seed = 1, name = 'a.bin'): File =>
  new File([bytesOf(size, seed)], name, { type: 'application/octet-stream', lastModified: 1_700_000_000_000 })

/** Waits until the condition holds, and fails if it never does. */
export async function until(what: string, isSo: () => boolean, withinMs = 8_000): Promise<void> {
  const endMs = Date.now() + withinMs
  while (!isSo()) {
    if (Date.now() > endMs) throw new Error(`never: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}
