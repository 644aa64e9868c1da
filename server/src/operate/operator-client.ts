import { once } from 'node:events'
import { type IncomingMessage, request } from 'node:http'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import * as v from 'valibot'
import { faultMessage, UploadError } from '../lib/errors.js'
import { type CallError, type PlainCall, PROTOCOL, type ReconcileLine } from './operator-app.js'
import type { Operator } from './operator.js'
import type { ReconcileOptions, ReconcileReport } from './reconcile.js'
import { SOCKET_NAME } from './socket.js'

/** A server that hangs accepts connections and does not answer. A command must not hang with it. */
const HELLO_MS = 10_000

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
    const answer = await send(path, { method: 'GET', path: '/version', signal: AbortSignal.timeout(HELLO_MS) })
    hello = JSON.parse(await text(answer))
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? ''
    if (NOBODY.has(code)) return { outcome: 'none' }
    if (code === 'EACCES' || code === 'EPERM')
      return refusedBy(
        "the running server's socket can be opened only by the user that runs the server: run this command as that user",
      )
    if (!code.startsWith('HPE_') && !(error instanceof SyntaxError))
      return refusedBy(
        `a server holds this data directory, and did not answer within ${HELLO_MS / 1000} s (${faultMessage(error)}): check whether it hangs`,
      )
  }
  if (!v.is(v.object({ protocol: v.literal(PROTOCOL) }), hello))
    return refusedBy('the running server has another version: use the `landfall` command of that version')
  return { outcome: 'connected', operator: operatorAt(path) }
}

/**
 * The codes with which `connect` fails if no process listens: no socket, one that a killed process has left, or no
 * directory.
 */
const NOBODY = new Set(['ENOENT', 'ECONNREFUSED', 'ENOTDIR', 'EINVAL'])

function operatorAt(path: string): Operator {
  const call = async (name: PlainCall, argument: unknown): Promise<never> => {
    const answer = await post(path, `/${name}`, argument)
    const body = await text(answer).catch((error: unknown) => {
      throw serverEnded(error)
    })
    if (answer.statusCode === 200) return JSON.parse(body) as never
    throw errorOf(JSON.parse(body) as CallError)
  }
  return {
    list: (page) => call('list', page),
    show: (key) => call('show', key),
    retry: (key) => call('retry', key),
    cancel: (key) => call('cancel', key),
    forgetOwner: (what) => call('forgetOwner', what),
    doctor: () => call('doctor', {}),
    reconcile: (options = {}) => reconcileAt(path, options),
  }
}

async function reconcileAt(
  path: string,
  { onFinding, onProgress, signal, ...rest }: ReconcileOptions,
): Promise<ReconcileReport> {
  const answer = await post(path, '/reconcile', rest, signal)
  if (answer.statusCode !== 200) throw errorOf(JSON.parse(await text(answer)) as CallError)
  try {
    for await (const line of linesOf(answer)) {
      const told = JSON.parse(line) as ReconcileLine
      if ('finding' in told) await onFinding?.(told.finding)
      else if ('progress' in told) onProgress?.(told.progress)
      else if ('report' in told) return told.report
      else throw errorOf(told.error)
    }
  } finally {
    answer.destroy()
  }
  throw serverEnded()
}

async function post(path: string, call: string, argument: unknown, signal?: AbortSignal): Promise<IncomingMessage> {
  try {
    return await send(path, { method: 'POST', path: call, body: JSON.stringify(argument), ...(signal && { signal }) })
  } catch (error) {
    signal?.throwIfAborted()
    if (NOBODY.has((error as NodeJS.ErrnoException).code ?? ''))
      throw new UploadError('setup', 'the server has just ended: try again')
    throw serverEnded(error)
  }
}

interface Sent {
  method: 'GET' | 'POST'
  path: string
  body?: string
  signal?: AbortSignal
}

async function send(socketPath: string, { body, ...call }: Sent): Promise<IncomingMessage> {
  // `agent: false`: each call has its own connection, which ends with the call, so that it does not keep a command
  // alive.
  const sent = request({ socketPath, agent: false, ...call, headers: { 'Content-Type': 'application/json' } })
  sent.end(body)
  const [answer] = (await once(sent, 'response')) as [IncomingMessage]
  return answer
}

const errorOf = ({ message, code }: CallError): Error =>
  code === null ? new Error(message) : new UploadError(code, message)

const serverEnded = (cause?: unknown): UploadError =>
  new UploadError('setup', 'the server ended before it had answered', { cause })

/** Lines are read as slowly as they are used. */
async function* linesOf(answer: IncomingMessage): AsyncGenerator<string> {
  let rest = ''
  const chunks: AsyncIterator<string> = answer.setEncoding('utf8')[Symbol.asyncIterator]()
  for (;;) {
    const next = await chunks.next().catch((error: unknown) => {
      throw serverEnded(error)
    })
    if (next.done === true) return
    const parts = (rest + next.value).split('\n')
    rest = parts.pop() ?? ''
    yield* parts
  }
}
