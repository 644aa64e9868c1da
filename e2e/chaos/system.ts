import type { ProcessOptions } from '../ground/processes.js'
import type { Stored } from '../truth/stored.js'
import type { Operation } from './operation.js'

/** What is put through chaos, as its clients see it. Clients and judgement are the same for all. */
export interface Served {
  readonly name: string
  readonly title: string
  /** It serves pages too: what they upload would else be uploaded by stock clients. */
  readonly hasPages: boolean
  /** Of the tus protocol. */
  readonly tusPath: string
  readonly headers: Readonly<Record<string, string>>
  metadata(operation: Operation): Readonly<Record<string, string>>
}

/** One server program on data of its own in a directory. */
export interface DirectorySystem extends Served {
  readonly on: 'directory'
  /** `ready[2]` is the port. */
  program(directory: string, leaseMs: number): ProcessOptions
  /** Where the bytes lie: the directory that loses its permissions. */
  bytesDirectory(directory: string): string
  databaseFile(directory: string): string
  /** Small files that it keeps beside the bytes; torn ones must cost nothing. */
  smallFiles(directory: string): Promise<readonly SmallFile[]>
  /** Read past the server, only while it runs. */
  look(directory: string): Promise<Looked>
  /** Mends what can be mended; null: it has nothing that could. */
  reconcile: ((directory: string) => Promise<Reconciled>) | null
}

/** Several nodes on one PostgreSQL and one bucket. */
export interface NodesSystem extends Served {
  readonly on: 'nodes'
  readonly count: number
  look(stored: Stored): Looked
  /** `directory`: of a node that runs. */
  reconcile(directory: string): Promise<Reconciled>
}

export type System = DirectorySystem | NodesSystem

export interface SmallFile {
  readonly path: string
  /** Torn, it may refuse to start, if it says why in these words; null: it has to start. */
  readonly refuses: RegExp | null
}

export interface StoredFile {
  readonly name: string
  /** SHA-256 of its bytes in lower-case hexadecimal; null: they are not there. */
  digest(): Promise<string | null>
}

export interface Looked {
  /** What is acknowledged of each operation, as a word that changes with it. */
  readonly progress: ReadonlyMap<string, string>
  /** By operation. */
  readonly references: ReadonlyMap<string, readonly StoredFile[]>
  /** Bytes that no row knows. */
  readonly orphans: readonly string[]
  readonly open: number
  readonly stalled: number
  /** Neither final, nor open within their expiry, nor stalled: each with where it stands. Empty when it is quiet. */
  readonly unfinished: readonly string[]
}

export interface Reconciled {
  readonly differenceBefore: number
  readonly differenceAfter: number
  readonly refused: string | null
}
