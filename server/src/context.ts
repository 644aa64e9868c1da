import { IncomingMessage } from 'node:http'
import {
  OPERATIONS,
  FILES,
  parseOperationId,
  PROBLEM_MEDIA_TYPE,
  type Problem,
  problem,
  type ProblemCode,
} from '@landfall/shared'
import type { Context, MiddlewareHandler } from 'hono'
import { faultMessage, UploadError } from './errors.js'
import type { Logger } from './log.js'
import type { OperationKey } from './ports.js'

/** What the routes hand on within one request. */
export interface Env {
  Variables: { owner: string }
}

/** A "no" that a route answers; rendered in one place. */
export class ProblemError extends Error {
  override readonly name = 'ProblemError'
  readonly problem: Problem
  constructor(why: Problem) {
    super(why.title)
    this.problem = why
  }
}

/** For whoever runs the server. */
export function messageOf(error: unknown): string {
  if (error instanceof ProblemError) return error.problem.detail ?? error.problem.title
  return error instanceof UploadError ? error.message : faultMessage(error)
}

export const refuse = (code: ProblemCode, extra?: Parameters<typeof problem>[1]): ProblemError =>
  new ProblemError(problem(code, extra))

/** RFC 9457. `Retry-After` goes with it wherever the problem says how long. */
export function renderProblem(why: Problem): Response {
  const headers = new Headers({ 'Content-Type': PROBLEM_MEDIA_TYPE, 'Cache-Control': 'no-store' })
  if (why.retryAfterSeconds !== undefined) headers.set('Retry-After', String(Math.ceil(why.retryAfterSeconds)))
  return new Response(JSON.stringify(why), { status: why.status, headers })
}

/** A fault as the wire says it: what it was stays in the log. */
export function problemOf(error: unknown): Problem {
  if (error instanceof ProblemError) return error.problem
  if (error instanceof UploadError) {
    switch (error.code) {
      case 'ledger-unavailable':
      case 'storage-unavailable':
      case 'writer-held':
        return problem('unavailable', { retryAfterSeconds: 1 })
      case 'storage-full':
        return problem('storage-full', { retryAfterSeconds: 30 })
      case 'lease-lost':
        return problem('locked', { retryAfterSeconds: 1 })
      default:
        break
    }
  }
  return problem('internal', { retryAfterSeconds: 1 })
}

export function renderError(error: unknown, c: Context, log: Logger): Response {
  const why = problemOf(error)
  if (why.status >= 500)
    log.error({ operationId: c.req.param('id'), method: c.req.method, err: error }, 'a request failed')
  return renderProblem(why)
}

/** The key of the operation that the path names, for the owner who asks. */
export function keyOf(c: Context<Env>, invalid: ProblemCode): OperationKey {
  const id = parseOperationId(c.req.param('id'))
  if (id === null) throw refuse(invalid)
  return { owner: c.get('owner'), id }
}

/** The path under which the application has mounted the routes. */
export function baseOf(c: Context): string {
  const { path } = c.req
  const at = Math.max(path.lastIndexOf(OPERATIONS), path.lastIndexOf(FILES))
  return at < 0 ? '' : path.slice(0, at)
}

/** RFC 9110 section 9.2.1. Whatever else a request is, it changes something. */
export const SAFE_METHODS = new Set(['GET', 'HEAD', 'OPTIONS'])

/**
 * A request that a browser sends with cookies may come from any site. What changes something must come from this
 * origin, or from one that the application allows; programs send neither header.
 *
 * @see https://www.w3.org/TR/fetch-metadata/ and RFC 6454
 */
export function sameSite(allowedOrigins: readonly string[]): MiddlewareHandler {
  return async (c, next) => {
    if (!SAFE_METHODS.has(c.req.method) && c.req.header('Cookie') !== undefined && !isSameOrigin(c, allowedOrigins))
      throw refuse('cross-site')
    await next()
  }
}

function isSameOrigin(c: Context, allowedOrigins: readonly string[]): boolean {
  const origin = c.req.header('Origin')
  if (origin !== undefined && allowedOrigins.includes(origin)) return true
  const site = c.req.header('Sec-Fetch-Site')
  if (site !== undefined) return site === 'same-origin' || site === 'none'
  if (origin === undefined) return true
  // Proxies lie about schemes: the host is what can be compared.
  return URL.canParse(origin) && new URL(origin).host === c.req.header('Host')
}

/**
 * The request's bytes. On Node's own stream where nobody has touched it yet, which spares a web stream for every
 * request; else as the application's middleware left them. Never destroys its request: that still wants an answer.
 */
export function bodyOf(c: Context): AsyncIterable<Uint8Array> {
  const incoming: unknown = (c.env as { incoming?: unknown } | undefined)?.incoming
  if (incoming instanceof IncomingMessage && incoming.readableFlowing === null && !incoming.readableDidRead)
    return incoming.iterator({ destroyOnReturn: false }) as AsyncIterable<Uint8Array>
  return c.req.raw.body ?? nothing()
}

async function* nothing(): AsyncIterable<Uint8Array> {}
