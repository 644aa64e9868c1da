import { once } from 'node:events'
import { chmodSync, rmSync } from 'node:fs'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import * as v from 'valibot'
import { ProblemError } from './context.js'
import { faultCode, faultMessage, UploadError, type UploadErrorCode } from './errors.js'
import type { Operator } from './operator.js'
import type { Finding, ReconcileOptions, ReconcileProgress } from './reconcile.js'

/**
 * A directory of blobs belongs to one process, so a command talks to the server that has it: through a socket in the
 * data directory that only its own user may open. One call a connection, a line of JSON each: the call; what is told
 * on the way; the result or the error.
 */
const SOCKET_NAME = 'landfall.sock'
/** sun_path of unix(7), and one byte for its end. */
const LONGEST_PATH_BYTES = 107

type Method = keyof Operator
const METHODS = ['list', 'show', 'retry', 'cancel', 'reconcile', 'doctor'] as const satisfies readonly Method[]
const callSchema = v.object({ method: v.picklist(METHODS), argument: v.optional(v.unknown()) })

type Line =
  | { readonly finding: Finding }
  | { readonly progress: ReconcileProgress }
  | { readonly result: unknown }
  | { readonly error: { readonly message: string; readonly code: UploadErrorCode | null } }

/** @returns null where the path is too long for a socket: commands then need the server to be stopped. */
export async function serveOperator(
  operator: Operator,
  dataDirectory: string,
): Promise<{ close(): Promise<void> } | null> {
  const path = join(dataDirectory, SOCKET_NAME)
  if (Buffer.byteLength(path) > LONGEST_PATH_BYTES) return null
  // Left by a process that was killed; one that lives has the directory's lock, and we would not be here.
  rmSync(path, { force: true })
  const sockets = new Set<Socket>()
  const server: Server = createServer((socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    socket.on('error', () => {})
    void answer(operator, socket)
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(path, resolve)
  })
  chmodSync(path, 0o600)
  return {
    async close() {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

async function answer(operator: Operator, socket: Socket): Promise<void> {
  const tell = async (line: Line): Promise<void> => {
    if (socket.write(`${JSON.stringify(line)}\n`) || socket.destroyed) return
    await Promise.race(['drain', 'close'].map((event) => once(socket, event)))
  }
  const gone = new AbortController()
  socket.on('close', () => gone.abort())
  try {
    const { method, argument } = v.parse(callSchema, JSON.parse(await firstLine(socket)))
    const result =
      method === 'reconcile'
        ? await operator.reconcile({
            ...(argument as ReconcileOptions),
            signal: gone.signal,
            onFinding: (finding) => tell({ finding }),
            onProgress: (progress) => void tell({ progress }),
          })
        : await (operator[method] as (argument: unknown) => Promise<unknown>)(argument)
    await tell({ result })
  } catch (error) {
    await tell({ error: { message: messageOf(error), code: faultCode(error) } })
  }
  socket.end()
}

const messageOf = (error: unknown): string =>
  error instanceof ProblemError ? (error.problem.detail ?? error.problem.title) : faultMessage(error)

async function firstLine(socket: Socket): Promise<string> {
  for await (const line of createInterface({ input: socket })) {
    // Only a socket that flows sees the other side go away.
    socket.resume()
    return line
  }
  throw new UploadError('setup', 'the call ended before it was said')
}

/** The operator of the server that has the directory; null: none runs. */
export async function connectOperator(dataDirectory: string): Promise<Operator | null> {
  const path = join(dataDirectory, SOCKET_NAME)
  const first = await dial(path)
  if (first === null) return null
  first.destroy()
  const call = (method: Method, argument: unknown, on: ReconcileOptions = {}): Promise<never> =>
    ask(path, { method, argument }, on) as Promise<never>
  return {
    list: (page) => call('list', page),
    show: (key) => call('show', key),
    retry: (key) => call('retry', key),
    cancel: (key) => call('cancel', key),
    reconcile: (options = {}) => {
      const { onFinding: _told, onProgress: _seen, signal: _signal, ...rest } = options
      return call('reconcile', rest, options)
    },
    doctor: () => call('doctor', undefined),
  }
}

const dial = (path: string): Promise<Socket | null> =>
  new Promise((resolve, reject) => {
    const socket = connect(path)
    socket.once('connect', () => resolve(socket))
    socket.once('error', (error: NodeJS.ErrnoException) =>
      ['ENOENT', 'ECONNREFUSED', 'ENOTDIR', 'EINVAL'].includes(error.code ?? '') ? resolve(null) : reject(error),
    )
  })

async function ask(path: string, call: { method: Method; argument: unknown }, on: ReconcileOptions): Promise<unknown> {
  const socket = await dial(path)
  if (socket === null) throw new UploadError('setup', 'the server has just ended: try again')
  socket.write(`${JSON.stringify(call)}\n`)
  try {
    for await (const text of createInterface({ input: socket })) {
      const line = JSON.parse(text) as Line
      if ('finding' in line) await on.onFinding?.(line.finding)
      else if ('progress' in line) on.onProgress?.(line.progress)
      else if ('result' in line) return line.result
      else if (line.error.code === null) throw new Error(line.error.message)
      else throw new UploadError(line.error.code, line.error.message)
    }
  } finally {
    socket.destroy()
  }
  throw new UploadError('setup', 'the server ended before it had answered')
}
