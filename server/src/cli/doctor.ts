import { Command } from 'commander'
import type { Check } from '../doctor.js'
import { json, line, printable, styled } from './print.js'
import { addSettings, settingsOf } from './settings-options.js'
import { ServerDoesNotTalk, withOperator } from './with-operator.js'

const EXIT_FAILED = 1
const COLOUR = { ok: 'green', warning: 'yellow', failed: 'red' } as const

/** `landfall doctor`: exit status 0 unless something failed; each line says what to do. */
export function doctorCommand(): Command {
  return addSettings(new Command('doctor').description('look at everything that uploads rest on, and say what to do'))
    .option('--json', 'one check a line, as JSON')
    .addHelpText('after', '\nExit status: 0 nothing failed, 1 something did, 2 it could not look.')
    .action(async (flags: { json?: true }, command: Command) => {
      const settings = settingsOf(command, { serves: false })
      const checks = await withOperator(settings, async (operator, where) => {
        const server: Line = {
          name: 'server',
          state: where === 'server' ? 'ok' : 'warning',
          found: where === 'server' ? 'runs and answers' : 'none runs on this data directory',
          advice: where === 'server' ? null : 'Start one with `landfall serve`.',
        }
        return [SETTINGS_OK, server, ...(await operator.doctor())]
      }).catch((error: unknown): Line[] => {
        if (!(error instanceof ServerDoesNotTalk)) throw error
        return [SETTINGS_OK, { name: 'server', state: 'failed', found: error.message, advice: SILENT }]
      })
      for (const check of checks)
        if (flags.json === true) json(check)
        else print(check)
      if (checks.some(({ state }) => state === 'failed')) process.exitCode = EXIT_FAILED
    })
}

type Line = Omit<Check, 'name'> & { readonly name: Check['name'] | 'settings' | 'server' }

const SILENT = 'Look at its log. If it stands still, end it and start it again: nothing is lost.'

/** Bad ones are refused by name before anything is looked at. */
const SETTINGS_OK: Line = { name: 'settings', state: 'ok', found: 'all are known and make sense', advice: null }

function print({ name, state, found, advice }: Line): void {
  line(`${styled(COLOUR[state], state.padEnd(7))}  ${name.padEnd(10)}  ${printable(found)}`)
  if (advice !== null) line(`${' '.repeat(21)}${advice}`)
}
