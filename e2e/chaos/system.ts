import { execFile } from 'node:child_process'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { OWNER } from '../clients/page.js'
import { nodeServer, type ProcessOptions } from '../ground/processes.js'
import { compiled } from '../ground/repository.js'
import { landfallServe, OWNER_HEADER, SERVER_FOLDER } from '../programs/landfall.js'
import { openPeerReader } from '../truth/peer-reader.js'
import { openReader } from '../truth/reader.js'
import type { Reader } from '../truth/stored.js'
import type { Operation } from './operation.js'

/** A system under chaos, as its clients see it. Clients and judgement are the same for all systems. */
export interface Served {
  readonly name: string
  readonly title: string
  /** Whether it serves pages too. If not, stock clients upload what the pages would upload. */
  readonly hasPages: boolean
  /** The path of its tus routes. */
  readonly tusPath: string
  readonly headers: Readonly<Record<string, string>>
  metadata(operation: Operation): Readonly<Record<string, string>>
  /**
   * Repairs what can be repaired while the server runs on that data directory. Null: the system has no such command.
   */
  readonly reconcile: ((directory: string) => Promise<Reconciled>) | null
}

/** One server program with its own data in a directory. */
export interface DirectorySystem extends Served {
  readonly on: 'directory'
  program(directory: string, leaseMs: number): ProcessOptions
  /** The directory of the bytes, which loses its permissions in a fault. */
  bytesDirectory(directory: string): string
  databaseFile(directory: string): string
  /** Small files that it keeps next to the bytes. If one is torn, nothing may be lost. */
  smallFiles(directory: string): Promise<readonly SmallFile[]>
  /** Reads the data without the server. Only to be used while the server runs. */
  openReader(directory: string): Reader
}

/** Several nodes on one PostgreSQL and one bucket. */
export interface NodesSystem extends Served {
  readonly on: 'nodes'
}

export type System = DirectorySystem | NodesSystem

export interface SmallFile {
  readonly path: string
  /**
   * If the file is torn, the server may refuse to start, provided that its message matches this. Null: the server must
   * start.
   */
  readonly refuses: RegExp | null
}

export interface Reconciled {
  readonly differenceBefore: number
  readonly differenceAfter: number
  readonly refused: string | null
}

/** What is the same for Landfall on every kind of storage. */
const landfallServed = (serverFolder: string) =>
  ({
    hasPages: true,
    tusPath: '/uploads/files',
    headers: { [OWNER_HEADER]: OWNER },
    metadata: ({ id, planned }: Operation) => ({ operationId: id, filename: `${planned.index}.bin` }),
    reconcile: (directory: string) => reconcile(`${serverFolder}/dist/cli.js`, directory),
  }) as const

export const settingsFor = (leaseMs: number): Record<string, string> => ({
  LANDFALL_LEASE_MS: String(leaseMs),
  LANDFALL_COMPLETER_INTERVAL_MS: '500',
  LANDFALL_LOG_LEVEL: 'warn',
})

/** `serverFolder` is a changed copy of the server, whose faults must be found. Default: this repository's server. */
export const landfallSystem = (serverFolder = SERVER_FOLDER): DirectorySystem => ({
  ...landfallServed(serverFolder),
  on: 'directory',
  name: 'landfall',
  title: 'Landfall',
  program: (directory, leaseMs) => landfallServe(directory, settingsFor(leaseMs), serverFolder),
  bytesDirectory: (directory) => join(directory, 'blobs'),
  databaseFile: (directory) => join(directory, 'landfall.db'),
  smallFiles: async (directory) => [
    { path: join(directory, 'blobs', 'mark.json'), refuses: null },
    { path: join(directory, 'blobs', 'store.json'), refuses: /store\.json in the directory of blobs cannot be read/ },
  ],
  openReader,
})

/** Three `landfall serve` of this repository on PostgreSQL and S3, behind a balancer that knows no sessions. */
export const nodesSystem = (): NodesSystem => ({
  ...landfallServed(SERVER_FOLDER),
  on: 'nodes',
  name: 'nodes',
  title: 'Landfall, three nodes on PostgreSQL and S3',
})

const PEERS = {
  tus: '@tus/server, hook inserts a row',
  'tus-sync': '@tus/server, file synced, hook inserts a row',
  lying: 'a server that says success and inserts no row',
} as const

/**
 * The usual stack (see `programs/tus-peer.ts`). It knows uploads only by the name of the file, so that name is the id
 * of the operation.
 */
export const peerSystem = (variant: keyof typeof PEERS): DirectorySystem => ({
  on: 'directory',
  name: variant,
  title: PEERS[variant],
  hasPages: false,
  tusPath: '/files',
  headers: {},
  metadata: ({ id }) => ({ filename: id }),
  program: (directory) => nodeServer(compiled('programs/tus-peer'), [variant, directory]),
  bytesDirectory: (directory) => join(directory, 'uploads'),
  databaseFile: (directory) => join(directory, 'peer.db'),
  async smallFiles(directory) {
    const names = await readdir(join(directory, 'uploads'))
    const sidecars = names.filter((name) => name.endsWith('.json'))
    return sidecars.map((name) => ({ path: join(directory, 'uploads', name), refuses: null }))
  },
  openReader: openPeerReader,
  reconcile: null,
})

async function reconcile(cli: string, directory: string): Promise<Reconciled> {
  const before = await report(cli, directory, [])
  const after = await report(cli, directory, ['--apply', '--force'])
  return { differenceBefore: before.difference, differenceAfter: after.difference, refused: after.refused }
}

/** The last line of the command's output is its report. An exit status of 1 means that something differs. */
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
