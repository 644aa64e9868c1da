import { type Command, Option } from 'commander'
import {
  FILE_SETTINGS,
  NO_SECRET_FLAG,
  readSettings,
  SECRET_SETTINGS,
  type Settings,
  SETTING_NAMES,
  type SettingName,
  waysOf,
} from '../settings.js'
import { UploadError } from '../../lib/errors.js'

const HELP: Record<SettingName, string> = {
  LANDFALL_HOST: 'address to listen on (default 127.0.0.1)',
  LANDFALL_PORT: 'port to listen on; 0 for any free one (default 3000)',
  LANDFALL_DATA_DIR: 'directory of the database and the blobs (default ./landfall-data)',
  LANDFALL_DATABASE_URL: 'file:… or postgres://… (default: SQLite in the data directory)',
  LANDFALL_DATABASE_CONNECTIONS: 'largest number of connections to PostgreSQL (default 10)',
  LANDFALL_S3_ENDPOINT: 'address of an S3-compatible store (default: AWS)',
  LANDFALL_S3_REGION: 'region of the bucket (default us-east-1)',
  LANDFALL_S3_BUCKET: 'bucket for the bytes (default: none; they are in the data directory)',
  LANDFALL_S3_ACCESS_KEY_ID: 'access key of the store (default: the AWS SDK looks for credentials)',
  LANDFALL_S3_SECRET_ACCESS_KEY: 'secret key of the store (default: the AWS SDK looks for credentials)',
  LANDFALL_S3_PREFIX: 'prefix of all object names; each environment needs its own (default none)',
  LANDFALL_OWNER_HEADER: 'header in which a trusted proxy sends the owner (required)',
  LANDFALL_MAX_SIZE_BYTES: 'largest file in bytes (default 1 TiB)',
  LANDFALL_QUOTA_BYTES: 'how many bytes one owner’s files and open uploads may hold together (default: no limit)',
  LANDFALL_RESERVE_BYTES: 'space that uploads leave free on the disk of the blobs (default 5 %, 32 to 256 MiB)',
  LANDFALL_EXPIRES_AFTER_MS: 'how long after its last byte an unfinished upload is given up (default 7 days)',
  LANDFALL_RETENTION_FINAL_MS: 'how long an ended or removed upload is kept; then only its id (default 30 days)',
  LANDFALL_RETENTION_EFFECTS_MS: 'how long the record of a delivered webhook is kept (default 7 days)',
  LANDFALL_DECLARATIONS_PER_HOUR: 'how many uploads one owner may begin in an hour (default 36000)',
  LANDFALL_COMPLETER_INTERVAL_MS: 'how often the server looks for abandoned uploads (default 5000)',
  LANDFALL_LEASE_MS: 'how long the leases of a dead process keep others away (default 30000)',
  LANDFALL_ALLOWED_ORIGINS: 'origins of pages on other sites, separated by commas (default none)',
  LANDFALL_BASE_PATH: 'path under which clients reach /uploads if a proxy removes a prefix (default: as requested)',
  LANDFALL_WEBHOOK_URL: 'gets each reference in a signed POST (Standard Webhooks; default none)',
  LANDFALL_WEBHOOK_SECRET: 'whsec_…; several to replace one, separated by commas',
  LANDFALL_WEBHOOK_ALLOW_PRIVATE: 'true: the webhook may be at a private address (default false)',
  LANDFALL_METRICS_PATH: 'path of the OpenMetrics page, for your scraper only (default: not served)',
  LANDFALL_DRAIN_DELAY_MS: 'how long it still serves but is not ready after SIGTERM, before it drains (default 0)',
  LANDFALL_MIGRATE: 'off: the start changes no tables; run `landfall migrate` when you deploy (default automatic)',
  LANDFALL_LOG_LEVEL: 'silent, error, warn, info or debug (default info)',
}

/** What commands other than `serve` need to find the server's data. */
export const DATA_SETTINGS: readonly SettingName[] = [
  'LANDFALL_DATA_DIR',
  'LANDFALL_DATABASE_URL',
  'LANDFALL_DATABASE_CONNECTIONS',
]

const flagOf = (name: string): string => name.slice('LANDFALL_'.length).toLowerCase().replaceAll('_', '-')

/** Each flag has a variable of the same name; flags win. A secret has no flag, but one for a file that contains it. */
export function addSettings(command: Command, names: readonly SettingName[] = SETTING_NAMES): Command {
  for (const name of names) {
    const option = new Option(`--${flagOf(name)} <value>`, `${HELP[name]} [${name}]`)
    // Known but hidden: for an unknown option, the error message would repeat its value.
    command.addOption(SECRET_SETTINGS.has(name) ? option.hideHelp() : option)
    if (FILE_SETTINGS.has(name))
      command.addOption(new Option(`--${flagOf(name)}-file <path>`, `file with: ${HELP[name]} [${name}_FILE]`))
  }
  return command
}

/**
 * @param warn Gets a sentence for each variable that was ignored. Default: a line on standard error.
 * @throws UploadError `setup` whose message names each bad setting.
 */
export function settingsOf(
  command: Command,
  { serves, warn = (what) => process.stderr.write(`${what}\n`) }: { serves: boolean; warn?: (what: string) => void },
): Settings {
  const options = command.opts<Record<string, string | undefined>>()
  const flags: Record<string, string> = {}
  for (const name of SETTING_NAMES.flatMap((each) => [each, `${each}_FILE`])) {
    const flag = options[camelCase(flagOf(name))]
    if (flag === undefined) continue
    if ((SECRET_SETTINGS as ReadonlySet<string>).has(name))
      throw new UploadError('setup', `--${flagOf(name)}: ${NO_SECRET_FLAG} ${waysOf(name)}`)
    flags[name] = flag
  }
  return readSettings(process.env, { flags, serves, warn })
}

const camelCase = (flag: string): string =>
  flag.replace(/-([a-z0-9])/g, (_match, letter: string) => letter.toUpperCase())
