import { readdirSync, readlinkSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { type Client, createClient } from '@libsql/client'
import { sha256Of } from '../ground/files.js'
import { until } from '../ground/patience.js'
import {
  type ApplicationRow,
  type ReadBatch,
  type Reader,
  readLedger,
  readMoving,
  type Row,
  type Stored,
  text,
} from './stored.js'

const END_WITHIN_MS = 5_000

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

/**
 * Reads what a server with the embedded default has in `directory`, without asking the server. libsql keeps the files
 * of a connection open after `close`, until the connection is garbage collected. Such a connection has an index of the
 * write-ahead log that a loss of power has taken away. Another connection that opens the same file in this process
 * shares that index, and does not see what was committed since. So `end` waits for running reads, and resolves only
 * when nothing of the directory is open any more.
 *
 * @param database The name of the database file. Default: that of `landfall serve`.
 */
export function openReader(directory: string, database = 'landfall.db'): Reader {
  let client: Client | null = null
  let reads: Promise<unknown> = Promise.resolve()
  let own: readonly string[] | null = null

  async function reading<T>(from: (batch: ReadBatch) => Promise<T>): Promise<T> {
    client ??= createClient({ url: `file:${join(directory, database)}`, timeout: 10_000 })
    const open = client
    const now = from(async (statements) => (await open.batch([...statements], 'read')).map(({ rows }) => rows))
    reads = Promise.allSettled([reads, now])
    return now
  }

  async function read(batch: ReadBatch): Promise<Stored> {
    own ??= (await batch([OWN_TABLES]))[0]?.map((row) => text(row, 'name')) ?? []
    const tables = own
    let rows: ApplicationRow[] | null = null
    let notes = 0
    const ledger = await readLedger(async (statements) => {
      const found = await batch([
        ...statements,
        ...tables.map((table) => `SELECT ${table === 'notes' ? 'count(*) AS n' : '*'} FROM ${table}`),
      ])
      tables.forEach((table, index) => {
        const of = found[statements.length + index] ?? []
        if (table === 'notes') notes = Number(of[0]?.['n'])
        else rows = of.map(rowOf)
      })
      return found
    })
    return { ...ledger, rows, notes, blobs: await blobsIn(join(directory, 'blobs', 'blobs')), leftovers: [] }
  }

  return {
    read: () => reading(read),
    readLedger: () => reading(readLedger),
    readMoving: () => reading(readMoving),
    async end() {
      await reads
      client?.close()
      client = null
      await until(
        () => !isOpenBelow(directory) || (collect(), false),
        END_WITHIN_MS,
        `a file of ${directory} is still open in this process`,
        1,
      )
    },
  }
}

/** The tables of the application. */
const OWN_TABLES = "SELECT name FROM sqlite_master WHERE name IN ('arrivals', 'files', 'notes') ORDER BY name"

const rowOf = (row: Row): ApplicationRow => {
  const of = (column: string): string => (row[column] === undefined ? '' : text(row, column))
  return {
    owner: of('owner'),
    id: text(row, 'operation_id'),
    name: of('name'),
    size: Number(row['size']),
    digest: of('digest'),
  }
}

/** The files below a directory, by their names. Empty if the directory does not exist. */
export async function blobsIn(directory: string): Promise<Stored['blobs']> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true }).catch(() => [])
  return new Map(
    entries
      .filter((entry) => entry.isFile())
      .map(({ name, parentPath }) => {
        const path = join(parentPath, name)
        return [name, { path, digest: () => digestOf(path) }]
      }),
  )
}

async function digestOf(path: string): Promise<string | null> {
  try {
    return await sha256Of(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw error
  }
}

function isOpenBelow(directory: string): boolean {
  return readdirSync('/proc/self/fd').some((descriptor) => {
    try {
      return readlinkSync(join('/proc/self/fd', descriptor)).startsWith(directory)
    } catch {
      // The descriptor was closed while the list was read, such as the one with which the list was read.
      return false
    }
  })
}
