import { OWNER_TAG_HEADER } from '@landfall/shared'
import * as v from 'valibot'
import { UploadError } from './errors.js'

const count = (name: string, least: number, most: number) =>
  v.pipe(
    v.union(
      [v.number(), v.pipe(v.string(), v.regex(/^\d+$/, `${name}: a whole number`), v.transform(Number))],
      `${name}: a whole number`,
    ),
    v.minValue(least, `${name}: at least ${least}`),
    v.maxValue(most, `${name}: at most ${most}`),
  )

const listOf = (text: string): string[] =>
  text
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '')

/** For ever, and still a date (ECMA-262 ends after 8.64e15 ms). */
const CENTURY_MS = 100 * 365 * 24 * 60 * 60_000

/** Of `landfall serve`, named as its environment variables. */
const settingsSchema = v.object({
  LANDFALL_HOST: v.optional(v.pipe(v.string(), v.nonEmpty('LANDFALL_HOST: a host name or an address')), '127.0.0.1'),
  LANDFALL_PORT: v.optional(count('LANDFALL_PORT', 0, 65_535), 3000),
  LANDFALL_DATA_DIR: v.optional(v.pipe(v.string(), v.nonEmpty('LANDFALL_DATA_DIR: a directory')), './landfall-data'),
  LANDFALL_DATABASE_URL: v.optional(
    v.pipe(v.string(), v.regex(/^(file:|postgres(ql)?:\/\/)/, 'LANDFALL_DATABASE_URL: file:… or postgres://…')),
  ),
  LANDFALL_DATABASE_CONNECTIONS: v.optional(count('LANDFALL_DATABASE_CONNECTIONS', 2, 1_000), 10),
  LANDFALL_S3_ENDPOINT: v.optional(
    v.pipe(v.string(), v.regex(/^https?:\/\//, 'LANDFALL_S3_ENDPOINT: https://… or http://…')),
  ),
  LANDFALL_S3_REGION: v.optional(v.pipe(v.string(), v.nonEmpty('LANDFALL_S3_REGION: a region')), 'us-east-1'),
  LANDFALL_S3_BUCKET: v.optional(v.pipe(v.string(), v.nonEmpty('LANDFALL_S3_BUCKET: the name of a bucket'))),
  LANDFALL_S3_ACCESS_KEY_ID: v.optional(v.string()),
  LANDFALL_S3_SECRET_ACCESS_KEY: v.optional(v.string()),
  LANDFALL_S3_PREFIX: v.optional(v.string(), ''),
  LANDFALL_OWNER_HEADER: v.pipe(
    v.string('LANDFALL_OWNER_HEADER: required; the name of the header by which your proxy says who asks'),
    v.regex(/^[A-Za-z0-9!#$%&'*+.^_`|~-]+$/, 'LANDFALL_OWNER_HEADER: the name of a header (RFC 9110, 5.1)'),
    v.check(
      (name) => name.toLowerCase() !== OWNER_TAG_HEADER.toLowerCase(),
      `LANDFALL_OWNER_HEADER: not ${OWNER_TAG_HEADER}, by which clients and server tell whose an upload is`,
    ),
  ),
  LANDFALL_MAX_SIZE_BYTES: v.optional(count('LANDFALL_MAX_SIZE_BYTES', 0, Number.MAX_SAFE_INTEGER), 1024 ** 4),
  LANDFALL_EXPIRES_AFTER_MS: v.optional(count('LANDFALL_EXPIRES_AFTER_MS', 1_000, CENTURY_MS), 7 * 24 * 60 * 60_000),
  LANDFALL_COMPLETER_INTERVAL_MS: v.optional(count('LANDFALL_COMPLETER_INTERVAL_MS', 50, 24 * 60 * 60_000), 5_000),
  LANDFALL_LEASE_MS: v.optional(count('LANDFALL_LEASE_MS', 1_000, 60 * 60_000), 30_000),
  LANDFALL_ALLOWED_ORIGINS: v.optional(
    v.pipe(
      v.string(),
      v.transform(listOf),
      v.check(
        (origins) => origins.every((origin) => URL.canParse(origin) && new URL(origin).origin === origin),
        'LANDFALL_ALLOWED_ORIGINS: origins such as https://app.example, separated by commas',
      ),
    ),
    '',
  ),
  LANDFALL_WEBHOOK_URL: v.optional(
    v.pipe(v.string(), v.regex(/^https?:\/\//, 'LANDFALL_WEBHOOK_URL: https://… or http://…')),
  ),
  LANDFALL_WEBHOOK_SECRET: v.optional(
    v.pipe(
      v.string(),
      v.transform(listOf),
      v.check(
        (secrets) => secrets.length > 0 && secrets.every((secret) => /^(whsec_)?[A-Za-z0-9+/]+={0,2}$/.test(secret)),
        'LANDFALL_WEBHOOK_SECRET: whsec_… (base64); several while one is replaced, separated by commas',
      ),
    ),
  ),
  LANDFALL_WEBHOOK_ALLOW_PRIVATE: v.optional(
    v.pipe(
      v.picklist(['true', 'false'], 'LANDFALL_WEBHOOK_ALLOW_PRIVATE: true or false'),
      v.transform((word) => word === 'true'),
    ),
    'false',
  ),
  LANDFALL_METRICS_PATH: v.optional(
    v.pipe(
      v.string(),
      v.regex(/^(\/[A-Za-z0-9._~-]+)+$/, 'LANDFALL_METRICS_PATH: a path such as /metrics'),
      v.check(
        (path) => !/^\/(uploads|health)(\/|$)/.test(path),
        'LANDFALL_METRICS_PATH: not below /uploads or /health, which are the routes of others',
      ),
    ),
  ),
  LANDFALL_DRAIN_DELAY_MS: v.optional(count('LANDFALL_DRAIN_DELAY_MS', 0, 10 * 60_000), 0),
  LANDFALL_LOG_LEVEL: v.optional(
    v.picklist(['silent', 'error', 'warn', 'info', 'debug'], 'LANDFALL_LOG_LEVEL: silent, error, warn, info or debug'),
    'info',
  ),
})

export type Settings = v.InferOutput<typeof settingsSchema>
export type SettingName = keyof Settings
export const SETTING_NAMES = Object.keys(settingsSchema.entries) as SettingName[]

/**
 * Reads settings from what the environment and the flags say; flags win. `serves`: those that only a server needs are
 * required, default true.
 *
 * @throws UploadError `setup` whose message names each bad setting.
 */
export function readSettings(
  said: Readonly<Record<string, string | undefined>>,
  { serves = true }: { serves?: boolean } = {},
): Settings {
  const known = Object.fromEntries(
    SETTING_NAMES.flatMap((name) => (said[name] === undefined || said[name] === '' ? [] : [[name, said[name]]])),
  )
  const unknown = Object.keys(said).filter(
    (name) => name.startsWith('LANDFALL_') && !(SETTING_NAMES as string[]).includes(name),
  )
  // Commands beside the server ask for nobody.
  const parsed = v.safeParse(settingsSchema, serves ? known : { LANDFALL_OWNER_HEADER: 'X-Owner', ...known })
  const problems = [
    ...unknown.map((name) => `${name}: no such setting`),
    ...(parsed.success
      ? notTogether(parsed.output)
      : parsed.issues.map((issue) =>
          issue.message.startsWith('LANDFALL_') ? issue.message : `${v.getDotPath(issue) ?? ''}: ${issue.message}`,
        )),
  ]
  if (!parsed.success || problems.length > 0) throw new UploadError('setup', [...new Set(problems)].join('\n'))
  return parsed.output
}

/** Settings that go only together. */
function notTogether(settings: Settings): string[] {
  return [
    ...((settings.LANDFALL_WEBHOOK_URL === undefined) === (settings.LANDFALL_WEBHOOK_SECRET === undefined)
      ? []
      : ['LANDFALL_WEBHOOK_URL, LANDFALL_WEBHOOK_SECRET: both or none']),
    ...((settings.LANDFALL_S3_ACCESS_KEY_ID === undefined) === (settings.LANDFALL_S3_SECRET_ACCESS_KEY === undefined)
      ? []
      : ['LANDFALL_S3_ACCESS_KEY_ID, LANDFALL_S3_SECRET_ACCESS_KEY: both or none']),
    ...(settings.LANDFALL_S3_BUCKET !== undefined || settings.LANDFALL_S3_ENDPOINT === undefined
      ? []
      : ['LANDFALL_S3_BUCKET: name the bucket of LANDFALL_S3_ENDPOINT']),
  ]
}
