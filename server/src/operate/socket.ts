import { once } from 'node:events'
import { chmodSync, rmSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import { join } from 'node:path'
import { isMainThread } from 'node:worker_threads'
import { getRequestListener } from '@hono/node-server'
import { lockFile } from '../lib/lock-file.js'
import { operatorApp } from './operator-app.js'
import type { Operator } from './operator.js'

/**
 * A directory of blobs belongs to one process, so a command talks to the server that holds it: by HTTP through a Unix
 * socket in the data directory, which only the server's own user may open.
 */
export const SOCKET_NAME = 'landfall.sock'

/** `sun_path` of unix(7), without the byte that ends it. */
const LONGEST_PATH_BYTES = 107

/** Held while the socket is served: two servers may share a data directory when their bytes are in a bucket. */
const LOCK_NAME = 'landfall.sock.lock'

export type ServedOperator =
  | { readonly outcome: 'served'; close(): Promise<void> }
  /** There is no socket, and `why` says the reason. Commands then need this process to be stopped, or reach another one. */
  | { readonly outcome: 'none'; readonly why: string }

/** Serves an operator to commands, through a socket in a directory. The socket keeps no process alive. */
export async function serveOperator(operator: Operator, directory: string): Promise<ServedOperator> {
  const path = join(directory, SOCKET_NAME)
  if (Buffer.byteLength(path) > LONGEST_PATH_BYTES)
    return {
      outcome: 'none',
      why: 'the path of the directory is too long for a socket: commands need this server to be stopped',
    }
  const lock = lockFile(directory, LOCK_NAME)
  if (lock === null)
    return { outcome: 'none', why: 'another server has its socket in this directory: commands talk to that server' }
  try {
    return await serveAt(path, operator, lock)
  } catch (error) {
    lock.release()
    throw error
  }
}

async function serveAt(path: string, operator: Operator, lock: { release(): void }): Promise<ServedOperator> {
  // A process that was killed leaves its socket behind. A process that is alive has the lock.
  rmSync(path, { force: true })
  const listener = getRequestListener(operatorApp(operator).fetch, { overrideGlobalObjects: false })
  const server = createServer((incoming, outgoing) => void listener(incoming, outgoing))
  await listenPrivately(server, path)
  server.unref()
  return {
    outcome: 'served',
    async close() {
      const closed = new Promise((resolve) => server.close(resolve))
      server.closeAllConnections()
      await closed
      lock.release()
    },
  }
}

/** No other user may open the socket, from its first moment on. */
async function listenPrivately(server: Server, path: string): Promise<void> {
  // A worker thread cannot set a mask of its own. There the directory, which is private, protects the socket until `chmod`.
  const before = isMainThread ? process.umask(0o177) : null
  try {
    server.listen(path)
  } finally {
    if (before !== null) process.umask(before)
  }
  // Rejects with the error of `listen`.
  await once(server, 'listening')
  chmodSync(path, 0o600)
}
