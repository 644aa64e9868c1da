import { Hono } from 'hono'
import type { AskHealth } from '../operate/health.js'

const NOT_STORED = { 'Cache-Control': 'no-store' }

/**
 * `/live`: the process answers; restart it when it does not. `/ready`: the node can take requests; otherwise 503 with
 * the reason. Neither says anything about uploads, and neither needs authentication.
 *
 * ```ts
 * app.route('/health', healthRoutes(uploads))
 * ```
 */
export function healthRoutes({ health }: { health: AskHealth }): Hono {
  const app = new Hono()
  app.get('/live', (c) => c.json({ live: true }, 200, NOT_STORED))
  app.get('/ready', async (c) => {
    const now = await health()
    return c.json(now, now.ready ? 200 : 503, NOT_STORED)
  })
  return app
}
