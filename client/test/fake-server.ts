import { createHash, randomUUID } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { expect } from 'vitest'
import {
  isFinal,
  isOpen,
  isReferenced,
  type Operation,
  OWNER_TAG_HEADER,
  parseDeclareRequest,
  PROBLEM_MEDIA_TYPE,
  problem,
  type Problem,
  type ProblemCode,
  PROBLEMS,
  VERSION_HEADER,
} from '@landfall/shared'

/** What happens to a request instead of its answer, or in addition to it. */
export type Fault =
  | { kind: 'html'; status: number }
  | { kind: 'problem'; problem: Problem; headers?: Record<string, string> }
  /** Nothing is done, and the connection breaks. */
  | { kind: 'dropped' }
  /** Everything is done, but the answer never arrives. */
  | { kind: 'swallowed' }
  /** No byte is read or written any more. */
  | { kind: 'black-hole' }
  /** The connection breaks after so many bytes of the body. These bytes are kept. */
  | { kind: 'cut'; afterBytes: number }
  /** The server ends the request after so many bytes and reports that. */
  | { kind: 'short'; afterBytes: number }

export interface Seen {
  method: string
  path: string
  id: string | null
  query: URLSearchParams
  headers: IncomingMessage['headers']
  body: unknown
  /** For a PATCH: the offset at which it began, and how many bytes arrived. */
  offset: number
  bytes: number
}

interface Stored {
  operation: Operation
  bytes: Buffer
  awaitsDigest: boolean
}

export interface FakeServer {
  readonly endpoint: string
  readonly seen: Seen[]
  readonly operations: Map<string, Stored>
  /** Called for each request, in order. With null, the request is answered normally. */
  fault: (seen: Seen) => Fault | null
  /** What `onReference` does. While it is `hang`, nothing gets a reference. */
  outcome: (stored: Stored) => 'reference' | 'hang' | { reject: string }
  data: unknown
  /** The form of a prefix digest: over all bytes at once (null), or as a chain over parts. */
  partBytes: number | null
  /** The tag of the user who is signed in. With null, the server knows no tags. */
  owner: string | null
  count(method: string): number
  /** Lets operations continue that hang. */
  drive(): void
  change(id: string, change: Partial<Operation>): void
  close(): Promise<void>
}

function chainOf(bytes: Buffer, partBytes: number): string {
  let link = ''
  for (let at = 0; at < bytes.length; at += partBytes)
    link = digestOf(Buffer.from(link + digestOf(bytes.subarray(at, at + partBytes))))
  return link
}
const digestOf = (bytes: Buffer): string => `sha-256=:${createHash('sha256').update(bytes).digest('base64')}:`

/** A server that speaks the wire protocol on real sockets, and can do to it everything that networks do. */
export async function startFakeServer(): Promise<FakeServer> {
  const operations = new Map<string, Stored>()
  const sockets = new Set<Socket>()
  const waiters = new Set<() => void>()

  const touch = (stored: Stored, change: Partial<Operation>): void => {
    const atMs = Math.max(Date.now(), Date.parse(stored.operation.updatedAt) + 1)
    stored.operation = { ...stored.operation, ...change, updatedAt: new Date(atMs).toISOString() }
    for (const wake of waiters) wake()
  }
  const drive = (stored: Stored): void => {
    const { operation, bytes } = stored
    if (isFinal(operation.recoveryPoint) || isReferenced(operation.recoveryPoint)) return
    if (bytes.length < operation.file.size) return
    if (operation.recoveryPoint === 'declared') touch(stored, { recoveryPoint: 'received' })
    if (stored.awaitsDigest) return
    const digest = digestOf(bytes)
    const outcome = operation.digest !== null && operation.digest !== digest ? 'digest-mismatch' : fake.outcome(stored)
    if (outcome === 'hang') return
    if (outcome === 'digest-mismatch') touch(stored, { recoveryPoint: 'rejected', problem: problem('digest-mismatch') })
    else if (outcome === 'reference') {
      const { id, file } = operation
      const digestSource = operation.digest === null ? 'server' : 'client'
      const storedAt = new Date().toISOString()
      const reference = { operationId: id, size: file.size, type: file.type, digest, digestSource, storedAt } as const
      touch(stored, {
        recoveryPoint: 'referenced',
        digest,
        reference: { ...reference, url: `/uploads/files/${id}`, data: fake.data },
      })
    } else touch(stored, { recoveryPoint: 'rejected', problem: problem('rejected', { code: outcome.reject }) })
  }

  const readAll = async (request: IncomingMessage): Promise<Buffer> => {
    const parts: Buffer[] = []
    for await (const part of request) parts.push(part as Buffer)
    return Buffer.concat(parts)
  }
  const owned = (): Record<string, string> => (fake.owner === null ? {} : { [OWNER_TAG_HEADER]: fake.owner })
  const send = (
    response: ServerResponse,
    status: number,
    body: unknown,
    headers: Record<string, string> = {},
  ): void => {
    response.writeHead(status, { 'Content-Type': 'application/json', ...owned(), ...headers })
    response.end(body === null ? undefined : JSON.stringify(body))
  }
  const refuse = (response: ServerResponse, code: ProblemCode): void =>
    send(response, PROBLEMS[code].status, problem(code), { 'Content-Type': PROBLEM_MEDIA_TYPE })

  const put = (seen: Seen, response: ServerResponse): void => {
    const parsed = parseDeclareRequest(seen.body)
    if (seen.id === null || !parsed.ok) return refuse(response, 'invalid-request')
    const { file, kind = 'file', metadata = {}, digest } = parsed.value
    let stored = operations.get(seen.id)
    const isNew = stored === undefined
    if (stored === undefined) {
      const now = new Date().toISOString()
      const operation: Operation = {
        id: seen.id,
        kind,
        recoveryPoint: 'declared',
        stalled: false,
        file,
        metadata,
        offset: 0,
        uploadUrl: `/uploads/files/${seen.id}`,
        digest: null,
        reference: null,
        problem: null,
        createdAt: now,
        updatedAt: now,
        expiresAt: null,
      }
      stored = { operation, bytes: Buffer.alloc(0), awaitsDigest: digest === 'pending' }
      operations.set(seen.id, stored)
    }
    const was = stored.operation
    const isSame = was.kind === kind && was.file.size === file.size && was.file.name === file.name
    if (!isSame || JSON.stringify(was.metadata) !== JSON.stringify(metadata))
      return refuse(response, 'operation-mismatch')
    if (digest !== undefined && digest !== 'pending') {
      if (was.digest !== null && was.digest !== digest) return refuse(response, 'digest-conflict')
      stored.awaitsDigest = false
      if (was.digest === null) touch(stored, { digest })
    }
    drive(stored)
    send(response, isNew ? 201 : 200, stored.operation)
  }

  const list = async (seen: Seen, request: IncomingMessage, response: ServerResponse): Promise<void> => {
    if (seen.query.has('open')) {
      const all = [...operations.values()].map(({ operation }) => operation)
      return send(response, 200, { operations: all.filter(({ recoveryPoint }) => isOpen(recoveryPoint)) })
    }
    const ids = (seen.query.get('ids') ?? '').split(',')
    const found = (): Operation[] => ids.flatMap((id) => operations.get(id)?.operation ?? [])
    const etagOf = (): string => `"${createHash('sha1').update(JSON.stringify(found())).digest('hex')}"`
    const untilMs = Date.now() + Number(seen.query.get('wait') ?? '0') * 1000
    // Without an ETag, the client waits for any later change, as long as one is possible.
    const isOver = found().every(({ recoveryPoint }) => recoveryPoint === 'referenced' || isFinal(recoveryPoint))
    const seenTag = request.headers['if-none-match'] ?? (isOver ? '' : etagOf())
    while (seenTag === etagOf() && Date.now() < untilMs && !response.destroyed) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, untilMs - Date.now())
        const wake = (): void => {
          clearTimeout(timer)
          waiters.delete(wake)
          resolve()
        }
        waiters.add(wake)
        response.on('close', wake)
      })
    }
    const etag = etagOf()
    if (request.headers['if-none-match'] === etag) response.writeHead(304, { ETag: etag, ...owned() }).end()
    else send(response, 200, { operations: found() }, { ETag: etag })
  }

  const patch = async (
    seen: Seen,
    request: IncomingMessage,
    response: ServerResponse,
    fault: Fault | null,
  ): Promise<void> => {
    const stored = operations.get(seen.id ?? '')
    if (stored === undefined) return refuse(response, 'not-found')
    if (isFinal(stored.operation.recoveryPoint)) return refuse(response, 'cancelled')
    seen.offset = Number(request.headers['upload-offset'])
    if (seen.offset !== stored.bytes.length) return refuse(response, 'offset-conflict')
    const limit = fault?.kind === 'cut' || fault?.kind === 'short' ? fault.afterBytes : Infinity
    for await (const part of request) {
      const kept = (part as Buffer).subarray(0, limit - seen.bytes)
      stored.bytes = Buffer.concat([stored.bytes, kept])
      seen.bytes += kept.length
      if (seen.bytes >= limit) break
    }
    touch(stored, { offset: stored.bytes.length })
    if (fault?.kind === 'cut') return void request.socket.destroy()
    const isShort = fault?.kind === 'short'
    drive(stored)
    if (response.destroyed) return
    if (fault?.kind === 'swallowed') return void request.socket.destroy()
    const headers = { 'Tus-Resumable': '1.0.0', 'Upload-Offset': String(stored.bytes.length), ...owned() }
    response.writeHead(204, isShort ? { ...headers, Connection: 'close' } : headers).end()
  }

  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const url = new URL(request.url ?? '/', 'http://fake')
    const id = /^\/uploads\/(?:operations|files)\/([0-9a-f-]+)/.exec(url.pathname)?.[1] ?? null
    const method = request.method ?? ''
    const seen: Seen = {
      method: url.pathname.endsWith('/prefix') ? 'PREFIX' : method,
      path: url.pathname,
      id,
      query: url.searchParams,
      headers: request.headers,
      body: null,
      offset: 0,
      bytes: 0,
    }
    fake.seen.push(seen)
    const fault = fake.fault(seen)
    const said = request.headers[OWNER_TAG_HEADER.toLowerCase()]
    const refused =
      fault !== null || fake.owner === null
        ? null
        : said === undefined && method !== 'GET'
          ? 'owner-required'
          : said !== undefined && said !== fake.owner
            ? 'other-owner'
            : null
    if (refused !== null) {
      await readAll(request)
      return refuse(response, refused)
    }
    if (fault?.kind === 'black-hole') return void request.pause()
    if (fault?.kind === 'dropped') return void request.socket.destroy()
    if (method === 'PATCH' && (fault === null || ['cut', 'short', 'swallowed'].includes(fault.kind))) {
      return patch(seen, request, response, fault)
    }
    const body = await readAll(request)
    if (fault?.kind === 'html') {
      response.writeHead(fault.status, { 'Content-Type': 'text/html' })
      return void response.end('<!doctype html><title>Proxy</title>')
    }
    if (fault?.kind === 'problem') {
      const headers = { 'Content-Type': PROBLEM_MEDIA_TYPE, ...fault.headers }
      return send(response, fault.problem.status, fault.problem, headers)
    }
    if (fault?.kind === 'swallowed') response.end = () => (request.socket.destroy(), response)
    if (request.headers[VERSION_HEADER.toLowerCase()] !== '1') return refuse(response, 'invalid-request')
    if (method === 'PUT') {
      seen.body = JSON.parse(body.toString())
      return put(seen, response)
    }
    if (method === 'GET' && id === null) return list(seen, request, response)
    const stored = operations.get(id ?? '')
    if (stored === undefined) return refuse(response, 'not-found')
    if (seen.method === 'PREFIX')
      return send(response, 200, {
        offset: stored.bytes.length,
        ...(fake.partBytes === null
          ? { digest: digestOf(stored.bytes) }
          : { digest: chainOf(stored.bytes, fake.partBytes), partBytes: fake.partBytes }),
      })
    if (method === 'GET') return send(response, 200, stored.operation)
    if (method === 'DELETE') {
      if (isReferenced(stored.operation.recoveryPoint)) return refuse(response, 'already-referenced')
      touch(stored, { recoveryPoint: 'cancelled', problem: problem('cancelled') })
      return send(response, 200, stored.operation)
    }
    refuse(response, 'invalid-request')
  }

  const server = createServer((request, response) => {
    request.on('error', () => {})
    const { socket } = request
    answer(request, response).catch(() => socket.destroy())
  })
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.on('close', () => sockets.delete(socket))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo

  const fake: FakeServer = {
    endpoint: `http://127.0.0.1:${port}/uploads`,
    seen: [],
    operations,
    fault: () => null,
    outcome: () => 'reference',
    data: { row: randomUUID() },
    partBytes: null,
    owner: 'alice-tag',
    count: (method) => fake.seen.filter((seen) => seen.method === method).length,
    drive: () => operations.forEach(drive),
    change(id, change) {
      const stored = operations.get(id)
      if (stored !== undefined) touch(stored, change)
    },
    async close() {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
  return fake
}

const LINE_MS = 100
const QUIET_MS = 300

/** Expects that no more requests come. One that was already on its way may arrive a moment later. */
export async function staysQuiet({ seen }: FakeServer): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, LINE_MS))
  const before = seen.length
  await new Promise((resolve) => setTimeout(resolve, QUIET_MS))
  expect(seen.slice(before)).toEqual([])
}
