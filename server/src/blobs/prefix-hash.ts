import { Worker } from 'node:worker_threads'
import { createSHA256 } from 'hash-wasm'

/**
 * SHA-256 that can be put down and gone on with by another process: Node's own cannot. 470 MiB/s where Node's does
 * 1,950; so it is used only where the bytes cannot be read again.
 */
export interface PrefixHash {
  /**
   * `state` null: from the beginning. Shared memory is hashed in a thread, other memory here, with turns for others in
   * between. What another version of the library has left cannot be gone on with: then all is `UNKNOWN` from there on.
   */
  extend(state: string | null, bytes: Uint8Array): Promise<string>
  /** Base64; null: unknown. */
  digest(state: string | null): Promise<string | null>
  close(): Promise<void>
}

const UNKNOWN = ''

/** About 2 ms. */
const STEP_BYTES = 1024 * 1024

type Hash = Awaited<ReturnType<typeof createSHA256>>

const from = (hash: Hash, state: string | null): Hash =>
  state === null ? hash.init() : hash.load(Buffer.from(state, 'base64'))
const save = (hash: Hash): string => Buffer.from(hash.save()).toString('base64')
const isKnown = (hash: Hash, state: string | null): boolean => {
  try {
    from(hash, state)
    return true
  } catch {
    return false
  }
}

export function createPrefixHash(): PrefixHash {
  // One for all: nothing is kept in it, because nobody else gets a turn between its loading and its saving.
  let loading: ReturnType<typeof createSHA256> | null = null
  const loaded = (): Promise<Hash> => (loading ??= createSHA256())
  let worker: Worker | null = null
  let lastId = 0
  const waiting = new Map<number, (state: string | null) => void>()

  const started = (): Worker => {
    if (worker !== null) return worker
    const fresh = new Worker(new URL('./prefix-hash-worker.js', import.meta.url))
    // The thread must not keep a program alive that is otherwise finished.
    fresh.unref()
    fresh.on('message', ({ id, state }: { id: number; state: string }) => {
      waiting.get(id)?.(state)
      waiting.delete(id)
    })
    const gone = (): void => {
      if (worker === fresh) worker = null
      for (const resolve of waiting.values()) resolve(null)
      waiting.clear()
    }
    fresh.on('error', gone)
    fresh.on('exit', gone)
    return (worker = fresh)
  }

  /** null: the thread has ended. */
  const inThread = (state: string | null, bytes: Uint8Array): Promise<string | null> =>
    new Promise((resolve) => {
      const id = ++lastId
      waiting.set(id, resolve)
      started().postMessage({ id, state, bytes })
    })

  async function here(state: string | null, bytes: Uint8Array): Promise<string> {
    const hash = await loaded()
    if (!isKnown(hash, state)) return UNKNOWN
    let now = state
    for (let at = 0; at < bytes.length; at += STEP_BYTES) {
      now = save(from(hash, now).update(bytes.subarray(at, at + STEP_BYTES)))
      await new Promise(setImmediate)
    }
    return now ?? save(from(hash, null))
  }

  return {
    extend: async (state, bytes) =>
      (bytes.buffer instanceof SharedArrayBuffer ? await inThread(state, bytes) : null) ?? here(state, bytes),
    async digest(state) {
      const hash = await loaded()
      return isKnown(hash, state) ? Buffer.from(from(hash, state).digest('binary')).toString('base64') : null
    },
    async close() {
      await worker?.terminate()
    },
  }
}
