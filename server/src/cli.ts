#!/usr/bin/env node
import { readFileSync } from 'node:fs'
import { Command, CommanderError } from 'commander'
import { doctorCommand } from './program/commands/doctor.js'
import { forgetCommand } from './program/commands/forget.js'
import { migrateCommand } from './program/commands/migrate.js'
import { operationsCommand } from './program/commands/operations.js'
import { reconcileCommand } from './program/commands/reconcile.js'
import { addSettings, settingsOf } from './program/commands/settings-options.js'
import { messageOf } from './lib/problem-error.js'
import { UploadError } from './lib/errors.js'
import { createLogger } from './lib/log.js'
import { serve } from './program/serve.js'

const EXIT_FAULT = 1
/**
 * Bad settings or arguments. For commands that are not `serve` also whatever kept them from working, because 1 is a
 * result.
 */
const EXIT_TROUBLE = 2
/** The status of a program that SIGPIPE ended: its reader has stopped reading (`| head`). */
const EXIT_PIPE = 141
for (const stream of [process.stdout, process.stderr])
  stream.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? EXIT_PIPE : EXIT_TROUBLE))

// Database, blobs and socket contain names, owners and bytes, so only the program's own user may read what it creates.
process.umask(0o077)

const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string }
const program = new Command('landfall')
  .description('Uploads that arrive: a file ends as exactly one reference, or you are told why not.')
  .version(version)

addSettings(
  program
    .command('serve')
    .description(
      'serve uploads at /uploads; each flag has a variable of the same name, such as LANDFALL_PORT; secrets have variables and files only',
    ),
).action(async (_flags: unknown, command: Command) => {
  const ignored: string[] = []
  const settings = settingsOf(command, { serves: true, warn: (what) => ignored.push(what) })
  const log = createLogger(settings.LANDFALL_LOG_LEVEL)
  for (const what of ignored) log.warn(what)
  const serving = await serve(settings)
  let closing = false
  for (const signal of ['SIGTERM', 'SIGINT'] as const)
    process.on(signal, () => {
      if (closing) process.exit(1)
      closing = true
      void serving.close().then(() => process.exit(0))
    })
  // This comes last, because a program that reads this line may send a signal at once.
  process.stdout.write(`landfall listens on ${serving.address}\n`)
})
program.addCommand(migrateCommand())
program.addCommand(operationsCommand())
program.addCommand(reconcileCommand())
program.addCommand(forgetCommand())
program.addCommand(doctorCommand())

throwInsteadOfExit(program)

try {
  await program.parseAsync()
} catch (error) {
  process.exitCode = statusOf(error)
}

/** Commander prints what is wrong, and would exit with 1. */
function throwInsteadOfExit(command: Command): void {
  command.exitOverride()
  for (const each of command.commands) throwInsteadOfExit(each)
}

function statusOf(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : EXIT_TROUBLE
  process.stderr.write(`${messageOf(error)}\n`)
  const isSetup = error instanceof UploadError && error.code === 'setup'
  return isSetup || process.argv[2] !== 'serve' ? EXIT_TROUBLE : EXIT_FAULT
}
