import type { IncomingMessage } from 'node:http'
import { problem } from '@landfall/shared'
import type { Context } from 'hono'
import { UploadError } from '../lib/errors.js'
import { ProblemError } from '../lib/problem-error.js'
import { incomingOf } from './context.js'

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
