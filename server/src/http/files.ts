import { ServerResponse } from 'node:http'
import { problem } from '@landfall/shared'
import type { Context } from 'hono'
import onHeaders from 'on-headers'
import { type AllowedOrigins, allowsOrigin } from './same-site.js'
import type { Env } from './context.js'
import { ProblemError, refuse } from '../lib/problem-error.js'
import { accepts } from '../kinds/kind.js'
import { canRunScripts } from '../kinds/media-names.js'
import { isMediaType } from '../kinds/media-type.js'
import type { BlobStore } from '../ports/blob-store.js'
import type { OperationRecord, ReferenceRecord } from '../ports/operation.js'
import { dispositionOf } from './disposition.js'
import { judgeConditions, judgeRange } from './preconditions.js'

/** `GET` and `HEAD` of a stored blob (RFC 9110: ranges 14, validators 13). */
export type SendFile = (c: Context<Env>, operation: OperationRecord | null) => Promise<Response>

export interface SendFileDeps {
  readonly blobs: BlobStore
  /** Media types that a browser may show in place instead of saving them. Default: none. */
  readonly inlineTypes: readonly string[]
  readonly allowedOrigins: AllowedOrigins
  /** GET is sent on to an address of the store's own, which is good for so long; null: the bytes go through here. */
  readonly signedUrlSeconds: number | null
}

/**
 * What a browser may want a stored file for (`Sec-Fetch-Dest`). A file that somebody uploaded is no script, style, worker
 * or manifest of the page, whatever its bytes are; nor is it what browsers may invent next.
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
    // Ranges are defined for GET only.
    const range = c.req.method === 'GET' ? judgeRange(read, reference.size, validators) : null
    if (range === 'unsatisfiable')
      throw refuse('range-not-satisfiable', {}, { 'Content-Range': `bytes */${reference.size}`, ETag: etag })
    const { start, end } = range ?? { start: 0, end: reference.size }
    headers.set('Content-Length', String(end - start))
    if (range !== null) headers.set('Content-Range', `bytes ${start}-${end - 1}/${reference.size}`)
    const body = c.req.method === 'GET' ? await blobs.read(reference.blobKey, { start, end }) : null
    return new Response(body, { status: range === null ? 200 : 206, headers })
  }

  /** Somebody uploaded it: it is saved and not shown, runs nothing, and its type is not guessed. */
  async function headersOf(
    c: Context<Env>,
    operation: OperationRecord,
    reference: ReferenceRecord,
    etag: string,
  ): Promise<Headers> {
    const inline = inlineTypes.length > 0 && accepts(inlineTypes, reference.type) && !canRunScripts(reference.type)
    return new Headers({
      // A row of an older version may hold what is no media type.
      'Content-Type': isMediaType(reference.type) ? reference.type : 'application/octet-stream',
      'Content-Disposition': dispositionOf(operation.file.name, inline ? 'inline' : 'attachment'),
      'Content-Security-Policy': POLICY,
      'X-Content-Type-Options': 'nosniff',
      'Cross-Origin-Resource-Policy': (await comesFromAllowedSite(c)) ? 'cross-origin' : 'same-origin',
      'Accept-Ranges': 'bytes',
      ETag: etag,
      'Last-Modified': new Date(reference.storedAt).toUTCString(),
      'Repr-Digest': reference.digest,
      // The bytes never change, but who may read them does.
      'Cache-Control': 'private, no-cache',
    })
  }

  /**
   * Whether a page of an allowed origin shows the file. An `<img>` without `crossorigin` sends no `Origin`; its `Referer`
   * names the origin unless that page has forbidden it. No other page can send either with somebody else's origin.
   */
  async function comesFromAllowedSite(c: Context<Env>): Promise<boolean> {
    const referrer = c.req.header('Referer') ?? ''
    const origin = c.req.header('Origin') ?? (URL.canParse(referrer) ? originOf(new URL(referrer)) : null)
    return origin !== null && allowsOrigin(allowedOrigins, origin, c)
  }
}

const originOf = ({ origin, protocol, host }: URL): string => (origin === 'null' ? `${protocol}//${host}` : origin)

/** What keeps an uploaded file from running, or a page of an allowed origin from being kept out. */
const KEPT = ['Content-Type', 'Content-Disposition', 'X-Content-Type-Options', 'Cross-Origin-Resource-Policy'] as const

/**
 * Middleware behind these routes, such as `secureHeaders` for all of an application, replaces headers of every answer. On
 * Node they are set again right before the head is written. A policy of the application's holds beside ours, never
 * instead of it.
 */
function keepOn(c: Context<Env>, headers: Headers): void {
  const outgoing: unknown = (c.env as { outgoing?: unknown } | undefined)?.outgoing
  if (!(outgoing instanceof ServerResponse)) return
  onHeaders(outgoing, () => {
    // Some middleware has answered something else.
    if (outgoing.statusCode >= 400) return
    for (const name of KEPT) {
      const value = headers.get(name)
      if (value !== null) outgoing.setHeader(name, value)
    }
    const others = [outgoing.getHeader('Content-Security-Policy') ?? []].flat().map(String)
    outgoing.setHeader('Content-Security-Policy', [POLICY, ...others.filter((policy) => policy !== POLICY)])
  })
}
