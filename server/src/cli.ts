#!/usr/bin/env node
import { Command } from 'commander'
import { UploadError } from './errors.js'
import { serve } from './serve.js'
import { readSettings, SETTING_NAMES, type SettingName } from './settings.js'

const EXIT_BAD_SETTINGS = 2

const HELP: Record<SettingName, string> = {
  LANDFALL_HOST: 'address to listen on (default 127.0.0.1)',
  LANDFALL_PORT: 'port to listen on; 0 for any free one (default 3000)',
  LANDFALL_DATA_DIR: 'directory of the database and the blobs (default ./landfall-data)',
  LANDFALL_DATABASE_URL: 'file:… (default: in the data directory)',
  LANDFALL_S3_ENDPOINT: 'not supported yet',
  LANDFALL_S3_REGION: 'not supported yet',
  LANDFALL_S3_BUCKET: 'not supported yet',
  LANDFALL_S3_ACCESS_KEY_ID: 'not supported yet',
  LANDFALL_S3_SECRET_ACCESS_KEY: 'not supported yet',
  LANDFALL_S3_PREFIX: 'not supported yet',
  LANDFALL_OWNER_HEADER: 'header by which a trusted proxy says who asks (required)',
  LANDFALL_MAX_SIZE_BYTES: 'largest file in bytes (default 1 TiB)',
  LANDFALL_EXPIRES_AFTER_MS: 'when an unfinished upload is given up after its last byte (default 7 days)',
  LANDFALL_COMPLETER_INTERVAL_MS: 'how often abandoned uploads are looked for (default 5000)',
  LANDFALL_LEASE_MS: 'how long a dead process keeps others away (default 30000)',
  LANDFALL_ALLOWED_ORIGINS: 'origins of pages on other sites, separated by commas (default none)',
  LANDFALL_LOG_LEVEL: 'silent, error, warn, info or debug (default info)',
}

const flagOf = (name: SettingName): string => name.slice('LANDFALL_'.length).toLowerCase().replaceAll('_', '-')

const program = new Command('landfall').description(
  'Uploads that arrive: a file ends as exactly one reference, or you are told why not.',
)

const serveCommand = program
  .command('serve')
  .description('serve uploads at /uploads; each flag has a variable of the same name, such as LANDFALL_PORT')
  .action(async (flags: Record<string, string>) => {
    const said: Record<string, string | undefined> = { ...process.env }
    for (const name of SETTING_NAMES) {
      const flag = flags[camelCase(flagOf(name))]
      if (flag !== undefined) said[name] = flag
    }
    const serving = await serve(readSettings(said))
    process.stdout.write(`landfall listens on ${serving.address}\n`)
    let closing = false
    for (const signal of ['SIGTERM', 'SIGINT'] as const)
      process.on(signal, () => {
        if (closing) process.exit(1)
        closing = true
        void serving.close().then(() => process.exit(0))
      })
  })
for (const name of SETTING_NAMES) serveCommand.option(`--${flagOf(name)} <value>`, `${HELP[name]} [${name}]`)

const camelCase = (flag: string): string =>
  flag.replace(/-([a-z0-9])/g, (_match, letter: string) => letter.toUpperCase())

try {
  await program.parseAsync()
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = error instanceof UploadError && error.code === 'setup' ? EXIT_BAD_SETTINGS : 1
}
