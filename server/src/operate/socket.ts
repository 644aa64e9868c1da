import { once } from 'node:events'
import { chmodSync, rmSync } from 'node:fs'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { isMainThread } from 'node:worker_threads'
import * as v from 'valibot'
import { lockFile } from '../blobs/file/directory-lock.js'
import { codeOf } from '../blobs/file/durable-files.js'
import { messageOf } from '../lib/problem-error.js'
import { faultCode, faultMessage, UploadError, type UploadErrorCode } from '../lib/errors.js'
import type { Operator } from './operator.js'
import type { Finding, ReconcileOptions, ReconcileProgress } from './reconcile.js'

/**
 * A directory of blobs belongs to one process, so a command talks to the server that holds it: through a socket in the
 * data directory that only the server's user may open. There is one call per connection. Each message is one line of
 * JSON: the call, then reports on the way, then the result or the error.
 */
const SOCKET_NAME = 'landfall.sock'
/** The size of sun_path in unix(7), minus one byte for the terminator. */
const LONGEST_PATH_BYTES = 107

/** A server that hangs accepts connections and does not answer. A command must not hang with it. */
const HELLO_MS = 10_000
/** A call is one line with some options. */
const LONGEST_CALL = 64 * 1024
/** The version of this protocol. A command and a server of different versions refuse to work together. */
const PROTOCOL = 1

type Method = keyof Operator
const METHODS = [
  'list',
  'show',
  'retry',
  'cancel',
  'forgetOwner',
  'reconcile',
  'doctor',
] as const satisfies readonly Method[]
const callSchema = v.object({ method: v.picklist([...METHODS, 'hello']), argument: v.optional(v.unknown()) })

type Line =
  | { readonly finding: Finding }
  | { readonly progress: ReconcileProgress }
  | { readonly result: unknown }
  | { readonly error: { readonly message: string; readonly code: UploadErrorCode | null } }

/** Held as long as the socket is served: two servers may share a data directory if the bytes are in a bucket. */
const LOCK_NAME = 'landfall.sock.lock'

export type ServedOperator =
  | { readonly outcome: 'served'; close(): Promise<void> }
  /** No socket, and the reason: commands need this process to be stopped, or talk to the other one. */
  | { readonly outcome: 'none'; readonly why: string }

/** Serves an operator to commands, through a socket in a directory. It does not keep the process alive. */
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
  // A process that was killed left it behind. A process that is alive would hold the lock.
  rmSync(path, { force: true })
  const sockets = new Set<Socket>()
  const server: Server = createServer((socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    socket.on('error', () => {})
    void answer(operator, socket)
  })
  await listenPrivately(server, path)
  server.unref()
  return {
    outcome: 'served',
    async close() {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
      lock.release()
    },
  }
}

/** No other user may open it, from its first moment on. */
async function listenPrivately(server: Server, path: string): Promise<void> {
  // A worker thread cannot set a mask. There the directory, which is private, protects the socket until the `chmod`.
  const before = isMainThread ? process.umask(0o177) : null
  try {
    server.listen(path)
  } finally {
    if (before !== null) process.umask(before)
  }
  // Fails with the error of `listen`.
  await once(server, 'listening')
  chmodSync(path, 0o600)
}

async function answer(operator: Operator, socket: Socket): Promise<void> {
  const tell = async (line: Line): Promise<void> => {
    if (socket.destroyed || socket.write(`${JSON.stringify(line)}\n`)) return
    const { signal, abort } = abortable()
    // If the connection breaks, `gone` ends the work.
    await Promise.race(['drain', 'close'].map((event) => once(socket, event, { signal }))).catch(() => {})
    abort()
  }
  const gone = new AbortController()
  socket.on('close', () => gone.abort())
  try {
    const { method, argument } = v.parse(callSchema, JSON.parse(await firstLine(socket)))
    const on = {
      signal: gone.signal,
      onFinding: (finding: Finding) => tell({ finding }),
      onProgress: (progress: ReconcileProgress) => void tell({ progress }),
    }
    await tell({ result: await resultOf(operator, method, argument, on) })
  } catch (error) {
    await tell({ error: { message: messageOf(error), code: faultCode(error) } })
  }
  socket.end()
}

function resultOf(operator: Operator, method: Method | 'hello', argument: unknown, on: ReconcileOptions): unknown {
  if (method === 'hello') return { protocol: PROTOCOL }
  if (method === 'reconcile') return operator.reconcile({ ...(argument as ReconcileOptions), ...on })
  return (operator[method] as (argument: unknown) => Promise<unknown>)(argument)
}

function abortable(): { signal: AbortSignal; abort: () => void } {
  const controller = new AbortController()
  return { signal: controller.signal, abort: () => controller.abort() }
}

/** The socket stays in flowing mode after this, because only then does it notice that the other side went away. */
const firstLine = (socket: Socket): Promise<string> =>
  new Promise((resolve, reject) => {
    let text = ''
    socket.setEncoding('utf8').on('data', (chunk: string) => {
      if (text.length > LONGEST_CALL) return void socket.destroy()
      text += chunk
      const end = text.indexOf('\n')
      if (end >= 0) resolve(text.slice(0, end))
    })
    socket.on('close', () => reject(new UploadError('setup', 'the connection ended before the call was complete')))
  })

export type Connected =
  | { readonly outcome: 'connected'; readonly operator: Operator }
  /** No server is running. */
  | { readonly outcome: 'none' }
  /** A server is running, but it cannot be asked. */
  | { readonly outcome: 'refused'; readonly why: string }

/**
 * The operator of the server that holds one of the directories: the first one in which a server answers or refuses to.
 */
export async function connectOperatorIn(directories: readonly string[]): Promise<Connected> {
  for (const directory of directories) {
    const connected = await connectOperator(directory)
    if (connected.outcome !== 'none') return connected
  }
  return { outcome: 'none' }
}

/** The operator of the server that holds the directory. */
export async function connectOperator(dataDirectory: string): Promise<Connected> {
  const path = join(dataDirectory, SOCKET_NAME)
  const refusedBy = (why: string): Connected => ({ outcome: 'refused', why })
  let hello: unknown
  try {
    const socket = await dial(path)
    if (socket === null) return { outcome: 'none' }
    const late = setTimeout(() => socket.destroy(), HELLO_MS)
    hello = await ask(socket, { method: 'hello', argument: undefined }).finally(() => clearTimeout(late))
  } catch (error) {
    if (codeOf(error) === 'EACCES' || codeOf(error) === 'EPERM')
      return refusedBy(
        "the running server's socket can be opened only by the user that runs the server: run this command as that user",
      )
    return refusedBy(
      `a server holds this data directory, and did not answer within ${HELLO_MS / 1000} s (${faultMessage(error)}): check whether it hangs`,
    )
  }
  if (!v.is(v.object({ protocol: v.literal(PROTOCOL) }), hello))
    return refusedBy('the running server has another version: use the `landfall` command of that version')
  return { outcome: 'connected', operator: operatorAt(path) }
}

function operatorAt(path: string): Operator {
  const call = async (method: Method, argument: unknown, on: ReconcileOptions = {}): Promise<never> => {
    const socket = await dial(path)
    if (socket === null) throw new UploadError('setup', 'the server has just ended: try again')
    return (await ask(socket, { method, argument }, on)) as never
  }
  return {
    list: (page) => call('list', page),
    show: (key) => call('show', key),
    retry: (key) => call('retry', key),
    cancel: (key) => call('cancel', key),
    forgetOwner: (request) => call('forgetOwner', request),
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

async function ask(
  socket: Socket,
  call: { method: Method | 'hello'; argument: unknown },
  on: ReconcileOptions = {},
): Promise<unknown> {
  socket.write(`${JSON.stringify(call)}\n`)
  try {
    for await (const text of linesOf(socket)) {
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
  throw ended()
}

const ended = (cause?: unknown): UploadError =>
  new UploadError('setup', 'the server ended before it had answered', { cause })

/** Lines are read as slowly as they are used. If the socket breaks, this fails at once. */
async function* linesOf(socket: Socket): AsyncGenerator<string> {
  let rest = ''
  const chunks: AsyncIterator<string> = socket.setEncoding('utf8')[Symbol.asyncIterator]()
  for (;;) {
    const next = await chunks.next().catch((error: unknown) => {
      throw ended(error)
    })
    if (next.done === true) return
    const parts = (rest + next.value).split('\n')
    rest = parts.pop() ?? ''
    yield* parts
  }
}
