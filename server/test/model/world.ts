import { AsyncLocalStorage } from 'node:async_hooks'
import { Hono } from 'hono'
import { vi } from 'vitest'
import type { Kind } from '../../src/kinds/kind.js'
import type { BlobRef, BlobStore } from '../../src/ports/blob-store.js'
import type { Clock } from '../../src/ports/clock.js'
import type { Ledger } from '../../src/ports/ledger.js'
import type { SqliteTx } from '../../src/ledger/sqlite/ledger.js'
import { type ModelDatabase, writing } from './database.js'
import { ownerTagOf } from '../../src/http/owner-tag.js'
import { createDisk, type Disk } from './memory-blobs.js'
import { createUploads, sqliteLedger, UploadError } from './modules.js'

export type Tx = SqliteTx<Record<string, never>>
type Ledgers = Ledger<Tx>

/** A process of the server. When it is killed, all its running work ends. */
export interface Server {
  readonly died: AbortSignal
  kill(): void
  /** null if the process died during the request. */
  request(
    method: string,
    path: string,
    init?: { headers?: Record<string, string>; body?: Body },
  ): Promise<Response | null>
  runOnce(): Promise<unknown>
  /** Runs in a transaction of the application. */
  remove(id: string): Promise<boolean>
  /** Forgets the owner of all uploads in a transaction of the application. null if the process died or the call failed. */
  forget(): Promise<unknown>
}
type Body = string | Uint8Array<ArrayBuffer>

/** A call to the ledger, to the blob store or to the application's code. */
export interface Crossing {
  readonly index: number
  readonly call: string
  readonly server: Server
  /** The bytes that an append is about to write, and null for other calls. */
  readonly append: { blob: BlobRef; offset: number; chunk: Uint8Array } | null
}

export interface Strike {
  before?(crossing: Crossing): Promise<void> | void
  /** The call fails, without effect or with it. */
  readonly fails?: 'undone' | 'done'
  after?(crossing: Crossing): Promise<void> | void
}

export interface WorldOptions {
  readonly database: ModelDatabase
  readonly owner: string
  readonly exclusive: boolean
  readonly checkpoints: boolean
  kindsOf(cross: <T>(call: string, act: () => Promise<T>) => Promise<T>): Record<string, Kind<Tx>>
  /** The fault at this boundary, or null. */
  strikeAt(crossing: Crossing): Strike | null
  /** Called after each step that may have changed something. */
  observe(): void
  violated(words: string): void
}

export const LEASE_MS = 30_000
export const EXPIRES_AFTER_MS = 60 * 60_000
const OWNER_KEY = 'of all histories'
const START_AT = Date.UTC(2026, 0, 1)
/** After so many turns of the event loop without a call, all work waits for time to pass. The writer needs two turns. */
const QUIET_TURNS = 5
const MOST_STEPS = 3_000
/** Reads are not counted: a fault before a read has the same effect as one before the call after it. */
const UNCOUNTED = new Set(['find', 'renew', 'nextDueInMs'])

const never = <T>(): Promise<T> => new Promise<T>(() => {})
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
const silent = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }

export type World = ReturnType<typeof createWorld>

/** Processes, a disk, and a clock that moves only on request. Fake timers must be installed. */
export function createWorld(options: WorldOptions) {
  const disk: Disk = createDisk(options.database.identity)
  const servers: Server[] = []
  /** Work that is started here does not inherit the context of a hook. */
  const apart = AsyncLocalStorage.snapshot()
  const calls: string[] = []
  const ownerTag = ownerTagOf(OWNER_KEY, options.owner)
  let jumpedMs = 0
  let activity = 0
  let happening = 0
  const startedAtMs = performance.now()
  // Timers have whole milliseconds. A fraction would be slept again and again without any time passing.
  const monotonicMs = (): number => Math.round(performance.now() - startedAtMs) + jumpedMs
  const now = (): number => START_AT + monotonicMs()
  const clock: Clock = {
    now,
    monotonicMs,
    sleep: (ms, signal) =>
      new Promise((resolve) => {
        const timer = setTimeout(resolve, ms)
        if (signal?.aborted === true) resolve()
        signal?.addEventListener(
          'abort',
          () => {
            clearTimeout(timer)
            resolve()
          },
          { once: true },
        )
      }),
  }

  /** Runs a fault at a boundary. No time passes for other work while it runs. */
  async function happen(what: Strike['before'], crossing: Crossing): Promise<void> {
    if (what === undefined) return
    happening++
    await apart(async () => what(crossing)).finally(() => happening--)
  }

  async function cross<T>(
    server: Server,
    call: string,
    act: () => Promise<T>,
    fault: () => Error,
    append: Crossing['append'] = null,
  ): Promise<T> {
    if (server.died.aborted) return never()
    // A request that waits for a lease repeats this call, which is counted once.
    const again = call === 'ledger.lease' && calls.at(-1) === call
    const crossing: Crossing = { index: again ? calls.length - 1 : calls.push(call) - 1, call, server, append }
    const strike = again ? null : options.strikeAt(crossing)
    activity++
    await happen(strike?.before, crossing)
    if (server.died.aborted) return never()
    if (strike?.fails === 'undone') throw fault()
    try {
      const result = await act()
      activity++
      await happen(strike?.after, crossing)
      if (server.died.aborted) return await never()
      options.observe()
      if (strike?.fails === 'done') throw fault()
      return result
    } catch (error) {
      activity++
      if (server.died.aborted) return never()
      throw error
    }
  }

  function ledgerOf(server: Server, ledger: Ledgers): Ledgers {
    const fault = (): Error => new UploadError('ledger-unavailable', 'the database is away')
    // The start of a process and its heartbeat belong to no operation, and each would add a commit. Clocks that are set
    // have tests of their own, so here each history begins at the same time on the same database.
    const beside = {
      migrate: async () => ({ identity: options.database.identity, store: 'known' }),
      mark: async () => ({ mark: 0, restoredAt: null }),
      advanceMark: async () => {},
      heartbeat: async () => {},
      ownerKey: async () => OWNER_KEY,
      settleClock: async () => ({ nowAt: now(), steppedMs: 0 }),
    }
    return new Proxy(ledger, {
      get(target, name: keyof Ledgers) {
        if (name === 'onChange' || name === 'remove' || name === 'forgetOwner') return target[name]
        if (name in beside) return beside[name as keyof typeof beside]
        const method = target[name] as (...args: unknown[]) => Promise<unknown>
        return (...args: unknown[]) => {
          const act = (): Promise<unknown> =>
            name === 'record' || name === 'refer'
              ? writing.run({ lease: args[0] as never, violated: options.violated }, () => method(...args))
              : method(...args)
          if (!UNCOUNTED.has(name)) return cross(server, `ledger.${name}`, act, fault)
          if (server.died.aborted) return never()
          return act().then(
            (result) => (server.died.aborted ? never() : (activity++, result)),
            (error: unknown) => (server.died.aborted ? never() : Promise.reject(error)),
          )
        }
      },
    })
  }

  function blobsOf(server: Server): BlobStore {
    const store = disk.session(server.died, options)
    const fault = (): Error => new UploadError('storage-unavailable', 'the store is away')
    const through = <T>(call: string, act: () => Promise<T>): Promise<T> => cross(server, `blobs.${call}`, act, fault)
    return {
      ...store,
      append: async (blob, request) => {
        const chunks = await collect(request.source)
        const append = { blob, offset: request.offset, chunk: chunks[0] ?? new Uint8Array() }
        return cross(
          server,
          'blobs.append',
          () => store.append(blob, { ...request, source: each(chunks) }),
          fault,
          append,
        )
      },
      recover: (blob, request) => through('recover', () => store.recover(blob, request)),
      seal: (blob) => through('seal', () => store.seal(blob)),
      inspect: (blob, signal) => through('inspect', () => store.inspect(blob, signal)),
      remove: (key) =>
        through('remove', async () => {
          const named = options.database.read('SELECT operation_id FROM landfall_references WHERE blob_key = ?', [key])
          if (named.length > 0) options.violated('5: the blob of a committed reference is deleted')
          const [row] = options.database.read('SELECT point, removed_at FROM landfall_operations WHERE blob_key = ?', [
            key,
          ])
          if (row?.['removed_at'] === null && !['cancelled', 'expired', 'rejected'].includes(String(row['point'])))
            options.violated(`5: bytes are deleted at ${String(row['point'])}, before their end is committed`)
          await store.remove(key)
        }),
    }
  }

  function start(): Server {
    const death = new AbortController()
    const dead = new Promise<null>((resolve) => death.signal.addEventListener('abort', () => resolve(null)))
    const orDead = <T>(work: Promise<T>): Promise<T | null> => Promise.race([work, dead])
    const server: Server = {
      died: death.signal,
      kill: () => death.abort(),
      request: (method, path, init = {}) =>
        orDead(
          Promise.resolve(
            app.request(`http://host.test/uploads${path}`, {
              method,
              headers: {
                'X-Owner': options.owner,
                'Landfall-Version': '1',
                'Landfall-Owner': ownerTag,
                ...init.headers,
              },
              ...(init.body === undefined ? {} : { body: init.body, duplex: 'half' }),
            }),
          ),
        ),
      runOnce: () => orDead(uploads.runOnce({ maxMs: 1_000_000 }).catch(() => null)),
      forget: () => orDead(db.transaction(async (tx) => uploads.forgetOwner(tx, options.owner))).catch(() => null),
      remove: async (id) => (await orDead(db.transaction(async (tx) => uploads.remove(tx, id)))) ?? false,
    }
    const db = options.database.connect({ died: death.signal, now })
    const uploads = createUploads<Tx, Record<string, Kind<Tx>>>({
      ledger: ledgerOf(server, sqliteLedger(db)),
      blobs: blobsOf(server),
      authenticate: (c) => c.req.header('X-Owner') ?? null,
      kinds: options.kindsOf((call, act) => cross(server, call, act, () => new Error('the application has failed'))),
      completer: 'manual',
      clock,
      logger: silent,
      leaseMs: LEASE_MS,
      expiresAfterMs: EXPIRES_AFTER_MS,
    })
    const app = new Hono().route('/uploads', uploads.routes)
    servers.push(server)
    return server
  }

  const alive = (): Server[] => servers.filter(({ died }) => !died.aborted)

  async function quiet(until: () => boolean = () => false): Promise<void> {
    for (let still = 0; still < QUIET_TURNS && !until();) {
      const seen = activity
      await turn()
      still = seen === activity ? still + 1 : 0
    }
  }

  return {
    disk,
    now,
    /** Every boundary that was crossed, in order. */
    calls,
    alive,
    quiet,
    /** The process that serves the clients. It is started if there is none. */
    server: (): Server => alive()[0] ?? start(),
    /** A second process on the same database and store, or null if the store allows only one. */
    other: (than: Server): Server | null =>
      options.exclusive ? null : (alive().find((server) => server !== than) ?? start()),
    /** The clocks advance while every process is suspended, so their timers are late. */
    jump: (ms: number): void => void (jumpedMs += ms),
    jumpedMs: (): number => jumpedMs,
    losePower(): void {
      for (const server of alive()) server.kill()
      disk.losePower()
    },
    /** Lets time pass, and runs everything that becomes due. */
    async pass(ms: number): Promise<void> {
      happening++
      vi.advanceTimersByTime(ms)
      activity++
      await quiet().finally(() => happening--)
    },
    /** Waits for the work. When all work waits for time, time advances. */
    async finish<T>(work: Promise<T>): Promise<T | null> {
      let done = false
      const result = work.finally(() => (done = true))
      result.catch(() => {})
      for (let steps = 0; steps < MOST_STEPS; steps++) {
        await quiet(() => done)
        if (done) return result
        if (happening > 0) continue
        if (vi.getTimerCount() === 0) break
        vi.advanceTimersToNextTimer()
        activity++
      }
      options.violated('6: some work waits permanently')
      return null
    },
    end(): void {
      for (const server of alive()) server.kill()
      vi.clearAllTimers()
    },
  }
}

async function collect(source: AsyncIterable<Uint8Array>): Promise<Uint8Array[]> {
  const chunks: Uint8Array[] = []
  for await (const chunk of source) chunks.push(chunk)
  return chunks
}

async function* each<T>(items: readonly T[]): AsyncIterable<T> {
  yield* items
}
