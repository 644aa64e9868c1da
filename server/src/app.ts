import { REQUEST_HEADERS, RESPONSE_HEADERS } from '@landfall/shared'
import { type Context, Hono } from 'hono'
import { cors } from 'hono/cors'
import { type Env, refuse, renderError, sameSite } from './context.js'
import type { Logger } from './log.js'
import { operationRoutes, type OperationRouteDeps } from './routes/operations.js'
import { tusRoutes, type TusRouteDeps } from './routes/tus.js'

export type Authenticate = (c: Context) => string | null | Promise<string | null>

export interface AppDeps {
  readonly authenticate: Authenticate
  readonly allowedOrigins: readonly string[]
  readonly log: Logger
  /** Resolves when tables and blob store are open; rejects when they cannot be. */
  readonly ready: () => Promise<void>
  readonly operations: OperationRouteDeps
  readonly tus: TusRouteDeps
}

/** All routes, with the one renderer of errors. Mounted by the application anywhere in its own. */
export function createApp(deps: AppDeps): Hono<Env> {
  const app = new Hono<Env>()
  app.onError((error, c) => renderError(error, c, deps.log))
  if (deps.allowedOrigins.length > 0)
    app.use(
      cors({
        origin: [...deps.allowedOrigins],
        credentials: true,
        allowHeaders: [...REQUEST_HEADERS],
        allowMethods: ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'],
        exposeHeaders: [...RESPONSE_HEADERS],
        maxAge: 86_400,
      }),
    )
  app.use(sameSite(deps.allowedOrigins))
  app.use(async (c, next) => {
    if (c.req.method !== 'OPTIONS') {
      const owner = await deps.authenticate(c)
      if (owner === null || owner === '') throw refuse('unauthenticated')
      c.set('owner', owner)
    }
    await deps.ready()
    await next()
  })
  app.route('/', operationRoutes(deps.operations))
  app.route('/', tusRoutes(deps.tus))
  return app
}
