import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { createClient } from '@libsql/client'
import { blobsIn } from './reader.js'
import { type Reader, type Row, type Stored, text } from './stored.js'

const SIDECAR = '.json'

/**
 * Reads what the usual stack has stored in `directory`: its rows, and the files with their sidecars. It knows uploads
 * only by the name of the file, so that name is the id of the operation. A complete file without a row belongs to no
 * operation and is an orphan.
 */
export function openPeerReader(directory: string): Reader {
  const uploads = join(directory, 'uploads')

  async function read(): Promise<Stored> {
    const rows = await readRows(join(directory, 'peer.db'))
    const files = await blobsIn(uploads)
    const blobs = new Map([...files].filter(([name]) => !name.endsWith(SIDECAR)))
    const referenced = new Map(rows.map((row) => [text(row, 'id'), text(row, 'name')]))
    const operations = await Promise.all(
      [...blobs.keys()].map(async (blobKey) => {
        const offset = (await stat(join(uploads, blobKey)).catch(() => null))?.size
        const sidecar = await readSidecar(join(uploads, blobKey + SIDECAR))
        const id = referenced.get(blobKey) ?? sidecar?.id
        const size = sidecar?.size ?? offset
        if (id === undefined || offset === undefined || size === undefined) return []
        if (!referenced.has(blobKey) && offset >= size) return []
        return [
          { ...NOTHING_ELSE, id, size, offset, blobKey, point: referenced.has(blobKey) ? 'completed' : 'declared' },
        ]
      }),
    )
    return {
      operations: operations.flat(),
      references: rows.map((row) => ({
        owner: '',
        id: text(row, 'name'),
        blobKey: text(row, 'id'),
        size: Number(row['size']),
        digest: '',
      })),
      effects: [],
      rows: null,
      notes: 0,
      blobs,
      leftovers: [],
    }
  }
  return { read, readLedger: read, readMoving: read, end: async () => {} }
}

/** The columns that the usual stack does not have for an upload. */
const NOTHING_ELSE = {
  owner: '',
  name: '',
  digest: null,
  stalled: false,
  leased: false,
  unclean: false,
  cleanupDue: false,
  removed: false,
  expiresAt: 0,
  dueAt: null,
  problem: null,
  lastError: null,
} as const

async function readRows(path: string): Promise<readonly Row[]> {
  const client = createClient({ url: `file:${path}`, timeout: 10_000 })
  try {
    return (await client.execute('SELECT id, name, size FROM files')).rows
  } finally {
    client.close()
  }
}

/** Null: the sidecar is torn, or does not exist. */
async function readSidecar(path: string): Promise<{ id: string; size: number } | null> {
  try {
    const { size, metadata } = JSON.parse(await readFile(path, 'utf8')) as {
      size: number
      metadata: { filename: string }
    }
    return { id: metadata.filename, size }
  } catch {
    return null
  }
}
