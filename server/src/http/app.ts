import { FILES, isWellFormed, REQUEST_HEADERS, RESPONSE_HEADERS } from '@landfall/shared'
import { type Context, Hono } from 'hono'
import { cors } from 'hono/cors'
import { unlessAnswered } from '../lib/answered.js'
import { UploadError } from '../lib/errors.js'
import type { Logger } from '../lib/log.js'
import { refuse } from '../lib/problem-error.js'
import type { Clock } from '../ports/clock.js'
import type { Env } from './context.js'
import { renderError } from './errors.js'
import { guardExchangeMiddleware } from './exchange.js'
import { operationRoutes, type OperationRouteDeps } from './operations.js'
import { checkOwner, type OwnerTag, tellOwner } from './owner-tag.js'
import { type AllowedOrigins, allowsOrigin, sameSite } from './same-site.js'
import { tusRoutes, type TusRouteDeps } from './tus/routes.js'
import { tusVersion } from './tus/version.js'
import { isTusHead, withRetries } from './with-retries.js'

/**
 * Returns the owner of the request. Null is answered with 401. A `Response` or Hono's `HTTPException` that it throws is
 * the answer.
 */
export type Authenticate = (c: Context) => string | null | Promise<string | null>

export interface AppDeps {
  readonly authenticate: Authenticate
  readonly allowedOrigins: AllowedOrigins
  /** Request headers of the application, for CORS. */
  readonly allowedHeaders: readonly string[]
  /** The path under which clients reach the routes. Undefined: it is taken from the request. */
  readonly basePath: string | undefined
  readonly log: Logger
  readonly clock: Clock
  /** Starts the server without waiting for it. Called with each request. */
  readonly start: () => void
  /** Resolves when the tables and the blob store are open. Rejects when they cannot be opened. */
  readonly ready: () => Promise<void>
  /** Known once `ready` has resolved. */
  readonly ownerTag: OwnerTag
  readonly operations: OperationRouteDeps
  readonly tus: TusRouteDeps
}

/** All routes, with the only renderer of errors. The application mounts it anywhere in its own routes. */
export function createApp(deps: AppDeps): Hono<Env> {
  const app = new Hono<Env>()
  app.onError((error, c) => renderError(error, c, deps.log))
  app.use(guardExchangeMiddleware)
  // Also before authentication: operations that make no progress wait for a process, not for a user.
  app.use((_c, next) => {
    deps.start()
    return next()
  })
  const { allowedOrigins } = deps
  if (typeof allowedOrigins === 'function' || allowedOrigins.length > 0) {
    const share = cors({
      origin: async (origin, c) => (origin !== '' && (await allowsOrigin(allowedOrigins, origin, c)) ? origin : null),
      credentials: true,
      allowHeaders: [...REQUEST_HEADERS, ...deps.allowedHeaders],
      allowMethods: ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'],
      exposeHeaders: [...RESPONSE_HEADERS],
      maxAge: 86_400,
    })
    // `cors` takes every OPTIONS for a preflight. Without this header it comes from a client that asks what the server
    // offers of tus.
    const isPreflight = (c: Context): boolean => c.req.header('Access-Control-Request-Method') !== undefined
    app.use((c, next) => (c.req.method !== 'OPTIONS' || isPreflight(c) ? share(c, next) : next()))
  }
  if (deps.basePath !== undefined) {
    app.use((c, next) => {
      c.set('basePath', deps.basePath)
      return next()
    })
  }
  app.use(`${FILES}/*`, tusVersion)
  app.use(sameSite(allowedOrigins))
  app.use(tellOwner(deps.ownerTag))
  const enter = async (c: Context<Env>): Promise<void> => {
    if (c.req.method !== 'OPTIONS') {
      const owner = await unlessAnswered(() => deps.authenticate(c))
      if (owner === null || owner === '') throw refuse('unauthenticated')
      // A database stores each half of a surrogate pair as U+FFFD, so two such owners would become the same.
      if (!isWellFormed(owner)) throw new UploadError('setup', 'authenticate returned an owner that is not well formed')
      c.set('owner', owner)
    }
    await deps.ready()
  }
  app.use(async (c, next) => {
    await (isTusHead(c) ? withRetries(c, deps, () => enter(c)) : enter(c))
    await next()
  })
  app.use(checkOwner(deps.ownerTag))
  app.route('/', operationRoutes(deps.operations))
  app.route('/', tusRoutes(deps.tus))
  return app
}
