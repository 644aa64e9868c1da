import { type Command, Option } from 'commander'
import { readSettings, type Settings, SETTING_NAMES, type SettingName } from '../settings.js'

const HELP: Record<SettingName, string> = {
  LANDFALL_HOST: 'address to listen on (default 127.0.0.1)',
  LANDFALL_PORT: 'port to listen on; 0 for any free one (default 3000)',
  LANDFALL_DATA_DIR: 'directory of the database and the blobs (default ./landfall-data)',
  LANDFALL_DATABASE_URL: 'file:… or postgres://… (default: SQLite in the data directory)',
  LANDFALL_DATABASE_CONNECTIONS: 'how many connections to PostgreSQL at most (default 10)',
  LANDFALL_S3_ENDPOINT: 'of an S3-compatible store; default: that of AWS',
  LANDFALL_S3_REGION: 'default us-east-1',
  LANDFALL_S3_BUCKET: 'bucket for the bytes (default: none, but a directory in the data directory)',
  LANDFALL_S3_ACCESS_KEY_ID: 'default: as the AWS SDK finds credentials',
  LANDFALL_S3_SECRET_ACCESS_KEY: 'default: as the AWS SDK finds credentials',
  LANDFALL_S3_PREFIX: 'before the names of all objects; each environment has one of its own (default none)',
  LANDFALL_OWNER_HEADER: 'header by which a trusted proxy says who asks (required)',
  LANDFALL_MAX_SIZE_BYTES: 'largest file in bytes (default 1 TiB)',
  LANDFALL_EXPIRES_AFTER_MS: 'when an unfinished upload is given up after its last byte (default 7 days)',
  LANDFALL_COMPLETER_INTERVAL_MS: 'how often abandoned uploads are looked for (default 5000)',
  LANDFALL_LEASE_MS: 'how long a dead process keeps others away (default 30000)',
  LANDFALL_ALLOWED_ORIGINS: 'origins of pages on other sites, separated by commas (default none)',
  LANDFALL_BASE_PATH: 'path under which clients reach /uploads, where a proxy takes a prefix away (default: as asked)',
  LANDFALL_WEBHOOK_URL: 'is told of each reference by a signed POST (Standard Webhooks; default none)',
  LANDFALL_WEBHOOK_SECRET: 'whsec_…; several while one is replaced, separated by commas',
  LANDFALL_WEBHOOK_ALLOW_PRIVATE: 'true: the webhook may be at a private address (default false)',
  LANDFALL_METRICS_PATH: 'path of the OpenMetrics page, for your scraper only (default: none is served)',
  LANDFALL_DRAIN_DELAY_MS: 'after SIGTERM: not ready, but serving, for so long; then it drains (default 0)',
  LANDFALL_LOG_LEVEL: 'silent, error, warn, info or debug (default info)',
}

/** What commands beside the server need to find its data. */
export const DATA_SETTINGS: readonly SettingName[] = [
  'LANDFALL_DATA_DIR',
  'LANDFALL_DATABASE_URL',
  'LANDFALL_DATABASE_CONNECTIONS',
]

const flagOf = (name: SettingName): string => name.slice('LANDFALL_'.length).toLowerCase().replaceAll('_', '-')

/** Each flag has a variable of the same name; flags win. */
export function addSettings(command: Command, names: readonly SettingName[] = SETTING_NAMES): Command {
  for (const name of names) command.addOption(new Option(`--${flagOf(name)} <value>`, `${HELP[name]} [${name}]`))
  return command
}

/** @throws UploadError `setup` whose message names each bad setting. */
export function settingsOf(command: Command, { serves }: { serves: boolean }): Settings {
  const flags = command.opts<Record<string, string | undefined>>()
  const said: Record<string, string | undefined> = { ...process.env }
  for (const name of SETTING_NAMES) {
    const flag = flags[camelCase(flagOf(name))]
    if (flag !== undefined) said[name] = flag
  }
  return readSettings(said, { serves })
}

const camelCase = (flag: string): string =>
  flag.replace(/-([a-z0-9])/g, (_match, letter: string) => letter.toUpperCase())
