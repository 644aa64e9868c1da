#!/usr/bin/env node
import { Command } from 'commander'
import { doctorCommand } from './cli/doctor.js'
import { operationsCommand } from './cli/operations.js'
import { reconcileCommand } from './cli/reconcile.js'
import { addSettings, settingsOf } from './cli/settings-options.js'
import { UploadError } from './errors.js'
import { serve } from './serve.js'

const EXIT_BAD_SETTINGS = 2

const program = new Command('landfall').description(
  'Uploads that arrive: a file ends as exactly one reference, or you are told why not.',
)

addSettings(
  program
    .command('serve')
    .description('serve uploads at /uploads; each flag has a variable of the same name, such as LANDFALL_PORT'),
).action(async (_flags: unknown, command: Command) => {
  const serving = await serve(settingsOf(command, { serves: true }))
  process.stdout.write(`landfall listens on ${serving.address}\n`)
  let closing = false
  for (const signal of ['SIGTERM', 'SIGINT'] as const)
    process.on(signal, () => {
      if (closing) process.exit(1)
      closing = true
      void serving.close().then(() => process.exit(0))
    })
})
program.addCommand(operationsCommand())
program.addCommand(reconcileCommand())
program.addCommand(doctorCommand())

try {
  await program.parseAsync()
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = error instanceof UploadError && error.code === 'setup' ? EXIT_BAD_SETTINGS : 1
}
