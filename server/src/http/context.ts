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
import { faultMessage, UploadError } from '../lib/errors.js'
import type { Logger } from '../lib/log.js'
import type { OperationKey } from '../ports/ledger.js'

/** What the routes pass on within one request. `basePath` is set only if the application has set it. */
export interface Env {
  Variables: { owner: string; basePath: string | undefined }
}

/**
 * A refusal with its problem: a route answers it, or an operator's call fails with it. `headers` go into the answer,
 * `cause` into the log.
 */
export class ProblemError extends Error {
  override readonly name = 'ProblemError'
  readonly problem: Problem
  readonly headers: Readonly<Record<string, string>>
  constructor(why: Problem, headers: Readonly<Record<string, string>> = {}, options?: { cause?: unknown }) {
    super(why.title, options)
    this.problem = why
    this.headers = headers
  }
}

/** The application has answered the request itself with a response that its hook threw. */
export class AnsweredError extends Error {
  override readonly name = 'AnsweredError'
  readonly response: Response
  constructor(response: Response) {
    super(`the application answered ${response.status}`)
    this.response = response
  }
}

/**
 * Calls a hook of the application that may throw an answer: a `Response`, or Hono's `HTTPException`.
 *
 * @throws AnsweredError with that answer.
 */
export async function unlessAnswered<T>(hook: () => T | Promise<T>): Promise<T> {
  try {
    return await hook()
  } catch (error) {
    const response = responseIn(error)
    // Hono renders only instances of Error.
    if (response === null)
      throw error instanceof Error ? error : new Error('something other than an Error was thrown', { cause: error })
    // A copy, because the application may throw the same object for each request.
    const copy = response.clone()
    throw new AnsweredError(new Response(copy.body, copy))
  }
}

/**
 * `HTTPException` is recognised by its method, because an application can use another copy of Hono than this package.
 */
function responseIn(error: unknown): Response | null {
  if (error instanceof Response) return error
  if (!(error instanceof Error) || !('getResponse' in error) || typeof error.getResponse !== 'function') return null
  const response: unknown = error.getResponse()
  return response instanceof Response ? response : null
}

/** For the person who runs the server. */
export function messageOf(error: unknown): string {
  if (error instanceof ProblemError) return error.problem.detail ?? error.problem.title
  return error instanceof UploadError ? error.message : faultMessage(error)
}

export const refuse = (
  code: ProblemCode,
  extra?: Parameters<typeof problem>[1],
  headers?: Readonly<Record<string, string>>,
): ProblemError => new ProblemError(problem(code, extra), headers)

/**
 * RFC 9110 section 11.6.1 requires a challenge with each 401. How a user signs in is known only to the application. An
 * application that has its own challenge throws its answer from `authenticate`.
 */
const CHALLENGE = 'Landfall realm="uploads"'

/** RFC 9457. `Retry-After` is sent whenever the problem says how long to wait. */
export function renderProblem(why: Problem, more: Readonly<Record<string, string>> = {}): Response {
  const headers = new Headers({ 'Content-Type': PROBLEM_MEDIA_TYPE, 'Cache-Control': 'no-store', ...more })
  if (why.status === 401) headers.set('WWW-Authenticate', CHALLENGE)
  if (why.retryAfterSeconds !== undefined) headers.set('Retry-After', String(Math.ceil(why.retryAfterSeconds)))
  return new Response(JSON.stringify(why), { status: why.status, headers })
}

/** A fault as clients see it. Its details stay in the log. */
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

export const renderRefusal = (refusal: ProblemError): Response => renderProblem(refusal.problem, refusal.headers)

export function renderError(error: unknown, c: Context, log: Logger): Response {
  if (error instanceof AnsweredError) return error.response
  const why = problemOf(error)
  if (why.status >= 500)
    log.error({ operationId: c.req.param('id'), method: c.req.method, err: error }, 'a request failed')
  return error instanceof ProblemError ? renderRefusal(error) : renderProblem(why)
}

/** The key of the operation that the path names, for the owner of the request. */
export function keyOf(c: Context<Env>, invalid: ProblemCode): OperationKey {
  const id = parseOperationId(c.req.param('id'))
  if (id === null) throw refuse(invalid)
  return { owner: c.get('owner'), id }
}

/**
 * The path under which clients reach the routes: `basePath` if the application has set it, otherwise the part before
 * the routes in the path that Node received. Express and `app.mount` remove the prefix from the path that Hono sees.
 */
export function baseOf(c: Context<Env>): string {
  const fixed = c.get('basePath')
  if (fixed !== undefined) return fixed
  const path = receivedPath(c)
  const at = Math.max(path.lastIndexOf(OPERATIONS), path.lastIndexOf(FILES))
  return at < 0 ? '' : path.slice(0, at)
}

function receivedPath(c: Context<Env>): string {
  const incoming = incomingOf(c)
  const url = incoming === null ? c.req.path : 'originalUrl' in incoming ? incoming.originalUrl : incoming.url
  if (typeof url !== 'string') return c.req.path
  // A proxy may send the absolute form (RFC 9112 section 3.2.2).
  if (!url.startsWith('/')) return URL.canParse(url) ? new URL(url).pathname : c.req.path
  return url.split('?', 1)[0] ?? url
}

function incomingOf(c: Context): IncomingMessage | null {
  const incoming: unknown = (c.env as { incoming?: unknown } | undefined)?.incoming
  return incoming instanceof IncomingMessage ? incoming : null
}

/** RFC 9110 section 9.2.1. A request with any other method changes something. */
export const SAFE_METHODS = new Set(['GET', 'HEAD', 'OPTIONS'])

/** Origins of other sites: a list, or a function that gets the origin of the request (for preview deployments). */
export type AllowedOrigins = readonly string[] | ((origin: string, c: Context) => boolean | Promise<boolean>)

export const allowsOrigin = async (allowed: AllowedOrigins, origin: string, c: Context): Promise<boolean> =>
  typeof allowed === 'function' ? allowed(origin, c) : allowed.includes(origin)

/** Accepts `https://app.example`, and the schemes of applications: `capacitor://localhost`, `chrome-extension://…`. */
export function isOrigin(text: string): boolean {
  if (!URL.canParse(text)) return false
  const { origin, protocol, host } = new URL(text)
  return text === (origin === 'null' ? `${protocol}//${host}` : origin) && host !== ''
}

/**
 * A request that a browser sends with cookies may come from any site. A request that changes something must come from
 * this origin, or from one that the application allows. Programs that are not browsers send neither header.
 *
 * @see https://www.w3.org/TR/fetch-metadata/ and RFC 6454
 */
export function sameSite(allowed: AllowedOrigins): MiddlewareHandler {
  return async (c, next) => {
    if (!SAFE_METHODS.has(c.req.method) && c.req.header('Cookie') !== undefined) {
      const difference = await whatDiffers(c, allowed)
      if (difference !== null) throw refuse('cross-site', { detail: difference })
    }
    await next()
  }
}

const ALLOW = 'If the page is meant to upload here, name its origin in allowedOrigins.'
const PASS_HOST =
  'If both are the same site behind a proxy, the proxy must pass on the Host header that it received ' +
  '(nginx: proxy_set_header Host $http_host; Vite: changeOrigin: false).'

/**
 * Null for a request of this origin or of an allowed one. Otherwise a text for the person who runs a server behind a
 * proxy.
 */
async function whatDiffers(c: Context, allowed: AllowedOrigins): Promise<string | null> {
  const origin = c.req.header('Origin')
  if (origin !== undefined && (await allowsOrigin(allowed, origin, c))) return null
  const site = c.req.header('Sec-Fetch-Site')
  if (site === 'same-origin' || site === 'none') return null
  if (site !== undefined)
    return `The browser says that the page (${origin ?? 'origin unknown'}) and this server are ${site}, not same-origin. ${ALLOW}`
  if (origin === undefined) return null
  const host = c.req.header('Host') ?? ''
  if (isSameHost(origin, host)) return null
  return `The page's origin is ${origin}, but the request's Host is ${host}. ${PASS_HOST} ${ALLOW}`
}

/** Proxies report wrong schemes, so only the host can be compared, with the port that the origin's scheme implies. */
function isSameHost(origin: string, host: string): boolean {
  // The URL parser would read a path or a user name from a text that is no host.
  if (!URL.canParse(origin) || !/^[^\s/\\?#@]+$/.test(host)) return false
  const page = new URL(origin)
  const asked = `${page.protocol}//${host}`
  return page.host !== '' && URL.canParse(asked) && new URL(asked).host === page.host
}

/**
 * Bytes are counted and hashed as they come: a client that compresses them sends another file. @see RFC 9110 section
 * 8.4
 */
export function refuseEncoded(c: Context): void {
  const encoding = c.req.header('Content-Encoding')?.trim().toLowerCase() ?? ''
  if (encoding === '' || encoding === 'identity') return
  const why = problem('invalid-request', { detail: 'Content-Encoding: send the bytes of the file as they are' })
  throw new ProblemError({ ...why, status: 415 }, { 'Accept-Encoding': 'identity' })
}

/**
 * The request's bytes. If nothing has read Node's own stream yet, they come from it, which saves a web stream for every
 * request. Otherwise they come as the application's middleware left them. Never destroys the request, because it still
 * needs an answer.
 *
 * @throws ProblemError `internal` if a middleware has already read them: the rest of them must not be stored.
 */
export function bodyOf(c: Context): AsyncIterable<Uint8Array> {
  const incoming = incomingOf(c)
  if (incoming !== null && incoming.readableFlowing === null && !incoming.readableDidRead)
    return incoming.iterator({ destroyOnReturn: false }) as AsyncIterable<Uint8Array>
  if (incoming !== null && !hasBody(incoming)) return nothing()
  if (c.req.raw.bodyUsed || (incoming !== null && wasReadByNode(c.req.raw, incoming))) throw bodyWasRead()
  return c.req.raw.body ?? nothing()
}

async function* nothing(): AsyncIterable<Uint8Array> {}

const hasBody = ({ headers }: IncomingMessage): boolean =>
  headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0

/**
 * Whether Node's stream was read, but not through the request that Hono has: by a body parser of Express, or by a
 * listener for `data`. A Hono middleware that reads a body leaves another request, or one with a web stream. Cloud
 * functions leave the body that they have read as `rawBody`, and `@hono/node-server` reads that.
 */
function wasReadByNode(raw: Request, incoming: IncomingMessage): boolean {
  if ('rawBody' in incoming && incoming.rawBody instanceof Buffer) return false
  const inside = Object.getOwnPropertySymbols(raw).map((key): unknown => Reflect.get(raw, key))
  return inside.includes(incoming) && !inside.some((value) => value instanceof Request)
}

function bodyWasRead(): ProblemError {
  const detail =
    'A middleware in front of the upload routes has read the body of the request. Mount the routes before body parsers ' +
    '(express.json, express.raw and others), or exempt their path.'
  const cause = new UploadError('setup', detail)
  return new ProblemError(problem('internal', { detail, retryAfterSeconds: 30 }), {}, { cause })
}
