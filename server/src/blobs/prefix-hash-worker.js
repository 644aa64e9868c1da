// @ts-check
// SHA-256 over parts while they are sent, in a thread of its own: a GiB takes two seconds, which the event loop must not
// lose. The bytes are shared, not copied.
import { parentPort } from 'node:worker_threads'
import { createSHA256 } from 'hash-wasm'

const port = parentPort
if (port === null) throw new Error('this file is a worker')

const hash = await createSHA256()

port.on('message', (/** @type {{ id: number, state: string | null, bytes: Uint8Array }} */ { id, state, bytes }) => {
  try {
    if (state === null) hash.init()
    else hash.load(Buffer.from(state, 'base64'))
    port.postMessage({ id, state: Buffer.from(hash.update(bytes).save()).toString('base64') })
  } catch {
    // Left by another version of the library: it cannot be gone on with.
    port.postMessage({ id, state: '' })
  }
})
