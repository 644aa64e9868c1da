import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { OWNER_HEADER } from '../ground/landfall.js'
import { type Stored, waitsForClient } from '../truth/stored.js'
import type { Looked, Reconciled, Served, StoredFile } from './system.js'

const OWNER = 'swept'
const FINAL = new Set(['completed', 'cancelled', 'expired', 'rejected'])

/** What is the same of Landfall on whatever it has its data. */
export const SERVED = {
  hasPages: true,
  tusPath: '/uploads/files',
  headers: { [OWNER_HEADER]: OWNER },
  metadata: ({ id, planned }) => ({
    operationId: id,
    filename: `${planned.index}.bin`,
    filetype: 'application/octet-stream',
  }),
} as const satisfies Partial<Served>

export const settingsFor = (leaseMs: number): Record<string, string> => ({
  LANDFALL_LEASE_MS: String(leaseMs),
  LANDFALL_COMPLETER_INTERVAL_MS: '500',
  LANDFALL_LOG_LEVEL: 'warn',
})

export const progressOf = ({ operations }: Pick<Stored, 'operations'>): Looked['progress'] =>
  new Map(operations.map(({ id, point, offset }) => [id, `${point} ${offset}`]))

export function lookedAt(stored: Stored): Looked {
  const references = new Map<string, StoredFile[]>()
  for (const { id, blobKey } of stored.references) {
    const digest = async (): Promise<string | null> => (await stored.blobs.get(blobKey)?.digest()) ?? null
    references.set(id, [...(references.get(id) ?? []), { name: blobKey, digest }])
  }
  const claimed = new Set(stored.operations.map(({ blobKey }) => blobKey))
  const open = stored.operations.filter((operation) => !operation.stalled && waitsForClient(operation))
  const unfinished = stored.operations.filter(
    (operation) =>
      !operation.stalled &&
      (operation.leased || operation.cleanupDue || (!FINAL.has(operation.point) && !open.includes(operation))),
  )
  return {
    progress: progressOf(stored),
    references,
    orphans: [...[...stored.blobs.keys()].filter((key) => !claimed.has(key)), ...stored.leftovers],
    open: open.length,
    stalled: stored.operations.filter(({ stalled }) => stalled).length,
    unfinished: unfinished.map(
      ({ id, point, offset, size, leased, cleanupDue, dueAt, lastError }) =>
        `${id} ${point} ${offset}/${size}${leased ? ', leased' : ''}${cleanupDue ? ', cleanup due' : ''}, ` +
        `${dueAt === null ? 'never due' : `due in ${((dueAt - Date.now()) / 1000).toFixed(0)} s`}${lastError === null ? '' : `: ${lastError}`}`,
    ),
  }
}

/** By the command, beside the server that runs on that data directory. */
export async function reconcile(cli: string, directory: string): Promise<Reconciled> {
  const before = await report(cli, directory, [])
  const after = await report(cli, directory, ['--apply', '--force'])
  return { differenceBefore: before.difference, differenceAfter: after.difference, refused: after.refused }
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
