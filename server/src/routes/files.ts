import { problem } from '@landfall/shared'
import { create as contentDisposition } from 'content-disposition'
import type { Context } from 'hono'
import parseRange from 'range-parser'
import { type Env, ProblemError, refuse } from '../context.js'
import { accepts } from '../kinds.js'
import { isMediaType } from '../media-type.js'
import type { BlobStore, OperationRecord, ReferenceRecord } from '../ports.js'

/** `GET` and `HEAD` of a stored blob (RFC 9110: ranges 14, validators 13). */
export type SendFile = (c: Context<Env>, operation: OperationRecord | null) => Promise<Response>

export interface SendFileDeps {
  readonly blobs: BlobStore
  /** Media types that a browser may show in place instead of saving them. Default: none. */
  readonly inlineTypes: readonly string[]
  readonly crossOrigin: boolean
  /** GET is sent on to an address of the store's own, which is good for so long; null: the bytes go through here. */
  readonly signedUrlSeconds: number | null
}

export function createSendFile({ blobs, inlineTypes, crossOrigin, signedUrlSeconds }: SendFileDeps): SendFile {
  return async function sendFile(c, operation) {
    const reference = operation?.reference ?? null
    if (operation === null || reference === null)
      throw operation === null || operation.removedAt === null
        ? refuse('not-found')
        : new ProblemError(operation.problem ?? problem('removed'))
    const etag = `"${reference.digest.slice('sha-256=:'.length, -1)}"`
    const headers = headersOf(operation, reference, etag)
    if (matches(c.req.header('If-None-Match'), etag)) return new Response(null, { status: 304, headers })
    if (signedUrlSeconds !== null && blobs.presign !== undefined && c.req.method === 'GET') {
      const location = await blobs.presign(reference.blobKey, {
        expiresInSeconds: signedUrlSeconds,
        contentType: headers.get('Content-Type') ?? 'application/octet-stream',
        contentDisposition: headers.get('Content-Disposition') ?? 'attachment',
      })
      return new Response(null, { status: 302, headers: { Location: location, 'Cache-Control': 'no-store' } })
    }
    const range = rangeOf(c, reference.size, etag)
    if (range === 'unsatisfiable') {
      headers.set('Content-Range', `bytes */${reference.size}`)
      return new Response(null, { status: 416, headers })
    }
    const { start, end } = range ?? { start: 0, end: reference.size }
    headers.set('Content-Length', String(end - start))
    if (range !== null) headers.set('Content-Range', `bytes ${start}-${end - 1}/${reference.size}`)
    const body = c.req.method === 'HEAD' ? null : await blobs.read(reference.blobKey, { start, end })
    return new Response(body, { status: range === null ? 200 : 206, headers })
  }

  /** Somebody uploaded it: it is saved and not shown, runs nothing, and its type is not guessed. */
  function headersOf(operation: OperationRecord, reference: ReferenceRecord, etag: string): Headers {
    const inline = inlineTypes.length > 0 && accepts(inlineTypes, reference.type)
    return new Headers({
      // A row of an older version may hold what is no media type.
      'Content-Type': isMediaType(reference.type) ? reference.type : 'application/octet-stream',
      'Content-Disposition': contentDisposition(operation.file.name, { type: inline ? 'inline' : 'attachment' }),
      'Content-Security-Policy':
        "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; media-src 'self'",
      'X-Content-Type-Options': 'nosniff',
      'Cross-Origin-Resource-Policy': crossOrigin ? 'cross-origin' : 'same-origin',
      'Accept-Ranges': 'bytes',
      ETag: etag,
      'Last-Modified': new Date(reference.storedAt).toUTCString(),
      'Repr-Digest': reference.digest,
      // The bytes never change, but who may read them does.
      'Cache-Control': 'private, no-cache',
    })
  }
}

function matches(header: string | undefined, etag: string): boolean {
  if (header === undefined) return false
  return header.trim() === '*' || header.split(',').some((tag) => tag.trim().replace(/^W\//, '') === etag)
}

/** One range; more than one, a unit that is not bytes, or a stale `If-Range` get the whole (RFC 9110, 14.2). */
function rangeOf(c: Context, size: number, etag: string): { start: number; end: number } | 'unsatisfiable' | null {
  const header = c.req.header('Range')
  // Ranges are defined for GET only.
  if (c.req.method !== 'GET' || header === undefined || !header.startsWith('bytes=')) return null
  const condition = c.req.header('If-Range')
  if (condition !== undefined && condition !== etag) return null
  const ranges = parseRange(size, header)
  if (ranges === -1) return 'unsatisfiable'
  if (ranges === -2 || ranges.length !== 1 || ranges[0] === undefined) return null
  return { start: ranges[0].start, end: ranges[0].end + 1 }
}
