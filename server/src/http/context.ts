import { IncomingMessage } from 'node:http'
import { OPERATIONS, FILES, parseOperationId, type ProblemCode } from '@landfall/shared'
import type { Context } from 'hono'
import { refuse } from '../lib/problem-error.js'
import type { OperationKey } from '../ports/operation.js'

/** What the routes pass on within one request. `basePath` is set only if the application has set it. */
export interface Env {
  Variables: { owner: string; basePath: string | undefined }
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

/** The request as Node received it; null where something else than Node's server has made it. */
export function incomingOf(c: Context): IncomingMessage | null {
  const incoming: unknown = (c.env as { incoming?: unknown } | undefined)?.incoming
  return incoming instanceof IncomingMessage ? incoming : null
}
