import { AsyncLocalStorage } from 'node:async_hooks'
import type { Readable } from 'node:stream'
import {
  filePath,
  isFinal,
  isOpen,
  parseDeclareRequest,
  parseOperationId,
  TUS_CONTENT_TYPE,
  type JsonObject,
  type Problem,
  problem,
  problemCode,
  type ProblemCode,
} from '@landfall/shared'
import { DataStore, Server, type Upload } from '@tus/server'
import type { Context } from 'hono'
import { v7 as uuidv7 } from 'uuid'
import { bodyOf, refuseEncoded } from '../body.js'
import { baseOf, type Env } from '../context.js'
import type { Admit, Limits } from '../../kinds/admission.js'
import { absent } from '../../kinds/gone.js'
import type { Logger } from '../../lib/log.js'
import { ProblemError, refuse } from '../../lib/problem-error.js'
import type { Clock } from '../../ports/clock.js'
import type { LedgerOperations } from '../../ports/ledger/operations.js'
import type { OperationKey, OperationRecord } from '../../ports/operation.js'
import type { Cancel } from '../../sequence/cancel.js'
import type { Drive } from '../../sequence/drive.js'
import type { Leases } from '../../sequence/leases.js'
import type { Receive } from '../../sequence/receive.js'
import type { Watch } from '../../sequence/watch.js'
import { parseUploadMetadata, type UploadMetadata } from './upload-metadata.js'
import { COMPLETING_WAIT_MS, goneAs, isSettled, shownOffset } from './withheld-tail.js'

/**
 * Creation, options and termination, by @tus/server. `method` is the method that is meant, because a request can
 * override its own.
 */
export type TusLibrary = (c: Context<Env>, method: 'POST' | 'DELETE' | 'OPTIONS') => Promise<Response>

export interface TusLibraryDeps {
  readonly ledger: LedgerOperations
  readonly leases: Leases
  readonly drive: Drive
  readonly receive: Receive
  readonly admit: Admit
  readonly cancel: Cancel
  readonly watch: Watch
  readonly clock: Clock
  readonly log: Logger
  readonly limits: Limits
}

/** What the library's callbacks need to know of the request for which they are called. */
interface Call {
  readonly owner: string
  readonly base: string
  /** The header `Upload-Metadata` as it came, and its parsed content. */
  readonly header: string | null
  readonly metadata: UploadMetadata
  /** The error of a callback. The library would reduce it to a status and a text. */
  error: Error | null
}

/**
 * The reference of an empty file is committed inside its POST, and a stock client takes that for the whole upload. So
 * the request waits as long as the reference can take.
 */
const EMPTY_FILE_WAIT_MS = 300_000
/**
 * The part of `Upload-Metadata` in addition to the kind's metadata: names of a thousand wide letters, twice, in base64.
 */
const FILE_FACTS_BYTES = 8 * 1024
/** Keys in which stock clients describe the file. Everything else is the kind's metadata. */
const FILE_KEYS = new Set([
  'filename',
  'name',
  'filetype',
  'type',
  'relativePath',
  'lastModified',
  'operationId',
  'kind',
])

export function createTusLibrary(deps: TusLibraryDeps): TusLibrary {
  const { ledger, leases, drive, receive, admit, cancel, watch, clock } = deps
  const maxHeaderLength = Math.ceil((deps.limits.maxMetadataBytes * 4) / 3) + FILE_FACTS_BYTES
  const calls = new AsyncLocalStorage<Call>()
  const keyOf = (id: string): OperationKey => ({ owner: callNow().owner, id })
  const callNow = (): Call => {
    const call = calls.getStore()
    if (call === undefined) throw new Error('outside of a request')
    return call
  }
  /** The library knows only a status and a text, so the error is passed around it. */
  const refuseBy = (error: unknown): never => {
    callNow().error =
      error instanceof Error ? error : new Error('something other than an Error was thrown', { cause: error })
    // oxlint-disable-next-line only-throw-error -- the library's own form of an error
    throw { status_code: 500, body: '' }
  }
  const guarded = <T>(work: () => Promise<T>): Promise<T> => work().catch(refuseBy)

  /** To the library, the ledger is the store. Bytes are received in the same way as those of a PATCH. */
  class OperationStore extends DataStore {
    override extensions = ['creation', 'creation-with-upload', 'termination']
    override create(upload: Upload): Promise<Upload> {
      return guarded(() => create(upload))
    }
    override write(stream: Readable, id: string, offset: number): Promise<number> {
      return guarded(() => write(stream, id, offset))
    }
    override remove(id: string): Promise<void> {
      return guarded(async () => void (await cancel(keyOf(id)).catch(terminationRefused)))
    }
    override async getUpload(): Promise<Upload> {
      throw new Error('HEAD and PATCH are not served by the library')
    }
  }

  const server = new Server({
    // The library requires a path. Only the request shows where the routes are mounted.
    path: '/files',
    datastore: new OperationStore(),
    // Leases are the locks. They are taken where bytes are written.
    locker: { newLock: () => ({ lock: async () => {}, unlock: async () => {} }) },
    namingFunction: () => {
      const asked = callNow().metadata['operationId']
      if (asked === undefined || asked === null) return uuidv7()
      return parseOperationId(asked) ?? refuseBy(refuse('invalid-operation-id'))
    },
    generateUrl: (_request, { id }) => callNow().base + filePath(id),
    getFileIdFromRequest: (_request, last) => parseOperationId(last) ?? undefined,
    onUploadFinish: (_request, upload) => guarded(() => finish(upload)),
  })

  async function create(upload: Upload): Promise<Upload> {
    if (upload.size === undefined) throw refuse('not-offered')
    const key = keyOf(upload.id)
    const { metadata, header } = callNow()
    // Each HEAD returns it, and a proxy has to buffer the whole head of that answer.
    if ((header?.length ?? 0) > maxHeaderLength)
      throw refuse('metadata-too-large', { detail: `Upload-Metadata: at most ${maxHeaderLength} bytes` })
    const declaration = parseDeclareRequest(declarationOf(metadata, upload.size))
    if (!declaration.ok) throw refuse('invalid-request', { detail: declaration.detail })
    const admission = await admit(key, declaration.value, header)
    if (admission.outcome === 'refused') throw new ProblemError(admission.problem)
    const { operation } = admission
    if (isFinal(operation.point) || operation.removedAt !== null) throw goneAs(operation)
    return upload
  }

  /**
   * Data in the creation request. A repeated request writes nothing at offset 0, and returns how far the first one
   * came.
   */
  async function write(stream: Readable, id: string, offset: number): Promise<number> {
    const key = keyOf(id)
    const before = await found(key)
    if (before.point !== 'declared' || before.offset > 0) {
      stream.resume()
      return before.offset
    }
    const received = await receive(key, { offset, length: null, source: stream as AsyncIterable<Uint8Array> })
    switch (received.outcome) {
      case 'acknowledged':
      case 'conflict':
        return received.operation.offset
      case 'whole':
        return (await received.acknowledged).offset
      case 'refused':
        throw new ProblemError(received.problem)
      case 'locked':
        throw refuse('locked', { retryAfterSeconds: 1 })
      case 'closed':
        return (await found(key)).offset
    }
  }

  /** The library reports that all bytes have arrived. This is only a short cut: nothing depends on this call. */
  async function finish(upload: Upload): Promise<{ headers?: Record<string, string> }> {
    const key = keyOf(upload.id)
    const empty = upload.size === 0
    if (empty) {
      const taken = await leases.take(key, 'drive', 0)
      if (taken.outcome === 'granted') void drive(taken.held)
    }
    const operation =
      (await watch.until(key, isSettled, empty ? EMPTY_FILE_WAIT_MS : COMPLETING_WAIT_MS)) ?? (await found(key))
    if (isFinal(operation.point)) throw goneAs(operation)
    if (empty && isOpen(operation.point)) throw refuse('unavailable', { retryAfterSeconds: 1 })
    return { headers: { 'Upload-Offset': String(shownOffset(operation, clock.now())) } }
  }

  async function found(key: OperationKey): Promise<OperationRecord> {
    const operation = await ledger.find(key)
    if (operation === null) throw await absent(ledger, key)
    return operation
  }

  return async function library(c, method) {
    if (method === 'POST') refuseEncoded(c)
    const header = c.req.header('Upload-Metadata') ?? ''
    const call: Call = {
      owner: c.get('owner'),
      base: baseOf(c),
      header: header === '' ? null : header,
      metadata: parseUploadMetadata(method === 'POST' ? header : undefined),
      error: null,
    }
    const response = await calls.run(call, () => server.handleWeb(requestFor(c, method)))
    if (response.status >= 400) throw call.error ?? new ProblemError(await problemIn(response))
    if (method === 'OPTIONS') response.headers.set('Tus-Max-Size', String(deps.limits.maxSizeBytes))
    // CORS is decided in one place, and not by the library (which says "*").
    for (const name of Array.from(response.headers.keys()))
      if (name.startsWith('access-control-')) response.headers.delete(name)
    return response
  }
}

/** Only the headers that the library uses: it refuses requests because of other headers that do not concern it. */
const LIBRARY_HEADERS = [
  'Content-Length',
  'Content-Type',
  'Tus-Resumable',
  'Upload-Concat',
  'Upload-Defer-Length',
  'Upload-Length',
]

function requestFor(c: Context<Env>, method: string): Request {
  const headers = new Headers()
  for (const name of LIBRARY_HEADERS) {
    const value = c.req.header(name)
    if (value !== undefined) headers.set(name, value)
  }
  // The library takes the id from the end of the path.
  const url = new URL(c.req.url)
  const hasBody = method === 'POST' && headers.get('Content-Type') === TUS_CONTENT_TYPE
  return new Request(
    url.origin + url.pathname,
    hasBody ? { method, headers, body: ReadableStream.from(bodyOf(c)), duplex: 'half' } : { method, headers },
  )
}

/** 403, although the operation's own resource answers 409: stock clients repeat a request without end after a 409. */
function terminationRefused(error: unknown): never {
  if (!(error instanceof ProblemError) || problemCode(error.problem) !== 'already-referenced') throw error
  throw new ProblemError({ ...error.problem, status: 403 })
}

/** The library refuses in plain text. */
async function problemIn(response: Response): Promise<Problem> {
  const code = { 413: 'too-large', 500: 'internal', 501: 'not-offered' }[response.status] ?? 'invalid-request'
  return { ...problem(code as ProblemCode, { detail: (await response.text()).trim() }), status: response.status }
}

/** What a stock client says in `Upload-Metadata`, as a declaration. */
function declarationOf(said: UploadMetadata, size: number): unknown {
  const text = (...names: string[]): string =>
    names.map((name) => said[name]).find((value) => typeof value === 'string') ?? ''
  const lastModified = Number(text('lastModified'))
  const metadata: JsonObject = Object.fromEntries(Object.entries(said).filter(([name]) => !FILE_KEYS.has(name)))
  const name = text('filename', 'name')
  const kind = text('kind')
  return {
    ...(kind === '' ? {} : { kind }),
    file: {
      name: name === '' ? 'file' : name,
      size,
      type: text('filetype', 'type'),
      ...(Number.isSafeInteger(lastModified) && lastModified > 0 ? { lastModified } : {}),
    },
    metadata,
  }
}
