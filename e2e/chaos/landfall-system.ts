import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { landfallServe, OWNER_HEADER, repository } from '../src/landfall.js'
import { type Stored, waitsForClient } from '../src/sweep/invariants.js'
import { openReader } from '../src/sweep/reader.js'
import type { Reconciled, StoredFile, System } from './system.js'

export const OWNER = 'swept'

const FINAL = new Set(['completed', 'cancelled', 'expired', 'rejected'])

/** `serverFolder`: a changed copy of the server, whose faults must show; default: this repository's. */
export function landfallSystem(serverFolder = join(repository, 'server')): System {
  const cli = join(serverFolder, 'dist/cli.js')
  return {
    name: 'landfall',
    title: 'Landfall',
    hasPages: true,
    tusPath: '/uploads/files',
    headers: { [OWNER_HEADER]: OWNER },
    metadata: ({ id, planned }) => ({
      operationId: id,
      filename: `${planned.index}.bin`,
      filetype: 'application/octet-stream',
    }),
    program(directory, leaseMs) {
      const env = {
        LANDFALL_LEASE_MS: String(leaseMs),
        LANDFALL_COMPLETER_INTERVAL_MS: '500',
        LANDFALL_LOG_LEVEL: 'warn',
      }
      return { ...landfallServe(directory, env), args: [cli, 'serve'] }
    },
    bytesDirectory: (directory) => join(directory, 'blobs'),
    databaseFile: (directory) => join(directory, 'landfall.db'),
    smallFiles: async (directory) => [
      { path: join(directory, 'blobs', 'mark.json'), refuses: null },
      { path: join(directory, 'blobs', 'store.json'), refuses: /store\.json in the directory of blobs cannot be read/ },
    ],
    async look(directory) {
      const reader = openReader(directory)
      try {
        return looked(await reader.read())
      } finally {
        await reader.end()
      }
    },
    async reconcile(directory) {
      const before = await report(cli, directory, [])
      const after = await report(cli, directory, ['--apply', '--force'])
      return {
        differenceBefore: before.difference,
        differenceAfter: after.difference,
        refused: after.refused,
      } satisfies Reconciled
    },
  }
}

function looked(stored: Stored) {
  const references = new Map<string, StoredFile[]>()
  for (const { id, blobKey } of stored.references)
    references.set(id, [...(references.get(id) ?? []), { name: blobKey, path: stored.blobs.get(blobKey) ?? null }])
  const claimed = new Set(stored.operations.map(({ blobKey }) => blobKey))
  const open = stored.operations.filter((operation) => !operation.stalled && waitsForClient(operation))
  const unfinished = stored.operations.filter(
    (operation) =>
      !operation.stalled &&
      (operation.leased || operation.cleanupDue || (!FINAL.has(operation.point) && !open.includes(operation))),
  )
  return {
    progress: new Map(stored.operations.map(({ id, point, offset }) => [id, `${point} ${offset}`])),
    references,
    orphans: [...stored.blobs.keys()].filter((key) => !claimed.has(key)),
    open: open.length,
    stalled: stored.operations.filter(({ stalled }) => stalled).length,
    unfinished: unfinished.map(
      ({ id, point, offset, size, leased, cleanupDue, dueAt, lastError }) =>
        `${id} ${point} ${offset}/${size}${leased ? ', leased' : ''}${cleanupDue ? ', cleanup due' : ''}, ` +
        `${dueAt === null ? 'never due' : `due in ${((dueAt - Date.now()) / 1000).toFixed(0)} s`}${lastError === null ? '' : `: ${lastError}`}`,
    ),
  }
}

/** The command's last line is its report; an exit status of 1 says that something differs. */
async function report(
  cli: string,
  directory: string,
  flags: readonly string[],
): Promise<{ difference: number; refused: string | null }> {
  const { stdout } = await promisify(execFile)(process.execPath, [cli, 'reconcile', '--json', ...flags], {
    env: { ...process.env, LANDFALL_DATA_DIR: directory },
    maxBuffer: 64 * 1024 * 1024,
  }).catch((error: { stdout?: string }) => {
    if (typeof error.stdout === 'string' && error.stdout.includes('"report"')) return { stdout: error.stdout }
    throw error
  })
  const last: unknown = JSON.parse(stdout.trim().split('\n').at(-1) ?? '')
  return (last as { report: { difference: number; refused: string | null } }).report
}
