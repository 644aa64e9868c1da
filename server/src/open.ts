import { makeDirectoryNow } from './blobs/durable-files.js'
import { openBlobs, openDatabase } from './engines.js'
import { kind } from './kinds.js'
import type { Logger } from './log.js'
import type { Metrics } from './ports.js'
import type { Settings } from './settings.js'
import { createUploads } from './uploads.js'
import { standardWebhook } from './webhook.js'

/** What the settings describe: for `landfall serve`, and for commands while no server runs. */
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
    authenticate: (c) => c.req.header(settings.LANDFALL_OWNER_HEADER) ?? null,
    kinds: {
      file: kind({
        onReference: async () => null,
        effects: webhookOf(settings),
      }),
    },
    limits: { maxSizeBytes: settings.LANDFALL_MAX_SIZE_BYTES },
    expiresAfterMs: settings.LANDFALL_EXPIRES_AFTER_MS,
    completer,
    completerIntervalMs: settings.LANDFALL_COMPLETER_INTERVAL_MS,
    leaseMs: settings.LANDFALL_LEASE_MS,
    allowedOrigins: settings.LANDFALL_ALLOWED_ORIGINS,
    ...(settings.LANDFALL_BASE_PATH === undefined ? {} : { basePath: settings.LANDFALL_BASE_PATH }),
    logger: log,
    ...(metrics === undefined ? {} : { metrics }),
  })
  return { uploads, database }
}

function webhookOf(settings: Settings) {
  const { LANDFALL_WEBHOOK_URL: url, LANDFALL_WEBHOOK_SECRET: secret } = settings
  if (url === undefined || secret === undefined) return {}
  return {
    webhook: standardWebhook({ url, secret, allowPrivateAddresses: settings.LANDFALL_WEBHOOK_ALLOW_PRIVATE }),
  }
}
