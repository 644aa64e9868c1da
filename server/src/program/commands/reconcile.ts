import { Command } from 'commander'
import { UploadError } from '../../lib/errors.js'
import type { Finding, FindingType, ReconcileReport } from '../../operate/reconcile.js'
import { json, line, printable, styled, table } from './print.js'
import { createBar } from './progress.js'
import { addSettings, DATA_SETTINGS, settingsOf } from './settings-options.js'
import { withOperator } from './with-operator.js'

interface Flags {
  apply?: true
  force?: true
  acceptRestored?: true
  quarantineDays: string
  json?: true
}

const EXIT_DIFFERENT = 1
const DAY_MS = 24 * 60 * 60_000

const MEANING: Record<FindingType, string> = {
  missing: 'bytes that a row relies on do not exist',
  'set-aside': 'bytes that a row relies on are in quarantine',
  leftover: 'bytes of an upload that ended without a reference, or was removed',
  'upload-remains': 'parts and tails that only the upload of a stored blob needed',
  unknown: 'bytes of which the ledger has no row',
  overdue: 'unknown bytes, in quarantine for long enough',
  foreign: 'files that are not Landfall’s; never touched',
}

/** `landfall reconcile`: exit status 0 only if nothing differs. */
export function reconcileCommand(): Command {
  return addSettings(
    new Command('reconcile').description(
      'compare the ledger with the stored bytes, in both directions; a server may run; changes nothing without --apply',
    ),
    DATA_SETTINGS,
  )
    .option('--apply', 'take back, set aside and delete; without it only report')
    .option('--force', 'even if more than 1 % of the blobs would be removed (in a small store: more than 10 or half)')
    .option('--accept-restored', 'the ledger was restored from a backup on purpose: give up what was stored after it')
    .option('--quarantine-days <days>', 'how long unknown blobs are set aside before they are deleted', '7')
    .option('--json', 'one finding per line, the report last, as JSON')
    .addHelpText('after', '\nExit status: 0 nothing differs, 1 something differs, 2 it could not compare.')
    .action(async (flags: Flags, command: Command) => {
      const quarantineMs = daysOf(flags.quarantineDays) * DAY_MS
      const bar = createBar()
      const report = await withOperator(settingsOf(command, { serves: false }), (operator) =>
        operator.reconcile({
          apply: flags.apply ?? false,
          force: flags.force ?? false,
          acceptRestored: flags.acceptRestored ?? false,
          quarantineMs,
          onFinding(finding) {
            bar.clear()
            if (flags.json === true) json({ finding })
            else printFinding(finding)
          },
          onProgress: (seen) => bar.show(seen),
        }),
      ).finally(() => bar.clear())
      if (flags.json === true) json({ report })
      else printReport(report)
      if (report.difference > 0) process.exitCode = EXIT_DIFFERENT
    })
}

function daysOf(text: string): number {
  const days = Number(text)
  if (text.trim() === '' || !(days >= 0 && days <= 3650)) throw new UploadError('setup', '--quarantine-days: 0 to 3650')
  return days
}

function printFinding({ type, blob, operation, sizeBytes, action }: Finding): void {
  const of = operation === null ? '' : `  ${operation.id} of ${operation.owner} (${operation.point})`
  line(
    printable(
      `${type.padEnd(14)}  ${blob}  ${sizeBytes === null ? 'absent' : `${sizeBytes} bytes`}${of}${action === 'none' ? '' : `  -> ${action}`}`,
    ),
  )
}

function printReport(report: ReconcileReport): void {
  const { found, done } = report
  line(`${report.operations} operations, ${report.blobs} blobs, ${(report.tookMs / 1000).toFixed(1)} s`)
  const types = (Object.keys(found) as FindingType[]).filter((type) => found[type] > 0)
  if (types.length > 0) table(types.map((type) => [String(found[type]), type, MEANING[type]]))
  if (report.quarantined > 0) line(`${report.quarantined} in quarantine`)
  if (report.applied)
    line(`done: ${done['taken-back']} taken back, ${done.quarantined} set aside, ${done.deleted} deleted`)
  if (report.refused !== null) line(styled('red', refusal(report, report.refused)))
  else if (!report.applied && report.difference > found.missing) line('use --apply to repair what can be repaired')
  line(report.difference === 0 ? styled('green', 'nothing differs') : styled('red', `${report.difference} differ`))
}

function refusal({ applied, done }: ReconcileReport, why: string): string {
  if (!applied) return `nothing would be deleted or set aside: ${why}`
  // It may have stopped in the middle, for what came to light only then.
  const more = done.deleted + done.quarantined > 0 ? 'nothing more' : 'nothing'
  return `${more} was deleted or set aside: ${why}`
}
