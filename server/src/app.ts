import { REQUEST_HEADERS, RESPONSE_HEADERS } from '@landfall/shared'
import { type Context, Hono } from 'hono'
import { cors } from 'hono/cors'
import { type Env, refuse, renderError, sameSite } from './context.js'
import type { Logger } from './log.js'
import { checkOwner, type OwnerTag, tellOwner } from './owner-tag.js'
import type { Clock } from './ports.js'
import { operationRoutes, type OperationRouteDeps } from './routes/operations.js'
import { isTusHead, patiently } from './routes/patiently.js'
import { tusRoutes, type TusRouteDeps } from './routes/tus.js'

export type Authenticate = (c: Context) => string | null | Promise<string | null>

export interface AppDeps {
  readonly authenticate: Authenticate
  readonly allowedOrigins: readonly string[]
  readonly log: Logger
  readonly clock: Clock
  /** Resolves when tables and blob store are open; rejects when they cannot be. */
  readonly ready: () => Promise<void>
  /** Known once `ready` has resolved. */
  readonly ownerTag: OwnerTag
  readonly operations: OperationRouteDeps
  readonly tus: TusRouteDeps
}

/** All routes, with the one renderer of errors. Mounted by the application anywhere in its own. */
export function createApp(deps: AppDeps): Hono<Env> {
  const app = new Hono<Env>()
  app.onError((error, c) => renderError(error, c, deps.log))
  if (deps.allowedOrigins.length > 0) {
    const share = cors({
      origin: [...deps.allowedOrigins],
      credentials: true,
      allowHeaders: [...REQUEST_HEADERS],
      allowMethods: ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'],
      exposeHeaders: [...RESPONSE_HEADERS],
      maxAge: 86_400,
    })
    // It takes every OPTIONS for a preflight; without this header it is a client that asks what tus offers here.
    const isPreflight = (c: Context): boolean => c.req.header('Access-Control-Request-Method') !== undefined
    app.use((c, next) => (c.req.method !== 'OPTIONS' || isPreflight(c) ? share(c, next) : next()))
  }
  app.use(sameSite(deps.allowedOrigins))
  app.use(tellOwner(deps.ownerTag))
  const enter = async (c: Context<Env>): Promise<void> => {
    if (c.req.method !== 'OPTIONS') {
      const owner = await deps.authenticate(c)
      if (owner === null || owner === '') throw refuse('unauthenticated')
      c.set('owner', owner)
    }
    await deps.ready()
  }
  app.use(async (c, next) => {
    await (isTusHead(c) ? patiently(c, deps, () => enter(c)) : enter(c))
    await next()
  })
  app.use(checkOwner(deps.ownerTag))
  app.route('/', operationRoutes(deps.operations))
  app.route('/', tusRoutes(deps.tus))
  return app
}
