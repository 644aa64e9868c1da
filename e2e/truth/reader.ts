import { readdirSync, readlinkSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { type Client, createClient } from '@libsql/client'
import { sha256Of } from '../ground/files.js'
import { type Moving, type ReadBatch, readLedger, readMoving, type Stored, type StoredBlob, text } from './stored.js'

/**
 * Reads what a server has stored, past it. libsql keeps the files of a connection open after `close`, until it is
 * collected; such a connection goes on with an index of the write-ahead log that a loss of power has taken away, and
 * whoever opens the same file in this process shares it and does not see what is committed since. So a reader ends
 * only when nothing is open any more.
 */
export interface Reader {
  /** @throws when the database cannot be read */
  read(): Promise<Stored>
  readMoving(): Promise<Moving>
  /** Waits for reads that run; nothing of the database is held open after this, and the next `read` starts anew. */
  end(): Promise<void>
}

const END_WITHIN_MS = 5_000

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

/** `directory`: of a server with the embedded default. */
export function openReader(directory: string): Reader {
  let database: Client | null = null
  let reads: Promise<unknown> = Promise.resolve()

  async function reading<T>(read: (from: Client) => Promise<T>): Promise<T> {
    database ??= createClient({ url: `file:${join(directory, 'landfall.db')}`, timeout: 10_000 })
    const now = read(database)
    reads = Promise.allSettled([reads, now])
    return now
  }

  return {
    read: async () => reading(async (from) => readStored(from, join(directory, 'blobs', 'blobs'))),
    readMoving: async () => reading((from) => readMoving(batchOn(from))),
    async end() {
      await reads
      database?.close()
      database = null
      for (const deadline = performance.now() + END_WITHIN_MS; ; await sleep(1)) {
        if (!isOpenBelow(directory)) return
        collect()
        if (performance.now() > deadline) throw new Error(`a file of ${directory} is still open in this process`)
      }
    },
  }
}

const batchOn =
  (database: Client): ReadBatch =>
  async (statements) =>
    (await database.batch([...statements], 'read')).map(({ rows }) => rows)

async function readStored(database: Client, directory: string): Promise<Stored> {
  const ledger = await readLedger(batchOn(database))
  const tables = await database.execute("SELECT name FROM sqlite_master WHERE name = 'arrivals'")
  const arrivals = tables.rows.length > 0 ? await database.execute('SELECT operation_id FROM arrivals') : null
  const entries = await readdir(directory, { recursive: true, withFileTypes: true }).catch(() => [])
  const blobs = entries
    .filter((entry) => entry.isFile())
    .map(({ name, parentPath }): [string, StoredBlob] => [name, { digest: () => digestOf(join(parentPath, name)) }])
  return {
    ...ledger,
    arrivals: arrivals === null ? null : arrivals.rows.map((row) => text(row, 'operation_id')),
    blobs: new Map(blobs),
    leftovers: [],
  }
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
      // Closed meanwhile, as the one that listed them.
      return false
    }
  })
}
