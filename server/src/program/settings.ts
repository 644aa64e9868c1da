import { readFileSync } from 'node:fs'
import { OWNER_TAG_HEADER } from '@landfall/shared'
import * as v from 'valibot'
import { isOrigin } from '../http/same-site.js'
import { UploadError } from '../lib/errors.js'
import { CENTURY_MS } from '../lib/options.js'

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

/** The settings of `landfall serve`, named as its environment variables. */
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
    v.string(),
    v.nonEmpty('LANDFALL_OWNER_HEADER: required; the name of the header in which your proxy sends the owner'),
    v.regex(/^[A-Za-z0-9!#$%&'*+.^_`|~-]+$/, 'LANDFALL_OWNER_HEADER: the name of a header (RFC 9110, 5.1)'),
    v.check(
      (name) => name.toLowerCase() !== OWNER_TAG_HEADER.toLowerCase(),
      `LANDFALL_OWNER_HEADER: not ${OWNER_TAG_HEADER}, which carries the owner tag between clients and server`,
    ),
  ),
  LANDFALL_MAX_SIZE_BYTES: v.optional(count('LANDFALL_MAX_SIZE_BYTES', 0, Number.MAX_SAFE_INTEGER), 1024 ** 4),
  LANDFALL_QUOTA_BYTES: v.optional(count('LANDFALL_QUOTA_BYTES', 0, Number.MAX_SAFE_INTEGER)),
  LANDFALL_RESERVE_BYTES: v.optional(count('LANDFALL_RESERVE_BYTES', 0, Number.MAX_SAFE_INTEGER)),
  LANDFALL_EXPIRES_AFTER_MS: v.optional(count('LANDFALL_EXPIRES_AFTER_MS', 1_000, CENTURY_MS), 7 * 24 * 60 * 60_000),
  LANDFALL_RETENTION_FINAL_MS: v.optional(count('LANDFALL_RETENTION_FINAL_MS', 0, CENTURY_MS), 30 * 24 * 60 * 60_000),
  LANDFALL_RETENTION_EFFECTS_MS: v.optional(
    count('LANDFALL_RETENTION_EFFECTS_MS', 0, CENTURY_MS),
    7 * 24 * 60 * 60_000,
  ),
  LANDFALL_DECLARATIONS_PER_HOUR: v.optional(count('LANDFALL_DECLARATIONS_PER_HOUR', 1, 1_000_000_000), 36_000),
  LANDFALL_COMPLETER_INTERVAL_MS: v.optional(count('LANDFALL_COMPLETER_INTERVAL_MS', 50, 24 * 60 * 60_000), 5_000),
  LANDFALL_LEASE_MS: v.optional(count('LANDFALL_LEASE_MS', 1_000, 60 * 60_000), 30_000),
  LANDFALL_ALLOWED_ORIGINS: v.optional(
    v.pipe(
      v.string(),
      v.transform(listOf),
      v.check(
        (origins) => origins.every(isOrigin),
        'LANDFALL_ALLOWED_ORIGINS: origins such as https://app.example or capacitor://localhost, separated by commas',
      ),
    ),
    '',
  ),
  LANDFALL_BASE_PATH: v.optional(
    v.pipe(v.string(), v.regex(/^(\/[A-Za-z0-9._~-]+)+$/, 'LANDFALL_BASE_PATH: a path such as /media/uploads')),
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
        'LANDFALL_METRICS_PATH: not below /uploads or /health, which belong to other routes',
      ),
    ),
  ),
  LANDFALL_DRAIN_DELAY_MS: v.optional(count('LANDFALL_DRAIN_DELAY_MS', 0, 10 * 60_000), 0),
  LANDFALL_MIGRATE: v.optional(v.picklist(['automatic', 'off'], 'LANDFALL_MIGRATE: automatic or off'), 'automatic'),
  LANDFALL_LOG_LEVEL: v.optional(
    v.picklist(['silent', 'error', 'warn', 'info', 'debug'], 'LANDFALL_LOG_LEVEL: silent, error, warn, info or debug'),
    'info',
  ),
})

export type Settings = v.InferOutput<typeof settingsSchema>
export type SettingName = keyof Settings
export const SETTING_NAMES = Object.keys(settingsSchema.entries) as SettingName[]

/** Never a flag, because everybody on the machine can read the arguments of a program (`ps`). */
export const SECRET_SETTINGS: ReadonlySet<SettingName> = new Set([
  'LANDFALL_S3_SECRET_ACCESS_KEY',
  'LANDFALL_WEBHOOK_SECRET',
])
/**
 * Settings that a file can contain, such as a Docker or Kubernetes secret. Its path is in the variable of the same name
 * with `_FILE`.
 */
export const FILE_SETTINGS: ReadonlySet<SettingName> = new Set([
  ...SECRET_SETTINGS,
  'LANDFALL_DATABASE_URL',
  'LANDFALL_S3_ACCESS_KEY_ID',
])
const FILE = '_FILE'

type Said = Readonly<Record<string, string | undefined>>

/**
 * Reads settings from the variables and the flags; flags win. A variable that Landfall does not know may belong to a
 * platform (Kubernetes sets `LANDFALL_SERVICE_HOST` and `LANDFALL_PORT=tcp://…` in each pod next to a Service named
 * `landfall`), so it is only named in a warning. A wrong flag is refused.
 *
 * @param flags Named as their variables.
 * @param serves Whether settings that only a server needs are required. Default true.
 * @param warn Gets a sentence for each thing that was ignored.
 * @throws UploadError `setup` whose message names each bad setting.
 */
export function readSettings(
  variables: Said,
  {
    flags = {},
    serves = true,
    warn = () => {},
  }: { flags?: Said; serves?: boolean; warn?: (what: string) => void } = {},
): Settings {
  const given = (said: Said, name: string): string | undefined => (said[name] === '' ? undefined : said[name])
  const problems = Object.entries(flags).flatMap(([name, value]) =>
    value !== undefined && hasPassword(value) ? [`${name}: ${NO_SECRET_FLAG} ${waysOf(name)}`] : [],
  )
  const known: Record<string, string> = {}
  for (const name of SETTING_NAMES) {
    const file = FILE_SETTINGS.has(name) ? `${name}${FILE}` : null
    // A variable does not contradict a flag.
    const said = [flags, variables].find(
      (each) => given(each, name) !== undefined || (file !== null && given(each, file) !== undefined),
    )
    if (said === undefined) continue
    const value = given(said, name)
    const path = file === null ? undefined : given(said, file)
    if (value !== undefined && path !== undefined) problems.push(`${name}, ${file}: only one of them`)
    else if (value !== undefined) known[name] = value
    else if (path !== undefined) {
      const found = secretIn(path)
      if (found === null) problems.push(`${file}: the file cannot be read, or is empty`)
      else known[name] = found
    }
  }
  if (isInjectedPort(variables['LANDFALL_PORT']) && given(flags, 'LANDFALL_PORT') === undefined) {
    delete known['LANDFALL_PORT']
    warn('LANDFALL_PORT is ignored, because it contains the address of a Service of that name; --port sets the port')
  }
  const unknown = Object.keys(variables).filter((name) => name.startsWith('LANDFALL_') && !isSetting(name))
  if (unknown.length > 0) warn(`unknown settings, which are ignored: ${unknown.toSorted().join(', ')}`)
  // Commands other than `serve` need no owner. A missing key would be refused in the words of the schema library.
  const parsed = v.safeParse(
    settingsSchema,
    { LANDFALL_OWNER_HEADER: serves ? '' : 'X-Owner', ...known },
    { abortPipeEarly: true },
  )
  problems.push(
    ...(parsed.success
      ? notTogether(parsed.output)
      : parsed.issues.map((issue) =>
          issue.message.startsWith('LANDFALL_') ? issue.message : `${v.getDotPath(issue) ?? ''}: ${issue.message}`,
        )),
  )
  if (!parsed.success || problems.length > 0) throw new UploadError('setup', [...new Set(problems)].join('\n'))
  return parsed.output
}

/** The ways to set a secret instead. */
export const waysOf = (name: string): string =>
  (FILE_SETTINGS as ReadonlySet<string>).has(name) ? `${name} or ${name}${FILE}` : name

export const NO_SECRET_FLAG = 'a secret in a flag can be read by everybody on the machine; set the variable'

const isSetting = (name: string): boolean =>
  (SETTING_NAMES as readonly string[]).includes(name) ||
  (name.endsWith(FILE) && (FILE_SETTINGS as ReadonlySet<string>).has(name.slice(0, -FILE.length)))

/** The form in which Docker's links and Kubernetes give the address of a service. */
const isInjectedPort = (value: string | undefined): boolean => /^(tcp|udp|sctp):\/\//.test(value ?? '')

function hasPassword(value: string): boolean {
  if (!URL.canParse(value)) return /:\/\/[^/?#]*:[^/?#]*@/.test(value)
  const { password, searchParams } = new URL(value)
  return password !== '' || [...searchParams.keys()].some((key) => /password/i.test(key))
}

/** Null if there is none. A newline at the end, which editors add, is not part of the secret. */
function secretIn(path: string): string | null {
  try {
    const text = readFileSync(path, 'utf8').replace(/\r?\n$/, '')
    return text === '' ? null : text
  } catch {
    return null
  }
}

/** Checks settings that are valid only together. */
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
