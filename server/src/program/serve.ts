import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { getRequestListener } from '@hono/node-server'
import { Hono } from 'hono'
import { healthRoutes } from '../http/health.js'
import { guardServer, nodeServerOptions } from '../http/node-server.js'
import { endsWithin } from '../lib/deadline.js'
import { UploadError } from '../lib/errors.js'
import { createLogger } from '../lib/log.js'
import type { OpenMetrics } from '../metrics.js'
import { serveOperator } from '../operate/socket.js'
import { openUploads } from './open.js'
import type { Settings } from './settings.js'

export interface Serving {
  /** The address on which it listens, including the path of the routes. */
  readonly address: string
  /** Drains and stops. */
  close(): Promise<void>
}

/** How long requests and drives may take to end after SIGTERM. */
const DRAIN_MS = 10_000
const LAST_ANSWERS_MS = 1_000

/**
 * `landfall serve`: the routes as a program, with one kind `file`, mounted at `/uploads`. It also serves
 * `/health/live`, `/health/ready` and, if the operator wants it, the metrics. Everybody who can reach the port can read
 * these three.
 */
export async function serve(settings: Settings): Promise<Serving> {
  const log = createLogger(settings.LANDFALL_LOG_LEVEL)
  const metrics = await metricsOf(settings)
  const { uploads, database } = await openUploads(settings, log, 'automatic', metrics === null ? {} : { metrics })
  await uploads.ready().catch(async (error: unknown) => {
    // The database connections would keep a program alive that cannot start.
    await database.close()
    throw error
  })
  const app = new Hono().route('/uploads', uploads.routes).route('/health', healthRoutes(uploads))
  if (metrics !== null && settings.LANDFALL_METRICS_PATH !== undefined)
    app.get(settings.LANDFALL_METRICS_PATH, async (c) => {
      const { contentType, text } = await metrics.expose()
      return c.body(text, 200, { 'Content-Type': contentType, 'Cache-Control': 'no-store' })
    })
  const listener = getRequestListener(app.fetch)
  const server = guardServer(createServer(nodeServerOptions(), (request, response) => void listener(request, response)))
  const { port } = await listen(server, settings)
  // This comes last, so that commands find only a server that has started.
  const operator = await serveOperator(uploads.operator, settings.LANDFALL_DATA_DIR)
  if (operator.outcome === 'none') log.warn(operator.why)
  const host = settings.LANDFALL_HOST.includes(':') ? `[${settings.LANDFALL_HOST}]` : settings.LANDFALL_HOST
  return {
    address: `http://${host}:${port}/uploads`,
    async close() {
      const announcedMs = settings.LANDFALL_DRAIN_DELAY_MS
      const drained = uploads.close({ withinMs: DRAIN_MS, announcedMs })
      // The load balancer learns of it first. What it sends until then goes to a server that still listens.
      await sleep(announcedMs)
      const closed = new Promise((resolve) => server.close(resolve))
      if (operator.outcome === 'served') await operator.close()
      await drained
      server.closeIdleConnections()
      // The last answers are sent.
      await endsWithin(closed, LAST_ANSWERS_MS)
      server.closeAllConnections()
      await database.close()
    },
  }
}

/** Loaded only if the operator wants it: most servers are not scraped. */
async function metricsOf({ LANDFALL_METRICS_PATH }: Settings): Promise<OpenMetrics | null> {
  if (LANDFALL_METRICS_PATH === undefined) return null
  const { openMetrics } = await import('../metrics.js')
  return openMetrics({ process: true })
}

const listen = (server: Server, settings: Settings): Promise<AddressInfo> =>
  new Promise((resolve, reject) => {
    server.once('error', (error) =>
      reject(
        new UploadError(
          'setup',
          `LANDFALL_HOST, LANDFALL_PORT: cannot listen on this address (${'code' in error ? String(error.code) : error.message})`,
        ),
      ),
    )
    server.listen(settings.LANDFALL_PORT, settings.LANDFALL_HOST, () => resolve(server.address() as AddressInfo))
  })
