import { createHmac } from 'node:crypto'
import { OWNER_TAG_HEADER, type ProblemCode, VERSION_HEADER } from '@landfall/shared'
import type { Context, MiddlewareHandler } from 'hono'
import type { Env } from './context.js'
import { refuse } from '../lib/problem-error.js'
import { SAFE_METHODS } from './same-site.js'

/** Of a keyed hash, in bytes: no two owners ever share a tag, and nobody finds an owner by trying names. */
const TAG_BYTES = 16

/** The opaque tag of an owner. Without the ledger's key nothing of the owner can be learned from it. */
export const ownerTagOf = (key: string, owner: string): string =>
  createHmac('sha256', key).update(owner).digest().subarray(0, TAG_BYTES).toString('base64url')

/** The owner's tag, or null as long as the ledger has not told the key. */
export type OwnerTag = (owner: string) => string | null

/** Around all that happens after authentication: whatever is answered says whose uploads it is about. */
export function tellOwner(tagOf: OwnerTag): MiddlewareHandler<Env> {
  return async (c, next) => {
    await next()
    // OPTIONS asks for nobody's uploads, and is not authenticated.
    const owner: string | undefined = c.get('owner')
    const tag = owner === undefined ? null : tagOf(owner)
    if (tag !== null) c.res.headers.set(OWNER_TAG_HEADER, tag)
  }
}

/**
 * Behind authentication and before any route, so before anything is written and any lease is asked for: a browser sends
 * the cookie of whoever is signed in by now, and the page that asks may still be somebody else's. Whatever the method,
 * another owner's tag is refused. A request of our own client that changes something has to carry one; stock tus clients
 * know none.
 *
 * @see RFC 9110 section 15.5.13 (412) and RFC 6585 section 3 (428)
 */
export function checkOwner(tagOf: OwnerTag): MiddlewareHandler<Env> {
  return async (c, next) => {
    if (c.req.method !== 'OPTIONS') {
      const tag = tagOf(c.get('owner'))
      // Whoever comes here has waited for the ledger; without its key nobody's uploads can be told from another's.
      if (tag === null) throw refuse('unavailable', { retryAfterSeconds: 1 })
      const refused = refusalOf(c, tag)
      if (refused !== null) throw refuse(refused)
    }
    await next()
  }
}

function refusalOf(c: Context, tag: string): ProblemCode | null {
  const said = c.req.header(OWNER_TAG_HEADER)
  if (said !== undefined) return said === tag ? null : 'other-owner'
  const isOwnClient = c.req.header(VERSION_HEADER) !== undefined
  return isOwnClient && !SAFE_METHODS.has(c.req.method) ? 'owner-required' : null
}
