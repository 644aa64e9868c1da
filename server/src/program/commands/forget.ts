import { Command } from 'commander'
import type { Holdings } from '../../ports/ledger/references.js'
import { bytes, facts, json, line } from './print.js'
import { addSettings, DATA_SETTINGS, settingsOf } from './settings-options.js'
import { withOperator } from './with-operator.js'

/** `landfall forget`: the right to erasure. Without `--yes` it only shows what the owner has. */
export function forgetCommand(): Command {
  return addSettings(
    new Command('forget').description(
      'erase an owner: its references and their bytes, its open uploads, and its names and metadata; changes nothing without --yes',
    ),
    DATA_SETTINGS,
  )
    .requiredOption('--owner <owner>', 'the owner to erase')
    .option('--yes', 'erase; without it only show. It cannot be undone')
    .option('--json', 'as JSON')
    .action(async ({ owner, yes = false, json: asJson }: Flags, command: Command) => {
      await withOperator(settingsOf(command, { serves: false }), async (operator, where) => {
        const found = await operator.forgetOwner({ owner, apply: yes })
        if (asJson === true) return json({ applied: yes, ...found })
        print(found)
        if (!yes) line('use --yes to erase all of it')
        else
          line(
            where === 'server'
              ? 'erased; the bytes are removed now'
              : 'erased; the bytes are removed when a server runs',
          )
      })
    })
}

interface Flags {
  readonly owner: string
  readonly yes?: boolean
  readonly json?: true
}

function print(found: Holdings): void {
  facts([
    ['operations', String(found.operations)],
    ['of them open', String(found.openOperations)],
    ['references', String(found.references)],
    ['stored', bytes(found.bytes)],
  ])
}
