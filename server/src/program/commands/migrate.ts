import { Command } from 'commander'
import { openDatabase } from '../engines.js'
import { makeDirectoryNow } from '../../blobs/file/durable-files.js'
import { line } from './print.js'
import { addSettings, DATA_SETTINGS, settingsOf } from './settings-options.js'

/** `landfall migrate`: the tables and nothing else, for a deploy step that has its own database user. */
export function migrateCommand(): Command {
  return addSettings(
    new Command('migrate').description(
      "create or upgrade the ledger's tables, and create again what was dropped of them; servers may keep running",
    ),
    DATA_SETTINGS,
  )
    .addHelpText('after', '\nExit status: 0 the tables are as this version needs them, 2 they are not.')
    .action(async (_flags: unknown, command: Command) => {
      const settings = settingsOf(command, { serves: false })
      makeDirectoryNow(settings.LANDFALL_DATA_DIR)
      const database = await openDatabase(settings)
      try {
        await database.ledger.migrate('apply')
        line("the ledger's tables are as this version needs them")
      } finally {
        await database.close()
      }
    })
}
