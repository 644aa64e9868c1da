import type { HttpBindings } from '@hono/node-server'
import type { Context } from 'hono'
import { makeDirectoryNow } from '../blobs/file/durable-files.js'
import { standardWebhook } from '../effects/webhook.js'
import { kind } from '../kinds/kind.js'
import type { Logger } from '../lib/log.js'
import { refuse } from '../lib/problem-error.js'
import type { Metrics } from '../ports/metrics.js'
import { createUploads } from '../uploads.js'
import { openBlobs, openDatabase } from './engines.js'
import type { Settings } from './settings.js'

const HOUR_MS = 60 * 60_000

/** Opens what the settings describe: for `landfall serve`, and for commands while no server runs. */
export async function openUploads(
  settings: Settings,
  log: Logger,
  completer: 'automatic' | 'manual',
  { metrics }: { metrics?: Metrics } = {},
) {
  makeDirectoryNow(settings.LANDFALL_DATA_DIR)
  const database = await openDatabase(settings)
  const uploads = createUploads({
    ledger: database.ledger,
    blobs: await openBlobs(settings),
    authenticate: (c) => ownerIn(c, settings.LANDFALL_OWNER_HEADER),
    kinds: {
      file: kind({ effects: webhookOf(settings) }),
    },
    limits: {
      maxSizeBytes: settings.LANDFALL_MAX_SIZE_BYTES,
      quotaBytes: () => settings.LANDFALL_QUOTA_BYTES ?? null,
      declarationsPerOwner: { count: settings.LANDFALL_DECLARATIONS_PER_HOUR, perMs: HOUR_MS },
    },
    retention: {
      finalMs: settings.LANDFALL_RETENTION_FINAL_MS,
      effectsMs: settings.LANDFALL_RETENTION_EFFECTS_MS,
    },
    expiresAfterMs: settings.LANDFALL_EXPIRES_AFTER_MS,
    completer,
    // `serve` opens a socket in the data directory, and a command has none.
    operatorSocket: false,
    migrate: settings.LANDFALL_MIGRATE,
    completerIntervalMs: settings.LANDFALL_COMPLETER_INTERVAL_MS,
    leaseMs: settings.LANDFALL_LEASE_MS,
    allowedOrigins: settings.LANDFALL_ALLOWED_ORIGINS,
    ...(settings.LANDFALL_BASE_PATH === undefined ? {} : { basePath: settings.LANDFALL_BASE_PATH }),
    logger: log,
    ...(metrics === undefined ? {} : { metrics }),
  })
  return { uploads, database }
}

/**
 * Node joins a header that comes twice into one value with a comma, which would be a different owner. It comes twice
 * when a client got its own header past the proxy, or when two proxies disagree.
 */
function ownerIn(c: Context, name: string): string | null {
  const { incoming } = c.env as HttpBindings
  if ((incoming.headersDistinct[name.toLowerCase()]?.length ?? 0) > 1)
    throw refuse('invalid-request', { detail: `${name} came more than once` })
  return c.req.header(name) ?? null
}

function webhookOf(settings: Settings) {
  const { LANDFALL_WEBHOOK_URL: url, LANDFALL_WEBHOOK_SECRET: secret } = settings
  if (url === undefined || secret === undefined) return {}
  return {
    webhook: standardWebhook({ url, secret, allowPrivateAddresses: settings.LANDFALL_WEBHOOK_ALLOW_PRIVATE }),
  }
}
