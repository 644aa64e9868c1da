// @ts-check
// Computes SHA-256 of growing files in its own thread. A GiB takes about a second, and the event loop must not block
// for so long. The worker reads the file back instead of hashing what came from the network, so that the digest is that
// of the *stored* bytes.
import { createHash } from 'node:crypto'
import { closeSync, openSync, readSync } from 'node:fs'
import { parentPort } from 'node:worker_threads'

/** @typedef {{ hash: import('node:crypto').Hash, position: number }} Progress */
/** @typedef {{ type: 'follow', key: string, path: string, length: number }} Follow */
/** @typedef {{ type: 'digest', key: string, path: string, length: number, id: number }} Digest */
/** @typedef {{ type: 'forget', key: string }} Forget */

/**
 * How far each growing file was hashed. Beyond MAX_KEPT the oldest entry is dropped, and its file is read again if
 * needed.
 */
const MAX_KEPT = 1_000
/** @type {Map<string, Progress>} */
const kept = new Map()
/** @type {(Follow | Digest)[]} */
const tasks = []
/** One step of one task. The tasks take turns, so that a small file does not wait for a big one. */
const STEP_BYTES = 8 * 1024 * 1024
const buffer = Buffer.allocUnsafe(1024 * 1024)
let running = false

const port = parentPort
if (port === null) throw new Error('this file is a worker')

port.on('message', (/** @type {Follow | Digest | Forget} */ message) => {
  if (message.type === 'forget') {
    kept.delete(message.key)
    return
  }
  tasks.push(message)
  if (running) return
  running = true
  setImmediate(turn)
})

function turn() {
  const task = tasks.shift()
  if (task === undefined) {
    running = false
    return
  }
  try {
    const progress = progressOf(task)
    advance(task.path, progress, Math.min(task.length, progress.position + STEP_BYTES))
    if (progress.position < task.length) tasks.push(task)
    else if (task.type === 'digest') answer(task, progress.hash.copy().digest('base64'), null)
  } catch (error) {
    kept.delete(task.key)
    if (task.type === 'digest') answer(task, null, error)
  }
  setImmediate(turn)
}

/**
 * @type {WeakMap<Digest, Progress>} The progress of digests of prefixes that are shorter than what was hashed already.
 * Each starts at byte 0 with its own hash.
 */
const apart = new WeakMap()

/** @param {Follow | Digest} task @returns {Progress} */
function progressOf(task) {
  const known = kept.get(task.key)
  if (known !== undefined && known.position <= task.length) return known
  if (task.type === 'digest' && known !== undefined) {
    const own = apart.get(task) ?? { hash: createHash('sha256'), position: 0 }
    apart.set(task, own)
    return own
  }
  const fresh = { hash: createHash('sha256'), position: 0 }
  if (task.type === 'follow' && known !== undefined) return known
  if (kept.size >= MAX_KEPT) kept.delete(kept.keys().next().value ?? '')
  kept.set(task.key, fresh)
  return fresh
}

/** @param {string} path @param {Progress} progress @param {number} to */
function advance(path, progress, to) {
  if (progress.position >= to) return
  const file = openSync(path, 'r')
  try {
    while (progress.position < to) {
      const length = readSync(file, buffer, 0, Math.min(buffer.length, to - progress.position), progress.position)
      if (length === 0) throw new Error('the file is shorter than its length')
      progress.hash.update(buffer.subarray(0, length))
      progress.position += length
    }
  } finally {
    closeSync(file)
  }
}

/** @param {Digest} task @param {string | null} digest @param {unknown} error */
function answer(task, digest, error) {
  const code = error instanceof Error && 'code' in error ? String(error.code) : null
  port?.postMessage({ id: task.id, digest, error: error instanceof Error ? error.message : null, code })
}
