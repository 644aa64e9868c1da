import { ServerResponse } from 'node:http'
import { problem } from '@landfall/shared'
import type { Context } from 'hono'
import onHeaders from 'on-headers'
import { accepts } from '../kinds/kind.js'
import { canRunScripts } from '../kinds/media-names.js'
import { isMediaType } from '../kinds/media-type.js'
import { ProblemError, refuse } from '../lib/problem-error.js'
import type { BlobStore } from '../ports/blob-store.js'
import type { OperationRecord, ReferenceRecord } from '../ports/operation.js'
import type { Env } from './context.js'
import { dispositionOf } from './disposition.js'
import { judgeConditions, judgeRange } from './preconditions.js'
import { type AllowedOrigins, allowsOrigin } from './same-site.js'

/** `GET` and `HEAD` of a stored blob (RFC 9110: ranges 14, validators 13). */
export type SendFile = (c: Context<Env>, operation: OperationRecord | null) => Promise<Response>

export interface SendFileDeps {
  readonly blobs: BlobStore
  /** Media types that a browser may show in place instead of saving them. Default: none. */
  readonly inlineTypes: readonly string[]
  readonly allowedOrigins: AllowedOrigins
  /** How long an address of the blob store is valid to which GET redirects. Null: the bytes go through this server. */
  readonly signedUrlSeconds: number | null
}

/**
 * The purposes for which a browser may load a stored file (`Sec-Fetch-Dest`). A file that a user uploaded is no script,
 * style, worker or manifest of the page, whatever its bytes are. Purposes that browsers add in the future are refused
 * as well.
 *
 * @see https://www.w3.org/TR/fetch-metadata/#sec-fetch-dest-header
 */
const DESTINATIONS = new Set([
  'audio',
  'document',
  'embed',
  'empty',
  'font',
  'frame',
  'iframe',
  'image',
  'object',
  'track',
  'video',
])

const POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; media-src 'self'"

export function createSendFile({ blobs, inlineTypes, allowedOrigins, signedUrlSeconds }: SendFileDeps): SendFile {
  return async function sendFile(c, operation) {
    if (!DESTINATIONS.has(c.req.header('Sec-Fetch-Dest') || 'empty')) throw refuse('not-executable')
    const reference = operation?.reference ?? null
    if (operation === null || reference === null)
      throw operation === null || operation.removedAt === null
        ? refuse('not-found')
        : new ProblemError(operation.problem ?? problem('removed'))
    const etag = `"${reference.digest.slice('sha-256=:'.length, -1)}"`
    const validators = { etag, lastModifiedMs: reference.storedAt }
    const read = (name: string): string | undefined => c.req.header(name)
    const verdict = judgeConditions(read, validators)
    if (verdict === 'failed') throw refuse('precondition-failed', {}, { ETag: etag })
    const headers = await headersOf(c, operation, reference, etag)
    if (verdict === 'unchanged') {
      keepOn(c, headers)
      return new Response(null, { status: 304, headers })
    }
    if (signedUrlSeconds !== null && blobs.presign !== undefined && c.req.method === 'GET') {
      const location = await blobs.presign(reference.blobKey, {
        expiresInSeconds: signedUrlSeconds,
        contentType: headers.get('Content-Type') ?? 'application/octet-stream',
        contentDisposition: headers.get('Content-Disposition') ?? 'attachment',
      })
      return new Response(null, { status: 302, headers: { Location: location, 'Cache-Control': 'no-store' } })
    }
    keepOn(c, headers)
    // Ranges are defined only for GET.
    const range = c.req.method === 'GET' ? judgeRange(read, reference.size, validators) : null
    if (range === 'unsatisfiable')
      throw refuse('range-not-satisfiable', {}, { 'Content-Range': `bytes */${reference.size}`, ETag: etag })
    const { start, end } = range ?? { start: 0, end: reference.size }
    headers.set('Content-Length', String(end - start))
    if (range !== null) headers.set('Content-Range', `bytes ${start}-${end - 1}/${reference.size}`)
    const body = c.req.method === 'GET' ? await blobs.read(reference.blobKey, { start, end }) : null
    return new Response(body, { status: range === null ? 200 : 206, headers })
  }

  /**
   * A user uploaded it, so the browser saves it instead of showing it, runs nothing in it, and does not guess its type.
   */
  async function headersOf(
    c: Context<Env>,
    operation: OperationRecord,
    reference: ReferenceRecord,
    etag: string,
  ): Promise<Headers> {
    const inline = inlineTypes.length > 0 && accepts(inlineTypes, reference.type) && !canRunScripts(reference.type)
    return new Headers({
      // A row of an older version may contain a text that is no media type.
      'Content-Type': isMediaType(reference.type) ? reference.type : 'application/octet-stream',
      'Content-Disposition': dispositionOf(operation.file.name, inline ? 'inline' : 'attachment'),
      'Content-Security-Policy': POLICY,
      'X-Content-Type-Options': 'nosniff',
      'Cross-Origin-Resource-Policy': (await comesFromAllowedSite(c)) ? 'cross-origin' : 'same-origin',
      'Accept-Ranges': 'bytes',
      ETag: etag,
      'Last-Modified': new Date(reference.storedAt).toUTCString(),
      'Repr-Digest': reference.digest,
      // The bytes never change, but the permission to read them does.
      'Cache-Control': 'private, no-cache',
    })
  }

  /**
   * Whether a page of an allowed origin shows the file. An `<img>` without `crossorigin` sends no `Origin`, but its
   * `Referer` names the origin unless that page forbids it. No other page can send either header with an origin that is
   * not its own.
   */
  async function comesFromAllowedSite(c: Context<Env>): Promise<boolean> {
    const referrer = c.req.header('Referer') ?? ''
    const origin = c.req.header('Origin') ?? (URL.canParse(referrer) ? originOf(new URL(referrer)) : null)
    return origin !== null && allowsOrigin(allowedOrigins, origin, c)
  }
}

const originOf = ({ origin, protocol, host }: URL): string => (origin === 'null' ? `${protocol}//${host}` : origin)

/** These headers keep an uploaded file from running, and let pages of allowed origins show it. */
const KEPT = ['Content-Type', 'Content-Disposition', 'X-Content-Type-Options', 'Cross-Origin-Resource-Policy'] as const

/**
 * Middleware around these routes, such as `secureHeaders` for a whole application, replaces headers of every answer. On
 * Node they are set again right before the head is written. A policy of the application is sent in addition to this
 * one, never instead of it.
 */
function keepOn(c: Context<Env>, headers: Headers): void {
  const outgoing: unknown = (c.env as { outgoing?: unknown } | undefined)?.outgoing
  if (!(outgoing instanceof ServerResponse)) return
  onHeaders(outgoing, () => {
    // Another middleware has answered with an error.
    if (outgoing.statusCode >= 400) return
    for (const name of KEPT) {
      const value = headers.get(name)
      if (value !== null) outgoing.setHeader(name, value)
    }
    const others = [outgoing.getHeader('Content-Security-Policy') ?? []].flat().map(String)
    outgoing.setHeader('Content-Security-Policy', [POLICY, ...others.filter((policy) => policy !== POLICY)])
  })
}
