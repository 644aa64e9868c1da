import { connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Fault, FaultBook, Interception, MetFault, UpstreamEnd } from './fault.js'
import {
  createHttpStream,
  createOpaqueStream,
  type Head,
  type Piece,
  requestFraming,
  responseFraming,
} from './http-stream.js'
import type { Direction, Link } from './link.js'
import { createPump, write } from './pump.js'
import { keepStart, type RecordedConnection, type RecordedRequest } from './record.js'

export interface ConnectionContext {
  readonly link: Link
  readonly faults: FaultBook
  readonly protocol: 'http' | 'opaque'
  /** For a protocol that is not HTTP: what happens to these bytes. Null means that they pass. */
  meets(bytes: Buffer, connection: number): Interception | null
  /** Called when the first byte must go to the server. Null means that there is no server. */
  target(): { port: number; host: string } | null
  recorded(request: RecordedRequest): void
  crossed(direction: Direction, bytes: number): void
  /** Called when something in the records has changed. */
  changed(): void
  closed(): void
}

export interface Connection {
  readonly record: RecordedConnection
  /** Sends RST to both sides. */
  reset(): void
  /** Sends FIN to both sides, after the bytes that are already on their way. */
  close(): void
  /** Nothing passes any more. The client sees nothing, and the server sees a reset. */
  strand(): void
  pause(): void
  resume(): void
}

/** If the line has a delay, more than one slice is on its way at a time. */
const LIMIT_BYTES = 65_536
const LIMIT_WITH_LATENCY_BYTES = 1_048_576
const CONTINUE = Buffer.from('HTTP/1.1 100 Continue\r\n\r\n')

export function serveConnection(client: Socket, connection: number, context: ConnectionContext): Connection {
  const record: RecordedConnection = {
    connection,
    targetPort: null,
    upBytes: 0,
    downBytes: 0,
    requests: 0,
    open: true,
  }
  const { link } = context
  /** Requests whose answer has not ended, oldest first. */
  const pending: { request: RecordedRequest; met: MetFault | null }[] = []
  let current: (typeof pending)[number] | null = null
  let upstream: Socket | null = null
  /** True after a fault struck that lets nothing pass any more, whatever the two sides do. */
  let silent = false
  let keepUpstream = false
  let awaiting: Interception | null = null

  client.setNoDelay(true)
  client.on('error', () => {})
  client.on('close', (hadError) => {
    record.open = false
    context.closed()
    context.changed()
    // When the line is cut, the server does not learn that the client is gone.
    void clientGone(hadError ? 'reset' : 'fin')
  })

  function limitBytes(): number {
    return link.latencyMs() > 0 ? LIMIT_WITH_LATENCY_BYTES : LIMIT_BYTES
  }

  // ---- from the client to the server

  const isHttp = context.protocol === 'http'
  const requests = isHttp ? createHttpStream(requestFraming) : createOpaqueStream()
  const upPump = createPump(client, {
    sliceBytes: () => link.sliceBytes('up'),
    limitBytes,
    async take(slice, arrivedAtMs) {
      await link.cross('up', slice.length, arrivedAtMs)
      record.upBytes += slice.length
      context.crossed('up', slice.length)
      for (const piece of requests.feed(slice)) await takeRequest(piece)
      context.changed()
    },
    async end() {
      await link.cross('up', 0, 0)
      for (const piece of requests.finish()) await takeRequest(piece)
      if (!silent) upstream?.end()
      if (upstream === null) client.end()
    },
  })

  async function takeRequest(piece: Piece): Promise<void> {
    switch (piece.kind) {
      case 'opaque':
        return takeOpaque(piece.raw)
      case 'head':
        return takeRequestHead(piece.head, piece.raw)
      case 'body':
        return takeRequestBody(piece.raw, piece.bodyBytes)
      case 'end':
        return takeRequestEnd()
    }
  }

  async function takeOpaque(raw: Buffer): Promise<void> {
    if (silent) return
    const met = context.meets(raw, connection)
    if (met?.at === 'request') return fall(met)
    awaiting ??= met
    return forward(raw)
  }

  function fall(met: Interception): void {
    if (met.strike() === 'reset') return reset()
    silent = true
    // Continue to read, because otherwise the end of the connection would not be noticed.
    client.once('end', reset)
  }

  async function takeRequestHead(head: Head, raw: Buffer): Promise<void> {
    record.requests += 1
    const request = newRequest(head, connection, record.requests)
    const met = context.faults.meet(request)
    request.fault = met?.fault.kind ?? null
    current = { request, met }
    context.recorded(request)
    if (silent) return
    const fault = met?.fault
    if (fault?.kind === 'answer') {
      // RFC 9110 10.1.1: without this answer the client does not send the body.
      if (head.headers['expect']?.toLowerCase() === '100-continue') await write(client, CONTINUE)
      return
    }
    pending.push(current)
    if (fault?.kind === 'delay') await sleep(fault.ms)
    if (met !== null && breaksAfter(met.fault) === null) return strike(met)
    await forward(raw)
    if (met !== null && breaksAfter(met.fault) === 0) strike(met)
  }

  async function takeRequestBody(raw: Buffer, bodyBytes: number): Promise<void> {
    if (current === null) return
    const { request, met } = current
    request.bodyBytes += bodyBytes
    if (bodyBytes > 0) request.bodyStart = keepStart(request.bodyStart, raw)
    if (silent || met?.fault.kind === 'answer') return
    const breakAt = met === null ? undefined : (breaksAfter(met.fault) ?? undefined)
    const passed = breakAt === undefined ? raw : raw.subarray(0, Math.max(0, breakAt - request.forwardedBodyBytes))
    await forward(bodyBytes === 0 ? raw : passed)
    if (bodyBytes > 0) request.forwardedBodyBytes += passed.length
    if (met !== null && breakAt !== undefined && request.forwardedBodyBytes >= breakAt) strike(met)
  }

  async function takeRequestEnd(): Promise<void> {
    if (current === null) return
    const { request, met } = current
    request.complete = true
    current = null
    if (silent || met?.fault.kind !== 'answer') return
    const answer = ownAnswer(met.fault, request.method)
    request.status = met.fault.status
    await link.cross('down', answer.length, performance.now())
    await write(client, answer)
    request.answered = true
    request.endedAtMs = performance.now()
  }

  async function forward(raw: Buffer): Promise<void> {
    if (silent) return
    upstream ??= openUpstream()
    if (upstream === null) return reset()
    await write(upstream, raw)
  }

  // ---- from the server to the client

  const answers = isHttp
    ? createHttpStream((head) => responseFraming(head, pending[0]?.request.method ?? 'GET'))
    : createOpaqueStream()

  function openUpstream(): Socket | null {
    const target = context.target()
    if (target === null) return null
    record.targetPort = target.port
    const socket = connect({ ...target, noDelay: true, allowHalfOpen: true })
    // If the server is down or resets the connection, the client sees the same.
    socket.on('error', () => void serverGone())
    createPump(socket, {
      sliceBytes: () => link.sliceBytes('down'),
      limitBytes,
      async take(slice, arrivedAtMs) {
        await link.cross('down', slice.length, arrivedAtMs)
        for (const piece of answers.feed(slice)) await takeAnswer(piece)
        context.changed()
      },
      async end() {
        await link.cross('down', 0, 0)
        for (const piece of answers.finish()) await takeAnswer(piece)
        if (!silent) client.end()
      },
    })
    return socket
  }

  let interim = false
  async function takeAnswer(piece: Piece): Promise<void> {
    if (awaiting !== null && !silent) return fall(awaiting)
    const first = pending[0]
    const swallow = first?.met?.fault.kind === 'swallow-answer' ? first.met : null
    if (first !== undefined && piece.kind === 'head') interim = noteAnswerHead(first.request, piece.head)
    if (first !== undefined && piece.kind === 'body') noteAnswerBody(first.request, piece)
    if (piece.kind !== 'end') {
      if (swallow === null) await backward(piece.raw)
      return
    }
    if (interim) {
      interim = false
      return
    }
    pending.shift()
    if (first === undefined) return
    first.request.answered = swallow === null && !silent
    first.request.endedAtMs = performance.now()
    if (swallow !== null) strike(swallow)
  }

  async function backward(raw: Buffer): Promise<void> {
    if (silent) return
    record.downBytes += raw.length
    context.crossed('down', raw.length)
    await write(client, raw)
  }

  // ---- breaking the connection

  function strike(met: MetFault): void {
    if (silent) return
    silent = true
    const { fault } = met
    const how = fault.kind === 'swallow-answer' ? (fault.ending ?? 'reset') : fault.kind
    if (how === 'black-hole') {
      keepUpstream = true
      if (!(fault.kind === 'black-hole' && fault.reading === true)) upPump.pause()
      return met.onRelease(reset)
    }
    const upstreamEnd = (fault.kind === 'reset' || fault.kind === 'fin' ? fault.upstream : undefined) ?? 'reset'
    if (upstreamEnd === 'keep') {
      keepUpstream = true
      met.onRelease(reset)
    } else endUpstream(upstreamEnd)
    if (how === 'fin') finish(client)
    else client.resetAndDestroy()
  }

  async function clientGone(how: Exclude<UpstreamEnd, 'keep'>): Promise<void> {
    await link.cross('up', 0, 0)
    if (!keepUpstream) endUpstream(how)
  }

  async function serverGone(): Promise<void> {
    await link.cross('down', 0, 0)
    if (!silent) client.resetAndDestroy()
  }

  function endUpstream(how: Exclude<UpstreamEnd, 'keep'>): void {
    if (upstream === null || upstream.destroyed) return
    if (how === 'reset') upstream.resetAndDestroy()
    else finish(upstream)
  }

  function reset(): void {
    silent = true
    keepUpstream = false
    endUpstream('reset')
    if (!client.destroyed) client.resetAndDestroy()
  }

  return {
    record,
    reset,
    close() {
      silent = true
      keepUpstream = false
      endUpstream('fin')
      finish(client)
    },
    strand() {
      silent = true
      endUpstream('reset')
    },
    pause: () => upPump.pause(),
    resume: () => {
      if (!silent) upPump.resume()
    },
  }
}

/** How long the other side may continue to send after our FIN. */
const LINGER_MS = 2000

/** Sends FIN. What still arrives is read and dropped, because closing a socket with unread bytes would send RST. */
function finish(socket: Socket): void {
  socket.end()
  socket.resume()
  const timer = setTimeout(() => socket.destroy(), LINGER_MS)
  socket.once('close', () => clearTimeout(timer))
}

/**
 * After how many bytes of the body the fault breaks the connection. Null: before the head. Undefined: it does not break
 * it.
 */
function breaksAfter(fault: Fault): number | null | undefined {
  switch (fault.kind) {
    case 'reset':
    case 'fin':
    case 'black-hole':
      return fault.afterBodyBytes ?? null
    case 'swallow-answer':
    case 'answer':
    case 'delay':
      return undefined
    default:
      return fault satisfies never
  }
}

function newRequest(head: Head, connection: number, nth: number): RecordedRequest {
  return {
    method: head.startLine[0],
    path: head.startLine[1],
    headers: head.headers,
    connection,
    nth,
    bodyBytes: 0,
    forwardedBodyBytes: 0,
    bodyStart: Buffer.alloc(0),
    complete: false,
    status: null,
    answerHeaders: {},
    answerBytes: 0,
    answerStart: Buffer.alloc(0),
    answered: false,
    fault: null,
    startedAtMs: performance.now(),
    endedAtMs: null,
  }
}

/** Returns whether this head is an interim one (100, 103), after which the real one follows. */
function noteAnswerHead(request: RecordedRequest, head: Head): boolean {
  const status = Number(head.startLine[1])
  if (status < 200 && status !== 101) return true
  request.status = status
  request.answerHeaders = head.headers
  return false
}

function noteAnswerBody(request: RecordedRequest, piece: Piece & { kind: 'body' }): void {
  request.answerBytes += piece.bodyBytes
  if (piece.bodyBytes > 0) request.answerStart = keepStart(request.answerStart, piece.raw)
}

function ownAnswer({ status, headers = {}, body = '' }: Fault & { kind: 'answer' }, method: string): Buffer {
  const lines = Object.entries({ 'content-length': String(Buffer.byteLength(body)), ...headers })
  const head = [`HTTP/1.1 ${status} Proxy`, ...lines.map(([name, value]) => `${name}: ${value}`)]
  // The answer to HEAD has the length of a body and no body.
  return Buffer.from(`${head.join('\r\n')}\r\n\r\n${method === 'HEAD' ? '' : body}`)
}
