import { createHmac } from 'node:crypto'
import { OWNER_TAG_HEADER, type ProblemCode, VERSION_HEADER } from '@landfall/shared'
import type { Context, MiddlewareHandler } from 'hono'
import { refuse } from '../lib/problem-error.js'
import type { Env } from './context.js'
import { SAFE_METHODS } from './same-site.js'

/**
 * Bytes of the keyed hash: enough that no two owners ever share a tag, and that nobody finds an owner by trying names.
 */
const TAG_BYTES = 16

/** The opaque tag of an owner. Without the ledger's key it reveals nothing about the owner. */
export const ownerTagOf = (key: string, owner: string): string =>
  createHmac('sha256', key).update(owner).digest().subarray(0, TAG_BYTES).toString('base64url')

/** The owner's tag, or null until the ledger has delivered the key. */
export type OwnerTag = (owner: string) => string | null

/** Around everything that happens after authentication: each answer says whose uploads it is about. */
export function tellOwner(tagOf: OwnerTag): MiddlewareHandler<Env> {
  return async (c, next) => {
    await next()
    // OPTIONS is not authenticated, so it has no owner.
    const owner: string | undefined = c.get('owner')
    const tag = owner === undefined ? null : tagOf(owner)
    if (tag !== null) c.res.headers.set(OWNER_TAG_HEADER, tag)
  }
}

/**
 * Runs after authentication and before any route, so before anything is written and any lease is requested. A browser
 * sends the cookie of the user who is signed in now, while the page that sends the request may still belong to another
 * user. A request with the tag of another owner is refused, whatever its method. A request of Landfall's client that
 * changes something must carry a tag. Stock tus clients know no tags.
 *
 * @see RFC 9110 section 15.5.13 (412) and RFC 6585 section 3 (428)
 */
export function checkOwner(tagOf: OwnerTag): MiddlewareHandler<Env> {
  return async (c, next) => {
    if (c.req.method !== 'OPTIONS') {
      const tag = tagOf(c.get('owner'))
      // The request has waited for the ledger before. Without the ledger's key, uploads of different owners cannot be
      // told apart.
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
