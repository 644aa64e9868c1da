import { createHash } from 'node:crypto'
import { join } from 'node:path'
import type { Operation, Problem } from '@landfall/shared'
import { Hono } from 'hono'
import { v7 as uuidv7 } from 'uuid'
import { fileBlobs } from '../src/blobs/file/file-blobs.js'
import type { Kind } from '../src/kinds/kind.js'
import { sqliteLedger } from '../src/ledger/sqlite/ledger.js'
import type { BlobStore } from '../src/ports/blob-store.js'
import type { Ledger } from '../src/ports/ledger.js'
import { createUploads } from '../src/uploads.js'
import type { UploadsOptions } from '../src/uploads-options.js'
import { openDatabase, photos, temporaryDirectory, type Tx } from './fixtures.js'

type Kinds = Record<string, Kind<Tx>>
type Body = string | Uint8Array<ArrayBuffer> | ReadableStream<Uint8Array>
export type Options = Partial<Omit<UploadsOptions<Tx, Kinds>, 'kinds'>>

export const silent = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }

/** The whole server in process, on a real database and a real directory. */
export async function startServer(
  kinds: Kinds,
  options: Options & { blobsOf?: (blobs: BlobStore) => BlobStore; ledgerOf?: (ledger: Ledger<Tx>) => Ledger<Tx> } = {},
) {
  const directory = await temporaryDirectory()
  const open = async () => {
    const { client, db } = await openDatabase(join(directory.path, 'app.db'))
    const { blobsOf = (blobs: BlobStore) => blobs, ledgerOf = (ledger: Ledger<Tx>) => ledger, ...rest } = options
    const ledger = ledgerOf(sqliteLedger(db))
    const blobs = blobsOf(fileBlobs({ directory: join(directory.path, 'blobs') }))
    const uploads = createUploads<Tx, Kinds>({
      ledger,
      blobs,
      authenticate: (c) => c.req.header('X-Owner') ?? null,
      kinds,
      completer: 'manual',
      operatorSocket: false,
      logger: silent,
      ...rest,
    })
    return { client, db, ledger, blobs, uploads, app: new Hono().route('/uploads', uploads.routes) }
  }
  let opened = await open()
  await opened.uploads.ready()

  /** Our own client says whose the upload is, unless a test has said it. */
  const request = async (
    method: string,
    path: string,
    init: { owner?: string | null; headers?: Record<string, string>; body?: Body | null } = {},
  ): Promise<Response> => {
    const { owner = 'ann' } = init
    const headers = new Headers(init.headers)
    if (owner !== null) headers.set('X-Owner', owner)
    if (owner !== null && headers.has('Landfall-Version') && !headers.has('Landfall-Owner'))
      headers.set('Landfall-Owner', await opened.uploads.ownerTag(owner))
    return Promise.resolve(
      opened.app.request(`http://host.test/uploads${path}`, {
        method,
        headers,
        ...(init.body === undefined || init.body === null ? {} : { body: init.body, duplex: 'half' }),
      }),
    )
  }
  const json = async <T>(response: Promise<Response>): Promise<T & { status: number }> => {
    const answered = await response
    return { ...((await answered.json()) as T), status: answered.status }
  }

  return {
    directory: directory.path,
    /** Of the next start. */
    kinds,
    get ledger() {
      return opened.ledger
    },
    get blobs() {
      return opened.blobs
    },
    get uploads() {
      return opened.uploads
    },
    get db() {
      return opened.db
    },
    get app() {
      return opened.app
    },
    request,
    /** `PUT /operations/{id}`. */
    declare: (id: string, file: { size: number; name?: string; type?: string }, more: object = {}, owner = 'ann') =>
      json<Operation & Problem>(
        request('PUT', `/operations/${id}`, {
          owner,
          headers: { 'Landfall-Version': '1', 'Content-Type': 'application/json' },
          body: JSON.stringify({ file: { name: 'a.bin', type: 'application/octet-stream', ...file }, ...more }),
        }),
      ),
    /** A tus PATCH, of our own client unless `stock`. */
    patch: (
      id: string,
      offset: number,
      body: Body | null,
      {
        stock = false,
        owner = 'ann',
        headers = {},
      }: { stock?: boolean; owner?: string; headers?: Record<string, string> } = {},
    ) =>
      request('PATCH', `/files/${id}`, {
        owner,
        headers: {
          'Tus-Resumable': '1.0.0',
          'Upload-Offset': String(offset),
          'Content-Type': 'application/offset+octet-stream',
          ...(stock ? {} : { 'Landfall-Version': '1' }),
          ...headers,
        },
        body,
      }),
    /** A tus creation, of a stock client. */
    create: (
      size: number | null,
      metadata: Record<string, string>,
      {
        owner = 'ann',
        headers = {},
        body = null,
      }: { owner?: string; headers?: Record<string, string>; body?: Body | null } = {},
    ) =>
      request('POST', '/files', {
        owner,
        headers: {
          'Tus-Resumable': '1.0.0',
          ...(size === null ? {} : { 'Upload-Length': String(size) }),
          'Upload-Metadata': Object.entries(metadata)
            .map(([key, value]) => `${key} ${Buffer.from(value).toString('base64')}`)
            .join(','),
          ...headers,
        },
        body,
      }),
    head: (id: string, { owner = 'ann', headers = {} }: { owner?: string; headers?: Record<string, string> } = {}) =>
      request('HEAD', `/files/${id}`, { owner, headers: { 'Tus-Resumable': '1.0.0', ...headers } }),
    get: (id: string, query = '', owner = 'ann') =>
      json<Operation & Problem>(request('GET', `/operations/${id}${query}`, { owner })),
    photos: async () => (await opened.db.select().from(photos)).map(({ name }) => name),
    /** The process ends, in order or not, and another one starts on the same data, or on what was made of it. */
    async restart(between: () => Promise<void> = async () => {}) {
      await opened.uploads.close()
      opened.client.close()
      await between()
      opened = await open()
      await opened.uploads.ready()
    },
    async close() {
      await opened.uploads.close()
      opened.client.close()
      await directory.remove()
    },
  }
}
export type TestServer = Awaited<ReturnType<typeof startServer>>

export const newId = (): string => uuidv7()
export const content = (size: number, seed = 1): Uint8Array<ArrayBuffer> =>
  Uint8Array.from({ length: size }, (_, n) => (n * 31 + seed * 7 + (n >> 8)) & 0xff)
export const digestOf = (bytes: Uint8Array): string =>
  `sha-256=:${createHash('sha256').update(bytes).digest('base64')}:`
export const later = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

/**
 * Looks again until it holds. The time allows for a busy machine and for the pauses that the server draws (up to 4 s
 * each); no test measures by it.
 */
export async function eventually<T>(
  look: () => Promise<T>,
  holds: (value: T) => boolean,
  withinMs = 15_000,
): Promise<T> {
  for (const deadline = Date.now() + withinMs; ; await later(20)) {
    const value = await look()
    if (holds(value)) return value
    if (Date.now() > deadline) throw new Error(`it did not come true: ${JSON.stringify(value)}`)
  }
}

/** A body that hands out its chunks and then breaks, or stays silent. */
export function brokenBody(chunks: readonly Uint8Array[], ending: 'broken' | 'silent'): ReadableStream<Uint8Array> {
  let at = 0
  return new ReadableStream({
    pull(controller) {
      const chunk = chunks[at++]
      if (chunk !== undefined) controller.enqueue(chunk)
      else if (ending === 'broken') controller.error(new Error('the connection was reset'))
      // A client that has gone silent.
      return chunk === undefined && ending === 'silent' ? new Promise<void>(() => {}) : undefined
    },
  })
}
