import { Command } from 'commander'
import type { Check } from '../../operate/doctor.js'
import { json, line, printable, styled } from './print.js'
import { addSettings, settingsOf } from './settings-options.js'
import { ServerUnavailable, withOperator } from './with-operator.js'

const EXIT_FAILED = 1
const COLOUR = { ok: 'green', warning: 'yellow', failed: 'red' } as const

/** `landfall doctor`: exit status 0 unless a check failed. Each line says what to do. */
export function doctorCommand(): Command {
  return addSettings(new Command('doctor').description('check everything that uploads depend on, and say what to do'))
    .option('--json', 'one check per line, as JSON')
    .addHelpText('after', '\nExit status: 0 nothing failed, 1 a check failed, 2 the checks could not run.')
    .action(async (flags: { json?: true }, command: Command) => {
      const ignored: string[] = []
      const settings = settingsOf(command, { serves: false, warn: (what) => ignored.push(what) })
      const checks = await withOperator(settings, async (operator, where) => {
        const server: Line = {
          name: 'server',
          state: where === 'server' ? 'ok' : 'warning',
          found: where === 'server' ? 'runs and answers' : 'none runs on this data directory',
          advice: where === 'server' ? null : 'Start one with `landfall serve`.',
        }
        return [settingsLine(ignored), server, ...(await operator.doctor())]
      }).catch((error: unknown): Line[] => {
        if (!(error instanceof ServerUnavailable)) throw error
        return [settingsLine(ignored), { name: 'server', state: 'failed', found: error.message, advice: SILENT }]
      })
      for (const check of checks)
        if (flags.json === true) json(check)
        else print(check)
      if (checks.some(({ state }) => state === 'failed')) process.exitCode = EXIT_FAILED
    })
}

type Line = Omit<Check, 'name'> & { readonly name: Check['name'] | 'settings' | 'server' }

const SILENT = 'Read its log. If it hangs, stop it and start it again: nothing is lost.'

/** Bad settings are refused by name before any check runs. */
const settingsLine = (ignored: readonly string[]): Line =>
  ignored.length === 0
    ? { name: 'settings', state: 'ok', found: 'all are known and valid', advice: null }
    : {
        name: 'settings',
        state: 'warning',
        found: ignored.join('; '),
        advice: 'Correct mistyped names. Variables that a platform sets may stay.',
      }

function print({ name, state, found, advice }: Line): void {
  line(`${styled(COLOUR[state], state.padEnd(7))}  ${name.padEnd(10)}  ${printable(found)}`)
  if (advice !== null) line(`${' '.repeat(21)}${advice}`)
}
